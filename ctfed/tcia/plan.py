"""What a choice of collections amounts to, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ctfed.tcia.index import MASKS

if TYPE_CHECKING:
    import pandas as pd

_NAMED = 4


def lines_of(table: pd.DataFrame) -> Iterator[str]:
    """A table as text: the first column to the left, numbers to the right, gigabytes with one decimal."""
    cells = [[_cell(value, str(name)) for name, value in zip(table, row, strict=True)] for row in _rows(table)]
    head = [str(name) for name in table]
    widths = [max(len(row[k]) for row in [head, *cells]) for k in range(len(head))]
    numeric = [k > 0 and table.dtypes.iloc[k].kind in "if" for k in range(len(head))]
    for row in [head, *cells]:
        pairs = zip(row, widths, numeric, strict=True)
        yield "  ".join(text.rjust(width) if right else text.ljust(width) for text, width, right in pairs).rstrip()


def _rows(table: pd.DataFrame) -> list[tuple[object, ...]]:
    return [tuple(row) for row in table.itertuples(index=False, name=None)]


def _cell(value: object, name: str) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if name == "gigabytes" else f"{value:g}"
    return str(value)


def by_collection(series: pd.DataFrame, patients: pd.DataFrame) -> pd.DataFrame:
    """One row per collection: patients with a CT, series (CT and all), those with masks, gigabytes, scanners, kernels,
    licences."""
    import pandas as pd

    rows = []
    for name, own in series.groupby("collection", sort=True):
        scans = own[own["modality"] == "CT"]
        mine = patients[patients["collection"] == name]
        rows.append(
            {
                "collection": name,
                "patients": len(mine),
                "CT series": len(scans),
                "series": len(own),
                "masks": own[own["modality"].isin(MASKS)]["patient"].nunique(),
                "gigabytes": float(own["megabytes"].sum()) / 1e3,
                "makers": int(mine["manufacturer"].replace("", None).nunique()),
                "scanners": int(mine["model"].replace("", None).nunique()),
                "kernels": int(mine["kernel"].replace("", None).nunique()),
                "licence": ", ".join(sorted(filter(None, own["licence"].unique()))) or "not known",
            }
        )
    return pd.DataFrame(rows)


def levels(patients: pd.DataFrame, columns: Sequence[str]) -> Iterator[str]:
    """A line per column: its commonest values among the patients, and how many have none."""
    for name in columns:
        counts = patients[name][patients[name] != ""].value_counts()
        named = ", ".join(f"{level} ({count})" for level, count in list(counts.items())[:_NAMED])
        more = f" and {len(counts) - _NAMED} more" if len(counts) > _NAMED else ""
        unknown = int((patients[name] == "").sum())
        yield f"{name}: {named or 'not known'}{more}" + (f"; {unknown} without" if unknown and named else "")
