"""What the images are built from agrees with itself: versions, locks, site files of the platforms."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from ctfed import __version__
from ctfed.site import load_site

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "site_config" / "deploy"
LOCKS = ("server", "site-cpu", "site-cuda", "source", "build")
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;+]+)(\+\w+)?", re.MULTILINE)


def pins(path: Path) -> dict[str, str]:
    """Package -> version, without the local part that marks torch's CPU build."""
    found = PIN.finditer(path.read_text(encoding="utf-8"))
    return {re.sub(r"[_.-]+", "-", match[1]).lower(): match[2] for match in found}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_the_versions_that_are_tested_and_a_hash_for_each(lock: str) -> None:
    tested, locked = pins(ROOT / "constraints.txt"), pins(ROOT / "locks" / f"{lock}.txt")
    assert {name: locked[name] for name in locked.keys() & tested.keys()} == {
        name: tested[name] for name in locked.keys() & tested.keys()
    }
    blocks = re.split(r"^(?=\S)", (ROOT / "locks" / f"{lock}.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert all("--hash=sha256:" in block for block in blocks if PIN.match(block))
    assert len(locked) > 0


@pytest.mark.parametrize(
    ("locks", "extras"),
    [
        (("server",), ("report",)),
        (("site-cpu",), ("report", "imaging", "segmentation", "tuning")),
        (("site-cuda",), ("report", "imaging", "segmentation", "tuning")),
    ],
)
def test_what_the_project_needs_is_locked(locks: tuple[str, ...], extras: tuple[str, ...]) -> None:
    """Else `sh locks/make_locks.sh` has to write the locks again."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(name for extra in extras for name in project["optional-dependencies"][extra])]
    names = {re.sub(r"[_.-]+", "-", re.split(r"[<>=!~\[; ]", text, maxsplit=1)[0]).lower() for text in wanted}
    assert names <= {name for lock in (*locks, "source") for name in pins(ROOT / "locks" / f"{lock}.txt")}


def test_the_server_has_no_imaging_stack() -> None:
    heavy = {"torch", "nnunetv2", "totalsegmentator", "simpleitk", "pyradiomics-bhklab", "monai"}
    assert not heavy & pins(ROOT / "locks" / "server.txt").keys()
    site = pins(ROOT / "locks" / "site-cpu.txt") | pins(ROOT / "locks" / "source.txt")
    assert heavy <= site.keys()


def test_the_dockerfile_names_this_version_no_user_but_1000_and_no_heredoc() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^ARG VERSION=(.*)$", text, re.MULTILINE) == [__version__] * 2
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["1000:1000"] * 2
    assert "<<" not in text


def test_every_path_that_the_dockerfile_copies_comes_back_in_dockerignore() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    kept = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    copied = [match.split()[:-1] for match in re.findall(r"^COPY (?:--chmod=\d+ )?(?!--from)(.*)$", text, re.MULTILINE)]
    assert {name.split("/")[0] for names in copied for name in names} == kept


@pytest.mark.parametrize("platform", ["chaimeleon", "eucaim", "grand-challenge", "kubernetes/files"])
def test_the_site_file_of_a_platform_is_one(platform: str) -> None:
    assert load_site(DEPLOY / platform / "site.yaml").site


def test_every_container_of_the_examples_is_closed() -> None:
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for service in services.values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    for name in ("site", "prepare", "once"):
        documents = yaml.safe_load_all((DEPLOY / "kubernetes" / f"{name}.yaml").read_text(encoding="utf-8"))
        for document in documents:
            spec = document["spec"].get("template", {}).get("spec", document["spec"])
            for container in spec.get("containers", ()):
                rights = container["securityContext"]
                assert (rights["readOnlyRootFilesystem"], rights["allowPrivilegeEscalation"]) == (True, False)
                assert rights["capabilities"] == {"drop": ["ALL"]}
