"""Combat: the fitted harmonization. Global parameters travel; what is a batch's own is worked out where it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray
from ctfed.federation.codec import register
from ctfed.federation.view import Feature, LocalTransform, Rows, Table
from ctfed.statistics.combat.bayes import PRIORS, Raw, Shrunken, shrink
from ctfed.statistics.combat.moments import BatchMoments, Covariate, batches_of, design

UNSEEN = ("identity", "local")


@register("combat")
@dataclass(frozen=True, eq=False)
class Combat(LocalTransform):
    """y* = sigma (z - gamma_star) / sqrt(delta_star) + alpha + x beta with z = (y - alpha - x beta) / sigma.

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
        minimum: fewest rows from which a batch's own parameters are taken.
        unseen: batches with fewer rows of the fit stay as they are ('identity'), or are adjusted from whatever rows
            they have, if these are two or more ('local').
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
        p, q = len(self.names), sum(covariate.width for covariate in self.covariates)
        if self.beta.shape != (q, p) or self.alpha.shape != (p,) or self.sigma.shape != (p,):
            raise ValueError(f"ComBat of {p} features and {q} covariate columns has parameters of other shapes")
        if not (self.sigma > 0).all():
            raise ValueError("ComBat's sigma must be > 0")
        if self.prior not in PRIORS or self.unseen not in UNSEEN:
            raise ValueError(f"prior must be one of {PRIORS}, unseen one of {UNSEEN}")
        if not set(self.degenerate) <= set(self.names):
            raise ValueError("a degenerate column is not among the names")
        if self.minimum < 2:
            raise ValueError("the fewest rows of a batch must be >= 2")
        for values, shape in (
            (self.shared_rows, (len(self.shared),)),
            (self.shared_gamma, (len(self.shared), p)),
            (self.shared_rss, (len(self.shared), p)),
        ):
            if self.shared and (values is None or values.shape != shape):
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
        names = [feature.name for feature in features]
        unknown = [name for name in (*self.names, *(c.name for c in self.covariates)) if name not in names]
        if unknown:
            raise ValueError(f"ComBat was fitted on other columns: there is no {unknown[0]!r}")
        return features

    def apply_with(self, table: Table, fitted: Table) -> FloatArray:
        """(n, columns) with the harmonized columns in place."""
        values = table.values.copy()
        place = {feature.name: index for index, feature in enumerate(table.features)}
        columns = np.array([place[name] for name in self.names])
        x = design(table, self.covariates)
        own = batches_of(fitted, self.names, self.covariates)
        own_rows = batches_of(table, self.names, self.covariates)
        for label in own_rows:
            effect = self.effect(label, own, own_rows)
            if effect is None:
                continue
            rows = np.flatnonzero(table.batch == label)
            cells = np.ix_(rows, columns[self._adjusted])
            values[cells] = self._moved(table.values[cells], x[rows], effect)
        return values

    def effect(self, label: str, fitted: dict[str, BatchMoments], present: dict[str, BatchMoments]) -> Shrunken | None:
        """The effect of a batch on the adjusted columns; None for one that stays as it is.

        Args:
            label: the batch.
            fitted: this site's batches among the rows of the fit.
            present: its batches among the rows to be transformed.
        """
        if label == self.reference:
            return None
        if label in self.shared:
            return shrink(self._shared_raw(self.shared.index(label)), self.prior, self.mean_only)
        moments = fitted.get(label)
        if moments is None or moments.n < self.minimum:
            # Too few rows of the fit: the batch's own rows, whatever they are, or nothing.
            candidates = [one for one in (moments, present.get(label)) if one is not None]
            moments = max(candidates, key=lambda one: one.n, default=None)
            least = 2 if self.unseen == "local" else self.minimum
            if moments is None or moments.n < least:
                return None
        return shrink(self.raw(moments), self.prior, self.mean_only)

    def raw(self, moments: BatchMoments) -> Raw:
        """The raw effect of a batch on the adjusted columns."""
        gamma = (moments.intercept(self.beta) - self.alpha) / self.sigma
        rss = moments.residual(self.beta) / self.sigma**2
        return Raw(moments.n, gamma[self._adjusted], rss[self._adjusted])

    def _shared_raw(self, index: int) -> Raw:
        assert self.shared_rows is not None
        assert self.shared_gamma is not None
        assert self.shared_rss is not None
        chosen = self._adjusted
        return Raw(
            round(float(self.shared_rows[index])), self.shared_gamma[index][chosen], self.shared_rss[index][chosen]
        )

    def _moved(self, y: FloatArray, x: FloatArray, effect: Shrunken) -> FloatArray:
        chosen = self._adjusted
        expected = self.alpha[chosen] + x @ self.beta[:, chosen]
        sigma = self.sigma[chosen]
        z = (y - expected) / sigma
        return np.asarray(sigma * (z - effect.gamma_star) / np.sqrt(effect.delta_star) + expected)
