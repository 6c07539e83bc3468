"""`ctfed doctor`: what is right is ok, and each fault that a site can have is named by its own line."""

from __future__ import annotations

import http.server
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from ctfed import doctor_network, trust
from ctfed.cli import main
from ctfed.doctor import CHECKS, Finding, Mark, Subject, checks, examine, screen
from ctfed.doctor_machine import size, writable
from ctfed.doctor_network import Place, dates, reach, unexpected
from ctfed.doctor_site import inputs, mount_of, weights
from ctfed.site import load_site
from ctfed.study import load_study
from server.provision import make_trial_keys, provision

NAMES = ("bern", "lyon", "oslo")
STUDY = Path(__file__).resolve().parents[1] / "site_config" / "studies" / "ncctg_lung.yaml"
EXTRACTION = """\
ctfed_extraction: 1
name: test
regions: {tumour: {shape: true}}
segmentation: [{model: bamf-lung-nodule}]
"""


def site_of(folder: Path, **other: object) -> Path:
    """A site file beside its keys, roster and table."""
    content: dict[str, object] = {
        "ctfed_site": 1,
        "site": "bern",
        "data": {"csv": "clinical.csv"},
        "columns": {"id": "patient", "time": "time", "event": "status"},
        "time_unit": "days",
        "secret": "site.secret",
        "trust": {"key": "mask.key", "roster": "roster.json", "ledger": "ledger"},
        **other,
    }
    (folder / "clinical.csv").write_text(TABLE, encoding="utf-8")
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


TABLE = "patient,time,status,age,sex,ecog,karnofsky,karnofsky_patient,calories,weight_loss\n" + "".join(
    f"p{i},{30 + i},{i % 2},{50 + i % 30},{i % 2},{i % 3},{80},{70},{900 + i},{i % 9}\n" for i in range(40)
)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A trial federation at a loopback port of which nothing listens yet."""
    provision(tmp_path, make_trial_keys(tmp_path, NAMES), f"127.0.0.1:{free_port()}")
    return tmp_path


@pytest.fixture
def folder(kit: Path) -> Path:
    """The folder of one site, with its file."""
    site_of(kit / "sites" / "bern")
    return kit / "sites" / "bern"


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def subject(folder: Path, study: bool = False) -> Subject:
    """What `ctfed doctor` examines for a site's folder."""
    path = folder / "site.yaml"
    return Subject(path, load_site(path), load_study(STUDY) if study else None, folder)


def of(findings: list[Finding], check: str) -> Finding:
    """The only finding of a check."""
    (found,) = [finding for finding in findings if finding.check == check]
    return found


