"""ComBat from sums against R's neuroCombat, against neuroCombat for Python on real CT radiomics, and against ComBat
computed from patients' rows."""

from __future__ import annotations

import csv
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from combat_data import Rows, cohort_of, fit, harmonized, made, pooled_combat, read_matrix, split_by_batch, values
from neuroCombat import neuroCombat

from ctfed.federation import Cohort, FloatArray
from ctfed.federation.pooled import Traffic
from ctfed.statistics.combat import CombatOptions, Covariate

GOLDEN = 1e-11  # largest difference reached: 1e-12, on values of about 10
SD = 1e-12  # of a feature; reached on real radiomics: 1e-13

FORTIN = [
    f"testdata_combat_{prior}_{adjusted}{eb}{mean}{reference}_r.csv"
    for prior in ("parametric", "nonparametric")
    for adjusted in ("adjusted", "unadjusted")
    for eb in ("", "_noeb")
    for mean in ("", "_meanonly")
    for reference in ("", "_batchref")
]


def scans(folder: Path) -> Rows:
    """Ten scans of 200 features: scanners 1 and 2, a covariate 1, 2, 1, 2, ..."""
    y = columns_as_rows(folder / "inputData" / "testdata.csv")
    return Rows(y, np.tile([[1.0], [2.0]], (5, 1)), np.repeat(["1", "2"], 5))


def columns_as_rows(path: Path) -> FloatArray:
    with path.open(newline="") as file:
        return np.array([[float(cell) for cell in row] for row in list(csv.reader(file))[1:]]).T


def options_of(name: str) -> CombatOptions:
    prior = "none" if "noeb" in name else name.split("_")[2]
    return CombatOptions(prior, "meanonly" in name, "1" if "batchref" in name else "", minimum=2)


def placed(rows: Rows, place: list[int] | np.ndarray) -> tuple[list[Cohort], np.ndarray]:
    """The rows at sites 0, 1, ..., and their order site after site."""
    at = np.array(place)
    order = np.concatenate([np.flatnonzero(at == site) for site in np.unique(at)])
    sites = [
        cohort_of(f"site-{site}", rows.y[at == site], rows.x[at == site], rows.batch[at == site])
        for site in np.unique(at)
    ]
    return sites, order


def test_there_are_32_golden_files(shared_data: Path) -> None:
    folder = shared_data / "harmonization" / "fortin_combat" / "outputData"
    assert len(set(FORTIN)) == 32
    assert all((folder / name).is_file() for name in FORTIN)


@pytest.mark.parametrize("name", FORTIN)
def test_equals_r(shared_data: Path, name: str) -> None:
    """One site per scanner, one site with both, and each scanner shared by three sites with one or two scans of it."""
    folder = shared_data / "harmonization" / "fortin_combat"
    rows, expected = scans(folder), columns_as_rows(folder / "outputData" / name)
    covariates, options = (Covariate("x0"),), options_of(name)
    if "_unadjusted" in name:
        rows, covariates = replace(rows, x=rows.x[:, :0]), ()
    shared = replace(options, shared=("1", "2"))
    for chosen, place in (
        (options, [0] * 5 + [1] * 5),
        (options, [0] * 10),
        (shared, [0, 1, 1, 2, 2, 0, 0, 1, 1, 2]),
        (shared, [0, 1, 2, 2, 2, 2, 2, 2, 0, 1]),
    ):
        sites, order = placed(rows, place)
        assert np.abs(harmonized(sites, covariates, chosen) - expected[order]).max() <= GOLDEN


RADIOMICS = {
    "cov": CombatOptions(minimum=2),
    "cov_meanonly": CombatOptions(mean_only=True, minimum=2),
    "cov_noeb": CombatOptions("none", minimum=2),
    "cov_nonparam": CombatOptions("nonparametric", minimum=2),
    "cov_ref_SIEMENS": CombatOptions(reference="SIEMENS", minimum=2),
    "nocov": CombatOptions(minimum=2),
}


