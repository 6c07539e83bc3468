"""Faults for a federation of real processes: a cut network, a full disk, wrong dates, a hub that is not ctfed's.

Run as a script, it is one of the federation's processes, as ``deployment_support`` is.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import deployment_support
from deployment_support import HERE, NAMES, Federation

from ctfed.federation.flower.processes import Child, child_environment, free_port

FAULTY = HERE / "faulty"


class FaultyFederation(Federation):
    """A federation whose sites may have a fault, and copies."""

    def copy_site(self, name: str, copy: str) -> Path:
        """A second folder of a site, with the same keys; `join(copy)` starts a node for it."""
        return Path(shutil.copytree(self.folder / "sites" / name, self.folder / "sites" / copy))

    def join_with(self, name: str, *, prefix: tuple[str, ...] = (), **faults: str) -> None:
        """`ctfed join` with faults of ``faulty/sitecustomize.py``, run by the command ``prefix``."""
        settings = {
            "folder": str(self.folder),
            "name": name,
            "executor": "warm",
            "study": str(deployment_support.STUDY),
        }
        extra = {f"FAULTY_{fault.upper()}": value for fault, value in faults.items()} | {"PYTHONPATH": str(FAULTY)}
        self._launch(name, [*prefix, sys.executable, deployment_support.__file__, "join", json.dumps(settings)], extra)

    def serve_everywhere(self, **run_config: float) -> None:
        """`ctfed serve` on every interface."""
        settings = {"folder": str(self.folder), "port": self.port, "run_config": run_config}
        extra = {"PYTHONPATH": str(HERE / "stand_in"), "STAND_IN_ROUNDS": str(self.rounds)}
        self._launch("server", [sys.executable, __file__, json.dumps(settings)], extra)

    def await_words(self, words: str, name: str = "server", seconds: float = 60.0) -> str:
        """Wait until a command has printed ``words``; all of its output."""
        until = time.monotonic() + seconds
        while words not in self.output(name):
            if time.monotonic() > until:
                raise AssertionError(f"{name} has not said {words!r} within {seconds:.0f} s:\n{self.output(name)}")
            time.sleep(0.1)
        return self.output(name)

    def node_log(self, name: str) -> str:
        """What a site's SuperNode and executor have printed; it stays at the site."""
        path = self.folder / "sites" / name / "state" / "node.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def _launch(self, name: str, command: list[str], extra: Mapping[str, str]) -> None:
        environment = os.environ | {"HOME": str(self.folder / "home"), "PYTHONUNBUFFERED": "1"} | dict(extra)
        with (self.folder / f"{name}.out").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


class Network:
    """A network namespace with one cable to this machine, which can be pulled out: packets vanish, nobody is told."""

    def __init__(self) -> None:
        number = os.getpid() % 250
        self.name = f"ctfed{os.getpid()}"
        self.cable = f"ctfed{number}h"
        self.here, self.there = f"10.213.{number}.1", f"10.213.{number}.2"

    def __enter__(self) -> Network:
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
            _ip("addr", "add", f"{self.here}/30", "dev", self.cable)
            _ip("-n", self.name, "addr", "add", f"{self.there}/30", "dev", "eth0")
            _ip("-n", self.name, "link", "set", "lo", "up")
            _ip("-n", self.name, "link", "set", "eth0", "up")
            self.plug()
        except subprocess.CalledProcessError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        subprocess.run(["ip", "link", "del", self.cable], stderr=subprocess.DEVNULL, check=False)  # may not be there
        _ip("netns", "del", self.name)

    @property
    def inside(self) -> tuple[str, ...]:
        """The command that runs another one in the namespace."""
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        """Pull the cable out."""
        _ip("link", "set", self.cable, "down")

    def plug(self) -> None:
        """Put it in again."""
        _ip("link", "set", self.cable, "up")


