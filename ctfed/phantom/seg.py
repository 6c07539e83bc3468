"""Masks as a DICOM SEG (binary, one segment per region), by highdicom. Its clock and its random UIDs are overwritten,
so that equal phantoms are equal files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ctfed import __version__
from ctfed.imaging.volume import Volume
from ctfed.phantom.dicom import COMMENT, IMPLEMENTATION, MASKS_NUMBER, Study, uid_of
from ctfed.phantom.profiles import REGIONS

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DESCRIPTION = "SYNTHETIC SEG"
# SNOMED CT codes of category and type of each region.
_CATEGORY_ANATOMY = ("123037004", "Anatomical Structure")
_CATEGORY_ALTERED = ("49755003", "Morphologically Altered Structure")
_CODES = {
    "lung": (_CATEGORY_ANATOMY, ("39607008", "Lung")),
    "tumour": (_CATEGORY_ALTERED, ("108369006", "Neoplasm")),
    "nodes": (_CATEGORY_ANATOMY, ("62683002", "Mediastinal lymph node")),
    "coronaries": (_CATEGORY_ANATOMY, ("41801008", "Coronary artery")),
}


def write_seg(study: Study, slices: list[Dataset], masks: Mapping[str, Volume]) -> None:
    """Write the masks that are not empty, by the centre's own names.

    Args:
        study: where it belongs.
        slices: of the CT, lowest first.
        masks: bool by region, on the grid of the CT.
    """
    import highdicom as hd

    present = [region for region in REGIONS if masks[region].array.any()]
    dataset = hd.seg.Segmentation(
        source_images=slices,
        pixel_array=np.stack([masks[region].array for region in present], axis=-1).astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(study, region, n) for n, region in enumerate(present, start=1)],
        series_instance_uid=study.uid(f"series {MASKS_NUMBER}"),
        series_number=MASKS_NUMBER,
        sop_instance_uid=study.uid("seg"),
        instance_number=1,
        manufacturer="ctfed",
        manufacturer_model_name="SYNTHETIC PHANTOM",
        software_versions=__version__,
        device_serial_number="SYNTHETIC",
        content_description="SYNTHETIC",
        content_creator_name="SYNTHETIC^PHANTOM",
        series_description=DESCRIPTION,
    )
    dataset.ImageComments = COMMENT
    _fix(dataset, study)
    dataset.save_as(study.series_folder(MASKS_NUMBER, DESCRIPTION) / "1-1.dcm", enforce_file_format=True)


def _description(study: Study, region: str, number: int) -> Any:
    import highdicom as hd
    from highdicom.sr.coding import CodedConcept

    category, kind = (CodedConcept(value, "SCT", meaning) for value, meaning in _CODES[region])
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=study.profile.roi_names[REGIONS.index(region)],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="SYNTHETIC PHANTOM",
            version=__version__,
            family=CodedConcept("SHAPES", "99CTFED", "Analytic shapes"),
        ),
    )


def _fix(dataset: Dataset, study: Study) -> None:
    """Dates of the study in place of now, and the UID of dimensions in place of a random one."""
    for name in ("ContentDate", "SeriesDate", "InstanceCreationDate", "StructureSetDate"):
        if name in dataset:
            setattr(dataset, name, study.patient.scanned.strftime("%Y%m%d"))
    for name in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        if name in dataset:
            setattr(dataset, name, "120000")
    for item in dataset.get("ContributingEquipmentSequence", []):
        item.ContributionDateTime = study.patient.scanned.strftime("%Y%m%d120000")
    organization = study.uid("dimensions")
    for item in [*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence]:
        item.DimensionOrganizationUID = organization
    dataset.file_meta.ImplementationClassUID = uid_of("ctfed phantom implementation")
    dataset.file_meta.ImplementationVersionName = IMPLEMENTATION