@pytest.mark.parametrize("name", RADIOMICS)
def test_equals_neurocombat_on_real_radiomics(shared_data: Path, name: str) -> None:
    """158 patients, four scanner batches, 102 features from 1e-11 to 1e12; sex and smoking are kept."""
    folder = shared_data / "harmonization" / "nsclc_radiogenomics_captk" / "oracle"
    _, patients, y = read_matrix(folder / "features.csv")
    table = pd.read_csv(folder / "covariates.csv", dtype=str)
    assert table["SubjectID"].tolist() == patients
    with_covariates = name != "nocov"
    x = table[["sex", "smoking"]].to_numpy(dtype=float) if with_covariates else np.zeros((len(patients), 0))
    covariates = (Covariate("x0", (0, 1)), Covariate("x1", (0, 1, 2))) if with_covariates else ()
    rows = Rows(y, x, table["batch"].to_numpy())
    _, _, expected = read_matrix(folder / f"{name}.csv")
    _, place = np.unique(rows.batch, return_inverse=True)
    traffic = Traffic()
    for scheme in (place, place // 2, 0 * place):
        sites, order = placed(rows, scheme)
        found = fit(sites, covariates, RADIOMICS[name], traffic=traffic)
        difference = np.abs(values(found.view, sites) - expected[order]) / y.std(axis=0)
        assert difference.max() <= SD
        assert found.transform.degenerate == ()
    assert traffic.rounds == (6 if "ref" in name else 3)


OPTIONS = [
    CombatOptions(prior, mean_only, reference, minimum=2)
    for prior in ("parametric", "nonparametric", "none")
    for mean_only in (False, True)
    for reference in ("", "b1")
]


@pytest.mark.parametrize("options", OPTIONS)
def test_equals_combat_from_rows(options: CombatOptions) -> None:
    """Sites of 40, 25, 6 and 12 patients, at one site each and at two; two covariates."""
    rows = made((40, 25, 6, 12), p=30, q=2, seed=3)
    expected = pooled_combat(rows, options)
    _, place = np.unique(rows.batch, return_inverse=True)
    for scheme in (place, place % 2):
        sites, order = placed(rows, scheme)
        got = harmonized(sites, (Covariate("x0"), Covariate("x1")), options)
        assert np.abs(got - expected[order]).max() <= 1e-11


def test_a_batch_shared_by_sites_equals_the_batch_at_one_site() -> None:
    """Two batches in three or four parts, one of them a single row; a third and fourth at sites of their own."""
    rows = made((40, 25, 15, 12, 18), p=20, q=1, seed=5)
    shared = CombatOptions(minimum=2, shared=("b0", "b1"))
    expected = pooled_combat(rows, shared)
    rng = np.random.default_rng(0)
    place = np.select([rows.batch == f"b{k}" for k in (2, 3, 4)], [0, 1, 2], default=-1)
    place[rows.batch == "b0"] = np.append(rng.integers(0, 3, 39), 3)
    place[rows.batch == "b1"] = rng.integers(1, 4, 25)
    sites, order = placed(rows, place)
    traffic = Traffic()
    found = fit(sites, (Covariate("x0"),), shared, traffic=traffic)
    assert np.abs(values(found.view, sites) - expected[order]).max() <= 1e-11
    assert traffic.rounds == 3
    assert (found.batches, found.rows) == (5, 110)


def by_neurocombat(rows: Rows, options: CombatOptions) -> FloatArray:
    """(n, p); categorical covariates are exact, continuous ones it rounds to float32."""
    covariates = pd.DataFrame({"batch": rows.batch} | {f"x{j}": rows.x[:, j] for j in range(rows.x.shape[1])})
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        result = neuroCombat(
            dat=rows.y.T.copy(),
            covars=covariates,
            batch_col="batch",
            categorical_cols=[f"x{j}" for j in range(rows.x.shape[1])],
            eb=options.prior != "none",
            parametric=options.prior != "nonparametric",
            mean_only=options.mean_only,
        )
    return np.asarray(result["data"]).T


LEVELS = (Covariate("x0", (0, 1)), Covariate("x1", (0, 1)))


@pytest.mark.parametrize("options", [o for o in OPTIONS if not o.reference])
def test_equals_neurocombat(options: CombatOptions) -> None:
    """neuroCombat 0.2.12 on five sites, one of six patients. Its ref_batch raises AttributeError with this numpy
    (``np.int``), so the reference modes are compared with R and with the rows' computation alone. neuroHarmonize is no
    second reference: 2.5 requires numpy < 2, and 2.4.5 imports packages that it does not declare.
    """
    rows = made((60, 33, 21, 18, 6), p=40, q=2, seed=11, covariates="binary")
    got = harmonized(split_by_batch(rows), LEVELS, options)
    assert np.abs(got - by_neurocombat(rows, options)).max() <= 1e-10


def test_where_neurocombat_gives_no_result_ours_is_finite() -> None:
    """Non-parametric weights of 600 patients underflow there, a missing variance makes everything NaN."""
    rows = made((600, 40), p=12, q=0, seed=2)
    options = CombatOptions("nonparametric", minimum=2)
    assert np.isnan(by_neurocombat(rows, options)[:600]).all()
    got = harmonized(split_by_batch(rows), (), options)
    assert np.abs(got - pooled_combat(rows, options)).max() <= 1e-11

    alone = Rows(np.vstack([rows.y[-39:], rows.y[:1]]), np.zeros((40, 0)), np.array(["b1"] * 39 + ["b0"]))
    assert np.isnan(by_neurocombat(alone, CombatOptions())).all()
    assert np.isfinite(harmonized(split_by_batch(alone))).all()


def test_constant_features_do_not_touch_the_others() -> None:
    """neuroCombat moves a constant feature, and one that is constant within a batch; R's sva leaves both as they are,
    and so do we. A feature of constant 0.1 beside a covariate pollutes its prior: the others move."""
    rows = made((30, 20, 25), p=15, q=1, seed=8, covariates="binary")
    wide = np.column_stack([rows.y, np.full(75, 0.1), np.ones(75), np.where(rows.batch == "b1", 7.0, rows.y[:, 0])])
    more = Rows(wide, rows.x, rows.batch)
    options = CombatOptions(minimum=2)
    found = fit(split_by_batch(more), LEVELS[:1], options)
    got = values(found.view, split_by_batch(more))
    assert found.transform.degenerate == ("f15", "f16", "f17")
    np.testing.assert_array_equal(got[:, 15:], wide[:, 15:])
    np.testing.assert_allclose(got[:, :15], pooled_combat(rows, options), atol=1e-12)
    theirs = by_neurocombat(more, options)
    assert np.abs(theirs[:, 15:] - wide[:, 15:]).max() > 0.5
    assert np.abs(theirs[:, :15] - by_neurocombat(rows, options)).max() > 0.01


def test_one_feature_is_adjusted_without_a_prior() -> None:
    """neuroCombat gives NaN: there is no variance across one feature."""
    rows = made((20, 30), p=1, q=0, seed=4)
    got = harmonized(split_by_batch(rows), (), CombatOptions(minimum=2))
    np.testing.assert_allclose(got, pooled_combat(rows, CombatOptions("none")), atol=1e-12)
    assert np.isnan(by_neurocombat(rows, CombatOptions())).all()
