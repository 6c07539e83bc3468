"""A study as files that people carry: the same bits as in one process, resumable, and nothing wrong is passed over."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deployment_support import NAMES
from files_support import Centres, write_many_study

from ctfed.cli import main
from ctfed.cohort import load_cohort
from ctfed.federation import run_pooled
from ctfed.federation.errors import MalformedMessage
from ctfed.federation.pooled import Traffic
from ctfed.rounds.answering import NotAnswered, answer_packages
from ctfed.rounds.package import HEADER, INTEGERS, MANIFEST, PackageError
from ctfed.site import load_site
from ctfed.study import load_study
from server.files_plan import plan_of
from server.results import RunFacts
from server.simulate import simulate
from server.study_run import algorithm_of, write_outputs

SECTIONS = ("cohort", "model", "baseline", "curves", "discrimination")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Centres, int]:
    """A study that was carried from its opening to its report, and how many exchanges it took."""
    centres = Centres(tmp_path_factory.mktemp("files"))
    return centres, centres.to_the_end()


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return content


def test_a_study_over_files_has_the_results_of_the_masked_run_in_process_to_the_last_bit(
    finished: tuple[Centres, int], tmp_path: Path
) -> None:
    centres, exchanges = finished
    sites = [centres.home(name) / "site.yaml" for name in NAMES]
    simulate(centres.study, sites, tmp_path, masked=True, tell=lambda _: None)
    live, files = results(tmp_path), results(centres.settings.out)
    for section in SECTIONS:
        assert files[section] == live[section]
    assert files["run"]["masked"] is True
    assert files["run"]["runner"] == "files"
    assert exchanges == files["run"]["rounds"] + 2
    assert exchanges <= 12 < live["run"]["rounds"] + 2


def test_a_missing_site_is_named_and_waited_for_and_asked_again_the_packages_are_the_same(tmp_path: Path) -> None:
    centres = Centres(tmp_path)
    waiting = centres.until(3)
    before = {path: path.read_bytes() for path in centres.exchange_folder.rglob("*") if path.is_file()}
    centres.exchange(waiting, NAMES[:2])
    for write in (True, False):
        again = centres.ask(write=write)
        assert again is not None
        assert again.missing == (NAMES[2],)
        assert NAMES[2] in str(again)
    assert {path: path.read_bytes() for path in before} == before
    centres.exchange(waiting, NAMES[2:])
    collected = centres.ask(write=False)
    assert collected is not None
    assert (collected.exchange, collected.asked) == (4, False)


def test_a_site_that_is_asked_again_writes_the_same_bits(tmp_path: Path) -> None:
    centres = Centres(tmp_path)
    for exchange in (1, 2, 3):
        waiting = centres.until(exchange)
        (first,) = centres.answer("bern", waiting)
        content = {path.relative_to(first): path.read_bytes() for path in first.rglob("*") if path.is_file()}
        shutil.rmtree(first)
        (second,) = centres.answer("bern", waiting)
        assert {path.relative_to(second): path.read_bytes() for path in second.rglob("*") if path.is_file()} == content
        centres.carry_out([second])


def relabelled(package: Path, **changes: object) -> None:
    """Change what a package's manifest says, its checksums included where its files were changed."""
    manifest = json.loads((package / MANIFEST).read_text(encoding="utf-8")) | changes
    for name, entry in manifest["files"].items():
        content = (package / name).read_bytes()
        entry |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (package / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def test_a_broken_foreign_or_replayed_answer_is_refused_by_its_name(tmp_path: Path) -> None:
    centres = Centres(tmp_path)
    waiting = centres.until(4)
    (mine,) = centres.carry_out(centres.answer("lyon", waiting))
    kept = tmp_path / "kept"
    shutil.copytree(mine, kept)
    old = next(path for path in centres.exchange_folder.rglob("exchange-003-answer-lyon"))
    whole = json.loads((kept / MANIFEST).read_text(encoding="utf-8"))

    def damaged() -> None:
        (mine / INTEGERS).write_bytes(
            bytes([(mine / INTEGERS).read_bytes()[0] ^ 1]) + (kept / INTEGERS).read_bytes()[1:]
        )

    def replayed() -> None:
        shutil.rmtree(mine)
        shutil.copytree(old, mine)
        relabelled(mine, exchange=4, question=whole["question"])

    def early() -> None:
        relabelled(mine, exchange=9)

    cases: list[tuple[Callable[[], object], str]] = [
        (damaged, "was changed or damaged"),
        (lambda: (mine / HEADER).unlink(), "cannot be read"),
        (lambda: (mine / MANIFEST).write_text("{"), "is not JSON"),
        (lambda: (mine / INTEGERS).write_bytes(b"123"), "has 3 bytes"),
        (lambda: relabelled(mine, site="paris"), "'paris' is not in the roster"),
        (lambda: relabelled(mine, run="another"), "it is of the run another"),
        (lambda: relabelled(mine, study="0" * 64), "it is of the study"),
        (lambda: relabelled(mine, question="0" * 64), "it answers another question"),
        (early, "which was not asked yet"),
    ]
    for spoil, sentence in cases:
        spoil()
        with pytest.raises(PackageError, match=sentence) as caught:
            centres.ask()
        assert "exchange-004-answer-lyon" in str(caught.value)
        shutil.rmtree(mine)
        shutil.copytree(kept, mine)
    replayed()
    centres.exchange(waiting, ("bern", "oslo"))
    with pytest.raises(MalformedMessage, match="'lyon': the answer belongs to another question"):
        centres.ask()
    shutil.rmtree(mine)
    shutil.copytree(kept, mine)
    onward = centres.ask()
    assert onward is not None
    assert onward.exchange == 5


def test_two_different_answers_of_a_site_are_refused(tmp_path: Path) -> None:
    centres = Centres(tmp_path)
    waiting = centres.until(3)
    (mine,) = centres.carry_out(centres.answer("oslo", waiting))
    other = mine.with_name("copy")
    shutil.copytree(mine, other)
    assert centres.ask() is not None
    (other / INTEGERS).write_bytes(bytes(len((mine / INTEGERS).read_bytes())))
    relabelled(other)
    with pytest.raises(PackageError, match="another answer of oslo"):
        centres.ask()


def test_a_site_refuses_a_broken_or_foreign_question_by_its_name(tmp_path: Path) -> None:
    centres = Centres(tmp_path)
    waiting = centres.until(3)
    inbox = centres.carry_in("bern", waiting)
    package = inbox / "exchange-003-question-bern"
    home = centres.home("bern")

    def answer() -> None:
        answer_packages(home / "site.yaml", centres.study, inbox, home / "egress", tell=lambda _: None)

    header = json.loads((package / HEADER).read_text(encoding="utf-8"))
    for sentence, change in {
        "another question than its label": {"question": "1" * 64},
        "of the study": {"study": "1" * 64},
        "another run or exchange": {"exchange": 4},
    }.items():
        kept = (package / MANIFEST).read_text(encoding="utf-8")
        relabelled(package, **change)
        with pytest.raises(NotAnswered, match=sentence) as caught:
            answer()
        assert "exchange-003-question-bern" in str(caught.value)
        (package / MANIFEST).write_text(kept, encoding="utf-8")
    (package / HEADER).write_text(json.dumps(header | {"round": 7}), encoding="ascii")
    with pytest.raises(NotAnswered, match=r"header\.json"):
        answer()
    shutil.rmtree(inbox)
    shutil.copytree(next(path for path in waiting.written if path.name.endswith("-oslo")), inbox / "for-oslo")
    with pytest.raises(
        NotAnswered, match="found packages for oslo in the folder, expected one with a question for bern"
    ):
        answer()
    assert not any((home / "egress").rglob("exchange-003-*"))


def test_a_refusal_travels_by_its_rule_alone_and_is_forgotten_when_the_site_answers(tmp_path: Path) -> None:
    centres = Centres(tmp_path)
    waiting = centres.until(3)
    home = centres.home("bern")
    table = (home / "clinical.csv").read_text(encoding="utf-8")
    (home / "clinical.csv").write_text(table.rsplit("\n", 2)[0] + "\n", encoding="utf-8")
    with pytest.raises(NotAnswered, match="refused by the rule 'cohort-changed'"):
        centres.answer("bern", waiting)
    centres.carry_out(list((home / "egress").glob("exchange-003-refusal-bern")))
    again = centres.ask()
    assert again is not None
    assert again.refused == {"bern": "cohort-changed"}
    assert "bern (refused by its rule 'cohort-changed')" in str(again)
    (home / "clinical.csv").write_text(table, encoding="utf-8")
    centres.exchange(again)
    assert not (home / "egress" / "exchange-003-refusal-bern").exists()
    onward = centres.ask()
    assert onward is not None
    assert onward.exchange == 4


def test_the_commands_name_who_is_missing_and_add_up_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    centres = Centres(tmp_path)
    chosen = centres.settings
    common = ["--study", str(chosen.study), "--folder", str(chosen.folder)]
    server = [*common, "--roster", str(chosen.roster), "--out", str(chosen.out)]
    assert main(["round", "ask", *server]) == 0
    assert "exchange 1 (opening of the run) waits for bern, lyon, oslo" in capsys.readouterr().out
    assert main(["round", "collect", *server]) == 1
    for name in NAMES:
        assert main(["round", "answer", "--site", str(centres.home(name) / "site.yaml"), *common]) == 0
    assert main(["round", "collect", *server]) == 0
    assert "all answers are added up; exchange 2 is next" in capsys.readouterr().out
    monkeypatch.setattr("server.files_plan.SEEDS", (3,))
    assert main(["round", "plan", "--study", str(chosen.study)]) == 0
    planned = capsys.readouterr().out
    assert "an estimate" in planned
    assert "exchange   2      census" in planned


def test_the_plan_is_near_what_the_study_takes(finished: tuple[Centres, int]) -> None:
    centres, exchanges = finished
    plan = plan_of(load_study(centres.study), 3, 80)
    assert plan.least - 2 <= exchanges <= plan.most + 2
    assert plan.fitted <= 9
    assert plan.plain is not None
    assert plan.exchanges <= 12 < plan.plain


@pytest.mark.slow
def test_a_study_of_many_models_over_files_has_the_results_of_a_run_in_process_to_the_last_bit(tmp_path: Path) -> None:
    centres = Centres(tmp_path, write_many_study)
    exchanges = centres.to_the_end()
    study = load_study(centres.study)
    traffic = Traffic()
    cohorts = [load_cohort(load_site(centres.home(name) / "site.yaml"), study) for name in NAMES]
    live = run_pooled(algorithm_of(study), cohorts, traffic)
    facts = RunFacts("in-process", NAMES, (), 0.0, "", (), masked=True, left_out={})
    write_outputs(live, facts, tmp_path / "live")
    files = results(centres.settings.out)
    for section in ("models", "evaluations", "harmonized", "characteristics", "study"):
        assert files[section] == results(tmp_path / "live")[section]
    for name in ("clinical", "texture-combat", "both"):
        model = Path("models") / f"{name}.json"
        assert (centres.settings.out / model).read_bytes() == (tmp_path / "live" / model).read_bytes()
    assert exchanges == files["run"]["rounds"] + 2
    assert exchanges < traffic.rounds + 2
    plan = plan_of(study, 3, 80)
    assert abs(plan.exchanges - exchanges) <= 5
    assert any("a study of many models" in line for line in plan.lines())
