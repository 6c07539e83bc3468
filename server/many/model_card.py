"""A study's model card, of many models or of one: what they are and what they are not for, made of results.json alone.

The headings follow Mitchell et al. 2019, Model Cards for Model Reporting (doi:10.1145/3287560.3287596).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ctfed.report import wording as say
from ctfed.report.exports import write_text
from ctfed.report.many_evaluation import best_of_tables
from ctfed.report.many_tables import at, of, size_text
from ctfed.report.pooled import RESULTS
from ctfed.report.reader import Reader

CARD = "model_card.md"
SECTIONS = ("Models", "Intended use", "Data", "Preparation", "Evaluation", "Limitations", "Provenance")
_MARKS = re.compile(r"([\\`*_\[\]<>|#&])")


def write_model_card(folder: Path) -> Path:
    """Write ``folder/model_card.md`` from ``folder/results.json``; return its path.

    Raises:
        MalformedResults: a value has another type than its place; nothing is written then.
        OSError: a file cannot be read or written.
    """
    content = (folder / RESULTS).read_bytes()
    text = model_card(Reader(json.loads(content)), hashlib.sha256(content).hexdigest())
    write_text(folder / CARD, text)
    return folder / CARD


def model_card(results: Reader, digest: str) -> str:
    """The card as Markdown; ``digest`` is the SHA-256 of results.json. What the results do not hold is a dash."""
    study = results.section("study")
    parts = (
        *(part(results) for part in (_models, _use, _data, _preparation, _evaluation, _limitations)),
        _provenance(results, digest),
    )
    lines = [f"# Model card: {_plain(study.text('title') or study.text('name'))}"]
    for title, part in zip(SECTIONS, parts, strict=True):
        lines += ["", f"## {title}", "", *part]
    return "\n".join(lines) + "\n"


def _plain(text: str | None) -> str:
    """A text of the study in one line, which Markdown shows as it is."""
    return _MARKS.sub(r"\\\1", " ".join(text.split())) if text else say.MISSING


def _items(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"- {_plain(name)}: {_plain(value)}" for name, value in pairs]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head)]
    return [f"| {' | '.join(row)} |" for row in (*lines, *([_plain(cell) for cell in row] for row in rows))]


def _settings(section: Reader, *keys: str) -> str:
    """'prior parametric, minimum 10': the named settings, or all, as the study gives them; lists within too."""
    chosen = keys or tuple(section.values)
    told = (f"{key} {json.dumps(section.values[key])}" for key in chosen if section.values.get(key) is not None)
    return ", ".join(told).replace('"', "") or say.MISSING


def _models(results: Reader) -> list[str]:
    study, models, one = results.section("study"), results.rows("models"), results.section("model")
    endpoint = study.section("endpoint")
    unit = endpoint.text("time_unit") or say.MISSING
    about = f"of {_plain(endpoint.text('name'))}, time in {_plain(unit)}"
    if not models:
        effects = ((row.text("feature") or "", say.fixed(row.number("hazard_ratio"))) for row in _effects(one))
        penalty = f"penalizer {say.compact(one.number('penalizer'))}, L1 ratio {say.compact(one.number('l1_ratio'))}"
        table = _table(("Feature", "Hazard ratio per SD"), effects)
        return [f"An elastic-net Cox model {about}; {penalty}.", "", *table]
    ensembles = sum(model.text("kind") == "ensemble" for model in models)
    count = say.counted(len(models) - ensembles, "elastic-net Cox model")
    head = ("Table", "Model", "Made of", "Harmonization", "Subgroup", "Columns kept", "Patients (events) train / test")
    rows = (
        (
            model.text("table") or "",
            model.text("title") or model.text("name") or "",
            ", ".join(model.texts("groups") or model.texts("members")),
            model.text("harmonization") or "",
            model.text("subgroup") or "all patients",
            say.whole(model.section("fit").count("nonzero")),
            size_text(model),
        )
        for model in models
    )
    return [f"{count} and {say.counted(ensembles, 'ensemble')} {about}.", "", *_table(head, rows)]


def _effects(model: Reader) -> list[Reader]:
    return [row for row in model.rows("coefficients") if row.number("coef_per_sd") != 0]


def _use(_: Reader) -> list[str]:
    return [
        "- For: research on prognosis, and validation of the models at other sites.",
        "- Not a medical device. Not for decisions about a patient.",
        "- Not for patients unlike those described below, nor features made by other software or settings.",
    ]


def _data(results: Reader) -> list[str]:
    sites = results.section("sites")
    splits = [(s.text("split"), s) for s in results.section("cohort").rows("splits")]
    splits = splits or [(s.text("name"), s) for s in results.section("characteristics").rows("groups")]
    if not splits and (models := results.rows("models")):
        largest = max(models, key=lambda model: model.section("train").count("patients") or 0)
        splits = [(name, largest.section(name)) for name in ("train", "test")]
    lines = _items([("Sites", f"{say.whole(sites.count('count'))}: {', '.join(sites.texts('names'))}")])
    sizes = ((name or "", say.whole(s.count("patients")), say.whole(s.count("events"))) for name, s in splits)
    lines += ["", *_table(("Split", "Patients", "Events"), sizes), ""]
    named = dict.fromkeys(group for model in results.rows("models") for group in model.texts("groups"))
    known = dict.fromkeys(row.text("label") or "" for row in results.section("characteristics").rows("rows"))
    features = [row.text("feature") or "" for row in results.section("cohort").rows("features")]
    pairs = [("Groups of features", named), ("Variables described by split", known), ("Variables", features)]
    return lines + _items((name, ", ".join(values)) for name, values in pairs if values)


def _preparation(results: Reader) -> list[str]:
    study = results.section("study")
    lines = ["Fitted on training patients alone."]
    if results.rows("models"):
        lines = ["Columns are standardised. Fitted on training patients alone; in the search, outside each fold anew."]
    features = results.section("cohort").rows("features")
    imputed = ", ".join(f"{row.text('feature')} ({row.text('method')})" for row in features)
    pairs = [("Imputation", imputed)] if features else []
    for name in ("harmonization", "selection", "search"):
        if study.section(name):
            pairs.append((name.capitalize(), _settings(study.section(name))))
    projections = study.section("projections")
    pairs += [(f"Projection of {name}", _settings(projections.section(name))) for name in projections.values]
    for row in results.rows("harmonized"):
        left = f"{say.counted(row.count('rows_left_out'), 'patient')} left out"
        passed = f"{say.counted(len(row.texts('passed')), 'feature')} passed unchanged"
        text = f"{say.whole(row.count('batches'))} batches, {say.whole(row.count('rows'))} patients, {left}, {passed}"
        where = f" ({row.text('subgroup')})" if row.text("subgroup") else ""
        pairs.append((f"ComBat of {row.text('group')}{where}", text))
    if tuning := results.section("tuning"):
        pairs.append(("Search", f"{len(tuning.rows('trials'))} penalties, {say.whole(tuning.count('folds'))} folds"))
    return [*lines, "", *_items(pairs)]


def _evaluation(results: Reader) -> list[str]:
    models = results.rows("models")
    best = best_of_tables(results) if models else [results.section("discrimination")]
    study = results.section("study")
    lines = ["In the test patients, with confidence limits in brackets; certified limits are those of arithmetic."]
    if models:
        lines[0] += " Of each table, the model with the highest C within sites."
    lines.append("")
    for one in best:
        head = "" if not models else f"Table {one.text('table')}, {one.text('title') or one.text('name')}: "
        within, pooled = one.section("c_within"), one.section("c_pooled")
        told = [f"C within sites {of(within, 'value', 'lower', 'upper')}", _certified("C of all pairs", pooled, "")]
        if ratio := one.section("curves").section("hazard_ratio"):
            told.append(f"hazard ratio of the median split {of(ratio, 'hr', 'lower', 'upper', digits=2)}")
        for row in one.rows("horizons") or one.rows("auc"):
            told.append(_certified(f"AUC {at(study, row.number('horizon'))}", row, "auc"))
        lines.append(f"- {_plain(head + '; '.join(told))}")
    return lines


def _certified(name: str, row: Reader, key: str) -> str:
    value, prefix = (key, f"{key}_") if f"{key}_lower" in row.values else (key or "value", "")
    limits = say.interval(row.number(f"{prefix}bound_lower"), row.number(f"{prefix}bound_upper"))
    told = f"{name} {of(row, value, f'{prefix}lower', f'{prefix}upper')}"
    return told if limits == say.MISSING else f"{told}, certified {limits}"


def _limitations(results: Reader) -> list[str]:
    lines = ["- Scores are linear in the features and hazards are proportional; neither is proven here."]
    if results.rows("models"):
        lines.append("- The best of many models is chosen by the test patients, so it looks better than it is.")
    lines.append("- No patients of sites that took no part were seen; check calibration before any use elsewhere.")
    models = [*results.rows("models"), results.section("model")]
    told = [*results.section("sites").texts("notes"), *results.texts("notes")]
    told += [note] if (note := results.section("discrimination").text("note")) else []
    told += [line for one in models for line in one.texts("warnings")]
    return lines + [f"- {_plain(line)}" for line in dict.fromkeys(told)]


def _provenance(results: Reader, digest: str) -> list[str]:
    study, run = results.section("study"), results.section("run")
    versions = run.section("versions")
    projections = study.section("projections")
    seeded = [(name, study.section(name)) for name in ("search", "evaluation")]
    seeded += [(f"projection of {name}", projections.section(name)) for name in projections.values]
    seeds = ", ".join(f"{name} {seed}" for name, part in seeded if (seed := part.count("seed")) is not None)
    masked = {True: "yes", False: "no", None: say.MISSING}[run.flag("masked")]
    up, down = say.size(run.number("bytes_up_per_site")), say.size(run.number("bytes_down_per_site"))
    return _items(
        (
            ("Study SHA-256", study.text("sha256") or say.MISSING),
            ("results.json SHA-256", digest),
            ("ctfed", run.text("ctfed_version") or say.MISSING),
            ("Versions", ", ".join(f"{name} {versions.text(name)}" for name in sorted(versions.values)) or say.MISSING),
            ("Seeds", seeds or "in the study file"),
            ("Runner", f"{run.text('runner') or say.MISSING}; answers masked: {masked}"),
            ("Started", run.text("started") or say.MISSING),
            ("Rounds", say.whole(run.count("rounds"))),
            ("Bytes of a site", f"{up} sent, {down} received"),
        )
    )
