"""Who a site's patients are and how their scans were made: flow, Table 1 beside the federation, acquisition, masks."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ctfed.cohort.clinical import Exclusion
from ctfed.cohort.scans.acquire import kernel_class
from ctfed.federation.arrays import FloatArray
from ctfed.federation.view import View
from ctfed.report.site_rows import SiteRows, leaving, number
from ctfed.statistics.curves import kaplan_meier
from ctfed.statistics.standardise import Standardise
from ctfed.statistics.timegrid import TimeGrid
from ctfed.study import Study, Variable

MOST_LEVELS = 12  # of a table
# Of acquisition.csv: its column, the name shown, and whether it is a number.
ACQUISITION = (
    ("manufacturer", "Manufacturer", False),
    ("kernel", "Reconstruction kernel", False),
    ("contrast", "Contrast medium", False),
    ("thickness", "Slice thickness (mm)", True),
    ("kvp", "Tube voltage (kV)", True),
)
VOLUME_ENDINGS = ("shape_VoxelVolume", "shape_MeshVolume")
OUTLYING = 3.5  # robust z of the log volume: Iglewicz and Hoaglin's limit


@dataclass(frozen=True)
class PreparedFiles:
    """What `ctfed prepare` left at a site.

    Attributes:
        local: its folder.
        exclusions: (stage, rule) of each patient set aside.
        acquisition: a row per scan.
        provenance: the content of provenance.json.
    """

    local: Path
    exclusions: tuple[tuple[str, str], ...]
    acquisition: tuple[dict[str, str], ...]
    provenance: dict[str, Any]


def flow(
    rows: SiteRows, excluded: Sequence[Exclusion], prepared: PreparedFiles | None, virtual: bool
) -> dict[str, Any]:
    """From the patients found to those analysed, each step with its reasons and how many they set aside."""
    steps = [
        {"stage": stage, "reason": rule, "patients": count}
        for (stage, rule), count in sorted(Counter(prepared.exclusions if prepared else ()).items())
    ]
    # Exclusions of a table that stands for many sites cannot be told apart by site.
    reasons = Counter() if virtual else Counter(reason for _, reason in excluded)
    steps += [{"stage": "table", "reason": reason, "patients": n} for reason, n in sorted(reasons.items())]
    cohort = rows.cohort
    splits = [
        {"split": split, "patients": int(held.sum()), "events": int((held & cohort.event).sum())}
        for split in ("train", "test")
        for held in [cohort.split == split]
    ]
    set_aside = sum(int(str(step["patients"])) for step in steps)
    return {
        "found": cohort.patients + set_aside,
        "steps": steps,
        "patients": cohort.patients,
        "events": int(cohort.event.sum()),
        "splits": splits,
        "evaluated": {"split": rows.split, "patients": rows.patients, "events": rows.events},
        "follow_up": follow_up_median(rows),
        "reasons_known": not virtual,
    }


def follow_up_median(rows: SiteRows) -> dict[str, float | None]:
    """Median follow-up of the evaluated patients by reverse Kaplan-Meier (Schemper, Smith 1996)."""
    if rows.patients == 0:
        return {"value": None, "lower": None, "upper": None}
    # Censoring is the event here, and comes after the deaths of its time.
    time, died = rows.table.time, rows.table.event
    later = np.where(died, time, np.nextafter(time, np.inf))
    grid = TimeGrid.exact(later)
    value, lower, upper = kaplan_meier(leaving(grid, later, ~died), grid, level=rows.level).median[0]
    return {"value": number(value), "lower": number(lower), "upper": number(upper)}


# -- Table 1


def table_one(rows: SiteRows) -> dict[str, Any]:
    """A row for each variable of the model: its patients, beside the federation's.

    The standardised mean difference compares like with like: both sides are training patients with missing values
    filled in as the model fills them, and the federation holds this site's too. It is
    (mean here - mean of the federation) / sqrt((variance here + variance of the federation) / 2).
    """
    study, cohort = rows.model.study, rows.cohort
    filled, federation = _filled(rows), _federation(rows)
    found = []
    for name in rows.variables:
        variable = study.columns[name]
        values = cohort.columns[name]
        row = {"variable": name, "label": study.label(name), "unit": variable.unit or "", **_described(values)}
        row["levels"] = _levels(values, filled.get(name), variable)
        row.update(_compared(filled.get(name), federation.get(name)))
        found.append(row)
    train = int((cohort.split == "train").sum())
    return {"patients": cohort.patients, "train": train, "variables": found}


def _described(values: FloatArray) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    spread = [None, None, None] if not known.size else [number(q) for q in np.percentile(known, [25, 50, 75])]
    return {
        "present": int(known.size),
        "missing": int(values.size - known.size),
        "mean": number(known.mean()) if known.size else None,
        "sd": number(known.std(ddof=1)) if known.size > 1 else None,
        "q1": spread[0],
        "median": spread[1],
        "q3": spread[2],
    }


def _levels(values: FloatArray, trained: FloatArray | None, variable: Variable) -> list[dict[str, Any]]:
    """How many patients have each level, and how many of the training ones once missing values are filled in."""
    levels = variable.possible_levels
    if variable.type == "continuous" or not 0 < len(levels) <= MOST_LEVELS:
        return []
    labels = variable.levels or {}
    filled = np.zeros(0) if trained is None else trained
    return [
        {
            "label": labels.get(int(level), f"{level:g}"),
            "count": int((values == level).sum()),
            "train": int((filled == level).sum()),
        }
        for level in levels
    ]


def _filled(rows: SiteRows) -> dict[str, FloatArray]:
    """The site's training rows before they are standardised, by column; empty for a model that does not do so."""
    found: dict[str, FloatArray] = {}
    for view, place in _standardised(rows.model.rows("train")):
        before = replace(view, transforms=view.transforms[:place])
        for name, values in zip(before.names, before.table(rows.cohort).values.T, strict=True):
            found.setdefault(name, values)
    return found


