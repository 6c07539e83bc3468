"""Phantoms as DICOM CT series, in the folders of the Cancer Imaging Archive's downloader. All of it says SYNTHETIC.

Every UID follows from the patient, the cohort's seed and a purpose, and no clock is read: equal cohorts are equal
files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctfed.imaging.volume import Volume
from ctfed.phantom.patients import PhantomPatient
from ctfed.phantom.profiles import SiteProfile

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

COLLECTION = "CTFED-PHANTOM"
COMMENT = "SYNTHETIC PHANTOM made by ctfed; no patient"
STUDY_DESCRIPTION, CT_DESCRIPTION = "SYNTHETIC chest", "SYNTHETIC CT"
CT_NUMBER, SCOUT_NUMBER, MASKS_NUMBER = 2, 1, 3
IMPLEMENTATION = "CTFED_PHANTOM"
_UNSIGNED_INTERCEPT = -1024


@dataclass(frozen=True)
class Study:
    """One patient's study while it is written.

    Attributes:
        patient: whom it shows.
        profile: the centre's habits.
        site: the centre's name.
        seed: the cohort's.
        collection: the folder of all patients.
    """

    patient: PhantomPatient
    profile: SiteProfile
    site: str
    seed: int
    collection: Path

    def uid(self, purpose: str) -> str:
        """A UID of the form 2.25.N, N of 128 bits (a version-8 UUID) from a digest of the purpose."""
        return uid_of(f"{self.seed}|{self.patient.identifier}|{self.patient.seed}|{purpose}")

    @property
    def folder(self) -> Path:
        """collection/PatientID/MM-DD-YYYY-NA-description-12345."""
        day = self.patient.scanned.strftime("%m-%d-%Y")
        return self.collection / self.patient.identifier / f"{day}-NA-{STUDY_DESCRIPTION}-{self.uid('study')[-5:]}"

    def series_folder(self, number: int, description: str) -> Path:
        """'2.000000-SYNTHETIC CT-12345', as the archive's downloader names it; made when absent."""
        folder = self.folder / f"{number}.000000-{description}-{self.uid(f'series {number}')[-5:]}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def uid_of(text: str) -> str:
    """The UID of a text: UUID-derived, as DICOM PS3.5 B.2 has it."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    number = number & ~(0xF << 76) | (0x8 << 76)  # version 8: what the bits mean is the maker's own
    number = number & ~(0x3 << 62) | (0x2 << 62)
    return f"2.25.{number}"


def write_ct(study: Study, image: Volume) -> list[Dataset]:
    """Write a scan, one file per slice; the datasets of its slices, lowest first.

    Args:
        study: where it belongs.
        image: int16 HU, axial, on the axes of the world.
    """
    folder = study.series_folder(CT_NUMBER, CT_DESCRIPTION)
    slices = image.shape[0]
    datasets = [_slice(study, image, k) for k in range(slices)]
    for dataset in datasets:
        dataset.save_as(
            folder / f"1-{dataset.InstanceNumber:0{max(2, len(str(slices)))}d}.dcm", enforce_file_format=True
        )
    return datasets


def write_scout(study: Study, image: Volume) -> None:
    """Write a localizer beside the scan: the mean of the chest seen from the front."""
    front = np.rint(image.array.mean(axis=1)).astype(np.int16)[::-1]
    dataset = _image(study, front, SCOUT_NUMBER, "scout", ["ORIGINAL", "PRIMARY", "LOCALIZER"])
    dataset.SeriesDescription = "SYNTHETIC scout"
    dataset.InstanceNumber = 1
    dataset.PixelSpacing = [decimal(image.spacing[2]), decimal(image.spacing[0])]
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
    x, y, z = image.world((image.shape[0] - 1, (image.shape[1] - 1) / 2, 0))
    dataset.ImagePositionPatient = [decimal(value) for value in (x, y, z)]
    dataset.SliceThickness = decimal(image.spacing[1] * image.shape[1])
    dataset.save_as(study.series_folder(SCOUT_NUMBER, "SYNTHETIC scout") / "1-01.dcm", enforce_file_format=True)


def decimal(value: float) -> str:
    """A DICOM decimal string with six decimals; thousands of mm still fit into its 16 characters."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _slice(study: Study, image: Volume, k: int) -> Dataset:
    number = image.shape[0] - k if study.profile.head_first else k + 1
    dataset = _image(study, image.array[k], CT_NUMBER, f"slice {k}", ["ORIGINAL", "PRIMARY", "AXIAL"])
    dataset.SeriesDescription = CT_DESCRIPTION
    dataset.InstanceNumber = number
    dataset.AcquisitionNumber = 1
    dataset.SliceThickness = decimal(image.spacing[2])
    dataset.PixelSpacing = [decimal(image.spacing[1]), decimal(image.spacing[0])]
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    x, y, z = image.world((k, 0, 0))
    dataset.ImagePositionPatient = [decimal(value) for value in (x, y, z)]
    dataset.SliceLocation = decimal(z)
    return dataset


def _image(study: Study, pixels: np.ndarray, series: int, purpose: str, kind: list[str]) -> Dataset:
    from pydicom.uid import CTImageStorage

    dataset = common(study, series, CTImageStorage, f"{series} {purpose}")
    profile = study.profile
    dataset.Modality = "CT"
    dataset.ImageType = kind
    dataset.AcquisitionDate = dataset.ContentDate = dataset.StudyDate
    dataset.AcquisitionTime = dataset.ContentTime = dataset.StudyTime
    dataset.FrameOfReferenceUID = study.uid("frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.KVP = str(profile.kvp)
    dataset.ConvolutionKernel = profile.kernel
    dataset.PatientPosition = "HFS"
    dataset.BurnedInAnnotation = "NO"
    intercept = 0 if profile.signed else _UNSIGNED_INTERCEPT
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(intercept), "1", "HU"
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(profile.signed)
    stored = (pixels.astype(np.int32) - intercept).astype("<i2" if profile.signed else "<u2")
    dataset.PixelData = stored.tobytes()
    return dataset


def common(study: Study, series: int, sop_class: Any, purpose: str) -> Dataset:
    """A dataset with file meta, patient, study and series; the same for images and for masks."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, study.uid(purpose)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid_of("ctfed phantom implementation")
    meta.ImplementationVersionName = IMPLEMENTATION
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    patient, day = study.patient, study.patient.scanned.strftime("%Y%m%d")
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, study.uid(purpose)
    dataset.StudyDate = dataset.SeriesDate = day
    dataset.StudyTime = dataset.SeriesTime = "120000"
    dataset.AccessionNumber = dataset.StudyID = ""
    dataset.ReferringPhysicianName = ""
    dataset.Manufacturer = study.profile.manufacturer
    dataset.ManufacturerModelName = "SYNTHETIC PHANTOM"
    dataset.InstitutionName = f"SYNTHETIC {study.site}"
    dataset.StudyDescription = STUDY_DESCRIPTION
    dataset.PatientName = "SYNTHETIC^PHANTOM"
    dataset.PatientID = patient.identifier
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "F" if patient.female else "M"
    dataset.PatientAge = f"{patient.age:03d}Y"
    dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "SYNTHETIC: there is no patient"
    dataset.ImageComments = COMMENT
    dataset.StudyInstanceUID = study.uid("study")
    dataset.SeriesInstanceUID = study.uid(f"series {series}")
    dataset.SeriesNumber = series
    return dataset
