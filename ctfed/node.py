"""A site's node: who answers at this site, and what `ctfed join` does.

Every way in which a ClientApp is run finds its Responder here. A process keeps what it has opened, so that features
stay in memory between rounds. The server has no say in any path: site file and study file are named by the node's own
configuration, which is set where the node is started.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.guard import Guard
from ctfed.federation.responder import Responder
from ctfed.federation.wire import Answer, Question

if TYPE_CHECKING:
    from flwr.app import Context  # a quarter of a second, which `ctfed join` itself has no use for

NodeConfig = Mapping[str, bool | float | int | str]

SITE_FILE, STUDY_FILE = "site-file", "study-file"
# For Flower's own (Ray) simulation alone, whose nodes know nothing but a number: set by who starts it, on one machine.
SIMULATED_SITES, SIMULATED_STUDY = "CTFED_SIMULATED_SITES", "CTFED_SIMULATED_STUDY"
SIMULATED_KEYS = "CTFED_SIMULATED_KEYS"  # a folder as ``ctfed.simulated`` describes it; without, answers are not masked


class Answerer(Protocol):
    """What a node needs of a Responder."""

    def answer(self, question: Question) -> Answer:
        """The site's answer to one question."""
        ...


@dataclass(frozen=True)
class Seat:
    """One site's place in a federation: its name, and how to open its Responder (slow: it loads the features)."""

    site: str
    open: Callable[[], Answerer]


SeatFactory = Callable[[NodeConfig], Seat]


class _Seats:
    """The Responders that this process has opened."""

    def __init__(self) -> None:
        self.factory: SeatFactory | None = None
        self._opened: dict[tuple[tuple[str, object], ...], Answerer] = {}
        self._lock = threading.Lock()

    def seat(self, config: NodeConfig) -> Seat:
        return (self.factory or seat_from_site_file)(config)

    def responder(self, config: NodeConfig) -> Answerer:
        key = tuple(sorted(config.items()))
        with self._lock:
            if key not in self._opened:
                self._opened[key] = self.seat(config).open()
            return self._opened[key]

    def forget(self, config: NodeConfig | None) -> None:
        with self._lock:
            if config is None:
                self._opened.clear()
            else:
                self._opened.pop(tuple(sorted(config.items())), None)


_seats = _Seats()


def responder_for(context: Context) -> Answerer:
    """The Responder of the node that a ClientApp runs for, opened once per process.

    Raises:
        CtfedError: when the node's configuration does not lead to a site, or its data cannot be loaded.
    """
    return _seats.responder(context.node_config)


def site_name(config: NodeConfig) -> str:
    """The name of the node's site in the roster; loads no features.

    Raises:
        CtfedError: when the node's configuration does not lead to a site.
    """
    return _seats.seat(config).site


def forget(config: NodeConfig | None = None) -> None:
    """Drop what was opened for a node (None: for all), as the end of its process would."""
    _seats.forget(config)


def set_responder_factory(factory: SeatFactory | None) -> None:
    """Replace the way from a node's configuration to its Responder; None brings back the site's file."""
    _seats.factory = factory
    _seats.forget(None)


def seats_of_cohorts(cohorts: Mapping[str, Cohort], guards: Mapping[str, Guard] | None = None) -> SeatFactory:
    """A factory for nodes whose configuration has the key 'site': each answers from the cohort of that name.

    With ``guards`` (one per site) every answer is masked; without, the server sees each site's sums.
    """

    def factory(config: NodeConfig) -> Seat:
        site = str(config.get("site", ""))
        if site not in cohorts:
            raise CtfedError(f"the node's configuration names site {site!r}; known are {sorted(cohorts)}")
        return Seat(site, lambda: _responder(cohorts[site], guards[site] if guards is not None else None))

    return factory


def seat_from_site_file(config: NodeConfig) -> Seat:
    """The seat of a real node: its configuration names the site's file and the approved study's, on this machine.

    Raises:
        CtfedError: when no file is named, or a file is not what it should be.
    """
    from ctfed.site import load_site

    named, study = config.get(SITE_FILE), config.get(STUDY_FILE)
    if not named and "partition-id" in config and os.environ.get(SIMULATED_SITES):
        return _simulated_seat(int(config["partition-id"]))
    if not isinstance(named, str) or not isinstance(study, str) or not named or not study:
        raise CtfedError(
            f"this node has no site: start it with `ctfed join`, which sets {SITE_FILE!r} and {STUDY_FILE!r} (or, in "
            f"Flower's own simulation, name the site files in {SIMULATED_SITES})"
        )
    site = load_site(named)
    if site.site is None:
        raise CtfedError(f"{named} describes virtual sites; a node joins for one site")
    return Seat(site.site, lambda: _open(named, study))


