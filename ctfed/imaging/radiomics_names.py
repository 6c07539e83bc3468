"""The features of PyRadiomics that ctfed computes, family by family, and what IBSI calls them.

Tags are those of the tables of IBSI-1's consensus values. Five features have no counterpart there: the three diameters
within planes, TotalEnergy, and the maximal correlation coefficient (MCC) of the GLCM. PyRadiomics' GLDM is IBSI's
neighbouring grey level dependence matrix (NGLDM).
"""

from __future__ import annotations

from typing import Literal

Aggregation = Literal["2_5D_avg", "2_5D_comb", "3D_avg", "3D_comb"]

_TAGS: dict[str, dict[str, str | None]] = {
    "shape": {
        "Elongation": "morph_pca_elongation",
        "Flatness": "morph_pca_flatness",
        "LeastAxisLength": "morph_pca_least_axis",
        "MajorAxisLength": "morph_pca_maj_axis",
        "Maximum2DDiameterColumn": None,
        "Maximum2DDiameterRow": None,
        "Maximum2DDiameterSlice": None,
        "Maximum3DDiameter": "morph_diam",
        "MeshVolume": "morph_volume",
        "MinorAxisLength": "morph_pca_min_axis",
        "Sphericity": "morph_sphericity",
        "SurfaceArea": "morph_area_mesh",
        "SurfaceVolumeRatio": "morph_av",
        "VoxelVolume": "morph_vol_approx",
    },
    "firstorder": {
        "10Percentile": "stat_p10",
        "90Percentile": "stat_p90",
        "Energy": "stat_energy",
        "Entropy": "ih_entropy",
        "InterquartileRange": "stat_iqr",
        "Kurtosis": "stat_kurt",
        "Maximum": "stat_max",
        "Mean": "stat_mean",
        "MeanAbsoluteDeviation": "stat_mad",
        "Median": "stat_median",
        "Minimum": "stat_min",
        "Range": "stat_range",
        "RobustMeanAbsoluteDeviation": "stat_rmad",
        "RootMeanSquared": "stat_rms",
        "Skewness": "stat_skew",
        "TotalEnergy": None,
        "Uniformity": "ih_uniformity",
        "Variance": "stat_var",
    },
    "glcm": {
        "Autocorrelation": "auto_corr",
        "ClusterProminence": "clust_prom",
        "ClusterShade": "clust_shade",
        "ClusterTendency": "clust_tend",
        "Contrast": "contrast",
        "Correlation": "corr",
        "DifferenceAverage": "diff_avg",
        "DifferenceEntropy": "diff_entr",
        "DifferenceVariance": "diff_var",
        "Id": "inv_diff",
        "Idm": "inv_diff_mom",
        "Idmn": "inv_diff_mom_norm",
        "Idn": "inv_diff_norm",
        "Imc1": "info_corr1",
        "Imc2": "info_corr2",
        "InverseVariance": "inv_var",
        "JointAverage": "joint_avg",
        "JointEnergy": "energy",
        "JointEntropy": "joint_entr",
        "MCC": None,
        "MaximumProbability": "joint_max",
        "SumAverage": "sum_avg",
        "SumEntropy": "sum_entr",
        "SumSquares": "joint_var",
    },
    "gldm": {
        "DependenceEntropy": "dc_entr",
        "DependenceNonUniformity": "dcnu",
        "DependenceNonUniformityNormalized": "dcnu_norm",
        "DependenceVariance": "dc_var",
        "GrayLevelNonUniformity": "glnu",
        "GrayLevelVariance": "gl_var",
        "HighGrayLevelEmphasis": "hgce",
        "LargeDependenceEmphasis": "hde",
        "LargeDependenceHighGrayLevelEmphasis": "hdhge",
        "LargeDependenceLowGrayLevelEmphasis": "hdlge",
        "LowGrayLevelEmphasis": "lgce",
        "SmallDependenceEmphasis": "lde",
        "SmallDependenceHighGrayLevelEmphasis": "ldhge",
        "SmallDependenceLowGrayLevelEmphasis": "ldlge",
    },
    "glrlm": {
        "GrayLevelNonUniformity": "glnu",
        "GrayLevelNonUniformityNormalized": "glnu_norm",
        "GrayLevelVariance": "gl_var",
        "HighGrayLevelRunEmphasis": "hgre",
        "LongRunEmphasis": "lre",
        "LongRunHighGrayLevelEmphasis": "lrhge",
        "LongRunLowGrayLevelEmphasis": "lrlge",
        "LowGrayLevelRunEmphasis": "lgre",
        "RunEntropy": "rl_entr",
        "RunLengthNonUniformity": "rlnu",
        "RunLengthNonUniformityNormalized": "rlnu_norm",
        "RunPercentage": "r_perc",
        "RunVariance": "rl_var",
        "ShortRunEmphasis": "sre",
        "ShortRunHighGrayLevelEmphasis": "srhge",
        "ShortRunLowGrayLevelEmphasis": "srlge",
    },
    "glszm": {
        "GrayLevelNonUniformity": "glnu",
        "GrayLevelNonUniformityNormalized": "glnu_norm",
        "GrayLevelVariance": "gl_var",
        "HighGrayLevelZoneEmphasis": "hgze",
        "LargeAreaEmphasis": "lze",
        "LargeAreaHighGrayLevelEmphasis": "lzhge",
        "LargeAreaLowGrayLevelEmphasis": "lzlge",
        "LowGrayLevelZoneEmphasis": "lgze",
        "SizeZoneNonUniformity": "zsnu",
        "SizeZoneNonUniformityNormalized": "zsnu_norm",
        "SmallAreaEmphasis": "sze",
        "SmallAreaHighGrayLevelEmphasis": "szhge",
        "SmallAreaLowGrayLevelEmphasis": "szlge",
        "ZoneEntropy": "zs_entr",
        "ZonePercentage": "z_perc",
        "ZoneVariance": "zs_var",
    },
    "ngtdm": {
        "Busyness": "busyness",
        "Coarseness": "coarseness",
        "Complexity": "complexity",
        "Contrast": "contrast",
        "Strength": "strength",
    },
}
_PREFIX = {"glcm": "cm_", "glrlm": "rlm_", "glszm": "szm_", "ngtdm": "ngt_", "gldm": "ngl_"}
_DIRECTED = ("glcm", "glrlm")  # matrices with a direction, over which is averaged or merged

SHAPE = tuple(_TAGS["shape"])
FAMILIES = {family: tuple(names) for family, names in _TAGS.items() if family != "shape"}


def full_name(family: str, name: str) -> str:
    """As PyRadiomics' extractor writes it: ``original_glcm_Contrast``."""
    return f"original_{family}_{name}"


def ibsi_tags(aggregation: Aggregation) -> dict[str, str]:
    """Full names -> IBSI's tags, for one way of aggregating textures.

    Averaging over directions is what PyRadiomics does by default, merging (``comb``) what it does with the weighting
    'no_weighting'; 2.5D is ``force_2d``.
    """
    dimensions = aggregation.rsplit("_", 1)[0]
    found = {}
    for family, names in _TAGS.items():
        prefix = _PREFIX.get(family, "")
        suffix = f"_{aggregation}" if family in _DIRECTED else f"_{dimensions}" if prefix else ""
        found.update({full_name(family, name): f"{prefix}{tag}{suffix}" for name, tag in names.items() if tag})
    return found
