"""`ctfed study check` and `ctfed study plan`: what a study does, in words, and about how many rounds and bytes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from ctfed.approval_stages import stages
from ctfed.federation.errors import CtfedError
from ctfed.federation.pooled import Traffic, run_pooled
from ctfed.study import Study
from server.many.results import harmonization_of, subgroup_text, tables_of
from server.study_run import algorithm_of
from server.synthetic import shortened, synthetic_cohorts, with_effects

SEED = 0
BATCHES = 2  # of a search that are run; the others are taken to cost what the last of these costs


def described(study: Study) -> Iterator[str]:
    """The study in a few lines: its models, their groups, how they are tuned, and its SHA-256."""
    yield f"{study.name}: {study.title}"
    yield from _single(study) if study.model is not None else _many(study)
    yield from _nominal(study)
    yield f"  sha256    {study.sha256}"


def _single(study: Study) -> Iterator[str]:
    model = study.single
    how = f"{model.risk_sets} risk sets, {model.ties} ties, {model.updates} updates"
    yield f"  model     Cox, {how}; features: {', '.join(model.features)}"
    if study.tuning is not None:
        count = study.tuning.penalizers.count * len(study.tuning.l1_ratios)
        yield f"  tuning    {count} penalties in {study.tuning.folds}-fold cross-validation"


def _nominal(study: Study) -> Iterator[str]:
    for column in study.nominal:
        variable = study.variables[column.name]
        levels = ", ".join(variable.level_label(level) for level in column.levels if level != column.reference)
        yield f"  nominal   {column.name}: {levels}, against {variable.level_label(column.reference)}"


def _many(study: Study) -> Iterator[str]:
    for name, group in study.groups.items():
        columns = len(study.names_of(name))
        projected = ""
        if group.projection is not None:
            choices = ", ".join(map(str, group.projection.components))
            projected = f", of which {choices} {group.projection.method} components"
        yield f"  group     {name}: {columns:,} {'column' if columns == 1 else 'columns'}{projected}"
    for table in tables_of(study):
        for name, spec in study.models.items():
            if spec.table == table:
                how = harmonization_of(study, spec)
                details = [" + ".join(spec.groups), *([how] if how != "None" else [])]
                details += [] if spec.subgroup is None else [subgroup_text(study, spec.subgroup)]
                yield f"  table {table}   {name}: {', '.join(details)}"
        for name, ensemble in study.ensembles.items():
            if ensemble.table == table:
                yield f"  table {table}   {name}: mean of {', '.join(ensemble.models)}"
        if study.consensus is not None and study.consensus.table == table:
            yield f"  table {table}   consensus of {', '.join(study.consensus.models)}"
    search = study.search
    if search is not None:
        folds = f"{search.folds}-fold cross-validation"
        yield f"  search    {len(study.models)} models, {search.trials} {search.sampler} trials each in {folds}"


def staged(study: Study) -> Iterator[str]:
    """The stages and the kinds of question of each."""
    for number, stage in enumerate(stages(study), 1):
        yield f"{number:>3}. {stage.title}; of {stage.rows}: {', '.join(stage.kinds)}"


def estimate(study: Study, sites: int, patients: int) -> Iterator[str]:
    """Rounds and bytes of the study over invented patients.

    A search of more than two batches is run for one and for two of them; each further batch is taken to cost what the
    second has cost.

    Raises:
        CtfedError: when the invented patients are too few for what the study asks.
    """
    if sites < 1 or patients < 1:
        raise CtfedError(f"found {sites} sites with {patients} patients, expected at least one of each")
    started = time.perf_counter()
    batches = 1 if study.search is None else -(-study.search.trials // study.search.batch)
    traffic = _traffic(study, sites, patients, min(batches, BATCHES))
    rounds, up, down = traffic.rounds, traffic.bytes_up, traffic.bytes_down
    if batches > BATCHES:
        before = _traffic(study, sites, patients, BATCHES - 1)
        more = batches - BATCHES
        rounds += more * (traffic.rounds - before.rounds)
        up += more * (traffic.bytes_up - before.bytes_up)
        down += more * (traffic.bytes_down - before.bytes_down)
    yield (
        f"about {rounds} rounds, {up / 1e6:.1f} MB out of a site and {down / 1e6:.1f} MB into it, estimated over "
        f"{sites} invented sites with {patients} patients each in {time.perf_counter() - started:.0f} s: real data may "
        "need a few more or fewer"
    )
    if batches > BATCHES:
        yield f"the search was run for {BATCHES} of its {batches} batches; the others are taken to cost as much"
    if any(group.variables is None for group in study.groups.values()):
        yield "the bytes are an upper estimate: invented features are hardly correlated, and selection keeps nearly all"
    asked = Counter(kind for kinds in traffic.kinds for kind in dict.fromkeys(kinds))
    yield "rounds in which each question is asked, of those that were run: " + ", ".join(
        f"{kind} {count}" for kind, count in asked.most_common()
    )


def _traffic(study: Study, sites: int, patients: int, batches: int) -> Traffic:
    """What a run costs whose search has a few batches only."""
    shorter = shortened(study, batches)
    traffic = Traffic()
    cohorts = [with_effects(study, one) for one in synthetic_cohorts(study, sites, patients, SEED)]
    run_pooled(algorithm_of(shorter), cohorts, traffic)
    return traffic