def why_no_network() -> str:
    """Why a test cannot make a network namespace here; '' when it can."""
    if shutil.which("ip") is None:
        return "the command `ip` (iproute2) is not here"
    try:
        with Network():
            return ""
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not permitted here ({error})"


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """Put what is in a folder on a file system of its own."""
    content = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=700", "tmpfs", str(folder)], check=True)
    try:
        for path, held in content.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(held)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def why_no_mount(folder: Path) -> str:
    """Why a test cannot mount a file system here; '' when it can."""
    try:
        with small_disk(folder, 64):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"a small file system cannot be mounted here ({error})"


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def date_certificate(folder: Path, begin: datetime.timedelta, end: datetime.timedelta) -> None:
    """Sign the server's certificate anew, to hold from now + ``begin`` to now + ``end``."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    path = folder / "server" / "server.crt"
    old = x509.load_pem_x509_certificate(path.read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), x509.random_serial_number())
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    builder = builder.not_valid_before(now + begin).not_valid_after(now + end)
    key = load_pem_private_key((folder / "ca" / "ca.key").read_bytes(), None)
    path.write_bytes(builder.sign(key, hashes.SHA384()).public_bytes(Encoding.PEM))  # type: ignore[arg-type]


@contextmanager
def bare_superlink(federation: Federation) -> Iterator[Child]:
    """The SuperLink of `ctfed serve` without ctfed: no check, no run."""
    from server.deploy import superlink_program

    server = federation.folder / "server"
    arguments = [superlink_program(), "--host", "127.0.0.1", "--port", str(federation.port), "--enable-supernode-auth"]
    for option, file in (("ca-certfile", "ca.crt"), ("certfile", "server.crt"), ("keyfile", "server.key")):
        arguments += [f"--ssl-{option}", str(server / file)]
    environment = child_environment(federation.folder / "hub")
    superlink = Child("superlink", arguments, environment, lambda _: None, federation.folder / "superlink.log")
    superlink.start()
    try:
        yield superlink
    finally:
        superlink.stop()


@contextmanager
def public_port(federation: Federation) -> Iterator[str]:
    """The reverse proxy of site_config/deploy/compose before the server; yields its host:port, where the sites join."""
    from server.provision import make_trial_keys, provision

    address, folder = f"127.0.0.1:{free_port()}", federation.folder
    provision(folder, make_trial_keys(folder, NAMES), address)
    text = (HERE.parents[1] / "site_config" / "deploy" / "compose" / "nginx.conf").read_text(encoding="utf-8")
    (folder / "proxy").mkdir()
    places = {
        "listen 8000": f"listen {address}",
        "https://server:8000": f"https://127.0.0.1:{federation.port}",
        "/tmp/": f"{folder}/proxy/",  # before what puts the folder, which may be in /tmp, into the text
        "/certificates/": f"{folder}/server/",
    }
    for theirs, ours in places.items():
        assert theirs in text, f"nginx.conf does not hold {theirs}"
        text = text.replace(theirs, ours)
    (folder / "nginx.conf").write_text(f"user root;\n{text}" if os.geteuid() == 0 else text, encoding="utf-8")
    log, command = folder / "nginx.log", ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    proxy = Child("proxy", command, os.environ, lambda _: None, log)
    proxy.start()
    try:
        yield address
    finally:
        proxy.stop()


def hostile_bundle(marks: Path) -> bytes:
    """A bundle under ctfed's name whose code writes a file into ``marks`` wherever it runs."""
    from flwr.cli.build import build_fab_from_files

    from ctfed.federation.flower.bundle import NAME, PUBLISHER

    project = f"""\
[project]
name = "{NAME}"
version = "0.1.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "{PUBLISHER}"
[tool.flwr.app.components]
serverapp = "hostile:server"
clientapp = "hostile:client"
"""
    code = f"""\
import time
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

MARKS = Path({str(marks)!r})
client = ClientApp()
server = ServerApp()

@client.query("ask")
def ask(message, context):
    (MARKS / Path(context.node_config["site-file"]).parent.name).write_text("ran")
    return Message(RecordDict(), reply_to=message)

@server.main()
def main(grid, context):
    (MARKS / "hub").write_text("ran")
    while len(list(grid.get_node_ids())) < {len(NAMES)}:
        time.sleep(0.2)
    messages = [Message(RecordDict(), node, "query.ask") for node in grid.get_node_ids()]
    for reply in grid.send_and_receive(messages, timeout=60):
        print("reply:", reply.error.reason if reply.has_error() else "answered", flush=True)
"""
    files = {"pyproject.toml": project.encode(), "README.md": b"hostile\n", "hostile.py": code.encode()}
    content, _ = build_fab_from_files(files)
    return bytes(content)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def main() -> int:
    """`ctfed serve` on every interface."""
    from server.deploy import ServeSettings, serve

    settings = json.loads(sys.argv[1])
    folder = Path(settings["folder"])
    study, port, run_config = deployment_support.STUDY, settings["port"], settings["run_config"]
    return serve(ServeSettings(folder / "server", study, folder / "out", "0.0.0.0", port, run_config=run_config))


if __name__ == "__main__":
    sys.exit(main())
