"""What a study asks of a site, stage by stage, and what the total of each question tells: for whoever approves it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ctfed.study import Study

TABLE_ONE = ("counts", "level-counts", "moments", "section-counts")

# Kind of query -> what the total over all contributing sites tells whoever reads it.
QUESTIONS: Mapping[str, str] = {
    "counts": "how many patients and events there are, and how many patients have a value in each column",
    "level-counts": "how many patients are at each level of the categorical columns",
    "counts-below": "how many patients have a value up to a threshold; asked repeatedly, it closes in on a median",
    "moments": "the mean and the variance of each column or of a model's score, and the numbers of patients and events",
    "cox-derivatives": (
        "how well trial coefficients fit the partial likelihood with a baseline hazard for each site, and in which "
        "direction they improve it; no event time leaves a site"
    ),
    "cox-score-products": "one matrix from which the fitted coefficients get robust standard errors",
    "risk-set-sums": (
        "for each time bin, the summed risk exp(x beta) of the patients who leave in it, and the number of deaths"
    ),
    "pooled-gradient": "how trial coefficients improve the fit with one baseline hazard for all sites",
    "time-counts": "how many patients leave in each time bin with the event, and how many without it",
    "within-site-pairs": "in how many pairs of patients of the same site the one who died first had the higher score",
    "scores-below": "how many patients have a score up to a threshold; asked repeatedly, it closes in on quantiles",
    "evaluation-table": (
        "how many patients leave in each time bin, by bin of the score and with or without the event; bins are merged "
        "beforehand so that their cells hold enough patients"
    ),
    "group-counts": "how many patients of the low and of the high risk group leave in each merged time bin",
    "stratified-log-rank": "three sums that test whether the risk groups differ, taken inside each site",
    # Of a study of many models:
    "section-counts": "how many patients have a value in each of several ranges of a column, for medians and tests",
    "combat-moments": (
        "sums over all sites from which the common mean and variance of the features follow, and how far sites lie "
        "apart; a site works out its own correction itself"
    ),
    "combat-reference": "the means and variances of the features at the one site that the study names as reference",
    "covariance-products": (
        "products of the features' covariance matrix with a few directions, from which principal components follow"
    ),
    "cross-moments": "how the features correlate, so that of two that say the same one is left out",
    "horizon-losses": (
        "the mean predicted risk and the mean squared error of each model at each horizon, and how many died before it"
    ),
    "binned-risks": "how many patients have a score in each bin, and their mean predicted risk",
    "recalibration-derivatives": (
        "in which direction a slope and an intercept of the predicted risks improve; two numbers for each model"
    ),
    "survival-deciles": "how evenly the predicted survival at the patients' own times spreads over equal bins",
    "decision-sums": "how many patients have a risk above a threshold, and how many of them died before the horizon",
    "agreement-counts": (
        "how many patients the models call alike, and how many of these calls are right, at each horizon"
    ),
    "absolute-deviations": (
        "how far the features lie from their mean on average; with the coefficients, what moves the models' scores"
    ),
}

# Step -> what a site computes on its own rows with numbers that the server sends. Nothing of it is an answer.
STEPS: Mapping[str, str] = {
    "impute": "missing values get the federation's median, mode or mean",
    "indicators": "a variable of several levels becomes columns of 0 and 1, one for each level but its reference",
    "standardise": "each column less the federation's mean, over its standard deviation",
    "combat": "each feature is moved and stretched by this site's own correction",
    "select": "columns that say what another says are left out",
    "project": "many features become a few principal components",
    "random-projection": "many features become a few by public random directions",
    "linear-predictor": "a model's score: its coefficients times the columns",
    "ensemble": "the mean of several models' standardised scores",
    "threshold-group": "whether a score lies above a threshold",
}


_RARE = "that too few patients have or lack"
_RARE_LEVELS = f"{_RARE}, and levels at which too few are"


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    Attributes:
        title: what the step is for.
        rows: whose rows it is about.
        kinds: the queries that it asks.
    """

    title: str
    rows: str
    kinds: tuple[str, ...]


def stages(study: Study) -> tuple[Stage, ...]:
    """What a study asks, in the order in which it does.

    The kinds of query are those of ``server.study_algorithm``, or of ``server.many`` for a study of many models.
    """
    return _many(study) if study.model is None else _single(study)


