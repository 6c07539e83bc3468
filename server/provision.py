"""Provisioning: the keys and certificates of a federation, one folder for the server and one for each site.

    <folder>/ca/                 ca.key, ca.crt: sign the server's certificate; keep ca.key off the hub
    <folder>/server/             ca.crt, server.key, server.crt, roster.json
    <folder>/sites/<site>/       ca.crt, supernode.key, supernode.pub, join.json

Run again on the same folder it keeps the CA and every key, adds new sites and renews the server's certificate. A site
that made its own key (``make_node_key``) sends only the public half; its folder then holds no private key.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ctfed.federation.errors import CtfedError

CA_DAYS = 3650
SERVER_DAYS = 397  # what TLS clients still accept from one certificate
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # the ServerApp reaches the SuperLink there

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:]+\]|[^:/\s]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class Roster:
    """The sites of a federation.

    Attributes:
        address: host:port at which the sites reach the server.
        keys: site name -> public key of its SuperNode, in OpenSSH's one-line form.
    """

    address: str
    keys: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The sites' names, in the roster's order."""
        return tuple(self.keys)


def provision(
    folder: Path, sites: Sequence[str], address: str, *, hosts: Sequence[str] = (), public_keys: Mapping[str, str] = {}
) -> Roster:
    """Make (or complete) a federation's keys and certificates.

    Args:
        folder: where they go; created with mode 0700.
        sites: names of the sites, in the order of the roster.
        address: host:port at which the sites reach the server, for example hub.example.org:443.
        hosts: other names or addresses the server's certificate must hold.
        public_keys: site name -> OpenSSH public key, for sites that made their own.

    Raises:
        CtfedError: when a name, the address or a public key is not acceptable.
    """
    _check_names(sites, public_keys)
    host = _host_of(address)
    ca_key, ca_cert = _authority(_private_folder(folder / "ca"))
    server = _private_folder(folder / "server")
    _server_certificate(server, ca_key, ca_cert, [host, *hosts, *LOOPBACK])
    shutil.copyfile(folder / "ca" / "ca.crt", server / "ca.crt")
    keys = {}
    for site in sites:
        keys[site] = _site_folder(folder, site, address, public_keys.get(site))
    if len(set(keys.values())) < len(keys):
        raise CtfedError("two sites have the same public key; each SuperNode needs its own")
    roster = Roster(address, keys)
    _write(server / "roster.json", json.dumps({"address": address, "sites": keys}, indent=2) + "\n")
    return roster


def read_roster(path: Path) -> Roster:
    """Read a roster file.

    Raises:
        CtfedError: when the file is missing or is not a roster.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CtfedError(f"there is no roster {path}; `ctfed provision` writes it") from error
    except ValueError as error:
        raise CtfedError(f"the roster {path} is not JSON: {error}") from error
    sites = content.get("sites") if isinstance(content, dict) else None
    if not isinstance(sites, dict) or not sites or not isinstance(content.get("address"), str):
        raise CtfedError(f"the roster {path} must have an 'address' and a table 'sites' of name and public key")
    _check_names(list(sites), sites)
    return Roster(content["address"], {str(name): str(key) for name, key in sites.items()})


def make_node_key(folder: Path) -> str:
    """Make a SuperNode's P-384 key pair in a folder, unless it is there, and return the public half.

    Only ``supernode.pub`` may leave the site.
    """
    public = folder / "supernode.pub"
    if not (folder / "supernode.key").exists():
        key = ec.generate_private_key(ec.SECP384R1())
        _write_private(folder / "supernode.key", key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        _write(public, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + "\n")
    return public.read_text(encoding="utf-8").strip()


def _site_folder(folder: Path, site: str, address: str, public_key: str | None) -> str:
    target = _private_folder(folder / "sites" / site)
    shutil.copyfile(folder / "ca" / "ca.crt", target / "ca.crt")
    _write(target / "join.json", json.dumps({"site": site, "superlink": address}, indent=2) + "\n")
    if public_key is None:
        return make_node_key(target)
    _write(target / "supernode.pub", public_key.strip() + "\n")
    return public_key.strip()


def _authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    if (folder / "ca.key").exists():
        key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CtfedError(f"{folder / 'ca.key'} is not an elliptic-curve key")
        return key, x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ctfed federation CA")])
    certificate = (
        _builder(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    _write_private(folder / "ca.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _write(folder / "ca.crt", certificate.public_bytes(Encoding.PEM).decode())
    return key, certificate


def _server_certificate(
    folder: Path, ca_key: ec.EllipticCurvePrivateKey, ca_cert: x509.Certificate, hosts: Sequence[str]
) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    certificate = (
        _builder(name, ca_cert.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys(hosts)]), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA384())
    )
    _write_private(folder / "server.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _write(folder / "server.crt", certificate.public_bytes(Encoding.PEM).decode())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=10))  # the sites' clocks may be a little behind
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _host_of(address: str) -> str:
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise CtfedError(f"the server's address must be host:port without a scheme, found {address!r}")
    return match["host"].strip("[]")


def _check_names(sites: Sequence[str], public_keys: Mapping[str, str]) -> None:
    if not sites or len(set(sites)) < len(sites):
        raise CtfedError(f"a federation needs sites with different names, found {list(sites)}")
    for name in [*sites, *public_keys]:
        if not _NAME.fullmatch(name):
            raise CtfedError(f"a site's name has 1 to 64 letters, digits, '_', '-' or '.', found {name!r}")
        if name not in sites:
            raise CtfedError(f"there is a public key for {name!r}, which is not among the sites {list(sites)}")
    for name, text in public_keys.items():
        _check_public_key(name, text)


def _check_public_key(site: str, text: str) -> None:
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CtfedError(f"the public key of {site!r} is not in OpenSSH's form: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise CtfedError(f"the public key of {site!r} must be an EC P-384 key (ssh-keygen -t ecdsa -b 384)")


def _private_folder(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that was never readable by anyone else, not even for a moment."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
