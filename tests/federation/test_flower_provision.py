"""Keys and certificates: right for TLS and Flower, private where they must be, kept when run again."""

from __future__ import annotations

import ipaddress
import json
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization.ssh import load_ssh_private_key

from ctfed.federation.errors import CtfedError
from server.provision import make_node_key, provision, read_roster

SITES = ["bern", "lyon"]


def test_every_private_key_is_its_owners_alone(tmp_path: Path) -> None:
    provision(tmp_path, SITES, "hub.example.org:443")
    keys = sorted(tmp_path.rglob("*.key"))
    assert [key.relative_to(tmp_path).as_posix() for key in keys] == [
        "ca/ca.key",
        "server/server.key",
        "sites/bern/supernode.key",
        "sites/lyon/supernode.key",
    ]
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert {stat.S_IMODE(key.parent.stat().st_mode) for key in keys} == {0o700}


def test_the_certificate_holds_every_name_and_is_signed_by_the_ca(tmp_path: Path) -> None:
    provision(tmp_path, SITES, "hub.example.org:443", hosts=["10.0.0.5", "superlink"])
    certificate = x509.load_pem_x509_certificate((tmp_path / "server" / "server.crt").read_bytes())
    authority = x509.load_pem_x509_certificate((tmp_path / "server" / "ca.crt").read_bytes())
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hub.example.org", "superlink", "localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address(text) for text in ("10.0.0.5", "127.0.0.1", "::1")
    ]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server" / "server.crt", tmp_path / "server" / "server.key")


def test_a_node_key_is_p384_and_its_public_half_is_in_the_roster(tmp_path: Path) -> None:
    roster = provision(tmp_path, SITES, "hub.example.org:443")
    key = load_ssh_private_key((tmp_path / "sites" / "bern" / "supernode.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP384R1)
    assert roster.keys["bern"].startswith("ecdsa-sha2-nistp384 ")
    assert read_roster(tmp_path / "server" / "roster.json") == roster
    assert roster.names == ("bern", "lyon")
    join = json.loads((tmp_path / "sites" / "bern" / "join.json").read_text(encoding="utf-8"))
    assert join == {"site": "bern", "superlink": "hub.example.org:443"}


def test_run_again_it_keeps_the_keys_and_adds_sites(tmp_path: Path) -> None:
    first = provision(tmp_path, SITES, "hub.example.org:443")
    authority = (tmp_path / "ca" / "ca.crt").read_bytes()
    second = provision(tmp_path, [*SITES, "oslo"], "hub.example.org:443")
    assert {site: second.keys[site] for site in SITES} == dict(first.keys)
    assert set(second.keys) == {*SITES, "oslo"}
    assert (tmp_path / "ca" / "ca.crt").read_bytes() == authority


def test_a_site_may_keep_its_private_key(tmp_path: Path) -> None:
    own = tmp_path / "at the site"
    own.mkdir()
    public = make_node_key(own)
    roster = provision(tmp_path / "federation", SITES, "hub.example.org:443", public_keys={"bern": public})
    assert roster.keys["bern"] == public
    assert not (tmp_path / "federation" / "sites" / "bern" / "supernode.key").exists()


@pytest.mark.parametrize(
    ("sites", "address", "public_keys", "words"),
    [
        ([], "hub:443", {}, "different names"),
        (["bern", "bern"], "hub:443", {}, "different names"),
        (["../bern"], "hub:443", {}, "a site's name"),
        (SITES, "https://hub:443", {}, "host:port without a scheme"),
        (SITES, "hub", {}, "host:port without a scheme"),
        (SITES, "hub:99999", {}, "host:port without a scheme"),
        (SITES, "hub:443", {"rome": "x"}, "not among the sites"),
        (SITES, "hub:443", {"bern": "no key"}, "not in OpenSSH's form"),
    ],
)
def test_what_cannot_work_is_refused_in_words(
    tmp_path: Path, sites: list[str], address: str, public_keys: dict[str, str], words: str
) -> None:
    with pytest.raises(CtfedError, match=words):
        provision(tmp_path, sites, address, public_keys=public_keys)


def test_a_missing_or_broken_roster_says_so(tmp_path: Path) -> None:
    with pytest.raises(CtfedError, match="`ctfed provision` writes it"):
        read_roster(tmp_path / "roster.json")
    (tmp_path / "roster.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CtfedError, match="must have an 'address'"):
        read_roster(tmp_path / "roster.json")
