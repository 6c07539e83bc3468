"""Combat: the fitted harmonization. Global parameters travel; what is a batch's own is worked out where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray
from ctfed.federation.codec import register
from ctfed.federation.view import Feature, LocalTransform, Rows, Table
from ctfed.statistics.combat.bayes import PRIORS, Raw, Shrunken, shrink
from ctfed.statistics.combat.moments import BatchMoments, Covariate, batches_of, check_minimum, design, width_of

UNSEEN = ("identity", "local")


@dataclass(frozen=True, eq=False)
class Effect:
    """What a batch at a site loses; it stays there.

    Attributes:
        label: of the batch.
        rows: from which it was taken.
        fitted: whether these are rows of the fit.
        adjusted: (p,) the features that are adjusted.
        raw, shrunken: before and after empirical Bayes, of the adjusted features.
    """

    label: str
    rows: int
    fitted: bool
    adjusted: BoolArray
    raw: Raw
    shrunken: Shrunken


@register("combat")
@dataclass(frozen=True, eq=False)
class Combat(LocalTransform):
    """y* = sigma (z - gamma_star) / sqrt(delta_star) + alpha + x beta with z = (y - alpha - x beta) / sigma.

    Where gamma_star and delta_star of a batch come from:

    - the rows of the fit that its site holds, if these are at least ``minimum``: frozen, so that test rows and held-out
      folds are adjusted by them and change nothing;
    - else, for a site or scanner that the fit has hardly seen, the rows of the fit or the rows at hand, whichever are
      more, unlabelled, with alpha, beta and sigma as fitted. At least ``minimum`` of them are taken always; fewer, down
      to 2, when ``unseen`` is 'local'. Then a patient's values depend on who else is among the rows at hand;
    - else nothing, and the batch stays as it is. So does the reference batch.

    A feature that is constant among the rows from which an unseen batch is adjusted stays as it is there.

    Attributes:
        names: (p,) harmonized columns; all others pass unchanged.
        covariates: whose effect is kept; q columns of the design.
        beta: (q, p).
        alpha, sigma: (p,) pooled location and scale (those of the reference batch, if there is one).
        degenerate: columns among ``names`` that pass unchanged, because they do not vary within some batch.
        rows: on which it was fitted.
        prior: 'parametric', 'nonparametric' or 'none'.
        mean_only: adjust the location alone.
        reference: the batch that stays as it is, '' for none.
        minimum: fewest rows from which a batch's own parameters are taken, whatever ``unseen`` says.
        unseen: what happens to batches with fewer: they stay as they are ('identity'), or are adjusted ('local').
        shared: labels of the batches whose parameters come from several sites.
        shared_rows: (shared,) their rows; shared_gamma, shared_rss: (shared, p) their raw effects.
    """

    names: tuple[str, ...]
    covariates: tuple[Covariate, ...]
    beta: FloatArray
    alpha: FloatArray
    sigma: FloatArray
    degenerate: tuple[str, ...]
    rows: Rows
    prior: str = "parametric"
    mean_only: bool = False
    reference: str = ""
    minimum: int = 10
    unseen: str = "identity"
    shared: tuple[str, ...] = ()
    shared_rows: FloatArray | None = None
    shared_gamma: FloatArray | None = None
    shared_rss: FloatArray | None = None

    def __post_init__(self) -> None:
        p, q = len(self.names), width_of(self.covariates)
        if self.beta.shape != (q, p) or self.alpha.shape != (p,) or self.sigma.shape != (p,):
            raise ValueError(f"ComBat of {p} features and {q} covariate columns has parameters of other shapes")
        if not (self.sigma > 0).all():
            raise ValueError("ComBat's sigma must be > 0")
        if self.prior not in PRIORS or self.unseen not in UNSEEN:
            raise ValueError(f"prior must be one of {PRIORS}, unseen one of {UNSEEN}")
        if not set(self.degenerate) <= set(self.names):
            raise ValueError("a degenerate column is not among the names")
        check_minimum(self.minimum)
        for values, shape in (
            (self.shared_rows, (len(self.shared),)),
            (self.shared_gamma, (len(self.shared), p)),
            (self.shared_rss, (len(self.shared), p)),
        ):
            if self.shared and (values is None or values.shape != shape or not np.isfinite(values).all()):
                raise ValueError("the parameters of the shared batches have other shapes")

    @property
    def fitted_on(self) -> Rows:
        """The rows of the fit."""
        return self.rows

    @cached_property
    def _adjusted(self) -> BoolArray:
        """(p,) True for the columns that are harmonized."""
        return np.asarray(~np.isin(self.names, self.degenerate))

    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        """The same columns."""
        names = {feature.name for feature in features}
        unknown = [name for name in (*self.names, *(c.name for c in self.covariates)) if name not in names]
        if unknown:
            raise ValueError(f"ComBat was fitted on other columns: there is no {unknown[0]!r}")
        return features

    def apply_with(self, table: Table, fitted: Table) -> FloatArray:
        """(n, columns) with the harmonized columns in place.

        Raises:
            Refusal: rule 'missing-values' or 'unknown-level' when a row lacks a feature or a covariate.
        """
        values = table.values.copy()
        place = {feature.name: index for index, feature in enumerate(table.features)}
        columns = np.array([place[name] for name in self.names], dtype=np.int64)
        x = design(table, self.covariates)
        for effect in self.effects(table, fitted):
            rows = np.flatnonzero(table.batch == effect.label)
            cells = np.ix_(rows, columns[effect.adjusted])
            values[cells] = self._moved(table.values[cells], x[rows], effect)
        return values

    def effects(self, table: Table, fitted: Table) -> Iterator[Effect]:
        """The effect of each batch among the rows of ``table``, except those that stay as they are."""
        own = batches_of(fitted, self.names, self.covariates)
        at_hand = batches_of(table, self.names, self.covariates)
        for label in at_hand:
            effect = self._effect(label, own, at_hand)
            if effect is not None:
                yield effect

    def _effect(
        self, label: str, own: Mapping[str, BatchMoments], at_hand: Mapping[str, BatchMoments]
    ) -> Effect | None:
        if label == self.reference:
            return None
        if label in self.shared:
            return self._shrunken(label, self._shared_raw(self.shared.index(label)), True, self._adjusted)
        moments, fitted = own.get(label), True
        if moments is None or moments.n < self.minimum:
            if moments is None or moments.n < at_hand[label].n:
                moments, fitted = at_hand[label], False
            if moments.n < (2 if self.unseen == "local" else self.minimum):
                return None
        return self._shrunken(label, self.raw(moments), fitted, self._adjusted & ~moments.flat)

    def _shrunken(self, label: str, raw: Raw, fitted: bool, adjusted: BoolArray) -> Effect:
        chosen = Raw(raw.n, raw.gamma_hat[adjusted], raw.rss[adjusted])
        return Effect(label, raw.n, fitted, adjusted, chosen, shrink(chosen, self.prior, self.mean_only))

    def raw(self, moments: BatchMoments) -> Raw:
        """The raw effect of a batch on all p columns."""
        gamma = (moments.intercept(self.beta) - self.alpha) / self.sigma
        return Raw(moments.n, gamma, moments.residual(self.beta) / self.sigma**2)

    def _shared_raw(self, index: int) -> Raw:
        assert self.shared_rows is not None
        assert self.shared_gamma is not None
        assert self.shared_rss is not None
        return Raw(round(float(self.shared_rows[index])), self.shared_gamma[index], self.shared_rss[index])

    def _moved(self, y: FloatArray, x: FloatArray, effect: Effect) -> FloatArray:
        chosen, found = effect.adjusted, effect.shrunken
        expected = self.alpha[chosen] + x @ self.beta[:, chosen]
        sigma = self.sigma[chosen]
        z = (y - expected) / sigma
        return np.asarray(sigma * (z - found.gamma_star) / np.sqrt(found.delta_star) + expected)
