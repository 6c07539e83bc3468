"""Weights: nothing is opened before its digest is checked, and what is missing is said without a socket."""

from __future__ import annotations

import hashlib
import pickle
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ctfed.cli import main
from ctfed.config import ConfigError
from ctfed.imaging.segment import SegmenterSettings, WeightsError, build
from ctfed.imaging.segment.totalseg import LicenceError
from ctfed.imaging.segment.weights import MANIFEST, Origin, check_weights, write_manifest

ORIGIN = Origin("a model", "https://example.org", "CC BY 4.0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "weights"
    (made / "fold_0").mkdir(parents=True)
    (made / "dataset.json").write_text("{}")
    (made / "fold_0" / "checkpoint_final.pth").write_bytes(b"tensors")
    return made


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every attempt to open one, which fails."""
    opened: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        opened.append(arguments)
        raise OSError("no network in this test")

    for name in ("socket", "create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    return opened


def test_weights_that_are_what_their_manifest_says_pass(folder: Path) -> None:
    written = write_manifest(folder, "tiny", "a colleague")
    found = check_weights(folder, ORIGIN, expected=written.digest)
    assert found.files == ("dataset.json", "fold_0/checkpoint_final.pth")
    assert found.digest == written.digest


def test_the_digest_is_that_of_what_sha256sum_prints(folder: Path) -> None:
    names = ["dataset.json", "fold_0/checkpoint_final.pth"]
    printed = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True).stdout
    assert write_manifest(folder, "tiny").digest == hashlib.sha256(printed).hexdigest()


def test_a_source_or_name_does_not_change_the_digest(folder: Path) -> None:
    assert write_manifest(folder, "one").digest == write_manifest(folder, "two", "elsewhere").digest


def test_a_changed_file_is_refused_before_it_is_unpickled(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "was-unpickled"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (trace,)

    write_manifest(folder, "tiny")
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(WeightsError, match=r"checkpoint_final\.pth: found SHA-256 .* it is not loaded"):
        build(SegmenterSettings(model="bamf-lung-nodule", weights=folder))
    assert not trace.exists()
    pickle.loads((folder / "fold_0" / "checkpoint_final.pth").read_bytes())
    assert trace.exists()  # the trap works


def test_a_file_that_is_not_listed_is_refused(folder: Path) -> None:
    write_manifest(folder, "tiny")
    (folder / "fold_1").mkdir()
    (folder / "fold_1" / "checkpoint_final.pth").write_bytes(b"another fold")
    with pytest.raises(WeightsError, match=r"found fold_1/checkpoint_final\.pth, which the manifest does not list"):
        check_weights(folder, ORIGIN)


def test_a_missing_file_is_named(folder: Path) -> None:
    write_manifest(folder, "tiny")
    (folder / "dataset.json").unlink()
    with pytest.raises(
        WeightsError, match=r"found no file dataset\.json, expected the weights of a model \(from https"
    ):
        check_weights(folder, ORIGIN)


def test_another_digest_than_the_studys_is_refused(folder: Path) -> None:
    write_manifest(folder, "tiny")
    with pytest.raises(WeightsError, match=r"expected 0{64} as the study says"):
        check_weights(folder, ORIGIN, expected="0" * 64)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../b", "./a"])
def test_a_manifest_stays_inside_its_folder(folder: Path, name: str) -> None:
    (folder / MANIFEST).write_text(f'ctfed_weights: 1\nmodel: x\nfiles:\n  "{name}": "{"0" * 64}"\n')
    with pytest.raises(ConfigError, match="expected a plain path inside the folder"):
        check_weights(folder, ORIGIN)


def test_a_manifest_can_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    digest = write_manifest(folder, "tiny").digest
    elsewhere = (folder / MANIFEST).rename(tmp_path / "manifest.yaml")
    assert check_weights(folder, ORIGIN, manifest=elsewhere).digest == digest
    with pytest.raises(WeightsError, match="found no manifest, expected one with the SHA-256 of every file"):
        check_weights(folder, ORIGIN)


@pytest.mark.parametrize("model", ["bamf-lung-nodule", "mediastinal-nodes", "totalsegmentator-coronary-arteries"])
@pytest.mark.parametrize("where", [None, "absent"])
def test_missing_weights_are_our_own_sentence_and_open_no_socket(
    model: str, where: str | None, tmp_path: Path, no_sockets: list[Any]
) -> None:
    weights = None if where is None else tmp_path / where
    with pytest.raises(WeightsError) as caught:
        build(SegmenterSettings(model=model, weights=weights, licence_number="not-a-licence-0000"))
    said = str(caught.value)
    assert all(word in said for word in ("expected", "from ", "licence: "))
    assert where is None or str(tmp_path / where) in said
    assert no_sockets == []


def test_totalsegmentator_without_a_licence_number_asks_for_the_centres_own(
    tmp_path: Path, no_sockets: list[Any]
) -> None:
    with pytest.raises(LicenceError, match=r"found no licence_number .* expected the centre's own"):
        build(SegmenterSettings(model="totalsegmentator-coronary-arteries", weights=tmp_path))
    assert no_sockets == []


def test_a_licence_number_is_not_shown() -> None:
    settings = SegmenterSettings(model="given", licence_number="secret-number-0000")
    assert "secret-number" not in repr(settings)


def test_the_command_writes_a_manifest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", str(folder), "tiny", "--source", "a colleague"]) == 0
    assert f"{MANIFEST}: 2 files, digest " in capsys.readouterr().out
    assert "a colleague" in (folder / MANIFEST).read_text()
    assert check_weights(folder, ORIGIN).files
    assert main(["weights", str(folder / "absent"), "tiny"]) == 2
    assert "found no files, expected a folder of weights" in capsys.readouterr().err