def _open(site_file: str, study_file: str) -> Responder:
    from ctfed.cohort import load_cohort
    from ctfed.site import load_site
    from ctfed.study import load_study
    from ctfed.trust import guard_of

    site, study = load_site(site_file), load_study(study_file)
    guard = guard_of(site, study)  # first: what is not approved is not even loaded
    return _responder(load_cohort(site, study), guard)


def _simulated_seat(partition: int) -> Seat:
    files = tuple(os.environ[SIMULATED_SITES].split(os.pathsep))
    cohorts, _ = simulated_cohorts(files, os.environ.get(SIMULATED_STUDY, ""))
    if not 0 <= partition < len(cohorts):
        raise CtfedError(f"there is no virtual site {partition}: {', '.join(files)} have {len(cohorts)}")
    return Seat(
        cohorts[partition].site, lambda: _responder(cohorts[partition], _simulated_guard(cohorts[partition].site))
    )


def _simulated_guard(site: str) -> Guard | None:
    from ctfed.simulated import read_simulated_guard
    from ctfed.study import load_study

    folder = os.environ.get(SIMULATED_KEYS)
    return read_simulated_guard(site, load_study(os.environ[SIMULATED_STUDY]), Path(folder)) if folder else None


@cache
def simulated_cohorts(site_files: tuple[str, ...], study_file: str) -> tuple[tuple[Cohort, ...], tuple[str, ...]]:
    """The cohorts of all site files, real or virtual, in order; and sentences on how tables were cut into sites.

    Raises:
        CtfedError: when a file is not what it should be, or two sites have one name.
    """
    from ctfed.cohort import load_cohorts
    from ctfed.site import load_site
    from ctfed.study import load_study

    study = load_study(study_file)
    loaded = [load_cohorts(load_site(file), study) for file in site_files]
    cohorts = tuple(cohort for item in loaded for cohort in item.cohorts)
    names = [cohort.site for cohort in cohorts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CtfedError(f"{', '.join(site_files)} describe more than one site of the name {', '.join(twice)}")
    return cohorts, tuple(note for item in loaded for note in (*item.notes, *item.warnings))


def _responder(cohort: Cohort, guard: Guard | None = None) -> Responder:
    register_queries()
    return Responder(cohort, guard)


@cache
def register_queries() -> None:
    """Import every statistic, so that its queries are in the registry when a question names them."""
    import ctfed.statistics

    for module in pkgutil.walk_packages(ctfed.statistics.__path__, "ctfed.statistics."):
        importlib.import_module(module.name)


@dataclass(frozen=True)
class JoinSettings:
    """What one `ctfed join` needs.

    Attributes:
        site_file: the site's YAML file.
        study_file: the study file that the site has approved.
        superlink: host:port of the server.
        root_certificates: PEM file of the federation's CA.
        private_key: the SuperNode's P-384 key (``supernode.key`` of the site's folder).
        state: folder for Flower's files; nothing of value is kept there.
        executor: 'warm' keeps the site's features in memory; 'stock' is Flower's own, a new process per message.
        port: loopback port of the SuperNode's Runtime API; None takes a free one.
    """

    site_file: Path
    study_file: Path
    superlink: str
    root_certificates: Path
    private_key: Path
    state: Path
    executor: Literal["warm", "stock"] = "warm"
    port: int | None = None


def join_settings(
    site_file: Path, study_file: Path, folder: Path | None, state: Path, executor: Literal["warm", "stock"]
) -> JoinSettings:
    """Where the server is: from the site's folder of keys and certificates, or the site file's section 'server'.

    Raises:
        CtfedError: when neither says it, or the folder was made for another site.
    """
    from ctfed.site import load_site

    site = load_site(site_file)
    if folder is not None:
        name, address = _told(folder / "join.json")
        if name != site.site:
            raise CtfedError(f"{folder} was made for site {name!r}, {site_file} describes {site.site!r}")
        certificates, key = folder / "ca.crt", folder / "supernode.key"
    elif site.server is not None and site.server.root_certificates and site.server.private_key:
        address, certificates, key = site.server.address, site.server.root_certificates, site.server.private_key
    else:
        raise CtfedError(
            f"{site_file}: server: found no address, root_certificates and private_key; give them there, or name the "
            "folder that holds supernode.key, ca.crt and join.json with --folder"
        )
    return JoinSettings(site_file, study_file, address, certificates, key, state, executor)


def _told(path: Path) -> tuple[str, str]:
    """The site's name and the server's address in a join.json."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return str(content["site"]), str(content["superlink"])
    except OSError as error:
        raise CtfedError(f"{path} cannot be read ({error.strerror}); `ctfed provision` writes it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CtfedError(f"{path}: expected the names 'site' and 'superlink', as `ctfed provision` writes") from error


def join(settings: JoinSettings, *, tell: Callable[[str], None] = print, stop: threading.Event | None = None) -> None:
    """Keep a SuperNode and its executor running until ``stop`` is set, or the process gets SIGINT or SIGTERM.

    A node that loses the server, or that the server does not take in yet, is started again with a growing wait.

    Raises:
        CtfedError: when a file is missing, nothing is approved, or Flower says that starting again cannot help.
    """
    from ctfed.federation.flower.bell import VARIABLE, Bell
    from ctfed.federation.flower.processes import Child, child_environment, free_port, new_secret, sigterm_interrupts
    from ctfed.site import load_site
    from ctfed.study import load_study
    from ctfed.trust import standing

    for path in (settings.site_file, settings.study_file, settings.root_certificates, settings.private_key):
        if not path.is_file():
            raise CtfedError(f"`ctfed join` needs the file {path}, which is not there")
    tell(standing(load_site(settings.site_file), load_study(settings.study_file)))
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    # 0.1 s in place of 1 s until Flower's own executor starts a ClientApp; the warm one does not use it.
    environment = child_environment(settings.state / "flwr", {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"})
    log = settings.state / "node.log"
    port = settings.port or free_port()
    secret = new_secret(settings.state / "executor.secret")
    commands = _commands(settings, port, secret)
    bell = Bell()
    ends = {"supernode": bell.ring, "executor": bell.listen}
    children = [
        Child(name, command, environment | {VARIABLE: str(ends[name])}, tell, log, [ends[name]])
        for name, command in commands.items()
    ]
    stop = stop or threading.Event()
    with sigterm_interrupts():
        try:
            while not stop.is_set():
                for child in children:
                    child.keep_alive()
                stop.wait(0.2)
        except KeyboardInterrupt:
            tell("stopping the node")
        finally:
            for child in children:
                child.stop()
            bell.close()
            secret.unlink(missing_ok=True)


def _commands(settings: JoinSettings, port: int, secret: Path) -> dict[str, list[str]]:
    common = [
        *("--superlink", settings.superlink),
        *("--root-certificates", str(settings.root_certificates)),
        *("--auth-supernode-private-key", str(settings.private_key)),
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
        *("--node-config", _node_config(settings)),
    ]
    if settings.executor == "stock":
        program = shutil.which("flower-supernode", path=str(Path(sys.executable).parent))
        if program is None:
            raise CtfedError(f"flower-supernode is not beside {sys.executable}; install flwr==1.41.0 there")
        return {"supernode": [program, *common, "--isolation", "subprocess"]}
    python = [sys.executable, "-m"]
    guarded = ["--isolation", "process", "--superexec-auth-secret-file", str(secret)]
    return {
        "supernode": [*python, "ctfed.federation.flower.supernode", *common, *guarded],
        "executor": [
            *(*python, "ctfed.federation.flower.executor"),
            *("--runtime-api-address", f"127.0.0.1:{port}"),
            *("--secret-file", str(secret)),
        ],
    }


def _node_config(settings: JoinSettings) -> str:
    files = {SITE_FILE: settings.site_file.resolve(), STUDY_FILE: settings.study_file.resolve()}
    for path in files.values():
        if '"' in str(path) or "\\" in str(path):  # Flower reads the configuration as TOML with simple quotes
            raise CtfedError(f"the path {path} must not hold quotes or backslashes")
    return " ".join(f'{key}="{path}"' for key, path in files.items())
