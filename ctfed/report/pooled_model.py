"""The pooled report's middle part: coefficients and forest plot, tuning curve, predicted survival."""

from __future__ import annotations

from collections.abc import Sequence

from ctfed.report import wording as say
from ctfed.report.components import Block, Chart, Column, Definitions, Prose, Table, not_shown
from ctfed.report.figures_curves import Curve, survival_plot
from ctfed.report.figures_effects import Effect, Series, effect_plot
from ctfed.report.figures_tuning import Trial, tuning_plot
from ctfed.report.reader import Reader

MOST_IN_FOREST = 30
MOST_IN_TABLE = 40
RISK_SETS = {
    "stratified": "stratified by site: a patient is compared with patients of the same site",
    "pooled": "pooled: a patient is compared with patients of every site",
}
NO_ERRORS = (
    "A penalised fit has no standard errors, z, p-values or confidence intervals: the penalty shrinks the coefficients "
    "on purpose, and the usual formulas do not hold for them."
)


ERRORS = "SE from the inverse of the information matrix; 95 % CI, z and p are Wald's."
ROBUST_ERRORS = (
    "Robust SE, CI and p from the sandwich estimator of Lin & Wei (products of the patients' score residuals, added "
    "over patients and sites): they hold also where hazards are not proportional, but need many events, and come out "
    "too small with few. Where the two kinds differ much, the model misses something."
)
NO_ROBUST_ERRORS = "Robust (sandwich) errors are computed for risk sets that are stratified by site alone."


def model_blocks(results: Reader) -> tuple[Block, ...]:
    """The fit, its coefficients as tables and as a forest plot ('model': penalizer, l1_ratio, ties, risk_sets,
    kkt_residual, rounds, patients, events, coefficients, unpenalised)."""
    model = results.section("model")
    if not model:
        return (not_shown("The results hold no fitted model."),)
    penalised = model.number("penalizer") != 0
    fitted, reference = model.rows("coefficients"), model.rows("unpenalised")
    blocks: list[Block] = [_fit(model)]
    if not fitted:
        return (*blocks, not_shown("The results hold no coefficients."))
    name = "Elastic-net fit" if penalised else "Cox fit without a penalty"
    basis = (
        "Computed from: gradient and Hessian of each site's partial log-likelihood in the training split, added over "
        "sites, until the optimum. SD is that of the training split."
    )
    blocks.append(_effects_table(f"{name}: coefficients", fitted, not penalised))
    blocks.append(Prose((f"{basis} {NO_ERRORS if penalised else _errors_basis(model, fitted)}",), "basis"))
    blocks.append(_forest(fitted, reference, penalised))
    if reference:
        blocks.append(_effects_table("Unpenalised reference fit: coefficients", reference, True))
        unpenalised = "Computed from: the same totals with the penalty set to zero."
        blocks.append(Prose((f"{unpenalised} {_errors_basis(model, reference)}",), "basis"))
    elif penalised:
        blocks.append(not_shown("The results hold no unpenalised reference fit, so no intervals can be shown here."))
    return tuple(blocks)


def _errors_basis(model: Reader, rows: Sequence[Reader]) -> str:
    """Where the standard errors of an unpenalised fit come from."""
    if _has_robust(rows):
        return f"{ERRORS} {ROBUST_ERRORS}"
    return f"{ERRORS} {NO_ROBUST_ERRORS}" if model.text("risk_sets") == "pooled" else ERRORS


def _has_robust(rows: Sequence[Reader]) -> bool:
    return any(row.number("robust_se") is not None for row in rows)


def _fit(model: Reader) -> Definitions:
    risk_sets, ties = model.text("risk_sets"), model.text("ties")
    patients, events = model.count("patients"), model.count("events")
    items = (
        ("Fitted to", f"{say.counted(patients, 'patient')}, {say.counted(events, 'event')}"),
        ("Penalizer", say.compact(model.number("penalizer"), 4)),
        ("l1_ratio", say.compact(model.number("l1_ratio"), 4)),
        ("Ties", ties.capitalize() if ties else say.MISSING),
        ("Risk sets", RISK_SETS.get(risk_sets, risk_sets) if risk_sets else say.MISSING),
        ("Optimality (KKT) residual", say.compact(model.number("kkt_residual"), 2)),
        ("Rounds of the final fit", say.whole(model.count("rounds"))),
    )
    return Definitions(items)


