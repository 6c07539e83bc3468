"""Which series is taken, and that the reasons say why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dicom_maker as maker
import pydicom
import pytest
from pydicom.dataset import Dataset

from ctfed.cohort.faults import CaseFault
from ctfed.cohort.scans import Choice, Wanted, choose_series, find_patients, read_scan
from ctfed.cohort.scans.acquire import contrast, kernel_class

WANTED = Wanted(slices=6, coverage=15.0)


def series(folder: Path, name: str, change: Callable[[Dataset], object] = lambda data: None, **make: object) -> None:
    """Write a series called ``name``, which is also its SeriesDescription."""
    slices = maker.ct(series=name, **make)  # type: ignore[arg-type]
    for data in slices:
        data.SeriesDescription = name
        change(data)
    maker.write(folder / name, slices)


def chosen(folder: Path, wanted: Wanted = WANTED) -> tuple[str, Choice]:
    """The SeriesDescription of the series that is taken, and the choice."""
    patients = find_patients(folder)
    assert len(patients) == 1
    choice = choose_series(patients[0], wanted)
    return choice.series.headers[0].description, choice


def kernel(name: str) -> Callable[[Dataset], object]:
    """Set ConvolutionKernel."""
    return lambda data: setattr(data, "ConvolutionKernel", name)


THIN, MIDDLE, THICK = (2.0, 1.5, 2.5), (2.0, 1.5, 4.0), (2.0, 1.5, 7.0)


def test_thin_before_thick_even_if_it_is_sharp(tmp_path: Path) -> None:
    series(tmp_path, "thick", spacing=THICK)
    series(tmp_path, "middle", spacing=MIDDLE)
    series(tmp_path, "thin", kernel("B70f"), spacing=THIN)
    assert chosen(tmp_path)[0] == "thin"


def test_soft_before_sharp_even_if_it_is_thicker(tmp_path: Path) -> None:
    series(tmp_path, "sharp", kernel("LUNG"), spacing=(2.0, 1.5, 2.0))
    series(tmp_path, "soft", kernel("STANDARD"), spacing=THIN)
    series(tmp_path, "unnamed", kernel(""), spacing=(2.0, 1.5, 2.0))
    assert chosen(tmp_path)[0] == "soft"


def test_thinner_then_longer_then_earlier(tmp_path: Path) -> None:
    series(tmp_path, "a", spacing=(2.0, 1.5, 2.8))
    series(tmp_path, "b", spacing=THIN, slices=12)
    series(tmp_path, "c", spacing=THIN, slices=14)
    series(tmp_path, "d", lambda data: setattr(data, "StudyDate", "20190101"), spacing=THIN, slices=14)
    name, choice = chosen(tmp_path)
    assert name == "d"
    assert choice.series.day == 0
    assert "was taken, 14 slices 2.5 mm apart, kernel soft" in choice.reasons[0]
    assert "was next" in choice.reasons[1]


def test_a_thickness_larger_than_the_distance_counts(tmp_path: Path) -> None:
    series(tmp_path, "overlapping", lambda data: setattr(data, "SliceThickness", 5), spacing=(2.0, 1.5, 2.0))
    series(tmp_path, "thin", spacing=(2.0, 1.5, 3.0))
    assert chosen(tmp_path)[0] == "thin"


def test_contrast_is_preferred_as_wanted_and_never_refused(tmp_path: Path) -> None:
    series(tmp_path, "Thorax nativ", spacing=MIDDLE)
    series(tmp_path, "Thorax arterial", spacing=THIN)
    assert chosen(tmp_path)[0] == "Thorax arterial"
    without = Wanted(6, 15.0, "without")
    assert chosen(tmp_path, without)[0] == "Thorax nativ"
    assert chosen(tmp_path / "Thorax arterial", without)[0] == "Thorax arterial"


def test_the_series_that_was_drawn_on_is_taken(tmp_path: Path) -> None:
    series(tmp_path, "better", spacing=THIN)
    series(tmp_path, "drawn on", kernel("B70f"), spacing=MIDDLE)
    pydicom.dcmwrite(tmp_path / "rt.dcm", maker.rtstruct(maker.ct(series="drawn on")[0]))
    name, choice = chosen(tmp_path)
    assert name == "drawn on"
    assert choice.reasons[0] == "contours or masks were drawn on 1 series, the other 1 were not considered"


def test_what_was_drawn_on_is_not_exchanged_when_it_is_broken(tmp_path: Path) -> None:
    series(tmp_path, "sound")
    slices = maker.ct(series="drawn on")
    maker.write(tmp_path / "drawn on", slices[:4] + slices[5:])
    pydicom.dcmwrite(tmp_path / "rt.dcm", maker.rtstruct(slices[0]))
    with pytest.raises(CaseFault, match="1 lost slices"):
        chosen(tmp_path)


def test_phases_and_attenuation_maps_are_taken_when_there_is_nothing_else(tmp_path: Path) -> None:
    series(tmp_path, "4D 50%", spacing=THIN)
    series(tmp_path, "WB CTAC 5.0", spacing=(2.0, 1.5, 5.0))
    series(tmp_path, "Chest", spacing=THICK)
    assert chosen(tmp_path)[0] == "Chest"
    name, choice = chosen(tmp_path / "4D 50%")
    assert name == "4D 50%"
    assert "a phase of a 4-D scan" in choice.reasons[0]


def test_secondary_images_are_not_refused_for_that(tmp_path: Path) -> None:
    def archived(data: Dataset) -> None:
        data.ImageType = ["ORIGINAL", "SECONDARY", "AXIAL"]
        del data.ConvolutionKernel, data.KVP, data.Manufacturer

    series(tmp_path, "archived", archived)
    assert chosen(tmp_path)[0] == "archived"


def test_the_rejected_are_named_with_their_rules(tmp_path: Path) -> None:
    series(tmp_path, "good")
    series(tmp_path, "scout", lambda data: setattr(data, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    series(tmp_path, "short", slices=4)
    _, choice = chosen(tmp_path)
    assert sorted(rejection.rule for rejection in choice.rejected) == ["few-slices", "scout"]
    for text in [*choice.reasons, *(rejection.sentence for rejection in choice.rejected)]:
        assert not any(secret in text for secret in (maker.PATIENT, "2020", "1.2.826", str(tmp_path)))


def test_a_scout_inside_a_series_is_set_apart(tmp_path: Path) -> None:
    slices = maker.ct()
    scout = maker.ct(1)[0]
    scout.SOPInstanceUID = maker.uid("scout")
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    maker.write(tmp_path, [scout, *slices])
    _, choice = chosen(tmp_path)
    assert len(choice.series.headers) == maker.SLICES
    assert "its SeriesInstanceUID holds 2 stacks, which were taken apart" in choice.reasons


def test_two_acquisitions_in_one_series_are_set_apart(tmp_path: Path) -> None:
    again = maker.ct()
    for data in again:
        data.SOPInstanceUID, data.AcquisitionNumber = maker.uid("again", data.SOPInstanceUID), 2
    maker.write(tmp_path, [*maker.ct(), *again])
    _, choice = chosen(tmp_path)
    assert len(choice.series.headers) == maker.SLICES
    assert len({header.acquisition for header in choice.series.headers}) == 1


def test_copies_of_a_file_count_once(tmp_path: Path) -> None:
    slices = maker.ct()
    maker.write(tmp_path / "a", slices)
    maker.write(tmp_path / "a copy", slices[:4])
    _, choice = chosen(tmp_path)
    assert len(choice.series.headers) == maker.SLICES
    assert "4 files that are copies of others were left out" in choice.reasons
    assert read_scan(choice.series).volume.shape[0] == maker.SLICES


def test_the_order_of_files_does_not_matter(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        series(tmp_path / "one", name)
    for number, name in enumerate("cab"):
        series(tmp_path / "two" / f"{number}", name)
    assert chosen(tmp_path / "one")[1].series.uid == chosen(tmp_path / "two")[1].series.uid


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[
            (name, "soft")
            for name in ("B19f", "B30s", "B45f", "Br40d\\3", "I30f\\2", "Br36", "STANDARD", "FC08", "B", "FC18-H")
        ],
        *[
            (name, "sharp")
            for name in ("B70f", "B60s", "Bl57d\\2", "I70f\\3", "LUNG", "BONEPLUS", "FC51", "YA", "EDGE", "FC30")
        ],
        *[(name, "unknown") for name in ("", "XYZ", "iMR", "unknown kernel")],
    ],
)
def test_kernels_of_all_vendors(name: str, expected: str) -> None:
    assert kernel_class(name) == expected


@pytest.mark.parametrize(
    ("text", "agent", "expected"),
    [
        ("RCCTPET_THORAX_CONTRAST_dag0", "", (True, "text")),
        ("Chest C+", "", (True, "text")),
        ("THORAX mit KM", "", (True, "text")),
        ("CTA chest", "", (True, "text")),
        ("CHEST WITHOUT CONTRAST", "", (False, "text")),
        ("Thorax non-contrast 1.0", "", (False, "text")),
        ("Thorax nativ", "", (False, "text")),
        ("CHEST W/O", "", (False, "text")),
        ("Low Dose Lung", "", (False, "text")),
        ("Chest 3.0 B31f", "", (None, "none")),
        ("Vertical civic archive", "", (None, "none")),
        ("Chest without contrast", "Ultravist 370", (True, "agent")),
        ("Chest", "NONE", (False, "agent")),
    ],
)
def test_contrast_is_read_from_tags_and_words(
    text: str, agent: str, expected: tuple[bool | None, str], tmp_path: Path
) -> None:
    def change(data: Dataset) -> None:
        data.ProtocolName, data.ContrastBolusAgent = text, agent

    series(tmp_path, "x", change)
    assert contrast(find_patients(tmp_path)[0].series[0].headers) == expected
