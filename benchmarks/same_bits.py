"""One study by every way in which ctfed runs one, and whether all leave the same bits.

    in process     `ctfed simulate`
    ctfed on Ray   `ctfed simulate --runner ray`
    Flower on Ray  `flwr run` on the same app, as the README says
    deployed       `ctfed serve` and a `ctfed join` a site: real processes, TLS, node authentication

The study is the demo's, over the NCCTG trial's institutions; all four mask their answers. Compared are the totals of
every round (the integers in the journal), results.json without what tells of the run itself, and model and tables byte
by byte. After each way no process of it may be left; `flwr run` alone leaves Flower's local SuperLink, which is stopped
here. Ends with code 1 where anything differs or is left. Needs Ray and Linux.

    .venv/bin/python benchmarks/same_bits.py [--minimum 10] [--way in-process --way deployed ...]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import yaml

from ctfed.cohort import load_cohorts
from ctfed.cohort.table import read_table
from ctfed.federation.flower.processes import child_environment, free_port
from ctfed.site import load_site
from ctfed.study import load_study

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "site_config" / "studies" / "ncctg_lung.yaml"
SITES = ROOT / "site_config" / "sites" / "ncctg_lung.yaml"
BIN = Path(sys.executable).parent
MARK = "CTFED_SAME_BITS"  # in the environment of every process of one way
LINGER = 5.0  # seconds until a process that is still there counts as left
FILES = ("model.json", "coefficients.csv", "baseline.csv", "curves.csv", "tuning.csv")


class Ways:
    """The four ways, each into a folder of its name below ``folder``."""

    def __init__(self, folder: Path, minimum: int) -> None:
        self.folder = folder
        self.table = folder / "sites.yaml"
        content = yaml.safe_load(SITES.read_text(encoding="utf-8"))
        content["partition"]["minimum"] = minimum
        self.table.write_text(yaml.safe_dump(content), encoding="utf-8")
        self.names = [cohort.site for cohort in load_cohorts(load_site(self.table), load_study(STUDY)).cohorts]
        self.port = free_port()
        names = ",".join(self.names)
        self._ctfed("provision", "kit", "--sites", names, "--address", f"127.0.0.1:{self.port}", way="kit")

    def in_process(self, way: str) -> None:
        """`ctfed simulate`."""
        self._ctfed("simulate", str(STUDY), "--site", str(self.table), "--out", way, way=way)

    def ctfed_on_ray(self, way: str) -> None:
        """`ctfed simulate --runner ray`."""
        self._ctfed("simulate", str(STUDY), "--site", str(self.table), "--out", way, "--runner", "ray", way=way)

    def flower_on_ray(self, way: str) -> None:
        """`flwr run` with Flower's local SuperLink, which is then stopped."""
        port = free_port()
        environment = self._environment(way) | {
            "CTFED_SIMULATED_SITES": str(self.table),
            "CTFED_SIMULATED_STUDY": str(STUDY),
            "CTFED_SIMULATED_KEYS": str(self.folder / "kit" / "sites"),
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
        }
        paths = {"study": STUDY, "out": self.folder / way, "folder": self.folder / "kit" / "server"}
        config = " ".join(f"{key}='{path}'" for key, path in paths.items())
        size = f"num-supernodes={len(self.names)} client-resources-num-cpus=1"
        command = [str(BIN / "flwr"), "run", str(ROOT), "local", "--stream"]
        command += ["--run-config", config, "--federation-config", size]
        try:
            self._run(command, environment, way)
        finally:
            for pid in marked(self.folder / way, "flower-superlink"):
                os.kill(pid, signal.SIGTERM)

    def deployed(self, way: str) -> None:
        """`ctfed serve`, and `ctfed join` for every site with a table of its own."""
        environment, kit = self._environment(way), self.folder / "kit"
        write_real_sites(kit / "sites", self.names, self.table)
        nodes = []
        try:
            for name in self.names:
                site = str(kit / "sites" / name / "site.yaml")
                self._ctfed("approve", str(STUDY), "--site", site, "--yes", way=way)
                arguments = ("join", site, "--study", str(STUDY), "--folder", str(kit / "sites" / name))
                with (self.folder / f"{name}.log").open("ab") as log:
                    command = [str(BIN / "ctfed"), *arguments, "--state", str(self.folder / f"node-{name}")]
                    nodes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            serving = ("--folder", str(kit / "server"), "--out", way, "--port", str(self.port))
            self._ctfed("serve", str(STUDY), *serving, way=way)
        finally:
            for node in nodes:
                node.terminate()
            for node in nodes:
                node.wait(60)

    def _ctfed(self, *arguments: str, way: str) -> None:
        self._run([str(BIN / "ctfed"), *arguments], self._environment(way), way)

    def _run(self, command: list[str], environment: Mapping[str, str], way: str) -> None:
        log = self.folder / f"{way}.log"
        with log.open("ab") as output:
            done = subprocess.run(command, cwd=self.folder, env=environment, stdout=output, stderr=output, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{log.read_text()[-3000:]}")

    def _environment(self, way: str) -> dict[str, str]:
        extra = {MARK: str(self.folder / way), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        return child_environment(self.folder / f"flwr-{way}", extra)


def write_real_sites(folder: Path, names: list[str], table: Path) -> None:
    """What a real centre has in ``folder/<name>``: its rows as a CSV file, its secret, and its site file."""
    virtual = load_site(table)
    content = yaml.safe_load(table.read_text(encoding="utf-8"))
    cut = content.pop("partition")
    for key in ("data", "fixture_secret"):
        content.pop(key)
    read = read_table(virtual.data)
    member = [f"{cut['prefix']}-{int(float(text or -1)):02d}" for text in read.column(cut["by"])]
    for name in names:
        place = folder / name
        with (place / "clinical.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["patient", *read.header])
            for number, row, own in zip(read.numbers, read.rows, member, strict=True):
                if name == (own if own in names else cut["remainder"]):
                    writer.writerow([number, *row])  # the number is who the patient is in the packaged table
        (place / "site.secret").write_bytes(virtual.secret_of(name))
        (place / "site.secret").chmod(0o600)
        site = content | {"site": name, "data": {"csv": "clinical.csv"}, "secret": "site.secret"}
        site["columns"] = content["columns"] | {"id": "patient"}
        site["trust"] = {"key": "mask.key", "roster": "roster.json", "ledger": "ledger"}
        (place / "site.yaml").write_text(yaml.safe_dump(site), encoding="utf-8")


def marked(folder: Path, program: str = "") -> list[int]:
    """The ids of the processes of one way, those of ``program`` alone where one is named."""
    mark, found = f"{MARK}={folder}".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            own = mark in (entry / "environ").read_bytes().split(b"\0")
            if own and program.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def left(folder: Path) -> int:
    """How many processes of one way are there some seconds after it has ended; they are killed."""
    until = time.monotonic() + LINGER
    while (found := marked(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


def bits(out: Path) -> dict[str, object]:
    """What must be the same: the totals of all rounds, the results, and the files."""
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    masked = results.pop("run")["masked"]
    results.pop("rounds")  # seconds and sizes; the journal has what was asked
    results["sites"].pop("notes")  # how virtual sites were cut, which a deployment does not know
    lines = [json.loads(line) for line in (out / "journal" / "journal.jsonl").read_text().splitlines()]
    rounds = [(line["bundle"], line["limbs"]) for line in lines if "limbs" in line]
    files = {name: (out / name).read_bytes() for name in FILES}
    return {"masked": masked, "rounds": rounds, "results.json": results, **files}


def main() -> int:
    """A line per way; 0 when all are the same and nothing is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minimum", type=int, default=10, help="fewest patients of a virtual site (10: ten sites)")
    parser.add_argument("--way", action="append", choices=["in-process", "ctfed-on-ray", "flower-on-ray", "deployed"])
    options = parser.parse_args()
    good, first = True, None
    with tempfile.TemporaryDirectory(prefix="ctfed-same-bits-") as name:
        ways = Ways(Path(name), options.minimum)
        calls: dict[str, Callable[[str], None]] = {
            "in-process": ways.in_process,
            "ctfed-on-ray": ways.ctfed_on_ray,
            "flower-on-ray": ways.flower_on_ray,
            "deployed": ways.deployed,
        }
        print(f"{len(ways.names)} sites: {', '.join(ways.names)}", flush=True)
        print(f"{'way':14}{'masked':>8}{'rounds':>8}{'seconds':>9}{'processes left':>16}  beside the first", flush=True)
        for way in options.way or calls:
            started = time.perf_counter()
            calls[way](way)
            seconds = time.perf_counter() - started
            found, remaining = bits(Path(name) / way), left(Path(name) / way)
            first = first or found
            differing = [key for key, value in found.items() if value != first[key]]
            good &= not differing and not remaining
            said = f"differs in {', '.join(differing)}" if differing else "the same bits"
            rounds = len(found["rounds"])  # type: ignore[arg-type]
            print(f"{way:14}{found['masked']!s:>8}{rounds:8}{seconds:9.0f}{remaining:16}  {said}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
