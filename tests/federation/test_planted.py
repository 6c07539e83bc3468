"""A planted identifier, path, name of a column and n = 3 cell of a site: in nothing that leaves it, nor in its logs.

The slow tests listen to real processes: on the cable, at the hub's end of TLS, in the hub's state, and in what the site
prints and writes for output checkers, while its table is damaged and mended. The quick ones look at the same kinds of
files, made in this process. Every search is shown to find what it searches for: in a copy with the text planted, and
in the files of the site that hold it rightly.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from files_support import Centres
from flower_support import Failing, in_process, sites
from flwr.app import Message
from heard_support import EXCHANGES, Heard, listening
from leak_search import files_in, find, unpacked
from planted_support import (
    FEW,
    FOLDER,
    IDENTIFIERS,
    LEVEL,
    PLANTED,
    SITE,
    TABLE,
    plant,
    small_numbers,
    small_numbers_of_csv,
    small_numbers_of_page,
    small_numbers_of_text,
)

from ctfed.cohort import load_cohort
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import Refusal
from ctfed.federation.flower.processes import Child
from ctfed.federation.flower.records import ASK, pack_question
from ctfed.federation.responder import Responder
from ctfed.federation.wire import Invitation, Question, Session, decode_question, encode_question
from ctfed.node import register_queries
from ctfed.report.page import render_page
from ctfed.report.site_page import site_page
from ctfed.site import load_site
from ctfed.study import load_study

K = 5  # the site's own min_cell, by default
REPORT_K = 10  # of a report's egress edition, by default


def assert_nothing_planted(captures: Mapping[str, bytes], cohort: Cohort, of: int = 1) -> None:
    """Nothing is found in at least ``of`` captures; the same search finds each text, open and packed, in a copy."""
    assert len(captures) >= of
    assert any(captures.values())
    secrets = (*PLANTED, *cohort.pseudonym[:2])
    assert find(captures, secrets) == []
    texts = "|".join(secrets).encode()
    copies = {
        where: raw[: len(raw) // 2] + texts + gzip.compress(texts) + raw[len(raw) // 2 :]
        for where, raw in captures.items()
    }
    found = {(hit.where, hit.text, hit.inside.partition(" ")[0]) for hit in find(copies, secrets)}
    assert found >= {(where, text, how) for where in captures for text in secrets for how in ("", "gzip")}


def small_in_files(folder: Path, k: int) -> list[tuple[str, str, float]]:
    """(file, place, number) of every number that may be one of fewer than k patients, in JSON, CSV, pages and texts."""
    readers = {
        ".json": lambda text: small_numbers(json.loads(text), k),
        ".csv": lambda text: small_numbers_of_csv(text, k),
        ".html": lambda text: small_numbers_of_page(text, k),
        ".svg": lambda text: small_numbers_of_page(text, k),
        ".md": lambda text: small_numbers_of_text(text, k),
        ".txt": lambda text: small_numbers_of_text(text, k),
    }
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix in (".png", ".pdf", ".i8"):
            continue  # drawn from the JSON beside it; masked, and compared with the clear numbers elsewhere
        small = readers[path.suffix](path.read_text(encoding="utf-8"))
        found += [(path.name, place, number) for place, number in small]
    return found


# -- what is told of an error


def test_what_an_error_says_is_written_and_not_told(tmp_path: Path) -> None:
    """A cell of a table may hold the very words by which lines are chosen that are told."""
    lines = [
        "2026-01-15 09:30:00,000 ERROR ctfed.federation.client_app: could not answer; the server is told no more",
        f"ctfed.cohort.table.DataError: /{FOLDER}/{TABLE}: found 'ERROR {IDENTIFIERS[0]} WARNING', expected a number",
        f"    raise DataError('{IDENTIFIERS[0]} Exit Code: 1 SuperNode ID')",
        "WARNING :   Connection attempt failed, retrying in 0.71 seconds",
    ]
    told: list[str] = []
    log = tmp_path / "node.log"
    command = [sys.executable, "-c", f"print({chr(10).join(lines)!r})"]
    child = Child("executor", command, os.environ, told.append, log)
    child.start()
    while child.alive:
        time.sleep(0.05)
    child.stop()
    assert told == [f"[executor] {lines[0]}", f"[executor] {lines[3]}"]
    assert log.read_text(encoding="utf-8").splitlines() == [f"[executor] {line}" for line in lines]
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_refusal_is_told_by_its_rule_on_both_sides(caplog: pytest.LogCaptureFixture) -> None:
    """Its sentence, which may hold a number of this site alone, is not in the line of the log that is shown."""
    refusal = Refusal("out-of-range", f"a statistic of magnitude 3.14e+09, of {IDENTIFIERS[0]}")
    asked = pack_question(Question("{}", np.zeros(0)))
    with sites({SITE: lambda: Failing(refusal)}):
        grid = in_process((SITE,))
        (reply,) = grid.send_and_receive([Message(asked, node, ASK) for node in grid.get_node_ids()], timeout=5)
    assert reply.error.reason == "refused:out-of-range"
    (record,) = (record for record in caplog.records if record.name == "ctfed.federation.client_app")
    assert record.getMessage() == "declined to answer; the server is told 'refused:out-of-range' only"
    assert record.exc_info is not None, "the sentence is in the lines that follow, which stay in node.log"
    assert IDENTIFIERS[0] in str(record.exc_info[1])


# -- quick: the files of a study that is carried, and the report, made in this process


@dataclass
class Carried:
    """A study as files, to its end, and the planted site's report of it."""

    centres: Centres
    home: Path
    cohort: Cohort
    printed: str


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Carried:
    from ctfed.cli import main

    folder = tmp_path_factory.mktemp("planted") / FOLDER
    folder.mkdir()
    centres = Centres(folder)
    home = centres.home(SITE)
    plant(home)
    centres.to_the_end()
    results = str(centres.settings.out / "results.json")
    command = ["report", "--site", str(home / "site.yaml"), "--results", results, "--no-pdf"]
    with pytest.MonkeyPatch.context() as patch:
        printed = io.StringIO()
        patch.setattr(sys, "stdout", printed)
        assert main([*command, "--out", str(home / "report")]) == 0
    answered = [line for line in centres.lines if line.startswith(f"{SITE}: ")]  # the others are the server's
    assert len(answered) > EXCHANGES
    cohort = load_cohort(load_site(home / "site.yaml"), load_study(centres.study))
    return Carried(centres, home, cohort, "\n".join([*answered, printed.getvalue()]))


