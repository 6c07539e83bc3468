"""Who the phantom patients are: clinical values, latent size and texture, and survival with planted coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np

from ctfed.federation.errors import CtfedError
from ctfed.phantom.profiles import PROFILES, SiteProfile

MEAN_DIAMETER, DIAMETER_SPREAD = 28.0, 0.32  # mm of the median tumour; SD of the log
SMALLEST_DIAMETER, LARGEST_DIAMETER = 14.0, 62.0  # mm; the larger would not fit into a lung
MEAN_TEXTURE, TEXTURE_SPREAD = 60.0, 0.45  # HU, SD inside the median tumour; SD of the log
MONTHS_TO_DEATH = 30.0  # mean of the exponential for a patient with a linear predictor of 0
LONGEST_FOLLOW_UP = 72.0  # months
DAYS_PER_MONTH = 30.4375
_SITE_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SMALLEST_MATRIX, _LARGEST_MATRIX = 64, 512


@dataclass(frozen=True)
class Effects:
    """The planted coefficients: change of the log hazard per unit of each value of ``PhantomPatient.covariates``."""

    size: float = 0.5  # per SD of the log of the tumour's diameter
    texture: float = 0.6  # per SD of the log of the texture's amplitude
    age: float = 0.25  # per 10 years above 65
    stage: float = 0.3  # per stage group above I
    calcium: float = 0.15  # per grade of coronary calcium, 0 to 3


@dataclass(frozen=True)
class PhantomCohort:
    """What to make. Equal values give equal files, bit for bit.

    Attributes:
        patients: of all sites together; dealt out in turn, so sites differ by at most one.
        sites: number of centres, 1 to 26; ``profiles`` are used in turn.
        seed: of everything that is drawn.
        matrix: pixels along the edge of a slice, 64 to 512.
        profiles: how the centres scan and write.
        effects: the planted coefficients.

    Raises:
        CtfedError: when a number is outside its limits.
    """

    patients: int = 40
    sites: int = 3
    seed: int = 0
    matrix: int = 96
    profiles: tuple[SiteProfile, ...] = PROFILES
    effects: Effects = field(default_factory=Effects)

    def __post_init__(self) -> None:
        if not 1 <= self.sites <= len(_SITE_LETTERS):
            raise CtfedError(f"sites: found {self.sites}, expected 1 to {len(_SITE_LETTERS)}")
        if self.patients < self.sites:
            raise CtfedError(f"patients: found {self.patients}, expected at least one for each of {self.sites} sites")
        if not _SMALLEST_MATRIX <= self.matrix <= _LARGEST_MATRIX:
            raise CtfedError(f"matrix: found {self.matrix}, expected {_SMALLEST_MATRIX} to {_LARGEST_MATRIX}")
        if self.seed < 0:
            raise CtfedError(f"seed: found {self.seed}, expected a whole number >= 0")
        if not self.profiles:
            raise CtfedError("profiles: found none, expected at least one")

    @property
    def site_names(self) -> tuple[str, ...]:
        """'phantom-a', 'phantom-b', ..."""
        return tuple(f"phantom-{letter}" for letter in _SITE_LETTERS[: self.sites])

    def profile(self, site: int) -> SiteProfile:
        """The profile of a site by its number."""
        return self.profiles[site % len(self.profiles)]


@dataclass(frozen=True)
class PhantomPatient:
    """One phantom. All that the images and the tables show follows from this and the cohort's seed.

    Attributes:
        identifier: PatientID, PHANTOM-...
        site: number of the centre.
        seed: of the patient's anatomy.
        age: years, whole.
        female: sex.
        stage: 1 to 4, the clinical stage group.
        smoking: 0 never, 1 former, 2 current; None where the centre does not know.
        ecog: 0 to 3; None where the centre does not know.
        size: z-score of the log diameter, after its limits.
        texture: z-score of the log amplitude.
        calcium: grade 0 (none) to 3.
        nodes: number of visible mediastinal lymph nodes.
        scanned: date of the CT.
        days: follow-up, > 0.
        event: death was observed at ``days``; else the patient was last seen alive then.
    """

    identifier: str
    site: int
    seed: int
    age: int
    female: bool
    stage: int
    smoking: int | None
    ecog: int | None
    size: float
    texture: float
    calcium: int
    nodes: int
    scanned: date
    days: int
    event: bool

    @property
    def diameter(self) -> float:
        """mm, of the tumour."""
        return MEAN_DIAMETER * math.exp(DIAMETER_SPREAD * self.size)

    @property
    def amplitude(self) -> float:
        """HU, the SD of the tumour's voxels before noise and kernel."""
        return MEAN_TEXTURE * math.exp(TEXTURE_SPREAD * self.texture)

    @property
    def covariates(self) -> dict[str, float]:
        """The values that ``Effects`` multiplies, by its names."""
        return {
            "size": self.size,
            "texture": self.texture,
            "age": (self.age - 65) / 10,
            "stage": float(self.stage - 1),
            "calcium": float(self.calcium),
        }

    @property
    def last_seen(self) -> date:
        """Date of death or of the last contact."""
        return self.scanned + timedelta(days=self.days)


