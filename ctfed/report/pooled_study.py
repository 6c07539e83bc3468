"""The pooled report's first part: summary and headline numbers, who took part, the cohort."""

from __future__ import annotations

from ctfed.report import wording as say
from ctfed.report.components import (
    Block,
    Column,
    Definitions,
    Headline,
    Notice,
    Prose,
    Table,
    Verdict,
    not_shown,
)
from ctfed.report.reader import Reader

RUNNERS = {
    "in-process": "in one process on one machine",
    "flower-simulation": "as a Flower simulation on one machine",
    "flower-deployment": "as a Flower deployment between machines",
    "files": "between centres that carried each question and answer as files",
}


def head_blocks(results: Reader, not_finite: tuple[str, ...]) -> tuple[Block, ...]:
    """The heading box, then what a reader must know before any number.

    Args:
        results: uses 'study', 'run', 'sites', 'cohort', 'model', 'curves' and 'discrimination'.
        not_finite: paths of numbers that were not finite.
    """
    headlines = (_headline_c(results), _headline_hr(results), _headline_n(results))
    blocks: list[Block] = [Verdict(_summary(results), headlines)]
    blocks.extend(masking_blocks(results.section("run")))
    warnings = results.section("model").texts("warnings")
    if warnings:
        blocks.append(Notice("warning", "Warnings of the fit", warnings))
    return (*blocks, *not_finite_blocks(not_finite))


def not_finite_blocks(paths: tuple[str, ...]) -> tuple[Block, ...]:
    """A warning where numbers of the results are not finite; ``paths`` says where they stand."""
    if not paths:
        return ()
    shown = ", ".join(paths[:10]) + (f" and {len(paths) - 10} more" if len(paths) > 10 else "")
    sentence = f"Infinite or not a number in the results, and shown as missing here: {shown}."
    return (Notice("warning", "Numbers that are not finite", (sentence,)),)


def total(results: Reader, key: str) -> int | None:
    """The sum of 'patients' or 'events' over the splits of the cohort; None when a split does not say."""
    counts = [row.count(key) for row in results.section("cohort").rows("splits")]
    known = [count for count in counts if count is not None]
    return sum(known) if counts and len(known) == len(counts) else None


def _summary(results: Reader) -> str:
    study, run, model = results.section("study"), results.section("run"), results.section("model")
    sites = results.section("sites").count("count")
    endpoint = study.section("endpoint").text("name") or "the endpoint"
    sentences = []
    if model:
        penalised = "A Cox model" if model.number("penalizer") == 0 else "An elastic-net Cox model"
        fitted = f"{say.counted(model.count('patients'), 'patient')} with {say.counted(model.count('events'), 'event')}"
        sentences.append(f"{penalised} of {endpoint} was fitted to {fitted} from {say.counted(sites, 'site')}.")
    else:
        sentences.append("The results hold no fitted model.")
    sentences.append("Every number rests on sums that the sites computed; no question asked for a patient's row.")
    if run:
        how = RUNNERS.get(run.text("runner") or "", "by a runner that the results do not name")
        rounds = say.counted(run.count("rounds"), "round")
        sentences.append(f"The analysis ran {how}, in {rounds} of question and answer.")
    split = results.section("discrimination").text("split")
    if split:
        sentences.append(f"Performance is that in the {split} split.")
    return " ".join(sentences)


def _headline_c(results: Reader) -> Headline:
    measured = results.section("discrimination")
    within = measured.section("c_within")
    label = "Harrell's C"
    if within.number("value") is None:
        return Headline(label, say.MISSING, "not among the results")
    split = measured.text("split")
    interval = say.interval(within.number("lower"), within.number("upper"))
    details = [
        "no interval" if interval == say.MISSING else f"95 % CI {interval}",
        f"{split} split" if split else "split not named",
        "pairs within a site",
    ]
    return Headline(label, say.fixed(within.number("value")), "; ".join(details))


def _headline_hr(results: Reader) -> Headline:
    curves = results.section("curves")
    ratio = curves.section("hazard_ratio")
    label = "Hazard ratio of the median split"
    if ratio.number("hr") is None:
        return Headline(label, say.MISSING, "not among the results")
    interval = say.interval(ratio.number("lower"), ratio.number("upper"), 2)
    details = ["no interval" if interval == say.MISSING else f"95 % CI {interval}"]
    split = curves.text("split")
    details.append(f"{split} split" if split else "split not named")
    details.append("higher against lower risk")
    return Headline(label, say.fixed(ratio.number("hr"), 2), "; ".join(details))


