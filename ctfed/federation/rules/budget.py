"""What a run may tell in all: counted in the ledger, so that neither rounds nor restarts make anybody forget.

Names in the ledger: 'rounds', 'numbers|ROWS', 'edges|ROWS', 'tables|ROWS', 'cuts|ROWS|COLUMN', 'points' and 'means' are
what was spent; 'edge|...', 'table|...', 'cut|...', 'point|...' and 'mean|...' mark what was told already, so that it is
not counted twice; 'weighed|POINT' counts the hazards that were tried on a coefficient vector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256

from ctfed.federation.arrays import FloatArray
from ctfed.federation.codec import digest
from ctfed.federation.errors import Refusal
from ctfed.federation.policy import Policy
from ctfed.federation.rules.question import Asking, Grouping
from ctfed.federation.rules.scope import Scope
from ctfed.federation.summary import layout_size

MOST_HAZARDS = 2  # on one coefficient vector: a fit needs one, or two when it asks for the Hessian later
BASELINE_POINTS = 2  # of a stratified study: the fitted model and zero, for the baseline hazard
TOGETHER = "train and its folds"
SCORES = "scores"  # one budget for all scores: whoever names coefficients can make the same score under many names


class Budget:
    """The spendings of a run so far, and of the round under judgement."""

    def __init__(self, spent: Mapping[str, int], policy: Policy, scope: Scope) -> None:
        self._spent = spent
        self._policy = policy
        self._scope = scope
        self.added: Counter[str] = Counter()

    def _add(self, name: str, count: int = 1) -> int:
        """Spend, and return what was spent under this name in all."""
        if count:
            self.added[name] += count
        return self._spent.get(name, 0) + self.added[name]

    def _is_new(self, mark: str) -> bool:
        """Whether something is told for the first time; it no longer is afterwards."""
        return self._add(mark, 0) == 0 and self._add(mark) == 1

    def spend_round(self) -> None:
        """Count one round.

        Raises:
            Refusal: 'too-many-rounds'.
        """
        if self._add("rounds") > self._policy.max_rounds:
            raise Refusal(
                "too-many-rounds",
                f"this run has asked {self._policy.max_rounds} rounds, this site's most; use fewer penalties or folds",
            )

    def spend(self, asked: Asking) -> None:
        """Count what a query tells.

        Raises:
            Refusal: 'too-many-bins', 'too-many-cuts', 'too-many-tables', 'too-many-points', 'numbers-per-bin',
                'hazards-on-faith' or 'released-budget'.
        """
        self._spend_edges(asked)
        self._spend_cuts(asked)
        self._spend_table(asked)
        self._spend_points(asked)
        self._spend_hazards(asked)
        self._spend_numbers(asked)

    def _spend_edges(self, asked: Asking) -> None:
        edges, share = asked.exposure.times, self._policy.time_bins_per_patient
        if edges is None:
            return
        new = sum(self._is_new(f"edge|{asked.rows}|{edge!r}") for edge in edges.tolist())
        bins = self._add(f"edges|{asked.rows}", new) + 1
        if bins > share * asked.patients:
            raise Refusal(
                "too-many-bins",
                f"{asked}: {bins} time bins for {asked.patients} patients, this site allows {share:g} per patient; use "
                "wider bins or an earlier end of the time grid",
            )

    def _spend_cuts(self, asked: Asking) -> None:
        share = self._policy.cuts_per_patient
        for column, mark in _cuts(asked):
            pot = column if self._is_raw(column) else SCORES
            if not self._is_new(f"cut|{asked.rows}|{pot}|{mark}"):
                continue
            told = self._add(f"cuts|{asked.rows}|{pot}")
            excepted = asked.fine and pot == SCORES  # quantiles of fine tables take more cuts than there are patients
            allowed = share * asked.patients * (self._scope.models if pot == SCORES else 1)
            if told > allowed and not excepted:
                raise Refusal(
                    "too-many-cuts",
                    f"{asked}: {told} thresholds of {pot!r} for {asked.patients} patients, this site allows {share:g} "
                    "per patient; use fewer levels or score bins, or a narrower range",
                )

    def _is_raw(self, column: str) -> bool:
        names = self._scope.names | self._scope.indicators
        return column in names or column.removesuffix(" missing") in names

    def _spend_table(self, asked: Asking) -> None:
        exposure, most = asked.exposure, self._policy.max_tables * self._scope.models
        if exposure.cells == 0:
            return
        bins = b"" if exposure.times is None else exposure.times.tobytes()
        cuts = "|".join(mark for _, mark in _told_cuts(asked))
        what = digest(asked.query.view) if asked.exposure.plain else digest(asked.query)
        mark = sha256(bins + f"|{what}|{cuts}".encode()).hexdigest()[:12]
        if self._is_new(f"table|{asked.rows}|{mark}") and self._add(f"tables|{asked.rows}") > most:
            raise Refusal(
                "too-many-tables",
                f"{asked}: more than {most} tables with different bins, which together are a finer table than any of "
                "them; ask fewer tables about the same rows",
            )

    def _spend_points(self, asked: Asking) -> None:
        exposure = asked.exposure
        points = self._add("points", sum(self._is_new(f"point|{name}") for name in exposure.points))
        means = self._add("means", sum(self._is_new(f"mean|{name}") for name in exposure.means))
        if not exposure.points:
            return
        pooled = self._scope.risk_sets == "pooled"
        most = self._policy.max_points if pooled else BASELINE_POINTS * self._scope.models
        if points > most:
            what = "a study with pooled risk sets" if pooled else "the baseline hazard of a study with stratified ones"
            raise Refusal(
                "too-many-points",
                f"{asked}: risk sets over time are told at more than {most} coefficient vectors, this site's most for "
                f"{what}; use updates: newton, or risk_sets: stratified",
            )
        width = max(asked.query.view.width, len(self._scope.columns) if self._scope.models > 1 else 0)
        told, held = points + width * means, width * asked.min_cell
        if told >= max(held, BASELINE_POINTS * self._scope.models + 1):
            raise Refusal(
                "numbers-per-bin",
                f"{asked}: {told} numbers of every time bin, which holds {held} values when it holds {asked.min_cell} "
                "patients; raise evaluation.min_cell, or use updates: gradient or risk_sets: stratified",
            )

    def _spend_hazards(self, asked: Asking) -> None:
        for name in asked.exposure.weighed:
            if self._add(f"point|{name}", 0) == 0:
                raise Refusal(
                    "hazards-on-faith", f"{asked}: hazards at a coefficient vector of which no risk sets were asked"
                )
            mark = f"weighed|{name}|{digest(asked.query)[:12]}"
            if self._is_new(mark) and self._add(f"weighed|{name}") > MOST_HAZARDS:
                raise Refusal(
                    "hazards-on-faith",
                    f"{asked}: more than {MOST_HAZARDS} hazards on the same coefficient vector; differences between "
                    "them are sums over single time bins",
                )

    def _spend_numbers(self, asked: Asking) -> None:
        size = layout_size(asked.query.layout)
        self._spend_pot(asked, f"numbers|{asked.rows}", size, asked.patients, self._policy.released_per_value)
        if asked.query.view.split == "train":  # the rows of folds are training rows, too
            patients = asked.census.of(replace(asked.query.view, fold=None, held_out=False, transforms=(), beside=()))[
                0
            ]
            self._spend_pot(asked, f"numbers|{TOGETHER}", size, patients, self._policy.released_together)

    def _spend_pot(self, asked: Asking, pot: str, size: int, patients: int, share: float) -> None:
        values = patients * len(self._scope.columns)
        numbers = self._add(pot, size)
        if numbers > share * values:
            where = f"; {TOGETHER}" if pot.endswith(TOGETHER) else ""
            raise Refusal(
                "released-budget",
                f"{asked}{where}: {numbers} numbers in all about {values} values (patients x columns), this site "
                f"allows {share:g} per value; use fewer penalties or features",
            )


def _cuts(asked: Asking) -> Iterator[tuple[str, str]]:
    """(column, mark) of every threshold that a query tells, those of its view's transforms included."""
    yield from _told_cuts(asked)
    view = digest(asked.query.view)
    for step, transform in enumerate(asked.query.view.transforms):
        if isinstance(transform, Grouping):
            yield from _marks(SCORES, f"{view}|{step}", transform.thresholds)


def _told_cuts(asked: Asking) -> Iterator[tuple[str, str]]:
    view = digest(asked.query.view)
    for column, thresholds in asked.exposure.cuts.items():
        yield from _marks(column, view, thresholds)


def _marks(column: str, view: str, thresholds: FloatArray) -> Iterator[tuple[str, str]]:
    for threshold in thresholds.tolist():
        yield column, sha256(f"{view}|{column}|{threshold.hex()}".encode()).hexdigest()[:12]
