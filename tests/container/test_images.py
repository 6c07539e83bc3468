"""The images, really built and run: as any user, read-only, without capabilities, on a network without a way out.

Needs root, podman, buildah, runc and a base image that is here already (CTFED_BASE_IMAGE; base_image.sh makes one);
CTFED_BUILD_ARGUMENTS goes to `buildah build`, for example '-v ca.crt:/etc/ssl/certs/ca-certificates.crt:ro'. Only with
CTFED_SITE_IMAGE=1 the site image is built as well: it takes several minutes and 10 GB.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engine import NAMES, SERVER, SITE, Engine, give, reason_to_skip, results, write_trial

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip() or "-")]

USERS = {"bern": 1000, "lyon": 23456, "oslo": 1000}
NETWORK, HUB = "ctfed-test", "ctfed-test-hub"
TARGETS = [("server", SERVER)] + ([("site", SITE)] if os.environ.get("CTFED_SITE_IMAGE") else [])


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with the images."""
    with Engine(tmp_path_factory.mktemp("engine")) as made:
        for target, tag in TARGETS:
            built = made.build(target, tag)
            assert built.returncode == 0, built.stderr[-3000:]
        yield made


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """Three sites of two users, and a server, ready to be mounted."""
    folder = tmp_path / "trial"
    folder.mkdir()
    write_trial(folder, f"{HUB}:8000")
    for name, uid in USERS.items():
        give(folder / "sites" / name, uid, uid)
        give(folder / "output" / name, uid, uid)
    (folder / "out").mkdir()
    give(folder / "server", 1000, 1000)
    give(folder / "out", 1000, 1000)
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    return folder


def mounts(trial: Path, name: str) -> tuple[str, ...]:
    """A site's folders: only its output can be written."""
    site, output = trial / "sites" / name, trial / "output" / name
    return f"{site}:/site:ro", f"{output}:/output", f"{trial}/study.yaml:/study.yaml:ro"


@pytest.mark.parametrize("image", [tag for _, tag in TARGETS])
@pytest.mark.parametrize("user", ["1000:1000", "23456:23456", "123456:0"])
def test_any_user_runs_it_without_rights_or_home(engine: Engine, image: str, user: str) -> None:
    told = engine.run(image, "--version", user=user, environment={"HOME": "/nonexistent"})
    assert (told.returncode, told.stdout.startswith("ctfed ")) == (0, True), told.stderr


def test_root_without_rights_is_told_how_to_start(engine: Engine) -> None:
    told = engine.run(SERVER, "--version", user="0")
    assert (told.returncode, "--user 1000:1000" in told.stderr) == (2, True)


def test_only_tmp_can_be_written(engine: Engine) -> None:
    probe = (
        "import os; print([p for p in ('/', '/opt/ctfed', '/usr', '/etc', '/var', '/home', '/tmp') if os.access(p, 2)])"
    )
    told = engine.run(SERVER, "-c", probe, options=("--entrypoint", "/opt/ctfed/venv/bin/python"))
    assert told.stdout.strip() == "['/tmp']", told.stderr


def test_labels_and_bill_of_materials_are_there(engine: Engine) -> None:
    wanted = (
        '{{.Config.User}} {{index .Config.Labels "version"}} {{index .Config.Labels "org.opencontainers.image.title"}}'
    )
    told = engine.call("podman", "image", "inspect", SERVER, "--format", wanted)
    assert told.stdout.strip() == "1000:1000 0.1.0 ctfed-server"
    code = (
        "import json; b = json.load(open('/opt/ctfed/sbom/python.cdx.json')); "
        "print(b['bomFormat'], 'flwr' in {c['name'] for c in b['components']})"
    )
    told = engine.run(SERVER, "-c", code, options=("--entrypoint", "/opt/ctfed/venv/bin/python"))
    assert told.stdout.strip() == "CycloneDX True", told.stderr


def test_the_demo_runs_without_a_network_by_variables(engine: Engine, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    give(out, 23456, 23456)
    config = "/opt/ctfed/venv/lib/python3.11/site-packages/site_config"
    environment = {
        "CTFED_COMMAND": "simulate",
        "CTFED_STUDY": f"{config}/studies/ncctg_lung.yaml",
        "CTFED_SITE": f"{config}/sites/ncctg_lung.yaml",
        "CTFED_OUT": "/out",
    }
    told = engine.run(SERVER, user="23456:23456", mounts=(f"{out}:/out",), environment=environment)
    assert told.returncode == 0, told.stderr
    assert (out / "report.html").is_file()


def test_a_federation_of_containers_gives_the_result_of_the_in_process_run(engine: Engine, trial: Path) -> None:
    """Server and three sites, TLS and node authentication, an internal network, two users."""
    image = SITE if os.environ.get("CTFED_SITE_IMAGE") else SERVER
    engine.network(NETWORK)
    for name, uid in USERS.items():
        command = ("approve", "/study.yaml", "--site", "/site/site.yaml", "--yes")
        told = engine.run(image, *command, user=f"{uid}:{uid}", mounts=mounts(trial, name))
        assert told.returncode == 0, told.stderr
    join = ("join", "/site/site.yaml", "--study", "/study.yaml", "--folder", "/site", "--state", "/tmp/node")
    for name, uid in USERS.items():
        kind = {"user": f"{uid}:{uid}", "network": NETWORK, "detached": True, "name": f"ctfed-test-{name}"}
        told = engine.run(image, *join, mounts=mounts(trial, name), **kind)  # type: ignore[arg-type]
        assert told.returncode == 0, told.stderr
    folders = (f"{trial}/server:/kit", f"{trial}/out:/out", f"{trial}/study.yaml:/study.yaml:ro")
    serve = ("serve", "/study.yaml", "--folder", "/kit", "--out", "/out", "--host", "0.0.0.0")
    told = engine.run(SERVER, *serve, network=NETWORK, name=HUB, mounts=folders, timeout=900)
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr[-2000:]
    assert "masked" in told.stdout
    # In a container of the same image, so that both runs have the same code.
    (trial / "oracle").mkdir()
    give(trial, 1000, 1000)
    sites = [word for name in NAMES for word in ("--site", f"/trial/output/{name}/trial.yaml")]
    simulate = ("simulate", "/trial/study.yaml", *sites, "--out", "/trial/oracle")
    alone = engine.run(SERVER, *simulate, mounts=(f"{trial}:/trial",))
    assert alone.returncode == 0, alone.stderr
    assert results(trial / "out") == results(trial / "oracle")
    logs = told.stdout + told.stderr + "".join(engine.logs(f"ctfed-test-{name}") for name in NAMES)
    assert "clinical.csv" not in logs
