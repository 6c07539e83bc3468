"""Released numbers: how many a transcript holds about some patients, per patient and column.

A total is one equation for the values of the patients in it. As long as fewer equations are told than there are
values, the values are not determined by counting alone; with more they can be, though nobody may know how. Views that
differ in their transforms are about the same values, and so are nested rows: the folds of the training patients are
counted by themselves and, once more, together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from ctfed.federation.codec import digest
from ctfed.federation.summary import layout_size
from server.audit.rows import TEST, Rows
from server.audit.statements import sizes, statements, with_differences
from server.audit.transcript import Transcript


@dataclass(frozen=True)
class Released:
    """Numbers told of some rows.

    Attributes:
        rows: in words.
        patients: how many; 0 where the transcript does not tell.
        columns: raw columns that the totals depend on.
        kinds: kind of query -> numbers.
    """

    rows: str
    patients: int
    columns: int
    kinds: Mapping[str, int]

    @property
    def numbers(self) -> int:
        """All kinds together."""
        return sum(self.kinds.values())

    @property
    def ratio(self) -> float:
        """Numbers per patient and column; inf where nothing is known of the patients."""
        values = self.patients * self.columns
        return self.numbers / values if values else float("inf")


@dataclass(frozen=True, eq=False)
class Release:
    """What a transcript releases.

    Attributes:
        views: by view, largest ratio first; columns are those of the view after its transforms.
        rows: by set of rows, whatever the view; columns are the raw ones.
        splits: all sets of training rows together, and of test rows.
    """

    views: tuple[Released, ...]
    rows: tuple[Released, ...]
    splits: tuple[Released, ...]


def released(transcript: Transcript) -> Release:
    """Count the numbers of a transcript; a question that was asked twice counts once."""
    people = sizes(with_differences(statements(transcript)))
    views: dict[str, tuple[Rows, int, Counter[str]]] = {}
    rows: dict[Rows, Counter[str]] = defaultdict(Counter)
    columns: dict[Rows, set[str]] = defaultdict(set)
    for one in transcript.distinct:
        view, count = one.query.view, layout_size(one.query.layout)
        where = Rows.of(view, transcript.folds)
        views.setdefault(digest(view), (where, view.width, Counter()))[2][one.query.kind] += count
        rows[where][one.query.kind] += count
        columns[where] |= {feature.name for inner in view.inner() for feature in inner.columns}
    by_view = [
        Released(where.label(transcript.folds), people.get(where, 0), width, dict(kinds))
        for where, width, kinds in views.values()
    ]
    by_rows = [
        Released(where.label(transcript.folds), people.get(where, 0), len(columns[where]), dict(kinds))
        for where, kinds in rows.items()
    ]
    return Release(_largest_first(by_view), _largest_first(by_rows), _splits(rows, columns, people, transcript.folds))


def _largest_first(found: list[Released]) -> tuple[Released, ...]:
    return tuple(sorted(found, key=lambda one: -one.ratio))


def _splits(
    rows: Mapping[Rows, Counter[str]], columns: Mapping[Rows, set[str]], people: Mapping[Rows, int], folds: int
) -> tuple[Released, ...]:
    train, test = frozenset(range(folds)), frozenset({TEST})
    found = []
    for atoms, words in ((train, "training rows, all folds together"), (test, "test rows")):
        inside = [where for where in rows if where.atoms <= atoms]
        kinds: Counter[str] = Counter()
        for where in inside:
            kinds += rows[where]
        names = set().union(*(columns[where] for where in inside))
        if inside:
            found.append(Released(words, people.get(Rows(atoms), 0), len(names), dict(kinds)))
    return tuple(found)
