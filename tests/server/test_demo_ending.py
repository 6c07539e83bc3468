"""The last lines of the demonstration: which files may be handed on, and which folders stay."""

from __future__ import annotations

from pathlib import Path

from server.demo import handing_on


def test_files_of_totals_are_named_and_nothing_else(tmp_path: Path) -> None:
    for name in ("report.html", "results.json", "curves.csv", "model.json", "model_card.md", "patients.csv"):
        (tmp_path / name).write_text("", encoding="utf-8")
    for name in ("journal", "sites", "phantoms/sites"):
        (tmp_path / name).mkdir(parents=True)
    lines = handing_on(tmp_path)
    handed, kept = lines[: lines.index("What stays where it is:")], lines[lines.index("What stays where it is:") :]
    assert handed[1] == f"  {tmp_path}: report.html, results.json, curves.csv, model.json, model_card.md"
    assert "patients.csv" not in "".join(lines)
    for name in ("journal", "sites", "phantoms/sites"):
        assert f"{tmp_path / name}/" in "".join(kept)
    assert "journal" not in "".join(handed)


def test_without_phantoms_there_is_one_run(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("", encoding="utf-8")
    (tmp_path / "journal").mkdir()
    assert len(handing_on(tmp_path)) == 4