def _standardised(view: View) -> Iterator[tuple[View, int]]:
    """The views that standardise raw columns, also those that stand beside each other, and the place of that step."""
    for inner in view.inner():
        place = next((k for k, step in enumerate(inner.transforms) if isinstance(step, Standardise)), None)
        if inner.columns and place is not None:
            yield inner, place


def _federation(rows: SiteRows) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the federation's training rows, by column; empty for a model without them."""
    found: dict[str, tuple[float, float]] = {}
    for view, place in _standardised(rows.model.view):
        step = view.transforms[place]
        assert isinstance(step, Standardise)
        spread = np.where(np.isin(step.names, step.constant), 0.0, step.scale)
        for name, mean, sd in zip(step.names, step.mean.tolist(), spread.tolist(), strict=True):
            found.setdefault(name, (mean, sd))
    return found


def _compared(own: FloatArray | None, federation: tuple[float, float] | None) -> dict[str, float | None]:
    mean, sd = federation or (None, None)
    found = {"federation_mean": mean, "federation_sd": sd, "filled_mean": None, "filled_sd": None, "smd": None}
    if own is None or own.size == 0 or np.isnan(own).all():
        return found
    found["filled_mean"], found["filled_sd"] = number(own.mean()), number(own.std())
    if mean is not None and sd is not None:
        pooled = float(np.sqrt((float(own.var()) + sd**2) / 2))
        found["smd"] = number((float(own.mean()) - mean) / pooled) if pooled > 0 else None
    return found


def missing_features(rows: SiteRows, study: Study) -> dict[str, Any]:
    """Which of the model's variables no patient here has, and the share of filled-in values among the rows judged."""
    kept = rows.kept
    names = rows.columns
    values = np.array([rows.cohort.columns[name][kept] for name in names]).reshape(len(names), -1)
    absent = [study.label(name) for name, one in zip(names, values, strict=True) if one.size and np.isnan(one).all()]
    share = number(np.isnan(values).mean()) if values.size else None
    return {"absent": absent, "variables": len(names), "filled_share": share}


# -- scans