def draw_patients(cohort: PhantomCohort) -> list[PhantomPatient]:
    """All patients of a cohort, site after site. Survival is exponential; censoring is uniform up to six years."""
    patients = [_draw(cohort, number) for number in range(cohort.patients)]
    return sorted(patients, key=lambda patient: (patient.site, patient.identifier))


def _draw(cohort: PhantomCohort, number: int) -> PhantomPatient:
    site = number % cohort.sites
    rng = np.random.default_rng([cohort.seed, number])
    stage = int(rng.choice([1, 2, 3, 4], p=[0.2, 0.15, 0.3, 0.35]))
    age = int(np.clip(round(rng.normal(65, 9)), 38, 89))
    raw = rng.normal(0.15 * (stage - 2.5), 1.0)
    low, high = (math.log(d / MEAN_DIAMETER) / DIAMETER_SPREAD for d in (SMALLEST_DIAMETER, LARGEST_DIAMETER))
    size = round(float(np.clip(raw, low, high)), 6)
    texture = round(float(np.clip(rng.normal(), -2.5, 2.5)), 6)
    calcium = int(np.clip(round(rng.normal(0.9 + (age - 65) / 15, 1.0)), 0, 3))
    nodes = int(rng.binomial(5, (0.02, 0.3, 0.55, 0.6)[stage - 1]))
    smoking, ecog = int(rng.choice(3, p=[0.15, 0.4, 0.45])), int(rng.choice(4, p=[0.5, 0.3, 0.15, 0.05]))
    unknown = rng.random(2)
    patient = PhantomPatient(
        identifier=f"PHANTOM-{_SITE_LETTERS[site].upper()}-{number // cohort.sites + 1:04d}",
        site=site,
        seed=int(rng.integers(2**62)),
        age=age,
        female=bool(rng.random() < 0.35),
        stage=stage,
        smoking=smoking if unknown[0] > 0.07 else None,
        ecog=ecog if unknown[1] > 0.2 else None,
        size=size,
        texture=texture,
        calcium=calcium,
        nodes=nodes,
        scanned=date(2015, 1, 1) + timedelta(days=int(rng.integers(4 * 365))),
        days=1,
        event=False,
    )
    return _followed(patient, cohort, rng)


def _followed(patient: PhantomPatient, cohort: PhantomCohort, rng: np.random.Generator) -> PhantomPatient:
    from dataclasses import asdict, replace

    effects = asdict(cohort.effects)
    risk = sum(effects[name] * value for name, value in patient.covariates.items())
    # The typical patient (stage III, calcium grade 1) keeps the mean time, whatever the effects.
    risk -= 2 * cohort.effects.stage + cohort.effects.calcium
    risk += cohort.profile(patient.site).baseline
    death = rng.exponential(MONTHS_TO_DEATH * math.exp(-risk)) * DAYS_PER_MONTH
    censored = rng.uniform(6, LONGEST_FOLLOW_UP) * DAYS_PER_MONTH
    return replace(patient, days=max(1, math.ceil(min(death, censored))), event=bool(death <= censored))
