"""Synthetic chest CT with known truth: phantoms for tests and demonstrations. No patient is behind any of it."""

from ctfed.phantom.patients import Effects, PhantomCohort, PhantomPatient, draw_patients
from ctfed.phantom.profiles import PROFILES, SiteProfile
from ctfed.phantom.write import write_cohort

__all__ = [
    "PROFILES",
    "Effects",
    "PhantomCohort",
    "PhantomPatient",
    "SiteProfile",
    "draw_patients",
    "write_cohort",
]