def test_nothing_planted_is_in_packages_the_egress_edition_or_what_is_printed(carried: Carried) -> None:
    egress = files_in(carried.home / "egress", carried.home / "report" / "egress", base=carried.home)
    assert_nothing_planted(egress | {"printed": carried.printed.encode()}, carried.cohort, of=100)


def test_everything_planted_is_found_where_it_stays(carried: Carried) -> None:
    kept = files_in(carried.home / TABLE, carried.home / "site.yaml", base=carried.home)
    assert {hit.text for hit in find(kept, PLANTED)} == set(PLANTED)
    local = files_in(carried.home / "report" / "local" / "report.json", base=carried.home)
    pseudonyms = {row["pseudonym"] for row in _report(carried.home, "local")["explanation"]["single"]}
    assert pseudonyms
    assert {hit.text for hit in find(local, sorted(pseudonyms))} == pseudonyms
    egress = files_in(carried.home / "report" / "egress", base=carried.home)
    assert find(egress, sorted(pseudonyms)) == []


def test_no_small_cell_is_in_packages_or_the_egress_edition(carried: Carried) -> None:
    assert (carried.cohort.columns["ecog"] == LEVEL).sum() == FEW
    assert small_in_files(carried.home / "egress", K) == []
    assert small_in_files(carried.home / "report" / "egress", REPORT_K) == []
    suffixes = {path.suffix for path in (carried.home / "report" / "egress").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".html", ".txt", ".csv", ".png"}
    content = _report(carried.home, "egress")
    assert content["table_one"]["variables"], "it is not empty for being safe"


