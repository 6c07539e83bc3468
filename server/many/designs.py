"""Which columns a model is made of, on each of its row sets: groups beside each other, selected, with components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ctfed.federation.algorithm import Algorithm, gather
from ctfed.federation.census import MISSING
from ctfed.federation.errors import CtfedError
from ctfed.federation.nominal import column_of
from ctfed.federation.view import RowFilter, View
from ctfed.statistics.select import Filters, Select, Selection, select, stable_selection
from ctfed.study import Study
from ctfed.study_models import ModelSpec
from server.many.features import PreparedGroup, Variant


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model's columns on some rows.

    Attributes:
        view: all of them, groups beside each other.
        names: those that are selected, without components.
        components: of its projected group, by falling variance; () without one.
    """

    view: View
    names: tuple[str, ...]
    components: tuple[str, ...]

    def columns(self, components: int) -> View:
        """The selected columns and the first components."""
        return self.view.then(Select((*self.names, *self.components[:components])))


@dataclass(frozen=True, eq=False)
class Design:
    """A model before its penalty is known.

    Attributes:
        name, spec: in the study.
        whole: on all its training rows, with the stable selection.
        folds: on the rows outside each fold, each with its own selection.
        choices: numbers of components among which the search chooses; (0,) without a projection.
        chosen: for every column that was considered, in how many folds it was selected; empty without a selection.
        warnings: sentences for the reader.
    """

    name: str
    spec: ModelSpec
    whole: Candidate
    folds: tuple[Candidate, ...]
    choices: tuple[int, ...]
    chosen: Mapping[str, int]
    warnings: tuple[str, ...]


def variants_of(spec: ModelSpec) -> list[Variant]:
    """The groups of a model, as it uses them."""
    rows: tuple[RowFilter, ...] = () if spec.subgroup is None else (spec.subgroup.rule,)
    return [Variant(group, group in spec.combat, rows) for group in spec.groups]


def design(
    study: Study, name: str, spec: ModelSpec, prepared: Mapping[Variant, list[PreparedGroup]]
) -> Algorithm[Design]:
    """Select a model's columns in all its folds; in two rounds, or none where nothing is to be selected.

    Raises:
        CtfedError: when no column is left.
    """
    parts = [prepared[variant] for variant in variants_of(spec)]
    candidates = [_candidate(spec, [part[k] for part in parts]) for k in range(study.folds + 1)]
    whole, *folds = candidates
    projections = [study.groups[group].projection for group in spec.groups]
    choices = next((one.components for one in projections if one is not None), (0,))
    warnings = tuple(dict.fromkeys(line for part in parts for line in part[0].warnings))
    chosen: Mapping[str, int] = {}
    if _selects(study, spec):
        filters = Filters(threshold=study.selection.single if len(spec.groups) == 1 else study.selection.combined)
        found: list[Selection] = yield from gather(
            *[select(one.view.then(Select(one.names)), filters) for one in folds]
        )
        stable = stable_selection(found, study.selection.share)
        folds = [Candidate(one.view, s.names, one.components) for one, s in zip(folds, found, strict=True)]
        names = tuple(name for name in stable.names if name in whole.names)
        whole, chosen = Candidate(whole.view, names, whole.components), stable.chosen
    for one in (whole, *folds):
        if not one.names and not one.components:
            raise CtfedError(f"model {name!r}: no column is left after selection; raise selection.{_key(spec)}")
    return Design(name, spec, whole, tuple(folds), choices, chosen, warnings)


def _key(spec: ModelSpec) -> str:
    return "single" if len(spec.groups) == 1 else "combined"


def _selects(study: Study, spec: ModelSpec) -> bool:
    """Whether a model has features of images that may say the same."""
    groups = [study.groups[name] for name in spec.groups]
    images = [g for name, g in zip(spec.groups, groups, strict=True) if not g.clinical and g.projection is None]
    return any(len(list(group.sized())) > 1 for group in images) or (bool(images) and len(groups) > 1)


def _candidate(spec: ModelSpec, groups: list[PreparedGroup]) -> Candidate:
    view = View.joined([group.view for group in groups])
    components = tuple(name for group in groups for name in group.components)
    dropped = {*components, *(name for group in groups for name in group.flat)}
    dropped |= {*spec.without, *(f"{name}{MISSING}" for name in spec.without)}
    dropped |= {name for name in view.names if column_of(name) in spec.without}
    return Candidate(view, tuple(name for name in view.names if name not in dropped), components)