def _effects_table(caption: str, rows: Sequence[Reader], errors: bool) -> Table:
    """Features by the size of their effect; ``errors`` adds the columns that only an unpenalised fit has, and those of
    its robust errors where there are any."""
    robust = errors and _has_robust(rows)
    names = ["Coef.", "Coef. per SD", *(["SE per SD"] if errors else []), "HR per SD"]
    columns = [Column("Feature", False), *(Column(name) for name in names)]
    if errors:
        columns += [Column("95 % CI of HR"), Column("z"), Column("p")]
    if robust:
        columns += [Column("Robust SE per SD"), Column("Robust 95 % CI of HR"), Column("Robust p")]
    cells = []
    for row in _by_size(rows):
        fixed = [
            row.text("feature") or "unnamed",
            say.compact(row.number("coef")),
            say.fixed(row.number("coef_per_sd")),
        ]
        if errors:
            fixed.append(say.fixed(row.number("se")))
        fixed.append(say.fixed(row.number("hazard_ratio"), 2))
        if errors:
            fixed.append(say.interval(row.number("lower"), row.number("upper"), 2))
            fixed += [say.fixed(row.number("z"), 2), say.p_value(row.number("p"))]
        if robust:
            fixed.append(say.fixed(row.number("robust_se")))
            fixed.append(say.interval(row.number("robust_lower"), row.number("robust_upper"), 2))
            fixed.append(say.p_value(row.number("robust_p")))
        cells.append(tuple(fixed))
    zeros = sum(row.number("coef_per_sd") == 0 for row in rows)
    note = "Coef. is per unit of the feature; HR is the hazard ratio."
    if zeros and not errors:
        note += f" {zeros} of {len(rows)} coefficients are exactly zero: the penalty removed these features."
    return Table(caption, tuple(columns), tuple(cells), note, folded=len(cells) > MOST_IN_TABLE)


def _by_size(rows: Sequence[Reader]) -> list[Reader]:
    """Largest effect first; the order of the results where effects are equal or not known."""
    return sorted(rows, key=lambda row: -abs(row.number("coef_per_sd") or 0.0))


def _forest(fitted: Sequence[Reader], reference: Sequence[Reader], penalised: bool) -> Block:
    shown = [row.text("feature") or "unnamed" for row in _by_size(fitted)[:MOST_IN_FOREST]]
    name = "elastic-net fit" if penalised else "Cox fit"
    series = [Series(name, _effects(fitted, shown))]
    if reference:
        series.append(Series("unpenalised reference, 95 % CI", _effects(reference, shown)))
    if not any(group.effects for group in series):
        return not_shown("No hazard ratio is known, so there is no forest plot.")
    left_out = len(fitted) - len(shown)
    caption = f"Hazard ratio per SD of each feature (logarithmic axis; dashed line: no effect). Dots: {name}"
    caption += ", which has no intervals." if penalised else " with 95 % CI."
    caption += " Diamonds: unpenalised reference with 95 % CI." if reference else ""
    caption += f" The {len(shown)} largest effects; {left_out} more features are in the table." if left_out > 0 else ""
    alt = f"Forest plot of {len(shown)} features; the numbers are in the table after the figure."
    svg = effect_plot("forest", "Hazard ratios", alt, series, "hazard ratio per SD", 1.0, ratio=True)
    data = tuple(
        (group.name, e.label, say.fixed(e.value), say.interval(e.lower, e.upper))
        for group in series
        for e in group.effects
    )
    columns = (Column("Fit", False), Column("Feature", False), Column("HR per SD"), Column("95 % CI"))
    return Chart(svg, caption, Table("Data of the forest plot", columns, data))


def _effects(rows: Sequence[Reader], shown: Sequence[str]) -> tuple[Effect, ...]:
    """The effects of the features ``shown``, in that order; features without a positive hazard ratio have no place."""
    found = {}
    for row in rows:
        feature, ratio = row.text("feature") or "unnamed", row.number("hazard_ratio")
        if ratio is not None and ratio > 0:
            found[feature] = Effect(feature, ratio, row.number("lower"), row.number("upper"))
    return tuple(found[feature] for feature in shown if feature in found)