def test_the_small_cell_is_found_in_the_local_edition_and_in_copies(carried: Carried, tmp_path: Path) -> None:
    local = small_in_files(carried.home / "report" / "local", REPORT_K)
    assert ("report.json", "table_one.variables.levels.count", FEW) in local
    assert ("report.html", "Here", FEW) in local
    content = _report(carried.home, "egress")
    variables = {row["variable"]: row for row in content["table_one"]["variables"]}
    variables["ecog"]["levels"][LEVEL]["count"] = FEW
    (tmp_path / "report.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "report.html").write_text(render_page(site_page(content)), encoding="utf-8")
    found = small_in_files(tmp_path, REPORT_K)
    assert {(name, number) for name, _, number in found} == {("report.json", FEW), ("report.html", FEW)}


def _report(home: Path, edition: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((home / "report" / edition / "report.json").read_text(encoding="utf-8"))
    return content


# -- slow: real processes, and ears on the planted site's line


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heard]:
    with listening(tmp_path_factory.mktemp("heard")) as all_that_left:
        yield all_that_left


@pytest.mark.slow
@pytest.mark.deployment
class TestWithRealProcesses:
    """What the ears have heard, and what lies where."""

    def test_nothing_planted_is_on_the_cable_which_leads_to_the_hub_alone(self, heard: Heard) -> None:
        if heard.packets is None:
            pytest.skip(heard.deaf)
        assert_nothing_planted({"cable": heard.packets}, heard.cohort)
        assert len(heard.packets) > 100_000
        assert b"/v1/fleet/push-object" not in heard.packets, "it is TLS"
        assert heard.peers == heard.ends, "the site has sent something to somebody else"

    def test_nothing_planted_is_in_what_the_hub_hears(self, heard: Heard) -> None:
        assert_nothing_planted(heard.sent, heard.cohort, of=50)
        assert any(b"/v1/fleet/push-object" in content for content in heard.sent.values())
        rounds = heard.federation.journalled()
        assert len(heard.answers) >= rounds + 2, "the ear has heard the opening, the census and every round"

    def test_nothing_planted_is_in_the_hubs_state_outputs_and_log(self, heard: Heard) -> None:
        folder = heard.federation.folder
        places = [folder / name for name in ("server", "out", "files", "home", "server.out")]
        hub = files_in(*(place for place in places if place.exists()), base=folder)
        assert {"out/results.json", "out/journal/journal.jsonl", "out/report.html", "server.out"} <= set(hub)
        assert {"server/state/superlink.db", "server/state/superlink.log"} <= set(hub)
        hub |= heard.hub_then
        for name in ("server/state/superlink.db", "superlink.db in the middle"):
            assert "sqlite" in {how for how, _ in unpacked(hub[name])}, "the cells of the database are read"
        assert_nothing_planted(hub, heard.cohort, of=30)

    def test_nothing_planted_is_in_what_the_site_prints(self, heard: Heard) -> None:
        assert_nothing_planted(heard.printed, heard.cohort, of=EXCHANGES + 4)
        assert all(small_numbers_of_text(text.decode(), K) == [] for text in heard.printed.values())
        assert b"error:DataError" in heard.printed["ctfed join"]
        assert b"DataError" in heard.printed["ctfed join, damaged"]
        assert b"DataError" in heard.printed["ctfed round answer, damaged"]

    def test_nothing_planted_is_in_the_egress_folders(self, heard: Heard) -> None:
        home = heard.federation.home
        egress = files_in(home / "egress", home / "report" / "egress", base=home)
        assert_nothing_planted(egress, heard.cohort, of=40)
        assert any("refusal" in name for name in egress)
        assert small_in_files(home / "egress", K) == []
        assert small_in_files(home / "report" / "egress", REPORT_K) == []

    def test_the_words_of_an_error_are_in_the_sites_own_log_and_nowhere_else(self, heard: Heard) -> None:
        """The damaged cell names a patient and begins like a line that is shown; the sentence names the path."""
        assert find({"node.log": heard.quiet_log}, PLANTED) == [], "nor is it there when all is well"
        assert len(heard.quiet_log) > 1000
        home = heard.federation.home
        logs = {"live": heard.node_log, "start": home / "refused" / "node.log", "files": home / "ledger" / "round.log"}
        for path in logs.values():
            found = {hit.text for hit in find({"log": path.read_bytes()}, PLANTED)}
            assert found >= {IDENTIFIERS[0], FOLDER, TABLE}
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.parent.stat().st_mode & 0o777 == 0o700
        replies = [body for name, body in heard.sent.items() if "body" in name and b"error:DataError" in body]
        assert replies, "the hub is told the class"
        assert not [body for body in replies if b"column" in body or b"found" in body]
        assert "error:DataError" in heard.federation.output()

    def test_no_small_cell_is_in_the_text_of_an_answer(self, heard: Heard) -> None:
        contents = [json.loads(answer.header) for answer in heard.answers]
        assert [small_numbers(content, K) for content in contents] == [[]] * len(contents)
        told = [{**content, "levels": [FEW]} for content in contents]
        assert [small_numbers(content, K) for content in told] == [[("levels", FEW)]] * len(contents)

    def test_no_number_of_an_answer_is_the_sites_own(self, heard: Heard) -> None:
        """The site's sums in the clear, the three patients at one level among them, beside what it has sent."""
        register_queries()
        clear, cells = _clear_answers(heard)
        assert 0 < min(cell for cell in cells if cell > 0) <= FEW, "the levels were asked, the small one too"
        sent = {json.loads(answer.header)["question"]: answer.limbs for answer in heard.answers}
        assert len(clear) >= heard.federation.journalled()
        for digest, limbs in clear.items():
            assert sent[digest].shape in (limbs.shape, (0,))  # nothing is answered to a question with unknown views
            assert not (sent[digest] == limbs).any() if sent[digest].size else True
        assert sum(sent[digest].size > 0 for digest in clear) >= heard.federation.journalled()


def _clear_answers(heard: Heard) -> tuple[dict[str, np.ndarray], list[float]]:
    """The site's numbers without masks, by the digest of the question, and its counts of levels."""
    responder, shared = Responder(heard.cohort), dict[str, object]()
    clear: dict[str, np.ndarray] = {}
    cells: list[float] = []
    for question in 2 * heard.questions:  # of many connections, so a view may come after the first that names it
        asked = decode_question(question, shared)
        if isinstance(asked, Invitation | Session) or asked.missing or question.digest in clear:
            continue
        counts = [query.answer(heard.cohort).flat() for query in asked.queries if query.kind == "level-counts"]
        cells += [float(count) for flat in counts for count in flat]
        again = encode_question("clear", 0, asked.queries, frozenset())
        clear[question.digest] = responder.answer(again).limbs
    return clear, cells
