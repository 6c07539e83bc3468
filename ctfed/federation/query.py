"""Query: a question that every site answers with a Summary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from ctfed.federation.arrays import FloatArray
from ctfed.federation.cohort import Cohort
from ctfed.federation.summary import Layout, Summary
from ctfed.federation.view import View


@dataclass(frozen=True, eq=False)
class Exposure:
    """What the total of a query tells, in the terms that a site's gate judges.

    Attributes:
        parameters: coefficients that are estimated together; judged against the number of patients.
        cells: cells of the largest single table of counts; judged against the number of patients.
        cuts: name of a column -> thresholds at which its cumulative counts are told.
        times: inner edges of time bins, in the study's time unit.
        points: names of the coefficient vectors, with their time bins, at which sums of risk over time are told.
        means: those of them at which the risk-weighted columns of each bin are told as well.
        weighed: those at which the server's own hazards weigh the patients.
        apart: whether these sums tell the dying of a bin from its censored.
        publishes: label of the batch whose own moments the total is, '' where it is a sum over batches.
        plain: whether the table is told by its bins and thresholds alone; False where weights or sets of models make
            another table of the same bins.
    """

    parameters: int = 0
    cells: int = 0
    cuts: Mapping[str, FloatArray] = field(default_factory=dict)
    times: FloatArray | None = None
    points: tuple[str, ...] = ()
    means: tuple[str, ...] = ()
    weighed: tuple[str, ...] = ()
    apart: bool = False
    plain: bool = True
    publishes: str = ""


class Query(ABC):
    """A registered frozen dataclass that carries everything a site needs to answer it.

    A subclass checks its own fields in ``__post_init__`` (ValueError in words), declares its ``layout`` and its
    ``exposure`` from its fields alone, and says in its docstring the formula and what its total discloses.

    Attributes:
        view: the rows and columns it is about.
    """

    _wire_name: ClassVar[str]
    view: View

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """Names, shapes and scales of the answer; the same at every site, known without data."""

    @property
    def exposure(self) -> Exposure | None:
        """What its total tells; a gate refuses a query that does not say (None)."""
        return None

    @property
    def sensitivity(self) -> float | None:
        """L2 distance by which one patient can move the total; None where it is not bounded or not stated."""
        return None

    @abstractmethod
    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums. Called inside the site; must not keep or change anything but caches."""

    @property
    def kind(self) -> str:
        """The registered name, as shown in plans, ledgers and reports."""
        return self._wire_name
