"""combat: distributed ComBat from sums, equal to the pooled ComBat of R's sva on the same batches.

Without a reference batch one round is enough, and the server learns totals alone: empirical Bayes happens at the
sites. With one, a second round asks that batch's own moments, which its site must have agreed to publish. Batches that
several sites share take two rounds before: who shares them, and their means.

Sums of squares are carried at the scale of the columns' declared magnitudes, which is exact for a spread down to about
2**-12 of the magnitude. Features that vary less (or whose declared magnitude is far too large) are noticed, and the
sums are asked once more at the scale of the spread; standardised columns never need that.

References: Johnson, Li & Rabinovic 2007, Biostatistics 8:118; Chen et al. 2022, Human Brain Mapping 43:1179
(distributed ComBat; the sums here are fewer, and no site's own statistic is among them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import BoolArray, FloatArray, frozen
from ctfed.federation.errors import CtfedError
from ctfed.federation.summary import Total
from ctfed.federation.view import View
from ctfed.statistics.combat.moments import CombatMoments, Covariate
from ctfed.statistics.combat.named import CombatMeans, CombatReference, CombatSizes
from ctfed.statistics.combat.solve import Blocks, coefficients, column_names, finer, mean_error
from ctfed.statistics.combat.transform import Combat
from ctfed.statistics.describe import Fitted

EXPLAINED = 1e-12  # residual variance below this part of the variance within batches is rounding
FEWEST_SITES = 3  # that share a batch, for its totals to be told
FEWEST_CARRIERS = 5  # of a level, below which a warning asks to merge it
INACCURATE = 1e-9  # error of a mean, in standard deviations, from which on a warning names the feature
UNUSABLE = 1e-4  # the same, from which on there is no result
NAMED = 5  # features that a warning lists


@dataclass(frozen=True)
class CombatOptions:
    """How to harmonize.

    Attributes:
        prior: 'parametric' (default), 'nonparametric' or 'none'.
        mean_only: adjust the location alone; with a prior this shrinks a large site's shift almost not less than a
            small one's (weight t2 / (t2 + 1), whatever n), so most of it can stay: a warning says so.
        reference: label of the batch that stays as it is; '' for none.
        minimum: batches with fewer rows add nothing to the fit; 2 to 30.
        unseen: what happens to them, 'identity' or 'local' (see Combat).
        shared: labels of the batches that at least three sites share. Any other label means a batch of its own at each
            site that has it.
    """

    prior: str = "parametric"
    mean_only: bool = False
    reference: str = ""
    minimum: int = 10
    unseen: str = "identity"
    shared: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Harmonized(Fitted):
    """The harmonized view, and what it rests on.

    Attributes:
        before: the view that was harmonized.
        transform: the fitted step.
        rows, batches: that took part.
        rows_left_out, batches_left_out: of batches below the minimum.
        mean: (p,) of the harmonized features over all rows, where each batch's raw location is taken away.
        variance: (p,) variance within batches of each feature, over all rows, before harmonization.
    """

    before: View
    transform: Combat
    rows: int
    batches: int
    rows_left_out: int
    batches_left_out: int
    mean: FloatArray
    variance: FloatArray


def combat(
    view: View,
    features: Sequence[str] | None = None,
    covariates: Sequence[Covariate] = (),
    options: CombatOptions | None = None,
    *,
    outcome: Sequence[str] = (),
    exponents: Sequence[int] = (),
) -> Algorithm[Harmonized]:
    """Fit on the rows of ``view``: one round, or more in the cases that this module's text names.

    Args:
        view: complete columns.
        features: names of the columns to harmonize; default all that are not covariates.
        covariates: whose effect is kept. Never the outcome. A study merges levels that few patients carry before.
        options: see CombatOptions.
        outcome: names of columns that carry the outcome, which neither a covariate nor a feature may be.
        exponents: (p,) power of two that each feature's spread within a batch is about, where it is known from earlier
            moments; a site whose sums are 2**18 times larger refuses. Default: the columns' declared magnitudes.

    Raises:
        CtfedError: when a column carries the outcome, the covariates are collinear within batches, no batch is large
            enough, the reference batch is missing, a shared batch is held by fewer than three sites, or a declared
            magnitude is so far above the spread (2**58 times) that nothing can be said.
    """
    chosen = options or CombatOptions()
    named = {covariate.name for covariate in covariates}
    names = tuple(features) if features is not None else tuple(name for name in view.names if name not in named)
    _check_outcome(outcome, named, names)
    chosen, centres = yield from _shared_centres(view, names, tuple(covariates), chosen)
    asked = CombatMoments(view, names, tuple(covariates), chosen.minimum, (), chosen.shared, centres)
    if exponents:
        known = (*asked.magnitudes[: asked.width].tolist(), *exponents)
        asked = replace(asked, exponents=tuple(int(exponent) for exponent in known))
    total: Total = yield asked
    if scales := finer(total, asked):
        asked = replace(asked, exponents=scales)
        total = yield asked
    blocks = Blocks.of(total, asked)
    if blocks.n.sum() == 0:
        raise CtfedError(f"no batch at any site has the {chosen.minimum} rows that ComBat's fit needs")
    beta = coefficients(blocks, asked.covariates)
    reference = yield from _reference(asked, chosen, blocks)
    return _harmonized(asked, chosen, total, blocks, beta, reference)


def _check_outcome(outcome: Sequence[str], covariates: set[str], features: Sequence[str]) -> None:
    for name in outcome:
        if name in covariates:
            raise CtfedError(
                f"ComBat's covariate {name!r} carries the outcome: harmonizing by it would leak the outcome into the "
                "features; leave it out"
            )
        if name in features:
            raise CtfedError(f"column {name!r} carries the outcome and cannot be harmonized; leave it out")


def _shared_centres(
    view: View, names: tuple[str, ...], covariates: tuple[Covariate, ...], options: CombatOptions
) -> Algorithm[tuple[CombatOptions, FloatArray | None]]:
    """The options with the shared batches that are large enough, and their (shared, q + p) means: in two rounds.

    How many sites share a batch is asked first, so that nothing but that is learned where they are too few.
    """
    if not options.shared:
        return options, None
    sizes: Total = yield CombatSizes(view, options.shared, options.minimum)
    for label, count in zip(("", *options.shared), sizes["sites"], strict=True):
        if 0 < count < FEWEST_SITES or (label and count == 0):
            what = f"batch {label!r} is" if label else "the batches that are not shared are"
            raise CtfedError(
                f"{what} held by {_counted(round(float(count)), 'site')}; beside shared batches totals are told from "
                f"{FEWEST_SITES} sites on, otherwise they would be those of one site"
            )
    rows = sizes["rows"][1:]
    large = tuple(label for label, n in zip(options.shared, rows, strict=True) if n >= options.minimum)
    if not large:
        raise CtfedError(
            f"none of the shared batches has the {options.minimum} rows over all sites that ComBat's fit needs"
        )
    total: Total = yield CombatMeans(view, names, covariates, large)
    return replace(options, shared=large), frozen(total["sum"] / total["n"][:, None])


def _reference(asked: CombatMoments, options: CombatOptions, blocks: Blocks) -> Algorithm[Blocks | None]:
    """The reference batch by itself, if there is one; in one round unless it is shared.

    Raises:
        CtfedError: when it is missing, too small, or held by several sites without being shared.
    """
    if not options.reference:
        return None
    if options.reference in options.shared:
        return blocks.one(1 + options.shared.index(options.reference))
    question = CombatReference(
        asked.view, asked.features, asked.covariates, options.reference, options.minimum, asked.exponents
    )
    own: Total = yield question
    held = round(float(own["batches"][0]))
    if held == 0:
        raise CtfedError(
            f"no site has a reference batch {options.reference!r} of at least {options.minimum} rows of the fit"
        )
    if held > 1:
        raise CtfedError(
            f"the reference batch {options.reference!r} is held by {held} sites; a reference is one site's, or a batch "
            "that is declared as shared"
        )
    return Blocks.of(own, replace(asked, shared=(), centres=None))


def _harmonized(
    asked: CombatMoments,
    options: CombatOptions,
    total: Total,
    blocks: Blocks,
    beta: FloatArray,
    reference: Blocks | None,
) -> Harmonized:
    basis = blocks if reference is None else reference
    alpha, variance = basis.intercept(beta), basis.residual(beta) / basis.n.sum()
    within = blocks.syy.sum(axis=0) / blocks.n.sum()
    explained = variance <= EXPLAINED * np.maximum(within, basis.syy.sum(axis=0) / basis.n.sum())
    passed = np.asarray((blocks.flat > 0) | explained)
    sigma = np.sqrt(np.where(passed, 1.0, variance))
    transform = Combat(
        names=asked.features,
        covariates=asked.covariates,
        beta=frozen(beta),
        alpha=frozen(alpha),
        sigma=frozen(sigma),
        degenerate=_chosen(asked.features, passed),
        rows=asked.view.selection,
        prior=options.prior,
        mean_only=options.mean_only,
        reference=options.reference,
        minimum=options.minimum,
        unseen=options.unseen,
    )
    if asked.shared:
        transform = _with_shared(transform, blocks, asked.shared)
    return Harmonized(
        view=asked.view.then(transform),
        warnings=_warnings(options, asked, total, transform, mean_error(total, asked) / sigma),
        before=asked.view,
        transform=transform,
        rows=round(float(blocks.n.sum())),
        batches=_count(blocks),
        rows_left_out=round(float(total["left_out"][0])),
        batches_left_out=round(float(total["left_out"][1])),
        mean=frozen(alpha + (blocks.x.sum(axis=0) / blocks.n.sum()) @ beta),
        variance=frozen(within),
    )


def _count(blocks: Blocks) -> int:
    """Batches in the fit; a shared one counts once."""
    return int(blocks.batches[0]) + int((blocks.n[1:] > 0).sum())


def _with_shared(transform: Combat, blocks: Blocks, labels: tuple[str, ...]) -> Combat:
    """The step with the rows, raw locations and residual sums of squares of the shared batches, standardised."""
    beta, sigma = transform.beta, transform.sigma
    single = [blocks.one(1 + index) for index in range(len(labels))]
    return replace(
        transform,
        shared=labels,
        shared_rows=frozen(blocks.n[1:]),
        shared_gamma=frozen([(one.intercept(beta) - transform.alpha) / sigma for one in single]),
        shared_rss=frozen([one.residual(beta) / sigma**2 for one in single]),
    )


def _chosen(names: Sequence[str], which: BoolArray) -> tuple[str, ...]:
    return tuple(name for name, chosen in zip(names, which, strict=True) if chosen)


def _counted(number: int, what: str) -> str:
    plural = "es" if what.endswith("ch") else "s"
    return f"{number} {what}" if number == 1 else f"{number} {what}{plural}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _warnings(
    options: CombatOptions, asked: CombatMoments, total: Total, transform: Combat, error: FloatArray
) -> tuple[str, ...]:
    found = []
    if transform.degenerate:
        found.append(
            "not harmonized, because constant within some batch or explained by the covariates: "
            + _listed(transform.degenerate)
        )
    found += _inaccurate(asked, error)
    found += _few_carriers(asked, total)
    if options.mean_only and options.prior == "parametric":
        found.append(
            "mean_only with a parametric prior shrinks a batch's shift by t2 / (t2 + 1) whatever its size, so most of "
            "a shift can stay; prior 'none' takes all of it away"
        )
    rows, batches = (round(float(count)) for count in total["left_out"])
    if batches:
        what = f"{_counted(rows, 'row')} in {_counted(batches, 'batch')} of fewer than {options.minimum} rows"
        found.append(f"{what} took no part in the fit")
    if int(total["batches"][0]) + len(asked.shared) < 2:
        found.append("a single batch took part in the fit: there is no difference between batches to take away")
    return tuple(found)


def _inaccurate(asked: CombatMoments, error: FloatArray) -> list[str]:
    """Features whose location fixed point has made inaccurate; ``error`` (p,) is in standard deviations.

    Raises:
        CtfedError: when nothing is left of it.
    """
    if error.max() <= INACCURATE:
        return []
    sentence = (
        f"the declared magnitude is so far above the spread that the location is known to {error.max():.0e} standard "
        "deviations only; declare a smaller magnitude, or standardise before: "
        + _listed(_chosen(asked.features, np.asarray(error > INACCURATE)))
    )
    if error.max() > UNUSABLE:
        raise CtfedError(f"ComBat has no result, because {sentence}")
    return [sentence]


def _few_carriers(asked: CombatMoments, total: Total) -> list[str]:
    """Levels that so few patients of all batches carry that the sums speak of these patients."""
    categorical = [bool(covariate.levels) for covariate in asked.covariates for _ in range(covariate.width)]
    counts = total["x"].sum(axis=0)
    return [
        f"ComBat's covariate {name} is carried by {round(float(count))} patients of the fit; merge it with another"
        for name, level, count in zip(column_names(asked.covariates), categorical, counts, strict=True)
        if level and 0 < count < FEWEST_CARRIERS
    ]
