"""Phantoms before they are files: what is planted is there, and can be found."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from ctfed.federation.errors import CtfedError
from ctfed.imaging.calcium import calcium_score
from ctfed.phantom import PROFILES, PhantomCohort, PhantomPatient, draw_patients
from ctfed.phantom.anatomy import Chest, build
from ctfed.phantom.profiles import REGIONS
from ctfed.phantom.rtstruct import outlines
from ctfed.phantom.scanner import scan

COHORT = PhantomCohort(patients=24, sites=3, seed=7)


@pytest.fixture(scope="module")
def chests() -> list[tuple[PhantomPatient, Chest]]:
    return [(p, build(p, COHORT.profile(p.site), COHORT.matrix)) for p in draw_patients(COHORT)]


def test_the_agatston_score_of_a_noise_free_scan_is_the_planted_one(
    chests: list[tuple[PhantomPatient, Chest]],
) -> None:
    scores = []
    for patient, chest in chests:
        image = scan(chest.image, COHORT.profile(patient.site).noise_free(), patient.seed)
        found = calcium_score(image, chest.masks["coronaries"])
        assert found.agatston == chest.agatston
        assert found.lesions == chest.lesions
        assert not found.contrast
        scores.append(chest.agatston)
    assert 0.0 in scores
    assert max(scores) > 100


@pytest.mark.parametrize("matrix", [64, 200])
def test_the_score_is_known_on_other_grids_too(matrix: int) -> None:
    patient = replace(draw_patients(COHORT)[0], calcium=3)
    chest = build(patient, PROFILES[1], matrix)
    image = scan(chest.image, PROFILES[1].noise_free(), patient.seed)
    assert chest.agatston > 0
    assert calcium_score(image, chest.masks["coronaries"]).agatston == pytest.approx(chest.agatston, rel=1e-12)


def test_regions_do_not_overlap_and_are_as_large_as_drawn(chests: list[tuple[PhantomPatient, Chest]]) -> None:
    for patient, chest in chests:
        assert set(chest.masks) == set(REGIONS)
        assert sum(mask.array.astype(int) for mask in chest.masks.values()).max() == 1
        assert chest.masks["nodes"].array.any() == (patient.nodes > 0)
        sphere = np.pi / 6 * patient.diameter**3
        assert chest.tumour_volume == pytest.approx(sphere, rel=0.35)
        assert ndimage.label(chest.masks["tumour"].array)[1] == 1


def test_the_tumours_texture_has_the_planted_amplitude(chests: list[tuple[PhantomPatient, Chest]]) -> None:
    for patient, chest in chests:
        values = chest.image.array[chest.masks["tumour"].array]
        assert values.mean() == pytest.approx(40, abs=0.5)
        assert values.std() == chest.tumour_sd == pytest.approx(patient.amplitude, rel=0.01)


def test_the_planted_texture_is_still_seen_in_the_scans_and_shifted_by_the_site(
    chests: list[tuple[PhantomPatient, Chest]],
) -> None:
    ratios = []
    for site, profile in enumerate(PROFILES):
        mine = [(p, c) for p, c in chests if p.site == site]
        scans = [scan(c.image, profile, p.seed).array[c.masks["tumour"].array].std() for p, c in mine]
        assert np.corrcoef([p.amplitude for p, _ in mine], scans)[0, 1] > 0.9
        ratios.append(np.median(np.array(scans) / [p.amplitude for p, _ in mine]))
    assert max(ratios) > 1.1 * min(ratios)


def test_a_profile_changes_the_image_as_its_scanner_does(chests: list[tuple[PhantomPatient, Chest]]) -> None:
    patient, chest = chests[0]
    inside = ndimage.binary_erosion(chest.masks["lung"].array, iterations=2)

    def roughness(**changes: float) -> float:
        profile = replace(PROFILES[0].noise_free(), **changes)  # type: ignore[arg-type]
        return float(scan(chest.image, profile, patient.seed).array[inside].std())

    plain = roughness()
    assert roughness(blur=3.0) < plain < roughness(sharpen=0.6)
    assert roughness(noise=25.0) > plain
    clean = scan(chest.image, PROFILES[0].noise_free(), patient.seed)
    np.testing.assert_array_equal(clean.array, chest.image.array)


def test_lifelines_finds_the_planted_coefficients_and_the_site_effect() -> None:
    lifelines = pytest.importorskip("lifelines")
    cohort = PhantomCohort(patients=6000, sites=3, seed=1)
    rows = [
        {**p.covariates, "site_b": float(p.site == 1), "site_c": float(p.site == 2), "days": p.days, "event": p.event}
        for p in draw_patients(cohort)
    ]
    fit = lifelines.CoxPHFitter().fit(pd.DataFrame(rows), "days", "event")
    planted = asdict(cohort.effects) | {
        "site_b": PROFILES[1].baseline - PROFILES[0].baseline,
        "site_c": PROFILES[2].baseline - PROFILES[0].baseline,
    }
    for name, value in planted.items():
        error = fit.standard_errors_[name]
        assert error < 0.06
        assert abs(fit.params_[name] - value) < 3.5 * error, name
        assert abs(value) > 2.5 * error, f"{name} could not be told from no effect"


def test_without_effects_nothing_is_found() -> None:
    lifelines = pytest.importorskip("lifelines")
    from ctfed.phantom import Effects

    cohort = PhantomCohort(patients=3000, seed=2, effects=Effects(0, 0, 0, 0, 0))
    frame = pd.DataFrame(
        [{**p.covariates, "site": p.site, "days": p.days, "event": p.event} for p in draw_patients(cohort)]
    )
    fit = lifelines.CoxPHFitter().fit(frame, "days", "event", strata=["site"])
    assert (np.abs(fit.params_ / fit.standard_errors_) < 3.5).all()


def test_equal_seeds_give_equal_patients_and_others_do_not() -> None:
    assert draw_patients(COHORT) == draw_patients(COHORT)
    assert draw_patients(COHORT) != draw_patients(replace(COHORT, seed=8))
    sizes = [sum(p.site == site for p in draw_patients(replace(COHORT, patients=25))) for site in range(3)]
    assert sizes == [9, 8, 8]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sites": 0}, "sites: found 0, expected 1 to 26"),
        ({"patients": 2}, "patients: found 2, expected at least one for each of 3 sites"),
        ({"matrix": 16}, "matrix: found 16, expected 64 to 512"),
        ({"seed": -1}, "seed: found -1"),
        ({"profiles": ()}, "profiles: found none"),
    ],
)
def test_impossible_cohorts_are_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(CtfedError, match=sentence):
        replace(COHORT, **change)  # type: ignore[arg-type]


def test_outlines_go_round_holes_corners_and_the_border() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[0:6, 0:6] = True
    mask[2:4, 2:4] = False  # a hole
    mask[3, 3] = True  # in it, a pixel that touches the rim by a corner
    mask[7, 7] = mask[8, 8] = True  # two that touch by a corner
    inside = np.zeros_like(mask)
    y, x = np.mgrid[:9, :9]
    for line in outlines(mask):
        inside ^= _even_odd(line, x, y)
    np.testing.assert_array_equal(inside, mask)


def _even_odd(line: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points are inside a polygon, by counting the edges to their right."""
    found = np.zeros(x.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(line, np.roll(line, -1, axis=0), strict=True):
        if y0 != y1:
            found ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return found