@contextmanager
def tls_server(folder: Path, address: str, ahead: float = 0.0) -> Iterator[None]:
    """A server with the certificate in a folder, whose clock differs by some seconds from this one's."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(address.rpartition(":")[2])), Handler) as listening:
        listening.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that leaves is what we test
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            listening.shutdown()
            thread.join()


def place(kit: Path) -> Place:
    """Where the site joins."""
    found = doctor_network.place_of(subject(kit / "sites" / "bern"))
    assert found is not None
    return found


# -- the whole


def test_an_approved_site_with_its_server_is_well(kit: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = load_site(folder / "site.yaml")
    trust.approve(site, load_study(STUDY), trust.propose(site, load_study(STUDY)).roster)
    command = ["doctor", "--site", str(folder / "site.yaml"), "--study", str(STUDY), "--folder", str(folder)]
    with tls_server(kit / "server", place(kit).address):
        assert main([*command, "--skip", "egress"]) == 0
    told = capsys.readouterr().out
    assert "this site can work: 0 wrong" in told
    assert "approved at" in told
    assert "answers over TLSv1.3" in told
    assert len(told.splitlines()) <= 24, "one screen"
    assert main([*command, "--skip", "egress"]) == 2, "the server is gone"
    assert "does not answer" in capsys.readouterr().out


def test_a_wrong_file_is_a_line_and_not_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site.yaml").write_text("ctfed_site: 1\nsite: x\n", encoding="utf-8")
    assert main(["doctor", "--site", str(tmp_path / "site.yaml")]) == 2
    assert "WRONG  files" in capsys.readouterr().out


def test_every_check_has_a_name_and_a_skipped_one_is_said_to_be(folder: Path) -> None:
    assert tuple(checks()) == CHECKS
    found = list(examine(subject(folder), CHECKS))
    assert [finding.mark for finding in found] == [Mark.SKIPPED] * len(CHECKS)


def test_nothing_is_made_at_a_site_that_is_examined(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    list(examine(subject(folder, study=True), ("egress", "server")))
    assert sorted(folder.rglob("*")) == before


def test_the_screen_prints_no_control_characters() -> None:
    assert screen([Finding("x", Mark.OK, "a\x1b[31m\nb")])[0] == "ok     x  a?[31m?b"


# -- the site's own files


def test_an_unapproved_study_is_named(folder: Path) -> None:
    found = of(list(checks()["approval"](subject(folder, study=True))), "approval")
    assert (found.mark, "is not approved" in found.sentence) == (Mark.WRONG, True)


def test_a_table_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "clinical.csv").unlink()
    found = of(list(inputs(subject(folder))), "table")
    assert found.mark is Mark.WRONG
    assert f"readable for uid {os.getuid()}" in found.sentence


def test_links_that_lead_nowhere_name_the_mount_that_is_missing(folder: Path) -> None:
    scans = folder / "scans"
    (scans / "patient").mkdir(parents=True)
    (scans / "patient" / "study").symlink_to("/mnt/absent-datalake/study")
    (folder / "extraction.yaml").write_text(EXTRACTION, encoding="utf-8")
    (folder / "dictionary.yaml").touch()
    site_of(folder, prepare=dict(PREPARE))
    found = of(list(inputs(subject(folder))), "scans")
    assert found.mark is Mark.WRONG
    assert "/mnt/absent-datalake" in found.sentence


PREPARE = {
    "scans": "scans",
    "clinical": "clinical.csv",
    "dictionary": "dictionary.yaml",
    "extraction": "extraction.yaml",
    "weights": "weights",
    "output": "out",
}


def test_weights_are_missing_then_whole_then_changed(folder: Path) -> None:
    from ctfed.imaging.segment.weights import write_manifest

    (folder / "extraction.yaml").write_text(EXTRACTION, encoding="utf-8")
    site_of(folder, prepare=dict(PREPARE))
    assert of(list(weights(subject(folder))), "weights").mark is Mark.WRONG
    model = folder / "weights" / "bamf-lung-nodule"
    model.mkdir(parents=True)
    (model / "dataset.json").write_text("{}", encoding="utf-8")
    write_manifest(model, "bamf-lung-nodule")
    assert of(list(weights(subject(folder))), "weights").mark is Mark.OK
    (model / "dataset.json").write_text("{ }", encoding="utf-8")
    found = of(list(weights(subject(folder))), "weights")
    assert (found.mark, "SHA-256" in found.sentence) == (Mark.WRONG, True)


def test_a_key_that_others_can_read_is_refused(folder: Path) -> None:
    (folder / "mask.key").chmod(0o644)
    found = [f for f in examine(subject(folder), ("egress", "server")) if f.mark is Mark.WRONG]
    assert [finding.check for finding in found] == ["keys"]
    assert "chmod 600" in found[0].sentence


def test_a_folder_of_another_site_is_refused(kit: Path, folder: Path) -> None:
    other = Subject(folder / "site.yaml", load_site(folder / "site.yaml"), None, kit / "sites" / "lyon")
    found = [f for f in examine(other, ("egress",)) if f.mark is Mark.WRONG]
    assert {finding.check for finding in found} == {"certificates", "server"}
    assert "was made for site 'lyon'" in found[0].sentence


def test_a_folder_that_cannot_be_written_and_a_full_disk_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert writable("x", tmp_path / "file" / "below", 0).mark is Mark.WRONG
    full = writable("x", tmp_path, 2.0**70)
    assert (full.mark, "expected at least" in full.sentence) == (Mark.WRONG, True)
    later = writable("x", tmp_path / "a" / "b", 0)
    assert (later.mark, f"will be made in {tmp_path}" in later.sentence) == (Mark.OK, True)


def test_the_longest_mount_holds_and_escapes_are_read(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    lines = [
        "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw",
        r"2 1 8:2 / /data\040of\040site ro,nosuid - nfs4 host:/x rw",
        "3 1 8:3 / /data rw - xfs /dev/vdb ro",
    ]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = [mount_of(Path(path), table) for path in ("/data of site/scans", "/data/x", "/etc")]
    assert [str(mount) for mount in found] == ["nfs4 read-only", "xfs read-only", "ext4 writable"]
    assert size(3 * 2**30) == "3.0 GiB"


# -- the network


def test_a_server_of_another_federation_is_not_accepted(kit: Path, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    provision(other, make_trial_keys(other, NAMES), place(kit).address)
    with tls_server(other / "server", place(kit).address):
        (found,) = reach(place(kit))
    assert (found.mark, "ca.crt must be this federation's" in found.sentence) == (Mark.WRONG, True)


def test_a_server_under_another_name_is_not_accepted(kit: Path, folder: Path) -> None:
    here = place(kit)
    moved = Place(here.address.replace("127.0.0.1", "127.0.0.2"), here.authority, here.node_key)
    with tls_server(kit / "server", here.address):
        (found,) = reach(moved)
    assert found.mark is Mark.WRONG


@pytest.mark.parametrize(
    ("ahead", "mark"), [(0, Mark.OK), (-30, Mark.WRONG), (60, Mark.LOOK), (900, Mark.WRONG)], ids=str
)
def test_clocks_are_compared_by_what_the_server_tells(kit: Path, folder: Path, ahead: float, mark: Mark) -> None:
    with tls_server(kit / "server", place(kit).address, ahead):
        found = of(list(reach(place(kit))), "clock")
    assert found.mark is mark, found.sentence


def test_an_expired_certificate_of_the_server_is_named(kit: Path, folder: Path) -> None:
    expire(kit)
    with tls_server(kit / "server", place(kit).address):
        (found,) = reach(place(kit))
    assert (found.mark, "expired" in found.sentence) == (Mark.WRONG, True)


def expire(kit: Path) -> None:
    """Sign the server's certificate again, for last week."""
    server, now = kit / "server", datetime.now(UTC)
    old = x509.load_pem_x509_certificate((server / "server.crt").read_bytes())
    key = load_pem_private_key((kit / "ca" / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    builder = x509.CertificateBuilder().subject_name(old.subject).issuer_name(old.issuer)
    builder = builder.public_key(old.public_key()).serial_number(1)
    builder = builder.not_valid_before(now - timedelta(days=8)).not_valid_after(now - timedelta(days=1))
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    (server / "server.crt").write_bytes(builder.sign(key, hashes.SHA384()).public_bytes(Encoding.PEM))


def test_dates_before_between_and_after() -> None:
    begin, end = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    at = [datetime(year, month, 1, tzinfo=UTC) for year, month in ((2029, 1), (2030, 6), (2030, 12), (2031, 2))]
    marks = [dates("x", begin, end, now).mark for now in at]
    assert marks == [Mark.WRONG, Mark.OK, Mark.OK, Mark.WRONG]
    assert dates("x", begin, end, end - timedelta(days=29)).mark is Mark.LOOK


def test_what_can_be_reached_beside_the_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    closed = ("127.0.0.1", free_port())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        open_ = ("127.0.0.1", int(listener.getsockname()[1]))
        found = unexpected([open_, closed])
    assert (found.mark, found.sentence.startswith(f"127.0.0.1:{open_[1]} can be reached")) == (Mark.LOOK, True)
    assert unexpected([closed]).mark is Mark.OK
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert "HTTPS_PROXY is set" in unexpected([closed]).sentence