def _single(study: Study) -> tuple[Stage, ...]:
    tuning, model = study.tuning, study.single
    methods = {study.variables[name].impute for name in model.features}
    rare = _RARE_LEVELS if study.nominal else _RARE
    fitted = "training patients" + (f", and those outside each of {tuning.folds} folds" if tuning else "")
    pooled = ("time-counts", "risk-set-sums", "pooled-gradient")
    derivatives = ("cox-derivatives",) if model.risk_sets == "stratified" else pooled
    found = [
        Stage("sizes of the splits", "training patients, test patients", ("counts",)),
        Stage(f"features {rare}", fitted, ("counts", "level-counts")),
        Stage(
            "imputation of missing values",
            fitted,
            ("counts", "level-counts", *(("counts-below",) if "median" in methods else ())),
        ),
    ]
    if model.standardise:
        found.append(Stage("standardisation", fitted, ("moments",)))
    if tuning is not None:
        count = tuning.penalizers.count * len(tuning.l1_ratios)
        found += [
            Stage(f"choice of the penalty: fits of {count} penalties", fitted, ("cox-derivatives",)),
            Stage(
                "choice of the penalty: their scores", f"each of {tuning.folds} held-out folds", ("within-site-pairs",)
            ),
        ]
    title = "the model, and an unpenalised one beside it where events suffice"
    robust = ("cox-score-products",) if model.risk_sets == "stratified" else ()
    found += [
        Stage(title, "training patients", (*derivatives, *robust)),
        Stage("one baseline hazard", "training patients", ("time-counts", "risk-set-sums")),
        Stage("evaluation: concordance", "test patients", ("within-site-pairs",)),
        Stage(
            "evaluation: table of times and scores",
            "test patients",
            ("time-counts", "moments", "scores-below", "evaluation-table"),
        ),
        Stage("evaluation: the median score", "training patients", ("moments", "scores-below")),
        Stage("evaluation: curves by risk group", "test patients", ("time-counts", "group-counts", "cox-derivatives")),
    ]
    return tuple(found)


def kinds_of(study: Study) -> tuple[str, ...]:
    """All kinds of query that a study may ask, each once."""
    return tuple(dict.fromkeys(kind for stage in stages(study) for kind in stage.kinds))


def _many(study: Study) -> tuple[Stage, ...]:
    """Stages of a study of many models; all models share the rounds of a stage."""
    groups = [study.groups[group] for model in study.models.values() for group in model.groups]
    subgroups = ", of all patients and of the subgroups" if study.subgroups else ""
    fitted = f"training patients, and those outside each of {study.folds} folds{subgroups}"
    count, trials = len(study.models), 0 if study.search is None else study.search.trials
    rare = _RARE_LEVELS if study.nominal else _RARE
    found = [Stage(f"variables {rare}", fitted, ("counts", "level-counts"))]
    if any(group.clinical for group in groups):
        medians = {study.variables[name].impute for group in groups for name in group.variables or ()}
        halved = ("counts-below",) if "median" in medians else ()
        kinds = ("counts", "level-counts", *halved)
        found.append(Stage("imputation of clinical variables", fitted, kinds))
    found.append(Stage("characteristics of the patients", "training patients, test patients", TABLE_ONE))
    found.append(Stage("imputation and standardisation of features", fitted, ("moments",)))
    if any(model.combat for model in study.models.values()):
        reference = () if study.harmonization.reference is None else ("combat-reference",)
        found.append(Stage("harmonization between sites (ComBat)", fitted, ("combat-moments", *reference, "moments")))
    if any(group.projection is not None and group.projection.method == "pca" for group in groups):
        found.append(Stage("principal components of groups of features", fitted, ("covariance-products", "moments")))
    if any(not group.clinical and group.projection is None for group in groups):
        found.append(Stage("selection of features", fitted, ("cross-moments",)))
    found += [
        Stage(f"search: fits of {count} models, {trials} trials each", fitted, ("cox-derivatives",)),
        Stage("search: their scores", f"each of {study.folds} held-out folds", ("within-site-pairs",)),
        Stage(f"the {count} models", f"training patients{subgroups}", ("counts", "cox-derivatives")),
        Stage("what moves their scores", "test patients", ("absolute-deviations",)),
    ]
    return (*found, *_many_evaluated(study))


def _many_evaluated(study: Study) -> Iterator[Stage]:
    if study.ensembles:
        yield Stage(f"{len(study.ensembles)} ensembles", "training patients", ("moments",))
    yield Stage("one baseline hazard of each score", "training patients", ("time-counts", "risk-set-sums"))
    yield Stage("evaluation: concordance and differences", "test patients", ("within-site-pairs",))
    tables = ("time-counts", "moments", "scores-below", "evaluation-table")
    yield Stage("evaluation: tables of times and scores", "test patients", tables)
    yield Stage("evaluation: the median scores", "training patients", ("moments", "scores-below"))
    curves = ("time-counts", "group-counts", "cox-derivatives")
    yield Stage("evaluation: curves by risk group", "test patients", curves)
    risks = ("time-counts", "horizon-losses", "recalibration-derivatives", "survival-deciles", "binned-risks")
    yield Stage("evaluation: predicted risks", "test patients", risks)
    yield Stage("evaluation: net benefit", "test patients", ("decision-sums",))
    if study.consensus is not None:
        thresholds = ("moments", "scores-below", "evaluation-table")
        yield Stage("consensus: a threshold for each model and horizon", "training patients", thresholds)
        yield Stage("consensus: who is called alike", "test patients", ("moments", "scores-below", "agreement-counts"))