def read_prepared(local: Path) -> PreparedFiles | None:
    """What `ctfed prepare` left in ``local``; None where it has not run."""
    import json

    provenance = local / "provenance.json"
    if not provenance.is_file():
        return None
    exclusions = tuple((row["stage"], row["rule"]) for row in _rows(local / "exclusions.csv"))
    about = json.loads(provenance.read_text(encoding="utf-8"))
    return PreparedFiles(local, exclusions, tuple(_rows(local / "acquisition.csv")), about)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def acquisition(prepared: PreparedFiles | None) -> dict[str, Any] | None:
    """Counts of each way of acquisition, and quartiles of what is a number; None without prepared scans."""
    if prepared is None:
        return None
    tables, measures = [], []
    for column, label, measured in ACQUISITION:
        cells = [_spoken(column, row.get(column, "").strip()) for row in prepared.acquisition]
        if not any(cells):
            continue
        counts = Counter(cell or "not said" for cell in cells)
        rows = [{"label": name, "count": n} for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
        if measured:
            values = np.array([float(cell) for cell in cells if _is_number(cell)])
            if values.size:
                q1, median, q3 = np.percentile(values, [25, 50, 75]).tolist()
                size = {"count": int(values.size), "q1": q1, "median": median, "q3": q3}
                measures.append({"label": label, **size, "mean": float(values.mean())})
        if not measured or len(counts) <= MOST_LEVELS:
            tables.append({"label": label, "rows": rows})
    return {"scans": len(prepared.acquisition), "tables": tables, "measures": measures}


def _spoken(column: str, cell: str) -> str:
    """A cell of acquisition.csv as a category: kernels by class, truth values as words."""
    if column == "kernel":
        return kernel_class(cell) if cell else ""
    return {"True": "given", "False": "not given"}.get(cell, cell) if column == "contrast" else cell


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False


def segmentation(prepared: PreparedFiles | None, sheets: int) -> dict[str, Any] | None:
    """Volumes of every segmented region with their outliers, and contact sheets of the most outlying patients.

    Outliers are patients whose log volume lies more than 3.5 robust standard deviations from the median (the median
    absolute deviation times 1.4826).
    """
    if prepared is None or not (prepared.local / "features.parquet").is_file():
        return None
    import pyarrow.parquet as pq

    path = prepared.local / "features.parquet"
    names = pq.read_schema(path).names
    columns = _volume_columns(names)
    table = pq.read_table(path, columns=["patient", *columns.values()])
    keys = table.column("patient").to_pylist()
    found, outlying = [], dict.fromkeys(keys, 0.0)
    for region, name in columns.items():
        values = np.array(table.column(name).to_pylist(), dtype=np.float64)
        row, distance = _volumes(region, values)
        row["outliers"] = [
            {"patient": keys[k][:12], "volume_ml": float(values[k] / 1000), "z": float(distance[k])}
            for k in np.argsort(-np.abs(distance), kind="stable")
            if abs(distance[k]) > OUTLYING
        ]
        found.append(row)
        outlying = {key: max(outlying[key], abs(float(z))) for key, z in zip(keys, distance, strict=True)}
    shown = sorted(keys, key=lambda key: (-outlying[key], key))
    return {"regions": found, "sheets": _sheets(prepared.local / "qc", shown, sheets)}


def _volume_columns(names: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for ending in VOLUME_ENDINGS:
        for name in names:
            if name.endswith(ending):
                found.setdefault(name.split(".")[0], name)
    return found


def _volumes(region: str, values: FloatArray) -> tuple[dict[str, Any], FloatArray]:
    """Quartiles in ml, and each patient's robust z of the log volume (0 where it is missing)."""
    distance = np.zeros(values.size)
    known = values > 0
    row: dict[str, Any] = {"region": region, "measured": int(known.sum()), "missing": int((~known).sum())}
    if known.any():
        row.update(
            zip(("q1", "median", "q3"), (np.percentile(values[known], [25, 50, 75]) / 1000).tolist(), strict=True)
        )
        logs = np.log(values[known])
        spread = 1.4826 * float(np.median(np.abs(logs - np.median(logs))))
        if spread > 0:
            distance[known] = (logs - np.median(logs)) / spread
    return row, distance


def _sheets(folder: Path, keys: Sequence[str], most: int) -> list[dict[str, Any]]:
    """Contact sheets as small JPEG pictures in the text of a page."""
    import base64
    import io

    found: list[dict[str, Any]] = []
    for key in keys:
        files = sorted(folder.glob(f"{key}*.png")) if folder.is_dir() else []
        if files and len(found) < most:
            from PIL import Image

            with Image.open(files[0]) as image:
                small = image.convert("RGB")
                small.thumbnail((640, 640))
                buffer = io.BytesIO()
                small.save(buffer, "JPEG", quality=70)
            data = base64.b64encode(buffer.getvalue()).decode("ascii")
            found.append({"patient": key[:12], "picture": f"data:image/jpeg;base64,{data}"})
    return found
