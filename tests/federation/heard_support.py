"""A study with real processes and ears on the line of the site in which something is planted."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deployment_support import NAMES
from faults_support import Network, why_no_network
from planted_support import (
    SITE,
    TABLE,
    PlantedFederation,
    ctfed,
    damage,
)
from wire_capture import PacketCapture, Recorder, answers, questions, why_no_packets

from ctfed.cohort import load_cohort
from ctfed.federation.cohort import Cohort
from ctfed.federation.flower.processes import free_port
from ctfed.federation.wire import Answer, Question
from ctfed.rounds.answering import answer_packages
from ctfed.site import load_site
from ctfed.study import load_study
from server.files_transport import Settings, advance

START, RUN = 200.0, 400.0  # s; a busy machine
EXCHANGES = 4  # in files: opening, census and the first two rounds, in which levels are counted


@dataclass
class Heard:
    """All that left the planted site in a run in which its table was damaged for a while, and what stayed.

    Attributes:
        federation: where the files are.
        cohort: of the planted site.
        packets: what was on the cable; None where packets cannot be captured, for the reason ``deaf``.
        peers, ends: the addresses that the cable has seen, and those of its two ends.
        sent: what the site sent, in the clear.
        answers, questions: the messages in it, and those it was sent.
        quiet_log: the site's node.log before its table was damaged.
        printed: what the site's commands have printed, by command.
        hub_then: the hub's database while it waited for the site.
    """

    federation: PlantedFederation
    cohort: Cohort
    packets: bytes | None = None
    deaf: str = ""
    peers: set[str] = field(default_factory=set)
    ends: set[str] = field(default_factory=set)
    sent: dict[str, bytes] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    quiet_log: bytes = b""
    printed: dict[str, bytes] = field(default_factory=dict)
    hub_then: dict[str, bytes] = field(default_factory=dict)

    @property
    def node_log(self) -> Path:
        """What the site's SuperNode and executor have printed."""
        return self.federation.home / "state" / "node.log"


@contextmanager
def listening(folder: Path) -> Iterator[Heard]:
    """Run all of it, with ears on the planted site's line; the files are there until it is left."""
    ear = free_port()
    with ExitStack() as stack:
        deaf = why_no_network() or why_no_packets()
        network = None if deaf else stack.enter_context(Network())
        address = network.here if network else "127.0.0.1"
        federation = stack.enter_context(PlantedFederation(folder, f"{address}:{ear}"))
        cohort = load_cohort(load_site(federation.home / "site.yaml"), load_study(federation.study))
        heard = Heard(federation, cohort, deaf=deaf)
        _hear_a_refused_start(heard)
        packets = stack.enter_context(PacketCapture(network.cable)) if network else None
        hub = ("127.0.0.1", federation.port)
        recorder = stack.enter_context(Recorder((address, ear), hub, folder / "server"))
        _run_with_a_damaged_table(heard, network.inside if network else ())
        for name in NAMES:
            federation.processes[name].send_signal(signal.SIGTERM)
            federation.processes[name].wait(60)
        heard.printed["ctfed join"] = federation.output(SITE).encode()
        heard.sent, heard.answers, heard.questions = recorder.captures(), answers(recorder), questions(recorder)
        if packets is not None:
            heard.packets, heard.peers = packets.content, packets.peers
            heard.ends = {network.here, network.there} if network else set()
        _report_of(heard)
        _carry(heard)
        yield heard


def _hear_a_refused_start(heard: Heard) -> None:
    """`ctfed join` with a damaged table."""
    home = heard.federation.home
    kept = damage(home / TABLE)
    options = [str(home / "site.yaml"), "--study", str(heard.federation.study), "--folder", str(home)]
    _site_command(heard, "ctfed join, damaged", ["join", *options, "--state", str(home / "refused")], ends=2)
    (home / TABLE).write_bytes(kept)


def _run_with_a_damaged_table(heard: Heard, prefix: tuple[str, ...]) -> None:
    """A whole study; after its second round the site's executor dies, and meets a table that it cannot read."""
    federation = heard.federation
    federation.serve()
    for name in NAMES:
        federation.join(name, prefix=prefix if name == SITE else ())
    federation.await_rounds(2, START)
    heard.quiet_log = heard.node_log.read_bytes()
    kept = damage(federation.home / TABLE)
    os.kill(federation.executor(SITE), signal.SIGKILL)
    until = time.monotonic() + START
    while f"{SITE} (error:DataError" not in federation.output():
        assert time.monotonic() < until, federation.output()
        time.sleep(0.2)
    with closing(sqlite3.connect(f"file:{federation.folder}/server/state/superlink.db?mode=ro", uri=True)) as database:
        heard.hub_then["superlink.db in the middle"] = database.serialize()
    (federation.home / TABLE).write_bytes(kept)
    assert federation.wait(RUN) == 0, federation.output()


def _report_of(heard: Heard) -> None:
    """`ctfed report`."""
    home, results = heard.federation.home, heard.federation.out / "results.json"
    options = ["--site", str(home / "site.yaml"), "--results", str(results), "--out", str(home / "report"), "--no-pdf"]
    _site_command(heard, "ctfed report", ["report", *options])


def _carry(heard: Heard) -> None:
    """Another run, in files; the planted site's part by `ctfed round answer`, the last time with a damaged table."""
    federation = heard.federation
    home, inbox = federation.home, federation.home / "inbox"
    packages, study = federation.folder / "server" / "packages", federation.study
    settings = Settings(study, federation.folder / "server" / "roster.json", packages, federation.folder / "files")
    answer = ["round", "answer", "--site", str(home / "site.yaml"), "--study", str(study)]
    answer += ["--folder", str(inbox), "--egress", str(home / "egress")]
    for exchange in range(1, EXCHANGES + 2):
        waiting = advance(settings, tell=lambda _: None)
        assert waiting is not None
        for package in waiting.written:
            name = package.name.rpartition("-")[2]
            target = inbox if name == SITE else federation.folder / "inboxes" / name
            shutil.copytree(package, target / package.name)
        if exchange > EXCHANGES:
            kept = damage(home / TABLE)
            _site_command(heard, "ctfed round answer, damaged", answer, ends=2)
            (home / TABLE).write_bytes(kept)
            return
        _site_command(heard, f"ctfed round answer {exchange}", answer)
        written = sorted((home / "egress").iterdir())[-1:]
        for name in (name for name in NAMES if name != SITE):
            site, inside = federation.site_folder(name) / "site.yaml", federation.folder / "inboxes" / name
            written += answer_packages(site, study, inside, federation.folder / "outboxes" / name, tell=lambda _: None)
        for package in written:
            shutil.copytree(package, packages / "answers" / package.name)


def _site_command(heard: Heard, name: str, arguments: list[str], ends: int = 0) -> None:
    """Run a command of the site and keep what it prints."""
    done = subprocess.run(
        ctfed(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=START, check=False
    )
    assert done.returncode == ends, done.stdout.decode()
    heard.printed[name] = done.stdout
