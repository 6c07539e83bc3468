"""A federation of real processes on the loopback interface, for tests; always taken down to the last process.

Run as a script, it is one of these processes: ``deployment_support.py serve|join '<settings as JSON>'``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
NAMES = ("bern", "lyon", "oslo")
STUDY = HERE.parents[1] / "site_config" / "studies" / "ncctg_lung.yaml"
COLUMNS = "patient_id,time,status,age,sex,ecog,karnofsky,karnofsky_patient,calories,weight_loss"
SITE_YAML = """\
ctfed_site: 1
site: {name}
data: {{csv: clinical.csv}}
columns: {{id: patient_id, time: time, event: status}}
time_unit: days
secret: site.secret
trust: {{key: mask.key, roster: roster.json, ledger: ledger}}
"""


class Federation:
    """Three sites that have approved the study, and a server; each command a process of its own."""

    def __init__(self, folder: Path, rounds: int) -> None:
        from ctfed.federation.flower.processes import free_port
        from server.provision import make_trial_keys, provision

        self.folder = folder
        self.rounds = rounds
        self.out = folder / "out"
        self.port = free_port()
        provision(folder, make_trial_keys(folder, NAMES), f"127.0.0.1:{self.port}")
        for index, name in enumerate(NAMES):
            write_site(folder / "sites" / name, name, np.random.default_rng(index))
            self.approve(name)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Federation:
        return self

    def __exit__(self, *error: object) -> None:
        for name in self.processes:
            self._terminate(name)
        for name, process in self.processes.items():
            try:
                process.wait(25)
            except subprocess.TimeoutExpired:
                self.kill(name)

    def approve(self, name: str, study: Path = STUDY) -> None:
        """What `ctfed approve --yes` does: the study and the roster in the site's folder."""
        from ctfed import trust
        from ctfed.site import load_site
        from ctfed.study import load_study

        site, approved = load_site(self.folder / "sites" / name / "site.yaml"), load_study(study)
        trust.approve(site, approved, trust.propose(site, approved).roster)

    def join(self, name: str, executor: str = "warm", study: Path = STUDY) -> None:
        """Start `ctfed join` for a site."""
        settings = {"folder": str(self.folder), "name": name, "executor": executor, "study": str(study)}
        self._start(name, "join", settings)

    def serve(self, **run_config: float) -> None:
        """Start `ctfed serve`."""
        self._start("server", "serve", {"folder": str(self.folder), "port": self.port, "run_config": run_config})

    def kill(self, name: str) -> None:
        """SIGKILL for a command and every process below it, as a power cut would."""
        process = self.processes[name]
        for pid in [process.pid, *descendants(process.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait(10)

    def kill_below(self, name: str, word: str) -> None:
        """SIGKILL for those processes below a command whose command line holds ``word``, as for want of memory."""
        for pid in descendants(self.processes[name].pid):
            if word in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8"):
                os.kill(pid, signal.SIGKILL)

    def wait(self, seconds: float) -> int:
        """The exit code of `ctfed serve`."""
        try:
            return self.processes["server"].wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server has not ended after {seconds} s:\n{self.output()}") from None

    def await_rounds(self, number: int, seconds: float) -> None:
        """Wait until the journal holds ``number`` rounds."""
        until = time.monotonic() + seconds
        while self.journalled() < number:
            if self.processes["server"].poll() is not None or time.monotonic() > until:
                raise AssertionError(f"no {number} rounds after {seconds} s:\n{self.output()}")
            time.sleep(0.05)

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.out / "journal" / "journal.jsonl"

    def journalled(self) -> int:
        """How many rounds the journal holds; before them it has its header and the assembly."""
        return max(0, self.journal.read_bytes().count(b"\n") - 2) if self.journal.exists() else 0

    def lose_last_round(self) -> None:
        """Take the last round from the journal, as if the server had died before it was on the disk."""
        lines = self.journal.read_bytes().splitlines(keepends=True)
        self.journal.write_bytes(b"".join(lines[:-1]))

    def answered(self, name: str) -> list[int]:
        """The rounds that a site has computed an answer to, from its ledger; a stored answer that is sent again is not
        computed again."""
        from ctfed.federation.ledger import ANSWERED, FILE, read_ledger

        entries = read_ledger(self.folder / "sites" / name / "ledger" / FILE)
        return [int(entry.facts["round"]) for entry in entries if entry.kind == ANSWERED]

    def totals(self) -> bytes:
        """What the stand-in study has written."""
        return bytes.fromhex((self.out / "totals.txt").read_text(encoding="utf-8"))

    def output(self, name: str = "server") -> str:
        """What a command has printed."""
        return (self.folder / f"{name}.out").read_text(encoding="utf-8")

    def _start(self, name: str, command: str, settings: Mapping[str, Any]) -> None:
        environment = os.environ | {
            "PYTHONPATH": str(HERE / "stand_in"),
            "STAND_IN_ROUNDS": str(self.rounds),
            "HOME": str(self.folder / "home"),  # would show up there if anything wrote to the home folder
            "PYTHONUNBUFFERED": "1",
        }
        with (self.folder / f"{name}.out").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, __file__, command, json.dumps(settings)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _terminate(self, name: str) -> None:
        if self.processes[name].poll() is None:
            self.processes[name].terminate()


def write_site(folder: Path, name: str, rng: np.random.Generator, patients: int = 40) -> None:
    """A site file and a random clinical table beside it."""
    rows = [COLUMNS]
    for number in range(patients):
        values = [
            *(rng.integers(30, 900), rng.integers(0, 2), rng.integers(40, 85), rng.integers(0, 2), rng.integers(0, 3)),
            *(10 * rng.integers(5, 11), 10 * rng.integers(5, 11), rng.integers(300, 1500), rng.integers(-10, 30)),
        ]
        rows.append(",".join([f"{name}-{number}", *map(str, values)]))
    (folder / "clinical.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "site.yaml").write_text(SITE_YAML.format(name=name), encoding="utf-8")


def descendants(pid: int) -> list[int]:
    """The ids of all processes below one, from /proc."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it has just ended
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def main() -> int:
    """One command of the federation."""
    command, settings = sys.argv[1], json.loads(sys.argv[2])
    folder = Path(settings["folder"])
    if command == "serve":
        from server.deploy import ServeSettings, serve

        port, run_config = settings["port"], settings["run_config"]
        state = folder / "hub"  # beside the folder of `ctfed provision`, which may be read-only
        return serve(ServeSettings(folder / "server", STUDY, folder / "out", "127.0.0.1", port, state, run_config))
    from ctfed.node import JoinSettings, join

    site = folder / "sites" / settings["name"]
    address = json.loads((site / "join.json").read_text(encoding="utf-8"))["superlink"]
    key, state = site / "supernode.key", site / "state"
    study = Path(settings["study"])
    join(JoinSettings(site / "site.yaml", study, address, site / "ca.crt", key, state, settings["executor"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
