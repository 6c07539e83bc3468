"""What `ctfed serve` does: a SuperLink for the federation's sites, one run of the study over it, and an exit code.

Flower ends a run when its SuperLink crashes. Started again with the same folders, `serve` brings the SuperLink back on
the same database (the sites reconnect by themselves) and submits a new run, which replays ctfed's journal.
"""

from __future__ import annotations

import os
import shutil
import ssl
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ctfed.federation.errors import CtfedError
from ctfed.federation.flower.bell import VARIABLE, Bell
from ctfed.federation.flower.bundle import build_bundle
from ctfed.federation.flower.processes import Child, child_environment, new_secret, sigterm_interrupts
from ctfed.study import load_study
from server.provision import Hub, ServerFolder, read_server_folder

if TYPE_CHECKING:
    from ctfed.federation.flower.control import ControlClient  # imported below while the SuperLink starts

Tell = Callable[[str], None]

INTERRUPTED = 130
START_SECONDS = 90.0  # until the SuperLink answers; 3 to 11 s are usual


@dataclass(frozen=True)
class ServeSettings:
    """What one `ctfed serve` needs.

    Attributes:
        folder: the server's folder from `ctfed provision`: ca.crt, server.crt, server.key, hub.json and, where the
            sites mask their answers, roster.json.
        study: the study file, on this machine.
        out: where the study's journal and results go.
        host: interface the SuperLink listens on; keep the default behind a reverse proxy that lets only /v1/fleet/
            through, because Flower's other interfaces have no login.
        port: TCP port of the SuperLink.
        state: the SuperLink's database, logs and home, kept between runs; by default ``folder/state``. Give it where
            ``folder`` is read-only.
        run_config: other keys of the run (``ctfed.federation.flower.bundle.RUN_CONFIG``).
    """

    folder: Path
    study: Path
    out: Path
    host: str = "127.0.0.1"
    port: int = 8000
    state: Path | None = None
    run_config: Mapping[str, str | float] = field(default_factory=dict)

    @property
    def local_address(self) -> str:
        """host:port at which this machine reaches the SuperLink; the certificate must hold the host."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def serve(settings: ServeSettings, tell: Tell = print) -> int:
    """Run the study over the federation's sites; 0 when it completed, 1 when not, 130 after SIGINT or SIGTERM.

    Raises:
        CtfedError: when a file is missing, the sites are too few or not the study's, the SuperLink does not start, or
            it refuses the run.
    """
    told = read_server_folder(settings.folder)
    for path in (settings.study, *(settings.folder / name for name in ("ca.crt", "server.crt", "server.key"))):
        if not path.is_file():
            raise CtfedError(f"`ctfed serve` needs the file {path}, which is not there")
    _check_study(settings, told, tell)
    state = settings.state or settings.folder / "state"
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = new_secret(state / "serverapp.secret")
    except OSError as error:
        raise CtfedError(
            f"{state}: found no folder that can be written ({error.strerror}); name one with --state"
        ) from error
    bell = Bell()
    superlink = _superlink(settings, state, secret, tell)
    serverapp = _serverapp(settings, state, secret, bell, tell)
    with sigterm_interrupts():
        try:
            superlink.start()
            serverapp.start()  # it imports what it needs while the SuperLink does the same
            from ctfed.federation.flower.control import ControlClient

            await_health(superlink, settings.local_address, settings.folder / "ca.crt")
            with ControlClient(settings.local_address, settings.folder / "ca.crt") as control:
                run_id = _start_run(control, settings, told.hub, tell)
                os.write(bell.ring, b"!")
                return _follow_process(control, run_id, serverapp, superlink, tell)
        except KeyboardInterrupt:
            tell(f"interrupted; the same command goes on from the journal in {settings.out}")
            return INTERRUPTED
        finally:
            serverapp.stop()
            superlink.stop()
            bell.close()
            secret.unlink(missing_ok=True)


def _check_study(settings: ServeSettings, told: ServerFolder, tell: Tell) -> None:
    study = load_study(settings.study)
    if study.sites is not None and set(study.sites) != set(told.hub.sites):
        raise CtfedError(
            f"{settings.study}: sites: found {', '.join(sorted(study.sites))}, expected the sites of "
            f"{settings.folder}: {', '.join(sorted(told.hub.sites))}"
        )
    tell(f"study {study.name} ({study.sha256})")
    if told.roster is not None:
        tell(f"masked, with roster {told.roster.digest}; sites that have approved other digests will not answer")
    else:
        tell(f"UNMASKED: there is no roster in {settings.folder}; this server sees each site's sums")


def _start_run(control: ControlClient, settings: ServeSettings, hub: Hub, tell: Tell) -> int:
    new = control.register(hub.keys)
    if new:
        tell(f"registered {len(new)} sites: {', '.join(new)}")
    for left in control.unfinished():  # by a server that was killed; the sites would wait a minute for its messages
        control.stop(left)
        tell(f"run {left} of the server before is ended")
    run_id = control.start(build_bundle(), _run_config(settings))
    tell(f"run {run_id} started; waiting for {len(hub.sites)} sites: {', '.join(hub.sites)}")
    return run_id


def _follow_process(control: ControlClient, run_id: int, serverapp: Child, superlink: Child, tell: Tell) -> int:
    """Wait for the ServerApp's process, which tells its own output; 0 when the run completed, 1 when not.

    Raises:
        CtfedError: when the SuperLink ends before.
    """
    try:
        while serverapp.alive:
            if not superlink.alive:
                raise CtfedError(f"the SuperLink ended during the run, with code {superlink.code}; start again")
            time.sleep(0.05)
    except KeyboardInterrupt:
        control.stop(run_id)
        raise
    serverapp.wait()
    if run_id in control.unfinished():  # it was killed, and could not tell the SuperLink how the run ended
        tell(f"the ServerApp's process ended with code {serverapp.code}; the same command goes on from the journal")
        control.stop(run_id)
    return _told_end(control, run_id, tell)


def _told_end(control: ControlClient, run_id: int, tell: Tell) -> int:
    """Tell how a run has ended; 0 when it completed."""
    from ctfed.federation.flower.control import COMPLETED

    status, details = control.status(run_id)
    tell(f"run {run_id}: {status}{': ' + details if details else ''}")
    return 0 if status == COMPLETED else 1


def follow(control: ControlClient, run_id: int, tell: Tell) -> int:
    """Tell what a run prints until it ends; 0 when it completed, 1 when it did not. An interrupt stops the run."""
    try:
        for text in control.logs(run_id):
            for line in text.splitlines():
                tell(line)
    except KeyboardInterrupt:
        control.stop(run_id)
        raise
    return _told_end(control, run_id, tell)


def _run_config(settings: ServeSettings) -> dict[str, str | float]:
    return {
        **settings.run_config,
        "study": str(settings.study.resolve()),
        "out": str(settings.out.resolve()),
        "folder": str(settings.folder.resolve()),
        "runner": "flower-deployment",
    }


def _superlink(settings: ServeSettings, state: Path, secret: Path, tell: Tell) -> Child:
    folder = settings.folder
    arguments = [
        superlink_program(),
        *("--host", settings.host),
        *("--port", str(settings.port)),
        *("--ssl-ca-certfile", str(folder / "ca.crt")),
        *("--ssl-certfile", str(folder / "server.crt")),
        *("--ssl-keyfile", str(folder / "server.key")),
        "--enable-supernode-auth",
        *("--database", str(state / "superlink.db")),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(secret)),
    ]
    return Child("superlink", arguments, child_environment(state / "flwr"), tell, state / "superlink.log")


def _serverapp(settings: ServeSettings, state: Path, secret: Path, bell: Bell, tell: Tell) -> Child:
    arguments = [
        *(sys.executable, "-m", "ctfed.federation.flower.serverapp"),
        *("--runtime-api-address", settings.local_address),
        *("--root-certificates", str(settings.folder / "ca.crt")),
        *("--secret-file", str(secret)),
    ]
    environment = child_environment(state / "flwr", {VARIABLE: str(bell.listen)})
    return Child("serverapp", arguments, environment, tell, state / "serverapp.log", [bell.listen], verbatim=True)


def superlink_program() -> str:
    """Path of ``flower-superlink`` beside this Python.

    Raises:
        CtfedError: when it is not there.
    """
    program = shutil.which("flower-superlink", path=str(Path(sys.executable).parent))
    if program is None:
        raise CtfedError(f"flower-superlink is not beside {sys.executable}; install flwr==1.41.0 there")
    return program


def await_health(superlink: Child, address: str, ca: Path | None) -> None:
    """Wait until a SuperLink answers at host:port; over TLS with the CA in the file ``ca``, or plainly.

    Raises:
        CtfedError: when it ends, does not answer in time, or has a certificate that the sites will not accept.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]  # no proxy to this machine
    if ca is not None:
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca))))
    opener = urllib.request.build_opener(*handlers)
    url = f"{'https' if ca else 'http'}://{address}/health"
    until = time.monotonic() + START_SECONDS
    reason: object = "it has not answered"
    while time.monotonic() < until:
        if not superlink.alive:
            said = " / ".join(line for line in superlink.tail if line.strip())[-500:]
            raise CtfedError(f"the SuperLink ended with code {superlink.code}: {said}")
        try:
            with opener.open(url, timeout=2.0):
                return
        except OSError as error:  # not listening yet
            reason = error
            refused = getattr(error, "reason", None)  # of a URLError
            if isinstance(refused, ssl.SSLCertVerificationError):
                raise CtfedError(
                    f"the SuperLink's certificate is not accepted at {url}: {refused.verify_message}; renew it "
                    "with `ctfed provision`, if this clock is right"
                ) from error
        time.sleep(0.1)
    raise CtfedError(f"the SuperLink does not answer at {url} after {START_SECONDS:.0f} s: {reason}")
