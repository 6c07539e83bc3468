"""The Flower ServerApp: waits for the sites, then runs the study over this grid.

The run's configuration names files on the server's own disk and nothing else; sites choose their own paths, limits
and data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from ctfed.federation.errors import CtfedError
from ctfed.federation.flower.exchange import Patience
from ctfed.federation.roster import Roster, read_roster
from server.provision import ROSTER, read_server_folder
from server.transport import FlowerTransport

StudyRunner = Callable[[Path, Path, FlowerTransport, Path, Callable[[str], None]], object]  # as run_study

_runners: list[StudyRunner] = []

app = ServerApp()


def set_study_runner(runner: StudyRunner | None) -> None:
    """Replace ``server.study_run.run_study`` (tests, notebooks); None brings it back."""
    _runners[:] = [] if runner is None else [runner]


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """Run the study named by the run's configuration.

    Configuration: ``study`` and ``out`` (paths on the server's disk), ``folder`` (that `ctfed provision` made; a
    roster in it masks the run; empty takes the nodes that are online, which only a simulation may do; a simulation
    needs no more of it than roster.json), ``runner``, and the patience in seconds.

    Raises:
        CtfedError: when the configuration is incomplete, the folder wrong, or a site is lost.
    """
    config = context.run_config
    study, out = _path(context, "study"), _path(context, "out")
    runner = str(config.get("runner", "flower-simulation"))
    sites, roster = _federation(_path(context, "folder"), runner) if config.get("folder") else (None, None)
    if sites is None and runner == "flower-deployment":
        raise CtfedError("a deployed run needs the run-config key 'folder': the one that `ctfed provision` made")
    if runner == "flower-deployment":
        from ctfed.federation.flower.pace import quicken_object_pulls

        quicken_object_pulls()
    out.mkdir(parents=True, exist_ok=True)
    transport = FlowerTransport.connect(grid, sites, runner=runner, patience=_patience(context), tell=_tell)
    _tell(f"all {len(transport.sites)} sites are here: {', '.join(transport.sites[:20])}")
    _study_runner(roster)(study, out, transport, out / "journal", _tell)


def _federation(folder: Path, runner: str) -> tuple[tuple[str, ...], Roster | None]:
    """The sites of a run and, where they mask their answers, their roster."""
    if runner == "flower-simulation":
        roster = read_roster(folder / ROSTER)
        return roster.sites, roster
    told = read_server_folder(folder)
    return told.hub.sites, told.roster


def _study_runner(roster: Roster | None) -> StudyRunner:
    if _runners:
        return _runners[0]
    from server.study_run import run_study

    return partial(run_study, roster=roster)


def _path(context: Context, key: str) -> Path:
    value = context.run_config.get(key)
    if not isinstance(value, str) or not value:
        raise CtfedError(f"the run-config key {key!r} must be a path on the server's disk, found {value!r}")
    return Path(value)


def _patience(context: Context) -> Patience:
    config, usual = context.run_config, Patience()
    deployed = config.get("runner") == "flower-deployment"  # elsewhere a look costs microseconds, and all have answered
    return Patience(
        deadline=float(config.get("round-deadline", usual.deadline)),
        refused=float(config.get("refused-deadline", usual.refused)),
        lasting=usual.lasting if deployed else 0.0,
        join=float(config.get("join-deadline", usual.join)),
        silence=float(config.get("silence", usual.silence)),
        ask_again=float(config.get("ask-again", usual.ask_again)),
        poll=0.1 if deployed else usual.poll,
    )


def _tell(line: str) -> None:
    print(line, flush=True)  # `ctfed serve` shows it; Flower sends it to whoever streams a simulation
