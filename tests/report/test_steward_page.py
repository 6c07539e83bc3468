"""The steward's page: plain, whole, self-contained, and without anything about a patient of the site."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from page_reader import ParsedPage, no_other_script

from ctfed.federation.ledger import ACCEPTED, ANSWERED, FILE, JOINED, OPENED, REFUSED, STEWARD, Ledger, LedgerError
from ctfed.federation.ledger_account import PUBLIC, account_of
from ctfed.federation.ledger_check import Check, check_ledger
from ctfed.federation.policy import Policy
from ctfed.federation.rules.scope import Scope
from ctfed.federation.view import Feature
from ctfed.report.figures_ledger import Spending, ledger_plot
from ctfed.report.steward import CSV, JSON, PAGE, write_ledger_export
from ctfed.report.steward_terms import RULES, Limits, meaning

AT = "2030-01-01T00:00:00+00:00"
SECRET_FACTS = ("0123456789abcdef", "fedcba9876543210")  # as the digests of patients look
SENTENCE = "a statistic of magnitude 1.7e+300 exceeds its scale"
HOSTILE = "<script>alert(1)</script>"
SCOPE = Scope(
    kinds=frozenset(),
    columns=frozenset({Feature("a"), Feature("b")}),
    folds=3,
    time_widths=(1.0,),
    risk_sets="stratified",
    min_cell=5,
)
POLICY = Policy(max_rounds=1000, max_tables=6, released_per_value=40.0, cuts_per_patient=0.33)
LIMITS = Limits(POLICY, SCOPE)


def item(kind: str, size: int, *, times: int = 1, contributed: bool = True, rows: str = "train") -> dict[str, Any]:
    return {
        "kind": kind,
        "view": "7" * 64,
        "rows": rows,
        "arrays": {"count": [size]},
        "contributed": contributed,
        "sites": 3,
        "patients": 30,
        "events": 12,
        "smallest": 2 if kind == "moments" else None,
        "times": times,
    }


def answer(ledger: Ledger, run: str, number: int, *items: dict[str, Any]) -> None:
    size = sum(one["times"] * one["arrays"]["count"][0] for one in items)
    facts = {
        "round": number,
        "question": "8" * 64,
        "queries": list(items),
        "numbers": size,
        "bytes": 16 * (size + sum(one["times"] for one in items)),
        "statistics": "9" * 64,
        "sent": "a" * 64,
        "spent": {"rounds": 1, "numbers|train": size, "cut|train|a|55": 1, "cuts|train|a": 2},
    }
    ledger.append(ANSWERED, run, facts)


def open_run(ledger: Ledger, run: str, splits: tuple[str, ...] = ("train", "test")) -> None:
    facts = {
        "study": "b" * 64,
        "roster": "c" * 64,
        "nonce": "d" * 64,
        "cohort": "e" * 64,
        "patients": list(SECRET_FACTS),
        "splits": list(splits),
        "sites": ["north", "south", "west"],
        "entries": ledger.length,
        "head": ledger.head,
        "seen": {},
        "invented_later": "a fact that nobody has judged yet",
    }
    ledger.append(OPENED, run, facts)
    ledger.append(JOINED, run, {"session": "f" * 64, "ledgers": {"south": [0, "0" * 64]}})


def full_ledger(folder: Path | None = None) -> Ledger:
    ledger = Ledger(folder, lambda: AT)
    ledger.append(STEWARD, "", {"approved": "b" * 64, "roster": "c" * 64, "policy": "1" * 64, "at": AT})
    open_run(ledger, "first")
    answer(ledger, "first", 0, item("counts", 4), item("moments", 10, times=5))
    answer(ledger, "first", 1, item("cox-derivatives", 100))
    ledger.refuse("first", "too-many-cells", SENTENCE, {"round": 2})
    ledger.refuse("unheard", "not-joined", SENTENCE, {"round": None})
    ledger.append(STEWARD, "", {"allow": "more-runs", "study": "b" * 64, "cohort": "e" * 64, "roster": "c" * 64})
    ledger.append(STEWARD, "", {ACCEPTED: "west"})
    open_run(ledger, "second", ())
    answer(ledger, "second", 0, item("counts", 4, contributed=False))
    return ledger


@pytest.fixture
def check(tmp_path: Path) -> Check:
    full_ledger(tmp_path / "ledger")
    found = check_ledger(tmp_path / "ledger")
    found.faults.clear()  # the answers themselves were never stored
    return found


def page_of(check: Check, folder: Path, limits: Limits = LIMITS, site: str = "north") -> ParsedPage:
    write_ledger_export(check, folder, limits, site)
    return ParsedPage((folder / PAGE).read_text(encoding="utf-8"))


# -- what it says


def test_the_page_counts_what_left(check: Check, tmp_path: Path) -> None:
    text = page_of(check, tmp_path).text
    assert "What left north" in text
    assert "In 2 runs this site has answered 3 rounds with 158 numbers" in text
    assert "the smallest total was over 30" in text
    assert "The smallest count of a table by time was 2, over all sites" in text
    assert "In 1 round this site sent zeros alone" in text
    assert "Rounds answered 3" in text
    assert "Refusals 2" in text
    assert "moments the mean and the variance of each column" in text
    assert "5 50 30 3" in text  # moments: asked, numbers, patients, sites


def test_runs_show_their_study_their_sites_and_whether_this_one_contributes(check: Check, tmp_path: Path) -> None:
    text = page_of(check, tmp_path).text
    assert f"first bbbbbbbbbbbb cccccccccccc {AT} 3: north, south, west train and test 2 154 1" in text
    assert f"second bbbbbbbbbbbb cccccccccccc {AT} 3: north, south, west none: zeros 1 4 0" in text


def test_refusals_are_shown_by_their_rule_with_its_meaning(check: Check, tmp_path: Path) -> None:
    text = page_of(check, tmp_path).text
    assert f"too-many-cells {RULES['too-many-cells']} 1 {AT}" in text
    assert f"not-joined {RULES['not-joined']} 1 {AT}" in text


def test_decisions_are_words(check: Check, tmp_path: Path) -> None:
    text = page_of(check, tmp_path).text
    assert "approved the study bbbbbbbbbbbb with roster cccccccccccc and policy 111111111111" in text
    assert "allowed more-runs for study bbbbbbbbbbbb, cohort eeeeeeeeeeee, roster cccccccccccc" in text
    assert "accepted the ledger that west has now" in text


def test_budgets_stand_beside_what_was_spent(check: Check, tmp_path: Path) -> None:
    text = page_of(check, tmp_path).text
    assert "first rounds 2 1,000 0.2 %" in text
    assert "first numbers train 154 2,400 6.4 %" in text  # 40 numbers per patient and feature: 40 x 30 x 2
    assert "first cuts train, a 4 9 40 %" in text  # 0.33 x 30
    assert "cut, train" not in text  # a mark, no budget
    assert "Dashed: the most that this site allows." in text


def test_without_policy_and_study_the_page_says_what_it_does_not_know(check: Check, tmp_path: Path) -> None:
    text = page_of(check, tmp_path, Limits()).text
    assert "first numbers train 154 – –" in text
    assert "name the policy and the study, and the page shows it" in text


def test_a_ledger_that_is_not_whole_is_told_at_the_top_and_named(check: Check, tmp_path: Path) -> None:
    assert "verified" in page_of(check, tmp_path).text
    check.faults.append("ledger.jsonl, line 5: this line was changed")
    check.notes.append("the clock was set")
    page = page_of(check, tmp_path)
    assert "does not verify" in page.text
    assert "Ledger NOT whole" in page.text
    assert "line 5: this line was changed" in page.text
    assert "the clock was set" in page.text
    assert json.loads((tmp_path / JSON).read_text())["whole"] is False


def test_the_hash_to_write_down_is_on_the_page(check: Check, tmp_path: Path) -> None:
    assert f"--entries {len(check.entries)} --head {check.head}" in page_of(check, tmp_path).text


def test_an_empty_ledger_makes_a_page(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger")
    text = page_of(check_ledger(tmp_path / "ledger"), tmp_path, Limits(), "").text
    assert "What left this site" in text
    assert "In 0 runs this site has answered 0 rounds with 0 numbers (0 B)" in text
    assert "No run has been opened at this site." in text


# -- what it does not say


def test_no_file_holds_patients_or_the_words_of_refusals(check: Check, tmp_path: Path) -> None:
    page_of(check, tmp_path)
    for name in (PAGE, CSV, JSON):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert not any(secret in text for secret in SECRET_FACTS), name
        assert "1.7e+300" not in text, name
        assert "nobody has judged" not in text, name


def test_the_json_names_what_it_withholds_and_shows_only_what_was_judged(check: Check, tmp_path: Path) -> None:
    page_of(check, tmp_path)
    lines = json.loads((tmp_path / JSON).read_text())["lines"]
    withheld = {line["kind"]: line["withheld"] for line in lines}
    assert withheld[OPENED] == ["invented_later", "patients"]
    assert withheld[REFUSED] == ["sentence"]
    assert withheld[ANSWERED] == withheld[JOINED] == withheld[STEWARD] == []
    for line in lines:
        assert set(line["facts"]) <= set(PUBLIC[line["kind"]])
    assert [line["hash"] for line in lines] == [entry.hash for entry in check.entries]


def test_nothing_is_loaded_from_anywhere_and_names_are_only_text(tmp_path: Path) -> None:
    ledger = Ledger(None, lambda: AT)
    entries = []
    append = ledger.append

    def kept(*arguments: Any) -> Any:
        entries.append(append(*arguments))
        return entries[-1]

    ledger.append = kept  # type: ignore[method-assign]
    open_run(ledger, HOSTILE)
    answer(ledger, HOSTILE, 0, item(HOSTILE, 3, rows=HOSTILE))
    ledger.refuse(HOSTILE, HOSTILE, HOSTILE, {"round": 1})
    page = page_of(Check(entries, faults=[HOSTILE]), tmp_path, LIMITS, HOSTILE)
    html = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert HOSTILE not in html
    assert HOSTILE in page.text
    assert not page.tags.keys() & {"link", "img", "iframe", "object", "embed", "image"}
    assert no_other_script(html)
    assert set(re.findall(r"https?://[^\s\"'<]+", html)) == {"http://www.w3.org/2000/svg"}
    ids = page.values("id")
    assert len(ids) == len(set(ids))


# -- files


def test_the_csv_has_one_row_per_kind_of_query_and_round(check: Check, tmp_path: Path) -> None:
    page_of(check, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / CSV).read_text())))
    assert [(row["run"], row["round"], row["query"], row["times"], row["numbers"]) for row in rows] == [
        ("first", "0", "counts", "1", "4"),
        ("first", "0", "moments", "5", "50"),
        ("first", "1", "cox-derivatives", "1", "100"),
        ("second", "0", "counts", "1", "4"),
    ]
    assert [row["contributed"] for row in rows] == ["yes", "yes", "yes", "zeros"]
    assert Counter(int(row["line"]) for row in rows) == {4: 2, 5: 1, 12: 1}


def test_the_same_ledger_gives_the_same_bytes(check: Check, tmp_path: Path) -> None:
    for name in ("one", "two"):
        page_of(check, tmp_path / name)
    for file in (PAGE, CSV, JSON):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert {path.name for path in (tmp_path / "one").iterdir()} == {PAGE, CSV, JSON}


def test_a_long_ledger_is_cut_on_the_page_and_whole_in_the_csv(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", lambda: AT)
    open_run(ledger, "run")
    for number in range(450):
        answer(ledger, "run", number, item("counts", 4))
    found = check_ledger(tmp_path / "ledger")
    found.faults.clear()
    text = page_of(found, tmp_path).text
    assert "The first 400 rounds; 50 more are in ledger.csv." in text
    assert len((tmp_path / CSV).read_text().splitlines()) == 451


def test_an_entry_without_its_facts_is_a_sentence_with_its_line(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", lambda: AT)
    open_run(ledger, "run")
    answer(ledger, "run", 0, {**item("counts", 4), "times": 1})
    entries = check_ledger(tmp_path / "ledger").entries
    del entries[2].facts["queries"][0]["rows"]  # type: ignore[attr-defined]
    with pytest.raises(LedgerError, match=f"{FILE}, line 3: this entry lacks what it must hold: 'rows'"):
        account_of(entries)


# -- words and limits


def test_what_a_total_tells_comes_from_the_question_itself_where_no_list_has_it() -> None:
    from ctfed.node import register_queries

    register_queries()
    assert meaning("counts").startswith("how many patients and events")
    assert meaning("nothing-of-the-kind") == "not known to this version of ctfed"
    assert "total discloses" in meaning("combat-sizes")


@pytest.mark.parametrize(
    ("pot", "allowed"),
    [
        ("rounds", 1000),
        ("tables|train", 6),
        ("numbers|train", 40 * 30 * 2),
        ("cuts|train|a", 0.33 * 30),
        ("points", 2),
        ("unheard", None),
    ],
)
def test_limits_are_those_of_the_gate(pot: str, allowed: float | None) -> None:
    assert LIMITS.allowed(pot, 30) == allowed
    assert Limits().allowed(pot, 30) is None
    if "|" in pot and not pot.startswith("tables"):
        assert LIMITS.allowed(pot, None) is None
        assert Limits(POLICY).allowed(pot, 30) is None


def test_the_picture_draws_a_budget_that_is_near_and_leaves_out_one_that_is_far() -> None:
    def dashed(budget: float | None) -> int:
        svg = str(ledger_plot("key", "title", "alt", [5, 5], [Spending(0, (5, 10), budget)]))
        return svg.count("stroke-dasharray")

    assert dashed(50.0) > dashed(None) == dashed(1e6)
    with pytest.raises(ValueError, match="no round to draw"):
        ledger_plot("key", "title", "alt", [], [])
