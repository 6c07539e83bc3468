"""`ctfed ledger`: readable lines, exit codes that a script can use, and nothing changed but by accept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from masked_support import VIEW, Federation, StrictGate, counts, moments

from ctfed.cli import main
from ctfed.federation.ledger import FILE, GENESIS, Ledger, answers_path
from ctfed.federation.wire import Invitation

SITE = "site-00"


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """Two runs: two rounds, then one that is refused."""
    federation = Federation(tmp_path)
    assembly = federation.begin("run-1")
    federation.ask(0, [moments(0.0), moments(1.0), counts(VIEW.training_fold(1))], assembly)
    federation.ask(1, [counts()], assembly)
    federation.gate = StrictGate()
    federation.restart(SITE)
    assembly = federation.begin("run-2")
    with pytest.raises(Exception, match="too-curious"):
        federation.ask(0, [counts()], assembly)
    return federation


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["ledger", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_show_is_a_table_of_what_was_asked_and_decided(
    federation: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = federation.ledger_folder(SITE)
    code, out, _ = run(capsys, "show", folder)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["time", "(UTC)", "run", "round", "decision", "numbers", "bytes", "spent", "so", "far"]
    assert "opened" in lines[1]
    assert "3 sites; contributes to train and test" in lines[2]
    assert lines[3].split()[2:] == ["run-1", "0", "sent", "20", "368", "rounds", "1"]
    patients = sum(int((c.split == "train").sum()) for c in federation.cohorts)
    assert lines[4].startswith(
        f"    moments x 2: train, {patients} patients of 3 sites; count 2, events, patients, squares 2, sum 2"
    )
    assert lines[5].startswith("    counts: train outside fold 1, ")
    assert "rounds 2" in lines[6]
    refused = next(i for i, line in enumerate(lines) if "refused: too-curious" in line)
    assert lines[refused + 1] == "    this site tells nothing today"
    assert "2 runs, 2 rounds answered: 24 numbers" in out
    assert "1 refused" in out
    ledger = Ledger(folder)
    assert f"to be written down: --entries {ledger.length} --head {ledger.head}" in out
    assert not any(secret in out for secret in ledger.runs["run-1"].opened["patients"])


def test_show_can_be_narrowed(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    folder = federation.ledger_folder(SITE)
    _, out, _ = run(capsys, "show", folder, "--run", "run-2")
    assert "run-1" not in out
    assert "too-curious" in out
    _, out, _ = run(capsys, "show", folder, "--last", 1)
    assert "too-curious" in out
    assert "opened" not in out
    assert "(4 earlier lines are not shown)" in out
    code, _, err = run(capsys, "show", folder, "--run", "run-9")
    assert code == 2
    assert "found no run 'run-9'; the ledger knows run-1, run-2" in err


def test_a_name_from_a_server_cannot_move_the_terminals_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = Federation(tmp_path)
    invitation = Invitation("run\x1b[2J\n0", federation.study, federation.roster.digest)
    federation.guards[SITE].open(invitation, federation.by_site[SITE])
    code, out, _ = run(capsys, "show", federation.ledger_folder(SITE))
    assert code == 0
    assert "\x1b" not in out
    assert "run?[2J?0" in out


def test_verify_says_whole_or_which_line(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    folder = federation.ledger_folder(SITE)
    before = (folder / FILE).read_bytes()
    code, out, _ = run(capsys, "verify", folder)
    assert code == 0
    assert "whole, 7 entries, 2 stored answers as they were sent" in out
    assert (folder / FILE).read_bytes() == before
    (folder / FILE).write_bytes(before.replace(b'"numbers":20', b'"numbers":21'))
    code, out, _ = run(capsys, "verify", folder)
    assert code == 2
    assert "WRONG: ledger.jsonl, line 3: this line was changed" in out
    (folder / FILE).write_bytes(before)
    answers_path(folder, "run-1").unlink()
    code, out, _ = run(capsys, "verify", folder)
    assert code == 2
    assert "WRONG: ledger.jsonl, line 4: the answer in answers/run-1.limbs is gone" in out


def test_verify_compares_with_what_was_written_down(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    folder = federation.ledger_folder(SITE)
    ledger = Ledger(folder)
    for entries in (0, 3, ledger.length):
        code, out, _ = run(capsys, "verify", folder, "--entries", entries, "--head", ledger.head_of(entries).upper())
        assert code == 0
        assert f"the ledger goes on from entry {entries} as it was written down" in out
    code, out, _ = run(capsys, "verify", folder, "--entries", ledger.length, "--head", GENESIS)
    assert code == 2
    assert "was written anew" in out
    lines = (folder / FILE).read_bytes().splitlines(keepends=True)
    (folder / FILE).write_bytes(b"".join(lines[:-2]))
    code, out, _ = run(capsys, "verify", folder, "--entries", ledger.length, "--head", ledger.head)
    assert code == 2
    assert "the ledger had 7 entries when it was written down, now 5" in out


def test_verify_wants_length_and_hash_together(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    folder = federation.ledger_folder(SITE)
    for some in (("--entries", "3"), ("--head", GENESIS)):
        code, _, err = run(capsys, "verify", folder, *some)
        assert code == 2
        assert "are checked together; found one of them" in err
    for wrong in (("--entries", "-1"), ("--head", "abc")):
        with pytest.raises(SystemExit) as stopped:
            run(capsys, "verify", folder, *wrong)
        assert stopped.value.code == 2
        assert "expected" in capsys.readouterr().err


def test_export_writes_three_files_and_tells_when_the_ledger_is_not_whole(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = federation.ledger_folder(SITE), tmp_path / "new" / "out"
    policy = tmp_path / "policy.yaml"
    policy.write_text("ctfed_policy: 1\nmax_rounds: 77\n")
    code, printed, _ = run(capsys, "export", folder, "--out", out, "--policy", policy, "--site", SITE)
    assert code == 0
    assert [line for line in printed.splitlines() if line.startswith(str(out))] == [
        str(out / name) for name in ("ledger.html", "ledger.csv", "ledger.json")
    ]
    assert ">77<" in (out / "ledger.html").read_text()
    patients = Ledger(folder).runs["run-1"].opened["patients"]
    assert len(patients) == 40
    for path in out.iterdir():
        assert not any(secret in path.read_text() for secret in patients)
        assert "tells nothing today" not in path.read_text()
    answers_path(folder, "run-1").unlink()
    code, printed, _ = run(capsys, "export", folder, "--out", out)
    assert code == 2
    assert "does not verify" in (out / "ledger.html").read_text()
    assert json.loads((out / "ledger.json").read_text())["whole"] is False


def test_what_is_no_ledger_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for action in (["show"], ["verify"], ["export", "--out", str(tmp_path / "out")], ["accept", "--site", "x"]):
        code, _, err = run(capsys, action[0], tmp_path, *action[1:])
        assert code == 2
        assert "holds no ledger.jsonl, expected the folder of a site's ledger" in err
    assert not list(tmp_path.iterdir())


def test_accept_is_asked_for_and_written_down(
    federation: Federation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = federation.ledger_folder(SITE)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    code, out, _ = run(capsys, "accept", folder, "--site", "site-01")
    assert code == 1
    assert "not accepted" in out
    assert "site-01" in Ledger(folder).witnessed
    code, out, _ = run(capsys, "accept", folder, "--site", "site-01", "--yes")
    assert code == 0
    assert "had more than 4 entries when it was last seen" in out
    assert "site-01" not in Ledger(folder).witnessed
    code, _, err = run(capsys, "accept", folder, "--site", "site-01", "--yes")
    assert code == 2
    assert "has seen no ledger of 'site-01', and has nothing to accept; seen: site-02" in err
    _, out, _ = run(capsys, "show", folder, "--last", 1)
    assert "accepted the ledger that site-01 has now" in out
