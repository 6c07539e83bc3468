"""Virtual centres: which patient belongs to which, by where the scans come from or by a seeded draw."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ctfed.config import did_you_mean
from ctfed.federation.errors import CtfedError

if TYPE_CHECKING:
    import pandas as pd

DIRICHLET = "dirichlet"
CENTRE = "centre"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Rule:
    """How patients are dealt out.

    Attributes:
        by: columns of the patients' table whose levels together make a centre, or ``('dirichlet',)``.
        minimum: centres of fewer patients are merged into ``remainder``, and patients without a level go there.
        remainder: its name.
        sites: number of centres of a draw.
        alpha: > 0, of the Dirichlet distribution that the centres' shares follow: small is uneven.
        seed: of the draw.
    """

    by: tuple[str, ...]
    minimum: int = 10
    remainder: str = "other-centres"
    sites: int = 5
    alpha: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.by:
            raise CtfedError("--by: found nothing, expected a column, or dirichlet")
        if DIRICHLET in self.by and len(self.by) > 1:
            raise CtfedError("--by: found dirichlet beside columns, expected it alone")
        if self.sites < 1 or self.minimum < 1 or self.alpha <= 0 or self.seed < 0:
            raise CtfedError("found --sites, --minimum, --alpha or --seed out of range, expected >= 1, >= 1, > 0, >= 0")


def assign(patients: pd.DataFrame, rule: Rule) -> pd.Series:
    """(n,) names of the centres, in the order of the rows; letters, digits and '-'.

    Raises:
        CtfedError: when there is no such column, or a draw has more centres than its minimum allows.
    """
    import pandas as pd

    if rule.by == (DIRICHLET,):
        return pd.Series(_draw(len(patients), rule), index=patients.index)
    for name in rule.by:
        if name not in patients:
            hint = did_you_mean(name, patients.columns)
            raise CtfedError(f"--by: found {name!r}, expected a column, or {DIRICHLET}{hint}")
    labels = patients[list(rule.by)].fillna("").astype(str)
    names = ["-".join(slug(part) or UNKNOWN for part in row) for row in labels.itertuples(index=False)]
    without = (labels == "").all(axis=1).to_numpy()
    centres = pd.Series(names, index=patients.index)
    sizes = centres[~without].value_counts()
    small = centres.map(sizes).fillna(0).to_numpy() < rule.minimum
    return centres.where(~(small | without), slug(rule.remainder))


def slug(text: str) -> str:
    """A part of a centre's name: 'GE MEDICAL SYSTEMS' is 'ge-medical-systems'."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _draw(patients: int, rule: Rule) -> list[str]:
    """Every centre gets the minimum; the others are dealt out by shares from a Dirichlet distribution."""
    if rule.sites * rule.minimum > patients:
        raise CtfedError(
            f"--sites: found {rule.sites} centres of at least {rule.minimum} patients for {patients}, expected fewer"
        )
    rng = np.random.default_rng(rule.seed)
    spare = patients - rule.sites * rule.minimum  # the minimum is dealt out first: a draw never fails
    sizes = rule.minimum + rng.multinomial(spare, rng.dirichlet(np.full(rule.sites, rule.alpha)))
    width = len(str(rule.sites))
    names = np.repeat([f"draw-{k + 1:0{width}d}" for k in range(rule.sites)], sizes)
    return [str(name) for name in rng.permutation(names)]
