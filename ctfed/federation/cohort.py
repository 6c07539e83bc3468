"""One site's patients, as the queries see them. A Cohort never leaves its site."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ctfed.federation.arrays import BoolArray, FloatArray, IntArray
from ctfed.federation.errors import CtfedError

T = TypeVar("T")
Labels = npt.NDArray[np.str_]

# Views are asked again round after round; a study cycles through a few dozen of them (folds x feature sets).
CACHED_VIEWS = 4096
CACHED_BYTES = 4 * 2**30  # of all their arrays; a server chooses the views, and a site's memory is its own


@dataclass(frozen=True, eq=False)
class Cohort:
    """The patients of one site (or, in an oracle, of all sites).

    Attributes:
        site: name of the site in the roster.
        columns: feature name -> (n,) float64; NaN marks a missing value.
        time: (n,) follow-up in the study's time unit, > 0.
        event: (n,) bool, True where the endpoint was observed.
        stratum: (n,) label of the baseline hazard a patient belongs to; the site's name unless pooled.
        batch: (n,) label of the scanner or centre that harmonization works on.
        split: (n,) 'train' or 'test'.
        fold: (n,) index of the cross-validation fold, assigned by the site; -1 for test rows.
        pseudonym: (n,) label by which the site, and nobody else, knows a patient again in another table.
    """

    site: str
    columns: Mapping[str, FloatArray]
    time: FloatArray
    event: BoolArray
    stratum: Labels
    batch: Labels
    split: Labels
    fold: IntArray
    pseudonym: Labels
    _cache: dict[str, tuple[Any, int]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        site: str,
        columns: Mapping[str, npt.ArrayLike],
        time: npt.ArrayLike,
        event: npt.ArrayLike,
        *,
        stratum: npt.ArrayLike | None = None,
        batch: npt.ArrayLike | None = None,
        split: npt.ArrayLike | None = None,
        fold: npt.ArrayLike | None = None,
        pseudonym: npt.ArrayLike | None = None,
    ) -> Cohort:
        """Build a cohort from anything array-like; labels left out default to the site's name, 'train' and fold 0.

        Pseudonyms left out are row numbers, which say nothing about who is who in another table.

        Raises:
            CtfedError: when lengths differ, a time is not positive and finite, an event is neither 0 nor 1, or a
                feature is infinite.
        """
        times = np.asarray(time, dtype=np.float64)
        n = times.shape[0]
        observed = np.asarray(event)
        if observed.dtype.kind not in "biuf" or not np.isin(observed, (0, 1)).all():
            raise CtfedError(f"site {site!r}: events must be 0 or 1 (or True and False)")
        cohort = cls(
            site=site,
            columns={name: np.asarray(values, dtype=np.float64) for name, values in columns.items()},
            time=times,
            event=observed.astype(bool),
            stratum=np.full(n, site) if stratum is None else np.asarray(stratum).astype(str),
            batch=np.full(n, site) if batch is None else np.asarray(batch).astype(str),
            split=np.full(n, "train") if split is None else np.asarray(split).astype(str),
            fold=np.zeros(n, dtype=np.int64) if fold is None else np.asarray(fold, dtype=np.int64),
            pseudonym=np.arange(n).astype(str) if pseudonym is None else np.asarray(pseudonym).astype(str),
        )
        cohort._check()
        return cohort

    def _check(self) -> None:
        n = self.patients
        labels = {"event": self.event, "stratum": self.stratum, "batch": self.batch, "split": self.split}
        labels["pseudonym"] = self.pseudonym
        for name, values in {**self.columns, **labels, "fold": self.fold}.items():
            if values.shape != (n,):
                raise CtfedError(f"site {self.site!r}: column {name!r} has shape {values.shape}, expected ({n},)")
        if not (np.isfinite(self.time).all() and (self.time > 0).all()):
            raise CtfedError(f"site {self.site!r}: follow-up times must be finite and > 0")
        for name, values in self.columns.items():
            if np.isinf(values).any():
                raise CtfedError(f"site {self.site!r}: column {name!r} holds an infinite value")

    @property
    def patients(self) -> int:
        """Number of patients held by this site, whatever their split."""
        return int(self.time.shape[0])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything in it: changes when any value of any patient does."""
        sha = hashlib.sha256()
        labels = (self.event, self.stratum, self.batch, self.split, self.fold, self.pseudonym)
        for name, values in sorted(self.columns.items()):
            sha.update(f"{name}\0".encode() + values.astype("<f8").tobytes())
        for label in (self.time, *labels):
            sha.update(b"\0".join(str(value).encode() for value in label.tolist()) + b"\1")
        return sha.hexdigest()

    def cached(self, key: str, build: Callable[[], T]) -> T:
        """The value under ``key``, built at the first call; what was not used for longest makes room."""
        held = self._cache.pop(key, None)
        if held is not None:
            self._cache[key] = held  # the last one is the one used last
        else:
            built = build()
            held = self._cache[key] = (built, bytes_of(built))
            self._make_room()
        value: T = held[0]
        return value

    def _make_room(self) -> None:
        total = sum(size for _, size in self._cache.values())
        while len(self._cache) > 1 and (len(self._cache) > CACHED_VIEWS or total > CACHED_BYTES):
            _, size = self._cache.pop(next(iter(self._cache)))
            total -= size

    def subset(self, rows: BoolArray, site: str | None = None) -> Cohort:
        """The cohort of the chosen rows, labels kept."""
        return Cohort(
            site=self.site if site is None else site,
            columns={name: values[rows] for name, values in self.columns.items()},
            time=self.time[rows],
            event=self.event[rows],
            stratum=self.stratum[rows],
            batch=self.batch[rows],
            split=self.split[rows],
            fold=self.fold[rows],
            pseudonym=self.pseudonym[rows],
        )


def bytes_of(value: object) -> int:
    """Bytes of the arrays in a value, its fields and its items."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, tuple | list):
        return sum(bytes_of(item) for item in value)
    if is_dataclass(value):
        held = (getattr(value, item.name) for item in fields(value) if item.name != "features")  # names hold no arrays
        return sum(map(bytes_of, held))
    return 0


def pool(cohorts: Sequence[Cohort], site: str = "pooled") -> Cohort:
    """One cohort that holds all rows of ``cohorts`` with their strata, batches, splits and folds: the oracle's data.

    Raises:
        CtfedError: when the cohorts do not have the same columns.
    """
    names = tuple(cohorts[0].columns)
    for cohort in cohorts:
        if set(cohort.columns) != set(names):
            differing = sorted(set(cohort.columns) ^ set(names))
            raise CtfedError(f"site {cohort.site!r} has other columns than {cohorts[0].site!r}: {', '.join(differing)}")
    return Cohort(
        site=site,
        columns={name: np.concatenate([c.columns[name] for c in cohorts]) for name in names},
        time=np.concatenate([c.time for c in cohorts]),
        event=np.concatenate([c.event for c in cohorts]),
        stratum=np.concatenate([c.stratum for c in cohorts]),
        batch=np.concatenate([c.batch for c in cohorts]),
        split=np.concatenate([c.split for c in cohorts]),
        fold=np.concatenate([c.fold for c in cohorts]),
        pseudonym=np.concatenate([c.pseudonym for c in cohorts]),
    )