def _headline_n(results: Reader) -> Headline:
    events = say.counted(total(results, "events"), "event")
    sites = say.counted(results.section("sites").count("count"), "site")
    return Headline("Patients", say.whole(total(results, "patients")), f"{events}; {sites}")


def masking_blocks(run: Reader) -> tuple[Block, ...]:
    """What the server could see. Silence in the results is read as the worse case, and said to be that."""
    masked = run.flag("masked")
    if masked:
        sentence = "The sites masked their sums: the server learned totals over all sites and no single site's sums."
        return (Notice("note", "Masked run", (sentence,)),)
    if masked is None:
        unsaid = (
            "The results do not say whether the sites masked their sums; read this run as unmasked.",
            "The server may have seen the sums of each single site.",
        )
        return (Notice("danger", "Not known to be masked", unsaid),)
    sentences = [
        "This run was unmasked: secure summation was off.",
        "The sums of each single site were visible to the server.",
    ]
    if run.text("runner") == "flower-deployment":
        sentences.append("It ran between machines all the same: a deployment with patients' data must be masked.")
    else:
        sentences.append("That is fit for a simulation only, with data that may be seen where it runs.")
    return (Notice("danger", "Unmasked run: simulation only", tuple(sentences)),)


def sites_blocks(results: Reader) -> tuple[Block, ...]:
    """Names, number and notes of the sites ('sites': names, count, notes)."""
    sites = results.section("sites")
    if not sites:
        return (not_shown("The results do not say which sites took part."),)
    names = sites.texts("names")
    items: list[tuple[str, str | tuple[str, ...]]] = [("Sites", say.whole(sites.count("count")))]
    items.append(("Names", ", ".join(names) if names else "not among the results"))
    if sites.texts("notes"):
        items.append(("Notes", sites.texts("notes")))
    return (Definitions(tuple(items)),)


def cohort_blocks(results: Reader) -> tuple[Block, ...]:
    """Patients and events by split, and the features ('cohort': splits, features)."""
    cohort = results.section("cohort")
    if not cohort:
        return (not_shown("The results hold no counts of patients and features."),)
    return (*_splits(results, cohort), *_features(cohort))


def _splits(results: Reader, cohort: Reader) -> tuple[Block, ...]:
    splits = cohort.rows("splits")
    if not splits:
        return (not_shown("The results do not count patients and events by split."),)
    rows = [
        (row.text("split") or "unnamed", say.whole(row.count("patients")), say.whole(row.count("events")), _share(row))
        for row in splits
    ]
    if len(rows) > 1:
        patients, events = total(results, "patients"), total(results, "events")
        rows.append(("all", say.whole(patients), say.whole(events), _percent(events, patients)))
    columns = (Column("Split", False), Column("Patients"), Column("Events"), Column("Events, %"))
    basis = "Computed from: the numbers of patients and events that each site counted in each split, added over sites."
    return Table("Patients and events", columns, tuple(rows)), Prose((basis,), "basis")


def _share(row: Reader) -> str:
    return _percent(row.count("events"), row.count("patients"))


def _percent(part: int | None, whole: int | None) -> str:
    return say.MISSING if part is None or not whole else say.fixed(100 * part / whole, 1)


def _features(cohort: Reader) -> tuple[Block, ...]:
    features = cohort.rows("features")
    if not features:
        return (not_shown("The results do not describe the features."),)
    rows = tuple(
        (
            row.text("feature") or "unnamed",
            say.compact(row.number("mean"), 4),
            say.compact(row.number("sd"), 4),
            say.whole(row.count("missing")),
            _imputed(row),
        )
        for row in features
    )
    columns = (Column("Feature", False), Column("Mean"), Column("SD"), Column("Missing"), Column("Imputed with", False))
    basis = (
        "Computed from: counts, sums and centred sums of squares in the training split, added over sites. "
        "Imputed values are frozen there and used unchanged in every other split."
    )
    table = Table("Features", columns, rows, folded=len(rows) > 30)
    return table, Prose((basis,), "basis")


def _imputed(row: Reader) -> str:
    value, method = row.number("imputed_with"), row.text("method")
    if value is None:
        return method or say.MISSING
    return f"{say.compact(value, 4)} ({method})" if method else say.compact(value, 4)