def tuning_blocks(results: Reader) -> tuple[Block, ...]:
    """How the penalty was chosen ('tuning': folds, score, l1_ratio, trials, best, rule)."""
    tuning = results.section("tuning")
    if not tuning:
        return (not_shown("The results hold no tuning: the penalty was given, or the results do not say."),)
    rows, best = tuning.rows("trials"), tuning.count("best")
    folds = tuning.count("folds")
    score = tuning.text("score") or "score not named"
    items = (
        ("Score", score),
        ("Cross-validation", f"{folds} folds inside the training split" if folds else "folds not among the results"),
        ("Rule of choice", tuning.text("rule") or "not among the results"),
        ("Chosen", _chosen(rows, best)),
    )
    if not rows:
        return Definitions(items), not_shown("The results hold no trials, so there is no tuning curve.")
    basis = (
        f"Computed from: {score}; each site's contribution is counted at the site and added over sites. SE is that "
        "of the mean over folds; folds share patients, so it describes the spread and is no confidence interval."
    )
    return Definitions(items), _tuning_chart(rows, best), Prose((basis,), "basis")


def _chosen(rows: Sequence[Reader], best: int | None) -> str:
    if best is None or not 0 <= best < len(rows):
        return "not among the results"
    row = rows[best]
    return (
        f"penalizer {say.compact(row.number('penalizer'))}, l1_ratio {say.compact(row.number('l1_ratio'))}, "
        f"score {say.fixed(row.number('score'))}, non-zero coefficients {say.average(row.number('nonzero'))}"
    )


def _tuning_chart(rows: Sequence[Reader], best: int | None) -> Block:
    trials = {index: trial for index, row in enumerate(rows) if (trial := _trial(row)) is not None}
    cells = tuple(
        (
            f"{index + 1}, chosen" if index == best else f"{index + 1}",
            say.compact(row.number("penalizer"), 4),
            say.compact(row.number("l1_ratio"), 4),
            say.fixed(row.number("score"), 4),
            say.fixed(row.number("score_se"), 4),
            say.average(row.number("nonzero")),
        )
        for index, row in enumerate(rows)
    )
    names = ("Penalizer", "l1_ratio", "Score", "SE", "Non-zero")
    table = Table("Trials", (Column("Trial", False), *(Column(name) for name in names)), cells)
    if not trials:
        return table
    left_out = len(rows) - len(trials)
    caption = "Mean held-out score ± its SE over folds, against the penalizer. Ringed: the chosen trial."
    caption += " Non-zero coefficients are a mean over folds where they are not whole."
    if left_out:
        caption += f" Not drawn: {say.counted(left_out, 'trial')} without a score or with a penalizer of zero."
    alt = f"Tuning curve of {len(trials)} trials; the numbers are in the table after the figure."
    chosen = trials.get(best) if best is not None else None
    svg = tuning_plot("tuning", "Tuning curve", alt, tuple(trials.values()), chosen, "held-out score")
    return Chart(svg, caption, table)


def _trial(row: Reader) -> Trial | None:
    penalizer, score = row.number("penalizer"), row.number("score")
    if penalizer is None or score is None or penalizer <= 0:
        return None
    return Trial(penalizer, row.number("l1_ratio"), score, row.number("score_se"), row.number("nonzero"))


def baseline_blocks(results: Reader) -> tuple[Block, ...]:
    """Predicted survival at the mean of every feature ('baseline': time, cumulative_hazard, survival)."""
    baseline = results.section("baseline")
    time = baseline.numbers("time")
    hazard, survival = (baseline.numbers(key, len(time)) for key in ("cumulative_hazard", "survival"))
    if not time or not survival:
        return (not_shown("The results hold no baseline survival, so no survival can be predicted from them."),)
    unit = results.section("study").section("endpoint").text("time_unit") or "unit not named"
    points = [(t, s) for t, s in zip(time, survival, strict=True) if t is not None and s is not None]
    hazard = hazard or (None,) * len(time)
    data = tuple(
        (say.compact(t, 6), say.fixed(h, 4), say.fixed(s, 4)) for t, h, s in zip(time, hazard, survival, strict=True)
    )
    columns = (Column(f"Time ({unit})"), Column("Cumulative hazard"), Column("Survival"))
    table = Table("Baseline", columns, data)
    if not points:
        return (table,)
    curve = Curve("baseline", tuple(t for t, _ in points), tuple(s for _, s in points))
    alt = f"Step curve of predicted survival, from {say.fixed(points[0][1])} to {say.fixed(points[-1][1])}."
    svg = survival_plot("baseline", "Predicted survival", alt, (curve,), f"time ({unit})", "survival probability")
    caption = "Predicted survival of a patient with the training mean of every feature."
    basis = (
        "Computed from: events and risk-weighted numbers at risk (Breslow) on the common time grid in the training "
        "split, added over sites: one baseline for all sites. A single site's own baseline may lie elsewhere."
    )
    return Chart(svg, caption, table), Prose((basis,), "basis")
