"""The pooled report's last part: what left the sites, and where the numbers come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ctfed.report import wording as say
from ctfed.report.components import Block, Chart, Column, Definitions, Notice, Prose, Table, not_shown
from ctfed.report.figures_rounds import Traffic, traffic_plot
from ctfed.report.reader import Reader

# A page of thousands of rows serves nobody; rounds.csv has them all.
MOST_ROWS = 400
MODEL, MODELS, CARD = "model.json", "models/", "model_card.md"


def rounds_blocks(results: Reader) -> tuple[Block, ...]:
    """Rounds and bytes of one site ('rounds': round, queries, bytes_down, bytes_up, seconds; totals in 'run')."""
    run, rounds = results.section("run"), results.rows("rounds")
    blocks: list[Block] = []
    if run:
        items = (
            ("Rounds", say.whole(run.count("rounds"))),
            ("Sent by each site", say.size(run.number("bytes_up_per_site"))),
            ("Received by each site", say.size(run.number("bytes_down_per_site"))),
        )
        blocks.append(Definitions(items))
    if not rounds:
        return (*blocks, not_shown("The results do not list the rounds, so what left in each cannot be shown."))
    blocks.append(_query_table(rounds))
    blocks.append(_traffic_chart(rounds))
    basis = (
        "Computed from: the messages of the run as they were sent, in bytes of one site (of the one with most, where "
        "sites differ). What a site sends is sums "
        "over its patients, never a row or an identifier. A sum over few patients can still tell about one of them, so "
        "what the server could see of a single site matters: 'Masked' under Provenance says it."
    )
    return (*blocks, Prose((basis,), "basis"))


def _query_table(rounds: Sequence[Reader]) -> Table:
    """How often each kind of question was asked; 'CoxDerivatives x 5' counts five times."""
    asked: Counter[str] = Counter()
    in_rounds: Counter[str] = Counter()
    for row in rounds:
        kinds = [_query(text) for text in row.texts("queries")]
        for kind, times in kinds:
            asked[kind] += times
        in_rounds.update({kind for kind, _ in kinds})
    rows = tuple((kind, say.whole(times), say.whole(in_rounds[kind])) for kind, times in asked.items())
    columns = (Column("Query", False), Column("Asked"), Column("In rounds"))
    return Table("Questions that the sites answered", columns, rows)


def _query(text: str) -> tuple[str, int]:
    kind, mark, times = text.rpartition(" x ")
    return (kind, int(times)) if mark and times.isdecimal() else (text, 1)


def _traffic_chart(rounds: Sequence[Reader]) -> Block:
    cells = tuple(
        (
            say.whole(row.count("round")),
            ", ".join(row.texts("queries")) or say.MISSING,
            say.size(row.number("bytes_up")),
            say.size(row.number("bytes_down")),
            say.duration(row.number("seconds")),
        )
        for row in rounds[:MOST_ROWS]
    )
    columns = (Column("Round"), Column("Queries", False), Column("Sent"), Column("Received"), Column("Time"))
    left_out = len(rounds) - len(cells)
    note = f"The first {MOST_ROWS} rounds; {say.whole(left_out)} more are in rounds.csv." if left_out else ""
    table = Table("Rounds", columns, cells, note)
    traffic = [
        Traffic(number, up, down)
        for row in rounds
        if (number := row.count("round")) is not None
        and (up := row.number("bytes_up")) is not None
        and (down := row.number("bytes_down")) is not None
    ]
    if not traffic:
        return table
    sent = say.size(sum(entry.bytes_up for entry in traffic))
    received = say.size(sum(entry.bytes_down for entry in traffic))
    alt = f"Bars of bytes over {say.counted(len(traffic), 'round')}: {sent} sent and {received} received by a site."
    svg = traffic_plot("rounds", "Bytes of each round", alt, traffic)
    return Chart(svg, "Bytes that one site sent (above) and received (below) in each round.", table)


def sharing_blocks(files: Sequence[str], models: str) -> tuple[Block, ...]:
    """The box that says what of a run's folder may be handed on, and what stays; arguments as those of ``sharing``."""
    return (Notice("note", "What may be handed on", sharing(files, models)),)


def sharing(files: Sequence[str], models: str = MODEL) -> tuple[str, str]:
    """In words: what of a run's folder holds totals alone, and what stays where it is.

    Args:
        files: names of the files beside the page.
        models: name of the model's file, or of the folder of the models.
    """
    count = sum(name.endswith(".csv") for name in files)
    tables = [f"the {say.counted(count, 'CSV file')}"] if count else []
    others = [name for name in files if not name.endswith(".csv")]
    told = say.listed(("this page", *others, *tables, models, CARD))
    return (
        f"May be handed on, after the consortium's usual check of outputs: {told}. They hold totals over all sites and "
        "what was computed from them, and name the sites; no row, identifier or time of a patient.",
        "Stays: journal/ (every total of every round, those that no page shows among them; a stopped run goes on from "
        "it) and, after a simulation, sites/ (each site's keys, and its ledger with keyed digests of patients).",
    )


def provenance_blocks(results: Reader, files: tuple[str, ...], digest: str) -> tuple[Block, ...]:
    """Study, software and files.

    Args:
        results: uses 'study' (name, sha256, endpoint) and 'run' (ctfed_version, runner, masked, seconds, versions,
            started).
        files: names of the files beside the page.
        digest: SHA-256 of results.json.
    """
    study, run = results.section("study"), results.section("run")
    endpoint = study.section("endpoint")
    versions = run.section("versions")
    packages = tuple(f"{name} {versions.text(name) or say.MISSING}" for name in sorted(versions.values))
    masked = {True: "yes", False: "no: sums of each site were visible to the server", None: "not among the results"}
    unit = endpoint.text("time_unit")
    items: tuple[tuple[str, str | tuple[str, ...]], ...] = (
        ("Study", study.text("name") or say.MISSING),
        ("Study SHA-256", study.text("sha256") or say.MISSING),
        ("Endpoint", f"{endpoint.text('name') or say.MISSING}{f', time in {unit}' if unit else ''}"),
        ("ctfed", run.text("ctfed_version") or say.MISSING),
        ("Runner", run.text("runner") or say.MISSING),
        ("Masked", masked[run.flag("masked")]),
        ("Started", run.text("started") or say.MISSING),
        ("Duration", say.duration(run.number("seconds"))),
        ("Versions", ", ".join(packages) or say.MISSING),
        ("Files beside this page", ", ".join(files)),
        ("results.json SHA-256", digest),
    )
    blocks: list[Block] = [Definitions(items)]
    if not study or not run:
        absent = say.listed(name for name, section in (("study", study), ("run", run)) if not section)
        blocks.append(not_shown(f"The results hold nothing about the {absent}; a dash stands for what is not known."))
    return tuple(blocks)
