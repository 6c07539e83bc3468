"""The bundle carries no code, and a site takes no other."""

from __future__ import annotations

import io
import tomllib
import zipfile
from pathlib import Path

import pytest

from ctfed import __version__
from ctfed.federation.errors import Refusal
from ctfed.federation.flower.bundle import FAB_ID, NAME, PUBLISHER, RUN_CONFIG, build_bundle, check_bundle


def test_the_bundle_is_a_name_and_no_code() -> None:
    content = build_bundle()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert set(archive.namelist()) == {"pyproject.toml", "README.md", ".info/CONTENT"}
        project = tomllib.loads(archive.read("pyproject.toml").decode())
    assert len(content) < 5_000
    assert project["project"]["version"] == __version__
    assert project["tool"]["flwr"]["app"]["config"] == RUN_CONFIG
    check_bundle(FAB_ID, content)


def test_two_builds_are_the_same_bytes() -> None:
    assert build_bundle() == build_bundle()


def _with(name: str) -> bytes:
    buffer = io.BytesIO(build_bundle())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, "print('hello')")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("fab_id", "content", "rule"),
    [
        ("someone/else", build_bundle(), "other_app"),
        (FAB_ID, _with("ctfed/federation/client_app.py"), "bundle_carries_code"),
        (FAB_ID, _with("sitecustomize.py"), "bundle_carries_code"),
        (FAB_ID, b"not a zip", "unreadable_bundle"),
    ],
)
def test_any_other_bundle_is_refused(fab_id: str, content: bytes, rule: str) -> None:
    with pytest.raises(Refusal) as refusal:
        check_bundle(fab_id, content)
    assert refusal.value.rule == rule


def test_pyproject_declares_the_same_app() -> None:
    """`flwr run .` builds its bundle from pyproject.toml, `ctfed serve` from bundle.py."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    app = project["tool"].get("flwr", {}).get("app")
    if app is None:
        pytest.skip("pyproject.toml declares no Flower app")
    assert project["project"]["name"] == NAME
    assert app["publisher"] == PUBLISHER
    assert app["fab-include"] == ["README.md"]
    assert app["components"] == {
        "serverapp": "server.app:app",
        "clientapp": "ctfed.federation.client_app:app",
    }
    assert app["config"] == RUN_CONFIG
