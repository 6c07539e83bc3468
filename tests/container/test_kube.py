"""The example for Kubernetes, run as pods by `podman play kube`: keys made in the pod, then a node in a real study.

What a cluster does and podman does not is done by hand: kustomize's ConfigMap, the claim with the centre's data, and
`kubectl cp`, which is tar on both sides. NetworkPolicies need a cluster; here the pods' network has no way out at all.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from engine import NAMES, ROOT, SERVER, SITE, SITE_YAML, WITH_SITE, Engine, give, reason_to_skip, write_trial

from ctfed.keys import read_public_keys
from server.provision import make_trial_keys, provision

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip() or "-")]

IMAGE = SITE if WITH_SITE else SERVER
MANIFESTS = ROOT / "site_config" / "deploy" / "kubernetes"
NETWORK, HUB, POD_SITE = "ctfed-kube", "ctfed-kube-hub", NAMES[0]
VOLUMES = ("ctfed-data", "ctfed-private", "ctfed-site-files", "temporary")
ENTRYPOINT = ("/opt/ctfed/venv/bin/python", "/opt/ctfed/entrypoint.py")
# In the site file of the pod paths are the pod's, as in kubernetes/files/site.yaml.
PLACES = {"{site}/clinical.csv": "/data/clinical.csv", "{output}": "/private", "{site}": "/private/keys"}


@dataclass
class Cluster:
    """Podman in the part of a cluster."""

    engine: Engine
    folder: Path
    files: dict[str, str]

    def apply(self, name: str) -> None:
        """`kubectl apply -f NAME.yaml`, with the image that is here."""
        text = (MANIFESTS / f"{name}.yaml").read_text(encoding="utf-8")
        (self.folder / f"{name}.yaml").write_text(text.replace("ctfed-site:0.1.0", IMAGE), encoding="utf-8")
        content = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "ctfed-site-files"},
            "data": self.files,
        }
        (self.folder / "files.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        configuration = ("--network", NETWORK, "--configmap", str(self.folder / "files.yaml"))
        done = self.engine.call("podman", "play", "kube", *configuration, str(self.folder / f"{name}.yaml"))
        assert done.returncode == 0, done.stderr

    def delete(self, name: str) -> None:
        """`kubectl delete`; volumes stay."""
        self.engine.call("podman", "play", "kube", "--down", str(self.folder / f"{name}.yaml"))

    def once(self, *command: str) -> str:
        """`kubectl exec ctfed-once -- ...`"""
        told = self.engine.call("podman", "exec", "ctfed-once-once", *command)
        assert told.returncode == 0, told.stdout + told.stderr
        return told.stdout

    def copy(self, path: Path, target: str) -> None:
        """`kubectl cp PATH ctfed-once:TARGET`."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(path, path.name)
        command = ("podman", "exec", "-i", "ctfed-once-once", "tar", "--no-same-owner", "-xmf", "-", "-C", target)
        subprocess.run(command, input=packed.getvalue(), env=self.engine.environment, check=True)


@pytest.fixture
def cluster(engine: Engine, tmp_path: Path) -> Iterator[Cluster]:
    """A network without a way out, empty claims, and the ConfigMap's files."""
    text = SITE_YAML
    for place, path in PLACES.items():
        text = text.replace(place, path)
    study = (ROOT / "site_config" / "studies" / "ncctg_lung.yaml").read_text(encoding="utf-8")
    made = Cluster(engine, tmp_path, {"site.yaml": text.format(name=POD_SITE), "study.yaml": study})
    engine.call("podman", "volume", "rm", "-f", *VOLUMES)
    engine.network(NETWORK)
    yield made
    for name in ("once", "site"):
        made.delete(name)
    engine.call("podman", "volume", "rm", "-f", *VOLUMES)


def test_a_pod_makes_its_keys_and_takes_part_in_a_study(cluster: Cluster, tmp_path: Path) -> None:
    engine, trial = cluster.engine, tmp_path / "trial"
    trial.mkdir()
    write_trial(trial, f"{HUB}:8000")
    cluster.apply("site")  # as in the page: it starts again and again until it has keys and an approved study
    cluster.apply("once")
    rights = cluster.once("grep", "-E", "CapEff|CapBnd|NoNewPrivs", "/proc/self/status").split()
    assert rights == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]
    assert engine.call("podman", "exec", "ctfed-once-once", "touch", "/opt/ctfed/x").returncode != 0

    cluster.once(*ENTRYPOINT, "keygen", "/private/keys", "--site", POD_SITE)
    public = tmp_path / "public.json"
    public.write_text(cluster.once("cat", "/private/keys/public.json"), encoding="utf-8")
    others = make_trial_keys(trial / "kit", NAMES[1:])
    provision(trial / "kit", [read_public_keys(public), *others], f"{HUB}:8000")
    kit = trial / "kit" / "sites" / POD_SITE
    for name in ("ca.crt", "join.json", "roster.json"):
        cluster.copy(kit / name, "/private/keys")
    volume = engine.call("podman", "volume", "inspect", "ctfed-data", "--format", "{{.Mountpoint}}").stdout.strip()
    (Path(volume) / "clinical.csv").write_bytes((trial / "sites" / POD_SITE / "clinical.csv").read_bytes())

    settings = ("--site", "/config/site.yaml")
    cluster.once(*ENTRYPOINT, "approve", "/config/study.yaml", *settings, "--yes")
    doctor = ("doctor", *settings, "--study", "/config/study.yaml", "--folder", "/private/keys", "--skip", "server")
    assert ": 0 wrong" in cluster.once(*ENTRYPOINT, *doctor)
    cluster.delete("once")

    for name in NAMES[1:]:
        home, output = trial / "kit" / "sites" / name, trial / "output" / name
        for file in ("clinical.csv", "site.yaml"):
            (home / file).write_bytes((trial / "sites" / name / file).read_bytes())
        give(home, 1000, 1000)
        give(output, 1000, 1000)
        mounts = (f"{home}:/site:ro", f"{output}:/output", f"{trial}/study.yaml:/study.yaml:ro")
        told = engine.run(IMAGE, "approve", "/study.yaml", "--site", "/site/site.yaml", "--yes", mounts=mounts)
        assert told.returncode == 0, told.stderr
        join = ("join", "/site/site.yaml", "--study", "/study.yaml", "--folder", "/site", "--state", "/tmp/node")
        told = engine.run(IMAGE, *join, mounts=mounts, network=NETWORK, detached=True, name=f"ctfed-kube-{name}")
        assert told.returncode == 0, told.stderr
    (trial / "out").mkdir()
    for folder in (trial / "out", trial / "kit" / "server"):
        give(folder, 1000, 1000)
    for parent in (trial / "kit", trial, *trial.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    folders = (f"{trial}/kit/server:/kit", f"{trial}/out:/out", f"{trial}/study.yaml:/study.yaml:ro")
    serve = ("serve", "/study.yaml", "--folder", "/kit", "--out", "/out", "--host", "0.0.0.0")
    told = engine.run(SERVER, *serve, network=NETWORK, name=HUB, mounts=folders, timeout=1500)
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr[-2000:]
    assert f"all 3 sites are here: {', '.join(NAMES)}" in told.stdout
    assert (trial / "out" / "report.html").is_file()
