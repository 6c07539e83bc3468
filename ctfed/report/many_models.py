"""What the models of a study of many are made of: groups, searches, selected columns, importances, harmonization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ctfed.report import wording as say
from ctfed.report.components import Block, Chart, Column, Definitions, Prose, Table, not_shown
from ctfed.report.many_evaluation import CHOICE, best_of_tables
from ctfed.report.many_figures import Progress, progress_plot
from ctfed.report.many_tables import of
from ctfed.report.palette import SERIES
from ctfed.report.reader import Reader
from ctfed.report.site_figures import bars_plot

MOST_BARS = 15
MOST_NAMED = 5
LONG = 20  # rows beyond which a table is folded


def _models(results: Reader) -> list[Reader]:
    return [model for model in results.rows("models") if model.text("kind") == "model"]


def _title(model: Reader) -> str:
    return model.text("title") or model.text("name") or "unnamed"


def search_blocks(results: Reader) -> tuple[Block, ...]:
    """What each model's search found ('models': search, fit), and how the chosen models' searches went."""
    models = [model for model in _models(results) if model.section("search").rows("trials")]
    if not models:
        return (not_shown("The results hold no search."),)
    rows = tuple(_search_row(model) for model in models)
    names = ("Trials", "Best at", "Held-out C", "Penalizer", "L1 ratio", "Components", "Columns kept")
    table = Table(
        "Best trial of each model",
        (Column("Model", False), *map(Column, names)),
        rows,
        note="Columns kept: with a coefficient that is not 0, of those that entered the fit.",
        folded=len(rows) > LONG,
        sortable=True,
    )
    shown = [model for model in best_of_tables(results) if model.section("search").rows("trials")][: len(SERIES)]
    blocks: list[Block] = [table]
    if shown:
        blocks.append(_progress(shown))
    search = results.section("study").section("search")
    basis = (
        f"{(search.text('sampler') or 'unknown').upper()} sampler (seed {say.whole(search.count('seed'))}), trials in "
        f"batches of {say.whole(search.count('batch'))}, {say.whole(search.count('folds'))} folds that the sites deal "
        "out. Harmonization, imputation, selection and projection are fitted again outside each fold. Held-out C: "
        "pairs of patients of the same site and fold, the folds weighted by their pairs. All trials: search.csv."
    )
    return (*blocks, Prose((basis,), "basis"))


def _search_row(model: Reader) -> tuple[str, ...]:
    search, fit = model.section("search"), model.section("fit")
    trials, best = search.rows("trials"), search.count("best") or 0
    return (
        _title(model),
        say.whole(len(trials)),
        say.whole(best + 1),
        say.fixed(trials[best].number("score")),
        say.compact(fit.number("penalizer")),
        say.fixed(fit.number("l1_ratio"), 2),
        say.whole(fit.count("components")),
        f"{say.whole(fit.count('nonzero'))} of {say.whole(fit.count('columns'))}",
    )


def _progress(models: Sequence[Reader]) -> Chart:
    searches = []
    for model in models:
        scores = [trial.number("score") or 0.0 for trial in model.section("search").rows("trials")]
        searches.append(Progress(_title(model), tuple(max(scores[: k + 1]) for k in range(len(scores)))))
    longest = max(len(one.best) for one in searches)
    rows = tuple(
        (say.whole(k + 1), *(say.fixed(one.best[k]) if k < len(one.best) else "" for one in searches))
        for k in range(longest)
    )
    table = Table("Best held-out C so far", (Column("Trials"), *(Column(one.name) for one in searches)), rows)
    ends = "; ".join(f"{one.name} {say.fixed(one.best[-1])}" for one in searches)
    svg = progress_plot("progress", "Progress of the searches", f"Steps that end at: {ends}.", searches)
    return Chart(svg, f"The best held-out C after each trial. {CHOICE}", table)


def selection_blocks(results: Reader) -> tuple[Block, ...]:
    """Which columns each model uses ('models': selection, groups)."""
    models = _models(results)
    if not models:
        return (not_shown("The results do not say which columns the models use."),)
    rows = tuple(_selection_row(model) for model in models)
    columns = (
        Column("Model", False),
        Column("Groups", False),
        *map(Column, ("Considered", "Selected", "Components", "Not 0")),
        Column("Largest coefficients, per SD", False),
    )
    table = Table("Columns of each model", columns, rows, folded=len(rows) > LONG, sortable=True)
    chosen = results.section("study").section("selection")
    basis = (
        f"Of two features of images whose |r| exceeds {say.compact(chosen.number('single'))} (models of one group) or "
        f"{say.compact(chosen.number('combined'))} (of several) one is left out in each training fold; those selected "
        f"in more than {say.compact(100 * (chosen.number('share') or 0.0))} % of the folds stay. In how many folds "
        "each column was selected: selection.csv; all coefficients: coefficients.csv."
    )
    return (table, Prose((basis,), "basis"))


def _selection_row(model: Reader) -> tuple[str, ...]:
    selection, fit = model.section("selection"), model.section("fit")
    considered = len(selection.rows("considered"))
    known = [row for row in fit.rows("coefficients") if row.number("coef_per_sd")]
    largest = sorted(known, key=lambda row: -abs(row.number("coef_per_sd") or 0.0))[:MOST_NAMED]
    told = ", ".join(f"{row.text('feature')} {say.fixed(row.number('coef_per_sd'), 2)}" for row in largest)
    return (
        _title(model),
        "; ".join(model.texts("groups")),
        say.whole(considered or len(selection.texts("selected"))),
        say.whole(len(selection.texts("selected"))),
        say.whole(fit.count("components")),
        say.whole(fit.count("nonzero")),
        told or "none",
    )


def shap_blocks(results: Reader) -> tuple[Block, ...]:
    """Mean |SHAP| by feature of the chosen models and by group of all ('models': explanation)."""
    explained = [model for model in _models(results) if model.section("explanation")]
    if not explained:
        return (not_shown("The results hold no importances: there are no test patients to explain."),)
    chosen = {model.text("name") for model in best_of_tables(results)}
    charts = [_bars(place, model) for place, model in enumerate(explained) if model.text("name") in chosen]
    rows = tuple(
        (_title(model), group.text("group") or "unnamed", say.fixed(group.number("mean_absolute")), _top(model))
        for model in explained
        for group in model.section("explanation").rows("groups")
    )
    columns = (Column("Model", False), Column("Group", False), Column("Mean |SHAP|"), Column("Most important", False))
    table = Table("Importance of each group", columns, rows, folded=len(rows) > LONG, sortable=True)
    basis = (
        "SHAP values of a linear score are exact: coefficient times distance from the training mean. Means of their "
        "absolute values over the test patients, added over sites; a group's is that of the sum of its features. "
        "(+): higher values mean a higher risk. Values of single patients stay at their site."
    )
    shown = [chart for chart in charts if chart is not None]
    return (*([Prose((CHOICE,))] if shown else []), *shown, table, Prose((basis,), "basis"))


def _used(model: Reader) -> list[Reader]:
    rows = model.section("explanation").rows("features")
    return sorted((row for row in rows if row.count("sign")), key=lambda row: -(row.number("mean_absolute") or 0.0))


def _named(row: Reader) -> str:
    return f"{row.text('feature')} {'(+)' if (row.count('sign') or 0) > 0 else '(−)'}"


def _top(model: Reader) -> str:
    return ", ".join(_named(row) for row in _used(model)[:MOST_NAMED]) or "none"


def _bars(place: int, model: Reader) -> Chart | None:
    used = _used(model)
    if not used:
        return None
    shown = used[:MOST_BARS]
    bars = [(_named(row), row.number("mean_absolute") or 0.0) for row in shown]
    about = f"Table {model.text('table')}, {_title(model)}"
    rows = tuple((_named(row), say.fixed(row.number("mean_absolute")), say.fixed(row.number("mean"))) for row in used)
    columns = (Column("Feature", False), Column("Mean |SHAP|"), Column("Mean SHAP"))
    table = Table(f"Importances of {about}", columns, rows)
    alt = f"Bars of the {len(shown)} most important of {len(used)} features; the first is {bars[0][0]}."
    svg = bars_plot(f"shap-{place}", f"Importances: {about}", alt, bars, "mean |SHAP| (log hazard)")
    return Chart(svg, f"{about}: the most important features.", table)


def ensemble_blocks(results: Reader) -> tuple[Block, ...]:
    """Which models the ensembles are made of ('models' of the kind 'ensemble')."""
    ensembles = [model for model in results.rows("models") if model.text("kind") == "ensemble"]
    if not ensembles:
        return (not_shown("The study has no ensembles."),)
    singles = {_title(model): model for model in _models(results)}
    rows = tuple(
        (
            _title(one),
            "; ".join(one.texts("members")),
            of(one.section("c_within"), "value", "lower", "upper"),
            _best_member(one, singles),
        )
        for one in ensembles
    )
    columns = (Column("Ensemble", False), Column("Members", False), Column("C within sites"), Column("best member's"))
    basis = (
        "The score of an ensemble is the mean of its members' scores, each standardised by its mean and standard "
        "deviation over the training patients of all sites."
    )
    return (Table("Ensembles", columns, rows), Prose((basis,), "basis"))


def _best_member(ensemble: Reader, singles: Mapping[str, Reader]) -> str:
    values = [singles[name].section("c_within").number("value") for name in ensemble.texts("members")]
    known = [value for value in values if value is not None]
    return say.fixed(max(known) if known else None)


def harmonization_blocks(results: Reader) -> tuple[Block, ...]:
    """How features were harmonized, and what the models' preparation had to say ('study', 'models': warnings)."""
    chosen = results.section("study").section("harmonization")
    models = _models(results)
    combat = [model for model in models if model.texts("combat")]
    items: list[tuple[str, str | tuple[str, ...]]] = [
        ("Models with ComBat", f"{len(combat)} of {len(models)}"),
        ("Prior", chosen.text("prior") or say.MISSING),
        ("Location only", {True: "yes", False: "no: location and scale", None: say.MISSING}[chosen.flag("mean_only")]),
        ("Reference site", chosen.text("reference") or "none: all sites move to their common mean"),
        ("Fewest rows of a batch", say.whole(chosen.count("minimum"))),
        ("Sites that were not in training", chosen.text("unseen") or say.MISSING),
    ]
    blocks: list[Block] = [Definitions(tuple(items))]
    if results.rows("harmonized"):
        blocks.append(_harmonized(results.rows("harmonized")))
    told: dict[str, list[str]] = {}
    for model in models:
        for sentence in model.texts("warnings"):
            told.setdefault(sentence, []).append(_title(model))
    if told:
        rows = tuple((sentence, say.listed(names)) for sentence, names in told.items())
        blocks.append(Table("Notes on the preparation", (Column("Note", False), Column("Models", False)), rows))
    basis = (
        "Batches are sites. Parameters are estimated from totals over the training patients, of each training fold "
        "anew, and applied unchanged to held-out and test patients of the same site. RKN is applied to the images, "
        "where the features are made, and not here."
    )
    return (*blocks, Prose((basis,), "basis"))


def _harmonized(found: Sequence[Reader]) -> Table:
    """What ComBat did to each group on all its training rows ('harmonized')."""
    names = ("Batches", "Patients", "Batches (patients) left out", "Harmonized", "Passed unchanged")
    columns = (Column("Group", False), *map(Column, names), Column("Variance between batches: median"), Column("90 %"))
    rows = tuple(
        (
            " ".join(filter(None, (row.text("group") or "unnamed", f"({s})" if (s := row.text("subgroup")) else ""))),
            say.whole(row.count("batches")),
            say.whole(row.count("rows")),
            f"{say.whole(row.count('batches_left_out'))} ({say.whole(row.count('rows_left_out'))})",
            say.whole(row.count("features")),
            say.whole(len(row.texts("passed"))),
            say.fixed(row.number("between_median")),
            say.fixed(row.number("between_p90")),
        )
        for row in found
    )
    note = (
        "Of all training patients. Variance between batches: share of a feature's variance before ComBat, median and "
        "90th percentile over the harmonized features; a dash where batches were left out of the fit."
    )
    return Table("What ComBat did to each group", columns, rows, note)
