"""How each phantom centre scans and writes: vendor, kernel, noise, spacing, DICOM habits. A table; sites take turns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

REGIONS = ("lung", "tumour", "nodes", "coronaries")


@dataclass(frozen=True)
class SiteProfile:
    """One centre's scanner and habits.

    Attributes:
        manufacturer: DICOM Manufacturer; the model's name says that the scan is synthetic.
        kernel: DICOM ConvolutionKernel, a name; what it does to the image is ``blur`` and ``sharpen``.
        kvp: kV, written only.
        field_of_view: mm, edge of the square slice.
        slice_spacing: mm between slices, which are as thick.
        blur: mm, SD of the in-plane Gaussian that the kernel blurs with; 0 for none.
        sharpen: how much of the difference from a blur of 1.5 mm is added; 0 for none.
        noise: HU, SD of the white noise that goes into the kernel.
        baseline: log of the hazard's ratio to that of a site of 0, the site effect on survival.
        masks: how the regions are written.
        roi_names: what this centre calls the ``REGIONS``, in their order.
        signed: stored as signed HU (intercept 0), else unsigned with intercept -1024.
        head_first: InstanceNumber 1 is the uppermost slice.
        scout: a localizer stands beside the CT in each study.
        table: which of the clinical tables' dialects (see ``tables``).
    """

    manufacturer: str
    kernel: str
    kvp: int
    field_of_view: float
    slice_spacing: float
    blur: float
    sharpen: float
    noise: float
    baseline: float
    masks: Literal["rtstruct", "seg"]
    roi_names: tuple[str, str, str, str]
    signed: bool
    head_first: bool
    scout: bool
    table: int

    def noise_free(self) -> SiteProfile:
        """The same centre with a scanner that changes no voxel."""
        return replace(self, blur=0.0, sharpen=0.0, noise=0.0)


PROFILES = (
    SiteProfile(
        manufacturer="SIEMENS",
        kernel="B30f",
        kvp=120,
        field_of_view=330.0,
        slice_spacing=4.0,
        blur=1.4,
        sharpen=0.0,
        noise=20.0,
        baseline=0.0,
        masks="rtstruct",
        roi_names=("Lungs", "GTV-1", "Nodes", "Coronaries"),
        signed=False,
        head_first=False,
        scout=True,
        table=0,
    ),
    SiteProfile(
        manufacturer="GE MEDICAL SYSTEMS",
        kernel="STANDARD",
        kvp=120,
        field_of_view=342.0,
        slice_spacing=3.25,
        blur=0.0,
        sharpen=0.0,
        noise=15.0,
        baseline=0.4,
        masks="seg",
        roi_names=("Lung", "Tumour", "Lymph nodes", "Coronary arteries"),
        signed=True,
        head_first=True,
        scout=False,
        table=1,
    ),
    SiteProfile(
        manufacturer="Philips",
        kernel="C",
        kvp=100,
        field_of_view=348.0,
        slice_spacing=5.0,
        blur=0.0,
        sharpen=0.5,
        noise=10.0,
        baseline=-0.3,
        masks="rtstruct",
        roi_names=("Lung-Total", "GTV-1", "GTV-N", "Coronaries"),
        signed=False,
        head_first=True,
        scout=False,
        table=2,
    ),
)
