"""What a study's differential privacy has cost: the epsilon of the tables that were released with noise.

It covers those tables alone. Fits, moments and the counts by which bins were chosen carry no noise, as a report says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctfed.federation.errors import CtfedError
from ctfed.study import DifferentialPrivacy
from server.journal import RoundRecord

NOISED = ("evaluation-table", "group-counts")  # the queries that declare a sensitivity


@dataclass(frozen=True)
class PrivacySpent:
    """The guarantee for the released tables, (epsilon, delta), by adding or leaving out one patient.

    Attributes:
        noise_multiplier: of every release.
        delta: as chosen by the study.
        releases: how many tables were released with noise.
        epsilon: by Renyi accounting of all releases.
    """

    noise_multiplier: float
    delta: float
    releases: int
    epsilon: float

    def __str__(self) -> str:
        return (
            f"differential privacy of {self.releases} released tables: epsilon {self.epsilon:.2f} at delta "
            f"{self.delta:g}, noise of {self.noise_multiplier:g} patients (SD) on every cell; fits, moments and the "
            "counts by which bins were chosen carry no noise and are not covered"
        )


def privacy_spent(chosen: DifferentialPrivacy, rounds: Sequence[RoundRecord]) -> PrivacySpent:
    """Account for the releases of a run.

    Raises:
        CtfedError: when the accounting library is not installed.
    """
    releases = sum(count for record in rounds for kind, count in record.kinds.items() if kind in NOISED)
    return PrivacySpent(
        chosen.noise_multiplier, chosen.delta, releases, epsilon(chosen.noise_multiplier, chosen.delta, releases)
    )


def epsilon(noise_multiplier: float, delta: float, releases: int) -> float:
    """Epsilon of some Gaussian releases with the same noise multiplier (Google's dp-accounting).

    Raises:
        CtfedError: when the accounting library is not installed.
    """
    try:
        from dp_accounting import GaussianDpEvent
        from dp_accounting.rdp import RdpAccountant
    except ImportError as error:
        raise CtfedError("differential privacy needs its accountant: pip install 'ctfed[privacy]'") from error
    if releases == 0:
        return 0.0
    accountant = RdpAccountant()
    accountant.compose(GaussianDpEvent(noise_multiplier), releases)
    return float(accountant.get_epsilon(delta))
