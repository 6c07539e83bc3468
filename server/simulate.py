"""`ctfed simulate`: a study over simulated sites on one machine, through the messages of a deployment.

The default runs the ServerApp and the ClientApp in this process (milliseconds a round). ``runner='ray'`` hands the
same objects to Flower's own simulation engine, which starts a SuperLink and Ray (tens of seconds).
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ctfed import node
from ctfed.federation.client_app import app as client_app
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.flower.bundle import build_bundle
from ctfed.federation.flower.control import ControlClient
from ctfed.federation.flower.grid import Fault, InProcessGrid, run_server_app
from ctfed.federation.flower.processes import Child, child_environment, free_port, sigterm_interrupts
from ctfed.federation.guard import Guard
from ctfed.federation.policy import Policy
from ctfed.federation.roster import Roster
from ctfed.simulated import simulated_guard, simulated_roster, write_simulated
from ctfed.study import Study, load_study
from server import app as server_app
from server.assembly import FEWEST_SITES
from server.deploy import await_health, follow, superlink_program
from server.transport import FlowerTransport

Tell = Callable[[str], None]

REFUSED = 10.0  # seconds for which a refusal is asked again
LINGER = 10.0  # seconds in which Ray's processes end by themselves when Flower's are gone


def simulate(
    study: Path,
    sites: Sequence[Path],
    out: Path,
    *,
    runner: Literal["in-process", "ray"] = "in-process",
    faults: Sequence[Fault] = (),
    masked: bool | None = None,
    policy: Policy | None = None,
    tell: Tell = print,
) -> None:
    """Run a study over the sites of these site files and leave its results in ``out``.

    Each simulated site keeps its keys and its ledger in ``out/sites``.

    Args:
        study: the study's file.
        sites: site files; one with a partition gives many sites.
        out: folder of the journal and the results.
        runner: 'in-process', or 'ray' for Flower's own simulation.
        faults: what goes wrong, for the in-process runner.
        masked: whether sites mask their answers; None (default) does it from three sites on.
        policy: the limits of every simulated site; None takes the defaults.
        tell: receives the lines of progress.

    Raises:
        CtfedError: in words; what was journalled is kept.
    """
    if runner == "ray":
        _simulate_with_ray(study, sites, out, masked, policy or Policy(), tell)
        return
    cohorts, notes = node.simulated_cohorts(tuple(map(str, sites)), str(study))
    by_name = {cohort.site: cohort for cohort in cohorts}
    roster, guards = None, None
    if masked or (masked is None and len(cohorts) >= FEWEST_SITES):
        roster, guards = simulated_guards(by_name, load_study(study), out / "sites", policy or Policy())
    _simulate_in_process(study, out, _Simulated(by_name, notes, roster, guards), faults, tell)


@dataclass(frozen=True)
class _Simulated:
    """The sites of a simulation."""

    cohorts: Mapping[str, Cohort]
    notes: tuple[str, ...]
    roster: Roster | None
    guards: Mapping[str, Guard] | None


def simulated_guards(
    cohorts: Mapping[str, Cohort], study: Study, folder: Path, policy: Policy
) -> tuple[Roster, dict[str, Guard]]:
    """Keys and a guard for every simulated site, kept in ``folder/<site>``, and their roster."""
    roster = simulated_roster(tuple(cohorts), folder)
    return roster, {site: simulated_guard(site, study, folder, roster, policy) for site in cohorts}


def _simulate_in_process(study: Path, out: Path, sites: _Simulated, faults: Sequence[Fault], tell: Tell) -> None:
    from server.study_run import run_study

    grid = InProcessGrid(
        client_app,
        {name: {"site": name} for name in sites.cohorts},
        # Sites of one process change their mind about nothing: who refuses does so for good.
        run_config={"study": str(study), "out": str(out), "runner": "in-process", "refused-deadline": REFUSED},
        faults=faults,
    )

    def run(study: Path, out: Path, transport: FlowerTransport, journal: Path, _: Tell) -> None:
        run_study(study, out, transport, journal, tell, sites.notes, sites.roster)

    node.set_responder_factory(node.seats_of_cohorts(sites.cohorts, sites.guards))
    server_app.set_study_runner(run)
    try:
        run_server_app(server_app.app, grid)
    finally:
        server_app.set_study_runner(None)
        node.set_responder_factory(None)


def _simulate_with_ray(
    study: Path, sites: Sequence[Path], out: Path, masked: bool | None, policy: Policy, tell: Tell
) -> None:
    if find_spec("ray") is None:
        raise CtfedError("Flower's simulation needs Ray: pip install 'ctfed[simulation]', or leave out --runner ray")
    files = tuple(str(path.resolve()) for path in sites)
    cohorts, _ = node.simulated_cohorts(files, str(study.resolve()))
    keys = (out / "sites").resolve()
    masked = len(cohorts) >= FEWEST_SITES if masked is None else masked
    if masked:
        write_simulated(keys, simulated_roster([cohort.site for cohort in cohorts], keys), policy)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ctfed-simulation-") as folder:
        # The nodes of a simulation know their number only; they find their data here, not in what the server sends.
        environment = child_environment(
            Path(folder),
            {
                node.SIMULATED_SITES: os.pathsep.join(files),
                node.SIMULATED_STUDY: str(study.resolve()),
                node.SIMULATED_KEYS: str(keys) if masked else "",
                "RAY_USAGE_STATS_ENABLED": "0",
                "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            },
        )
        arguments = [superlink_program(), "--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
        superlink = Child("superlink", arguments, environment, tell, Path(folder) / "superlink.log")
        with sigterm_interrupts():
            try:
                superlink.start()
                await_health(superlink, f"127.0.0.1:{port}", None)
                with ControlClient(f"127.0.0.1:{port}", None) as control:
                    config: dict[str, str | float] = {"study": str(study.resolve()), "out": str(out.resolve())}
                    config |= {"runner": "flower-simulation", "folder": str(keys) if masked else ""}
                    config["refused-deadline"] = REFUSED
                    code = follow(control, control.start(build_bundle(), config, len(cohorts)), tell)
            finally:
                superlink.stop()
                _end_stragglers(Path(folder), tell)
    if code != 0:
        raise CtfedError("the simulation did not complete; the lines above say why")


def _end_stragglers(home: Path, tell: Tell) -> None:
    """Wait for the processes of a simulation, which are those with its FLWR_HOME, and end what is left of them.

    Ray's workers are in no group of ours and end some seconds after Flower's processes. Linux alone says whose they
    are; elsewhere Ray is left to itself.
    """
    until = time.monotonic() + LINGER
    while (left := _with_home(home)) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in left:
        tell(f"process {pid} of the simulation did not end within {LINGER:.0f} s and is killed")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _with_home(home: Path) -> list[int]:
    """The ids of the processes that were started with this FLWR_HOME."""
    mark, found = f"FLWR_HOME={home}".encode(), []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has just ended, or is another user's
            if mark in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return found
