"""Images and containers by podman and buildah, without a daemon: for tests, always taken down to the last container."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "site_config" / "studies" / "ncctg_lung.yaml"
SERVER, SITE = "localhost/ctfed-server:test", "localhost/ctfed-site:test"
WITH_SITE = bool(os.environ.get("CTFED_SITE_IMAGE"))  # the site image is built and run as well
TARGETS = [("server", SERVER)] + ([("site", SITE)] if WITH_SITE else [])
PYTHON = "/opt/ctfed/venv/bin/python"
BASE = "CTFED_BASE_IMAGE"  # an image that is here already; tests/container/base_image.sh makes one
BUILD = "CTFED_BUILD_ARGUMENTS"  # for `buildah build`, for example a mounted CA file or a folder of wheels
CONTAINERS_CONF = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_backend = "netavark"
"""
NAMES = ("bern", "lyon", "oslo")
SITE_YAML = """\
ctfed_site: 1
site: {name}
data: {{csv: {site}/clinical.csv}}
columns: {{id: patient, time: time, event: status}}
time_unit: days
secret: {output}/site.secret
features:
  sex: {{column: sex, codes: {{1: 0, 2: 1}}}}
  ecog: ph.ecog
  karnofsky: ph.karno
  karnofsky_patient: pat.karno
  calories: meal.cal
  weight_loss: wt.loss
trust: {{key: {site}/mask.key, roster: {site}/roster.json, ledger: {output}/ledger}}
"""


def reason_to_skip() -> str:
    """Why no container can be run here; '' when they can."""
    missing = [program for program in ("podman", "buildah", "runc") if shutil.which(program) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    if os.getuid() != 0:
        return "needs root, for networks and for folders of several users"
    if not os.environ.get(BASE):
        return f"needs {BASE}, the name of a base image that is here; tests/container/base_image.sh makes one"
    return ""


@dataclass
class Engine:
    """Podman with its own configuration; containers that it started are removed when it is closed."""

    folder: Path
    names: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "containers.conf").write_text(CONTAINERS_CONF, encoding="utf-8")
        self.environment = os.environ | {"CONTAINERS_CONF": str(self.folder / "containers.conf")}

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        for name in self.names:
            self.call("podman", "rm", "-f", "-t", "5", name)
        for name in self.networks:
            self.call("podman", "network", "rm", "-f", name)

    def call(self, *command: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a program; its output is text, and a failure is not raised."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def build(self, target: str, tag: str) -> subprocess.CompletedProcess[str]:
        """Build a target of the Dockerfile."""
        options = os.environ.get(BUILD, "").split()
        base = f"BASE_IMAGE={os.environ[BASE]}"
        command = ("buildah", "build", "--isolation", "chroot", "--format", "docker", "--layers", "--pull-never")
        return self.call(
            *command, *options, "--build-arg", base, "--target", target, "-t", tag, str(ROOT), timeout=3600
        )

    def network(self, name: str) -> None:
        """Make a network without a way out."""
        self.networks.append(name)
        made = self.call("podman", "network", "create", "--internal", name)
        assert made.returncode == 0, made.stderr

    def run(
        self,
        image: str,
        *arguments: str,
        user: str = "1000:1000",
        network: str = "none",
        mounts: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        name: str | None = None,
        detached: bool = False,
        options: Sequence[str] = (),
        timeout: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Run a container as an enclave would: read-only, without capabilities, without a way to new rights."""
        command = ["podman", "run", "--no-healthcheck", "--read-only", "--cap-drop", "ALL"]
        command += ["--security-opt", "no-new-privileges", "--tmpfs", "/tmp:rw,nosuid,nodev,noexec,size=256m"]
        command += ["--user", user, "--network", network, *options]
        for mount in mounts:
            command += ["-v", mount]
        for variable, value in (environment or {}).items():
            command += ["-e", f"{variable}={value}"]
        if name is not None:
            self.names.append(name)
            command += ["--name", name]
        command += ["-d"] if detached else ["--rm"]
        return self.call(*command, image, *arguments, timeout=timeout)

    def logs(self, name: str) -> str:
        """What a container has printed."""
        told = self.call("podman", "logs", name)
        return told.stdout + told.stderr


def write_trial(folder: Path, address: str) -> None:
    """The NCCTG trial cut into three sites by row: keys, certificates, tables and site files; plus the study."""
    from lifelines.datasets import load_lung

    from server.provision import make_trial_keys, provision

    provision(folder, make_trial_keys(folder, NAMES), address)
    shutil.copyfile(STUDY, folder / "study.yaml")
    table = load_lung()
    for index, name in enumerate(NAMES):
        site, output = folder / "sites" / name, folder / "output" / name
        output.mkdir(parents=True)
        rows = table.iloc[index :: len(NAMES)]
        rows.to_csv(site / "clinical.csv", index_label="patient", quoting=csv.QUOTE_MINIMAL)
        (site / "site.yaml").write_text(SITE_YAML.format(name=name, site="/site", output="/output"), encoding="utf-8")
        trial = SITE_YAML.format(name=name, site=f"/trial/sites/{name}", output=f"/trial/output/{name}")
        (output / "trial.yaml").write_text(trial, encoding="utf-8")


def give(folder: Path, uid: int, gid: int) -> None:
    """Make everything in a folder a user's own."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, gid)


def results(folder: Path) -> dict[str, object]:
    """What a study found: results.json without its times, its runner and its library versions."""
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    for part in content["rounds"]:
        part.pop("seconds")
    for key in ("runner", "seconds", "started", "versions"):
        content["run"].pop(key)
    return content
