"""Query: a question that every site answers with a Summary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ctfed.federation.cohort import Cohort
from ctfed.federation.summary import Layout, Summary


class Query(ABC):
    """A registered frozen dataclass that carries everything a site needs to answer it.

    A subclass checks its own fields in ``__post_init__`` (ValueError in words), declares its ``layout`` from its
    fields alone, and says in its docstring the formula and what its total discloses.
    """

    _wire_name: ClassVar[str]

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """Names, shapes and scales of the answer; the same at every site, known without data."""

    @abstractmethod
    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums. Called inside the site; must not keep or change anything but caches."""

    @property
    def kind(self) -> str:
        """The registered name, as shown in plans, ledgers and reports."""
        return self._wire_name
