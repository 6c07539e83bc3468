"""The command line: help is quick and whole, every fault is a sentence on standard error and exit code 2."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ctfed.cli import main
from server.commands import DEMO, EXAMPLES

STUDY = EXAMPLES / "studies" / DEMO
SITE = EXAMPLES / "sites" / DEMO


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for command in ("site", "join", "demo", "simulate", "study", "provision", "serve"):
        assert re.search(rf"^    {command}\b", shown, re.MULTILINE), command


def test_help_imports_nothing_heavy() -> None:
    """Numerical libraries, Flower and drawing are imported by the commands that need them."""
    program = (
        "import sys\nfrom ctfed.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({'torch', 'flwr', 'matplotlib', 'scipy', 'pandas', 'lifelines'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.rstrip().endswith("HEAVY []")


def test_a_study_is_checked_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "study", "check", str(STUDY))
    assert code == 0
    assert "ncctg_lung" in out
    assert "sha256" in out


def test_a_site_is_checked_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "site", str(SITE), "--study", str(STUDY))
    assert code == 0
    assert "institution-01: " in out
    assert "other-institutions" in out


def edited(path: Path, old: str, new: str, folder: Path) -> Path:
    text = path.read_text()
    assert old in text
    copy = folder / path.name
    copy.write_text(text.replace(old, new))
    return copy


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (STUDY, "ties: efron", "ties: effron", ["ncctg_lung.yaml", "model.ties", "'effron'", "'efron' or 'breslow'"]),
        (STUDY, "  ties: efron", "  tie: efron", ["model.tie", "did you mean", "ties"]),
        (STUDY, "folds: 5", "folds: five", ["tuning.folds", "'five'", "whole number"]),
        (SITE, "by: inst", "by: hospital", ["hospital", "inst"]),
        (SITE, "time: time", "time: tyme", ["tyme", "time"]),
        (SITE, "status}", "sex}", ["sex"]),
    ],
)
def test_a_wrong_file_is_one_clear_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, file: Path, old: str, new: str, words: list[str]
) -> None:
    wrong = edited(file, old, new, tmp_path)
    study, site = (wrong, SITE) if file == STUDY else (STUDY, wrong)
    code, _, err = run(capsys, "simulate", str(study), "--site", str(site), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_a_missing_file_is_a_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "study", "check", str(tmp_path / "none.yaml"))
    assert code == 2
    assert "none.yaml" in err
    assert "Traceback" not in err


def test_a_journal_of_another_study_is_a_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    quick = edited(STUDY, "count: 30", "count: 2", tmp_path)
    assert run(capsys, "simulate", str(quick), "--site", str(SITE), "--out", str(tmp_path / "out"))[0] == 0
    other = edited(STUDY, "count: 30", "count: 3", tmp_path)
    code, _, err = run(capsys, "simulate", str(other), "--site", str(SITE), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "journal" in err
    assert "choose another output folder" in err
