"""The images, really built and run: as any user, read-only, without capabilities, on a network without a way out.

Needs root, podman, buildah, runc and a base image that is here already (CTFED_BASE_IMAGE; base_image.sh makes one);
CTFED_BUILD_ARGUMENTS goes to `buildah build`, for example '-v ca.crt:/etc/ssl/certs/ca-certificates.crt:ro'. Only with
CTFED_SITE_IMAGE=1 the site image is built as well: it takes several minutes and 10 GB of disk while it is built.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine import (
    NAMES,
    PYTHON,
    SERVER,
    SITE,
    TARGETS,
    WITH_SITE,
    Engine,
    give,
    reason_to_skip,
    results,
    write_trial,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip() or "-")]

USERS = {"bern": 1000, "lyon": 23456, "oslo": 1000}
NETWORK, HUB = "ctfed-test", "ctfed-test-hub"
IMAGES = [tag for _, tag in TARGETS]
SERVER_BYTES = 400_000_000  # unpacked
MISSING = {  # libraries of parts that nothing here uses: VTK's windows; PyPI's torchvision is built for CUDA alone
    SERVER: set[str](),
    SITE: {"libGL.so.1", "libX11.so.6", "libXrender.so.1", "libc10_cuda.so", "libcudart.so.13", "libtorch_cuda.so"},
}

# Prints which compiled modules miss a library that is neither in the image nor beside them.
LIBRARIES = """
import json, re, subprocess, sysconfig
from pathlib import Path
site = Path(sysconfig.get_path("purelib"))
files = [p for p in site.rglob("*.so*") if p.is_file() and p.open("rb").read(4) == b"\\x7fELF"]
told = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True).stdout
names = {p.name for p in files}
print(json.dumps([len(files), sorted(set(re.findall(r"(\\S+) => not found", told)) - names)]))
"""


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


@pytest.mark.parametrize("image", IMAGES)
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
    told = engine.run(SERVER, "-c", probe, options=("--entrypoint", PYTHON))
    assert told.stdout.strip() == "['/tmp']", told.stderr


def test_the_server_is_small(engine: Engine) -> None:
    told = engine.call("podman", "image", "inspect", SERVER, "--format", "{{.Size}}")
    assert 0 < int(told.stdout) < SERVER_BYTES


@pytest.mark.parametrize("image", IMAGES)
def test_nothing_gives_rights_and_nothing_installs(engine: Engine, image: str) -> None:
    search = "find / -xdev -perm /6000 -type f 2>/dev/null; ls /usr/bin /usr/local/bin"
    search += " | grep -xE 'apt(-get)?|pip[0-9.]*|uv|perl|su|mount'"
    told = engine.run(image, "-c", search, options=("--entrypoint", "/bin/sh"))
    assert (told.stdout, told.stderr) == ("", "")
    told = engine.run(
        image,
        "-c",
        "import importlib.util as u; print([n for n in ('pip', 'uv', 'ensurepip') if u.find_spec(n)])",
        options=("--entrypoint", PYTHON),
    )
    assert told.stdout.strip() == "[]", told.stderr


@pytest.mark.skipif(not WITH_SITE, reason="needs CTFED_SITE_IMAGE=1")
def test_what_nnunet_imports_to_find_a_trainer_is_there(engine: Engine) -> None:
    """Of which timm needs torchvision, which PyPI has for a torch with CUDA alone."""
    code = (
        "from ctfed.imaging.segment.nnunet import fit_torchvision; fit_torchvision(); import timm, torchvision; "
        "from nnunetv2.utilities.find_class_by_name import recursive_find_python_class as find; import nnunetv2; "
        "folder = nnunetv2.__path__[0] + '/training/nnUNetTrainer'; "
        "print(find(folder, 'nnUNetTrainerNoMirroring', 'nnunetv2.training.nnUNetTrainer').__name__)"
    )
    told = engine.run(SITE, "-c", code, options=("--entrypoint", PYTHON))
    assert told.stdout.splitlines()[-1:] == ["nnUNetTrainerNoMirroring"], told.stderr


@pytest.mark.parametrize("image", IMAGES)
def test_every_compiled_module_finds_its_libraries(engine: Engine, image: str) -> None:
    told = engine.run(image, "-c", LIBRARIES, options=("--entrypoint", PYTHON))
    found, missing = json.loads(told.stdout)
    assert found > 100
    assert set(missing) <= MISSING[image]


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
    told = engine.run(SERVER, "-c", code, options=("--entrypoint", PYTHON))
    assert told.stdout.strip() == "CycloneDX True", told.stderr
    # The lists hold what is there, and no more: Debian's names the same packages as its own record.
    code = (
        "from importlib.metadata import distributions as d; import json; "
        "b = json.load(open('/opt/ctfed/sbom/python.cdx.json')); "
        "print({c['name'].lower() for c in b['components']} == {i.name.lower() for i in d()})"
    )
    told = engine.run(SERVER, "-c", code, options=("--entrypoint", PYTHON))
    assert told.stdout.strip() == "True", told.stderr
    debian = "dpkg-query -W -f '${Package}\\t${Version}\\n' | cmp - /opt/ctfed/sbom/debian.tsv"
    told = engine.run(SERVER, "-c", debian, options=("--entrypoint", "/bin/sh"))
    assert told.returncode == 0, told.stdout + told.stderr


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
    image = SITE if WITH_SITE else SERVER
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
