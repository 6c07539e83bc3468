"""The steward's page: what left one site, in plain words, with the numbers as CSV and JSON beside it.

Made from a checked ledger. Page and files hold nothing about a patient of the site, so that they may be carried to
whoever answers for its data; the ledger itself, with keyed digests of patients in it, stays where it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from ctfed.federation.ledger_account import Account, Run, Told, account_of, public_entry
from ctfed.federation.ledger_check import Check
from ctfed.federation.rules.budget import TOGETHER
from ctfed.report import wording as say
from ctfed.report.components import (
    Block,
    Chart,
    Column,
    Definitions,
    Headline,
    Notice,
    Page,
    Prose,
    Section,
    Table,
    Verdict,
    not_shown,
)
from ctfed.report.exports import Cell, csv_text, json_text, write_text
from ctfed.report.figures_ledger import SHOWN_BUDGET, Spending, ledger_plot
from ctfed.report.page import render_page
from ctfed.report.steward_terms import RULES, Limits, meaning

PAGE, CSV, JSON = "ledger.html", "ledger.csv", "ledger.json"
FORMAT = 1
MOST_ROWS = 400  # a page of thousands of rows serves nobody; ledger.csv has them all
NUMBERS = "numbers|"


def write_ledger_export(check: Check, folder: Path, limits: Limits, site: str = "") -> tuple[Path, ...]:
    """Write ledger.html, ledger.csv and ledger.json; the same ledger gives the same bytes.

    Args:
        check: of the ledger; where it is not whole, what could be read is shown, and the page says so.
        folder: made when it is not there.
        limits: drawn and listed beside what was spent.
        site: a name for the title.

    Raises:
        OSError: ``folder`` cannot be written.
    """
    account = account_of(check.entries)
    body = {
        "ctfed_ledger": FORMAT,
        "entries": len(check.entries),
        "head": check.head,
        "whole": check.whole,
        "faults": list(check.faults),
        "notes": list(check.notes),
        "lines": [public_entry(entry) for entry in check.entries],
    }
    files = {CSV: csv_text(CSV_HEADER, _csv_rows(account)), JSON: json_text(body)}
    files[PAGE] = render_page(steward_page(account, check, limits, site))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_text(folder / name, text)
    return tuple(folder / name for name in (PAGE, CSV, JSON))


CSV_HEADER = (
    *("line", "time", "run", "round", "query", "rows", "times", "arrays", "numbers", "contributed"),
    *("sites", "patients", "events"),
)


def _csv_rows(account: Account) -> Iterator[Sequence[Cell]]:
    for one in account.rounds:
        for told in one.told:
            what = (told.kind, told.rows, told.times, told.shapes, told.numbers, "yes" if told.contributed else "zeros")
            yield one.line, one.at, one.run, one.number, *what, told.sites, told.patients, told.events


def steward_page(account: Account, check: Check, limits: Limits, site: str = "") -> Page:
    """The components of the page."""
    parts: tuple[tuple[str, str, tuple[Block, ...]], ...] = (
        ("runs", "Runs", _runs(account)),
        ("told", "What the totals tell", _told(account)),
        ("sent", "Numbers that left", _sent(account, limits)),
        ("budgets", "Budgets", _budgets(account, limits)),
        ("refused", "Refused questions", _refused(account)),
        ("decisions", "Decisions of the steward", _decisions(account)),
        ("chain", "Is the ledger whole?", _chain(check)),
    )
    return Page(
        title=f"What left {site}" if site else "What left this site",
        subtitle="Ledger of one site of a federated analysis",
        head=(_verdict(account, check), _carrying()),
        sections=tuple(Section(key, title, blocks) for key, title, blocks in parts),
        footer=("Research software. Not a medical device; not for decisions about a patient.",),
    )


def _verdict(account: Account, check: Check) -> Verdict:
    rounds, runs = say.counted(len(account.rounds), "round"), say.counted(len(account.runs), "run")
    zeros = sum(not any(told.contributed for told in one.told) for one in account.rounds)
    summary = (
        f"In {runs} this site has answered {rounds} with {say.counted(account.numbers, 'number')} "
        f"({say.size(account.bytes)}). Each of them is a sum over patients; no row of a table, no identifier and no "
        "patient's time or value is among them. They left under masks: the server could read only their totals over "
        "all sites of a run."
    )
    patients = [told.patients for one in account.rounds for told in one.told]
    if patients:
        summary += (
            f" A sum over few patients can still tell about one of them: the smallest total was over {min(patients)}."
        )
    cells = [told.smallest for one in account.rounds for told in one.told if told.smallest is not None]
    if cells:
        summary += f" The smallest count of a table by time was {min(cells)}, over all sites."
    if zeros:
        summary += f" In {say.counted(zeros, 'round')} this site sent zeros alone, because it holds too few patients."
    return Verdict(
        summary,
        (
            Headline("Rounds answered", say.whole(len(account.rounds)), runs),
            Headline("Numbers sent", say.whole(account.numbers), say.size(account.bytes)),
            Headline("Refusals", say.whole(len(account.refused)), "see Refused questions"),
            Headline(
                "Ledger", "whole" if check.whole else "NOT whole", say.counted(len(check.entries), "entry", "entries")
            ),
        ),
        level="good" if check.whole else "danger",
        label="verified" if check.whole else "does not verify",
        rule="Every line follows from the one before, and every stored answer is what the ledger says was sent.",
    )


def _carrying() -> Notice:
    return Notice(
        "note",
        "What may leave the enclave",
        (
            f"This page, {CSV} and {JSON} hold no patient data: names and sizes of totals, over how many patients of "
            "all sites they were, digests of studies, times of questions, decisions. They may leave with the site's "
            "usual check of outputs.",
            "The folder of the ledger stays: it holds keyed digests of patients, the words in which questions were "
            "refused, and the masked answers.",
        ),
    )


def _runs(account: Account) -> tuple[Block, ...]:
    if not account.runs:
        return (not_shown("No run has been opened at this site."),)
    rows = tuple(
        (
            run.name,
            run.study[:12],
            run.roster[:12],
            run.at,
            f"{len(run.sites)}: {', '.join(run.sites)}",
            say.listed(run.splits) or "none: zeros",
            say.whole(len(run.rounds)),
            say.whole(sum(one.numbers for one in run.rounds)),
            say.whole(run.refusals),
        )
        for run in account.runs.values()
    )
    columns = (
        *(Column(name, False) for name in ("Run", "Study", "Roster", "Opened (UTC)", "Sites", "Contributes to")),
        *(Column(name) for name in ("Rounds", "Numbers", "Refused")),
    )
    note = "Study and roster by the beginning of their SHA-256, as they were approved; the splits are this site's."
    return (Table("Runs that this site has opened", columns, rows, note, sortable=True),)


def _told(account: Account) -> tuple[Block, ...]:
    kinds: dict[str, list[Told]] = {}
    for one in account.rounds:
        for told in one.told:
            kinds.setdefault(told.kind, []).append(told)
    if not kinds:
        return (not_shown("No question has been answered."),)
    rows = tuple(
        (
            kind,
            meaning(kind),
            say.whole(sum(told.times for told in items)),
            say.whole(sum(told.numbers for told in items)),
            _range([told.patients for told in items]),
            _range([told.sites for told in items]),
        )
        for kind, items in kinds.items()
    )
    columns = (
        *(Column(name, False) for name in ("Question", "Its total tells")),
        *(Column(name) for name in ("Asked", "Numbers", "Patients of a total", "Sites of a total")),
    )
    note = (
        "Patients and sites are those of the whole federation, over whom a total was taken; the smallest and largest."
    )
    return (Table("Every kind of question that was answered", columns, rows, note, sortable=True),)


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return say.whole(low) if low == high else f"{say.whole(low)} to {say.whole(high)}"


def _sent(account: Account, limits: Limits) -> tuple[Block, ...]:
    if not account.rounds:
        return (not_shown("Nothing was sent."),)
    runs = [run for run in account.runs.values() if run.rounds]
    spendings = [_spending(account, run, limits) for run in runs]
    sent = [one.numbers for one in account.rounds]
    cells = tuple(
        (
            say.whole(position + 1),
            one.at,
            one.run,
            say.whole(one.number),
            _asked(one.told),
            say.whole(one.numbers),
            say.size(one.bytes),
        )
        for position, one in enumerate(account.rounds[:MOST_ROWS])
    )
    columns = (
        *(Column("Order"), Column("Time (UTC)", False), Column("Run", False), Column("Round")),
        *(Column("Questions", False), Column("Numbers"), Column("Bytes")),
    )
    left_out = len(sent) - len(cells)
    note = f"The first {MOST_ROWS} rounds; {say.whole(left_out)} more are in {CSV}." if left_out else ""
    table = Table("Answered rounds", columns, cells, note, folded=True)
    alt = f"Bars of the {say.whole(sum(sent))} numbers sent in {say.counted(len(sent), 'round')}; a line for each run."
    svg = ledger_plot("sent", "Numbers that left this site", alt, sent, spendings)
    return (Chart(svg, _caption(spendings), table),)


def _asked(told: Sequence[Told]) -> str:
    """'counts x 2, moments (zeros)'."""
    times = Counter[str]()
    for one in told:
        times[one.kind if one.contributed else f"{one.kind} (zeros)"] += one.times
    return ", ".join(f"{kind} x {count}" if count > 1 else kind for kind, count in times.items())


def _spending(account: Account, run: Run, limits: Limits) -> Spending:
    """The line of the rows that are nearest to their budget; without budgets, of all numbers."""
    first = next(k for k, one in enumerate(account.rounds) if one.run == run.name)
    last = run.rounds[-1].spent
    pots = [name for name in last if name.startswith(NUMBERS)]
    if not pots:
        return Spending(first, tuple(accumulate(one.numbers for one in run.rounds)))
    pot = max(pots, key=lambda name: (_share(last[name], _allowed(run, name, limits)), last[name]))
    return Spending(first, tuple(one.spent.get(pot, 0) for one in run.rounds), _allowed(run, pot, limits))


def _share(spent: int, budget: float | None) -> float:
    return spent / budget if budget else 0.0


def _allowed(run: Run, pot: str, limits: Limits) -> float | None:
    """The most of a budget for the patients whom it is about."""
    rows = pot.split("|")[1] if "|" in pot else ""
    rows = "train" if rows == TOGETHER else rows
    patients = next((told.patients for one in run.rounds for told in one.told if told.rows == rows), None)
    return limits.allowed(pot, patients)


def _caption(spendings: Sequence[Spending]) -> str:
    words = (
        "Numbers that this site sent in each round (above), and told so far in each run, about the rows nearest to "
        "their budget (below). A number asked again is counted once there. "
    )
    known = [one for one in spendings if one.budget is not None]
    if not known:
        return words + "The budget is not drawn: name the policy and the study, and the page shows it."
    most = max(one.numbers[-1] for one in spendings)
    far = [one.budget for one in known if one.budget is not None and one.budget > SHOWN_BUDGET * most]
    if len(far) == len(known):
        return words + f"The budget of {say.whole(int(min(far)))} numbers lies beyond the picture."
    return words + "Dashed: the most that this site allows."


def _budgets(account: Account, limits: Limits) -> tuple[Block, ...]:
    rows: list[tuple[str, ...]] = []
    for run in account.runs.values():
        for pot, spent in sorted(run.rounds[-1].spent.items()) if run.rounds else ():
            what, _, about = pot.partition("|")
            allowed = _allowed(run, pot, limits)
            share = _percent(spent, allowed) if allowed else say.MISSING
            cells = (say.whole(spent), say.MISSING if allowed is None else say.whole(int(allowed)), share)
            rows.append((run.name, what, about.replace("|", ", "), *cells))
    if not rows:
        return (not_shown("Nothing was spent."),)
    columns = (
        *(Column("Run", False), Column("What", False), Column("About", False)),
        *(Column("Spent"), Column("Allowed"), Column("Share")),
    )
    note = "A dash: the limit depends on the policy and the study, which were not named when this page was made."
    return (Table("What the runs have spent of what this site allows", columns, tuple(rows), note, sortable=True),)


def _percent(spent: int, allowed: float) -> str:
    share = 100 * spent / allowed
    return f"{share:.2g} %" if share < 99.5 else f"{share:.0f} %"


def _refused(account: Account) -> tuple[Block, ...]:
    if not account.refused:
        return (Prose(("No question was refused.",)),)
    rules: dict[str, list[str]] = {}
    for one in account.refused:
        rules.setdefault(one.rule, []).append(one.at)
    rows = tuple((rule, RULES.get(rule, say.MISSING), say.whole(len(at)), at[-1]) for rule, at in rules.items())
    columns = (Column("Rule", False), Column("What it means", False), Column("Times"), Column("Last (UTC)", False))
    note = "The server learned the rule. The site's own words, with what was found, are shown by `ctfed ledger show`."
    return (Table("Questions that this site has refused", columns, rows, note),)


def _decisions(account: Account) -> tuple[Block, ...]:
    if not account.decisions:
        return (Prose(("The ledger holds no decision of a steward.",)),)
    rows = tuple((one.at, one.words) for one in account.decisions)
    note = "Digests are shown by their first twelve characters."
    return (Table("Written into the ledger", (Column("Time (UTC)", False), Column("Decision", False)), rows, note),)


def _chain(check: Check) -> tuple[Block, ...]:
    blocks: list[Block] = []
    if check.faults:
        blocks.append(Notice("danger", "The ledger is not whole", tuple(check.faults)))
    if check.notes:
        blocks.append(Notice("warning", "To look at", tuple(check.notes)))
    items: tuple[tuple[str, str | tuple[str, ...]], ...] = (
        ("Entries", say.whole(len(check.entries))),
        ("Last hash", check.head),
        ("Stored answers that are as sent", say.whole(check.answers)),
    )
    words = (
        "A line that was changed, removed, moved or put in breaks the chain of hashes. A ledger that was cut, restored "
        "or written anew from some line on has a chain that holds; it is found by whoever kept its number of entries "
        "and its last hash. The other sites of a run keep them. Whoever writes the two down from this page can check a "
        f"later ledger: ctfed ledger verify FOLDER --entries {len(check.entries)} --head {check.head}"
    )
    return (*blocks, Definitions(items), Prose((words,), "basis"))
