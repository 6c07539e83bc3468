"""Provisioning: what a federation needs to find and to trust each other, one folder for the server, one per site.

    <folder>/ca/                 ca.key, ca.crt: sign the server's certificate; keep ca.key off the hub
    <folder>/server/             ca.crt, server.key, server.crt, hub.json (address, SuperNode keys), roster.json
    <folder>/sites/<site>/       ca.crt, join.json, roster.json: go to the site

The roster holds the keys with which the sites mask their answers to each other. Each site makes its keys itself
(`ctfed keygen`) and sends its public.json alone; in a trial on one machine ``make_trial_keys`` makes all of them, and
whoever runs it could unmask every site.

Run again on the same folder it keeps the CA and every key, adds new sites and renews the server's certificate. Another
set of sites or keys is another roster, which every site has to approve again.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ctfed.federation.errors import CtfedError
from ctfed.federation.roster import Roster, read_roster
from ctfed.keys import (
    MASK_KEY,
    NODE_KEY,
    PUBLIC,
    PublicKeys,
    check_site_name,
    make_site_keys,
    read_public_keys,
    write_private,
)
from server.assembly import FEWEST_SITES

CA_DAYS = 3650
SERVER_DAYS = 397  # what TLS clients still accept from one certificate
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # the ServerApp reaches the SuperLink there
HUB, ROSTER, JOIN, CA = "hub.json", "roster.json", "join.json", "ca.crt"
FORMAT = 1

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:]+\]|[^:/\s]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class Hub:
    """Where the sites meet, and how the server knows their nodes.

    Attributes:
        address: host:port at which the sites reach the server.
        keys: site name -> public key of its SuperNode, in OpenSSH's one-line form.
    """

    address: str
    keys: Mapping[str, str]

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites' names, in the order in which they were provisioned."""
        return tuple(self.keys)


@dataclass(frozen=True)
class ServerFolder:
    """What the server's folder says.

    Attributes:
        hub: address and SuperNode keys.
        roster: the keys of the masks; None where the sites answer unmasked.
    """

    hub: Hub
    roster: Roster | None


def provision(
    folder: Path, sites: Sequence[PublicKeys], address: str, *, hosts: Sequence[str] = (), masked: bool = True
) -> ServerFolder:
    """Make (or complete) a federation's certificates, hub and roster.

    Args:
        folder: where they go; created with mode 0700.
        sites: the sites' public keys, in the order in which reports list the sites.
        address: host:port at which the sites reach the server, for example hub.example.org:443.
        hosts: other names or addresses the server's certificate must hold.
        masked: whether the sites mask their answers; False is for public data alone.

    Raises:
        CtfedError: when a name, a key or the address is not acceptable, or the sites are too few for masks.
    """
    names = [keys.site for keys in sites]
    _check_sites(folder, sites, masked)
    host = _host_of(address)
    hub = Hub(address, {keys.site: keys.supernode for keys in sites})
    roster = Roster({keys.site: keys.mask for keys in sites}) if masked else None
    ca_key, ca_cert = _authority(_private_folder(folder / "ca"))
    server = _private_folder(folder / "server")
    _server_certificate(server, ca_key, ca_cert, [host, *hosts, *LOOPBACK])
    for target in (server, *(_private_folder(folder / "sites" / name) for name in names)):
        shutil.copyfile(folder / "ca" / CA, target / CA)
        if roster is not None:
            roster.write(target / ROSTER)
    for name in names:
        _write(folder / "sites" / name / JOIN, json.dumps({"site": name, "superlink": address}, indent=2) + "\n")
    content = {"ctfed_hub": FORMAT, "address": address, "sites": dict(hub.keys)}
    _write(server / HUB, json.dumps(content, indent=2) + "\n")
    return ServerFolder(hub, roster)


def make_trial_keys(folder: Path, names: Sequence[str]) -> list[PublicKeys]:
    """Every site's keys, in ``folder/sites/<site>``: for trials on one machine.

    Raises:
        CtfedError: when a name is not a site's.
    """
    _check_names(names)
    return [make_site_keys(folder / "sites" / name, name) for name in names]


def read_server_folder(folder: Path) -> ServerFolder:
    """What `ctfed provision` left for the server; masked whenever the folder holds a roster.

    Raises:
        CtfedError: when a file is missing or wrong, the two name other sites, or the sites are too few for masks.
    """
    hub = read_hub(folder / HUB)
    path = folder / ROSTER
    if not path.exists():
        return ServerFolder(hub, None)
    roster = read_roster(path)
    if set(roster.sites) != set(hub.sites):
        raise CtfedError(
            f"{path} names the sites {', '.join(roster.sites)}, {HUB} beside it {', '.join(sorted(hub.sites))}; "
            "`ctfed provision` writes both"
        )
    _check_enough(roster.sites)
    return ServerFolder(hub, roster)


def read_hub(path: Path) -> Hub:
    """Read a hub file.

    Raises:
        CtfedError: when the file is missing or is not a hub's.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CtfedError(f"{path} cannot be read ({error.strerror}); `ctfed provision` writes it") from error
    except (ValueError, RecursionError) as error:
        raise CtfedError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("ctfed_hub") != FORMAT:
        raise CtfedError(
            f"{path}: expected a table that begins with 'ctfed_hub': {FORMAT}, as `ctfed provision` writes"
        )
    sites, address = content.get("sites"), content.get("address")
    if not isinstance(sites, dict) or not isinstance(address, str):
        raise CtfedError(f"{path}: expected an 'address' and a table 'sites' of names and SuperNode keys")
    _check_names(list(sites))
    return Hub(address, {str(name): str(key) for name, key in sites.items()})


def _check_sites(folder: Path, sites: Sequence[PublicKeys], masked: bool) -> None:
    _check_names([keys.site for keys in sites])
    if len({keys.supernode for keys in sites}) < len(sites):
        raise CtfedError("two sites have the same SuperNode key; each site makes its own")
    if masked:
        _check_enough([keys.site for keys in sites])
    elif (folder / "server" / ROSTER).exists():
        raise CtfedError(f"{folder} holds a federation that masks its answers; choose another folder for one without")
    for keys in sites:
        _check_kept_keys(folder / "sites" / keys.site, keys)


def _check_kept_keys(folder: Path, keys: PublicKeys) -> None:
    """A trial's private keys must not lie, forgotten, in the folder that is sent to a site with keys of its own."""
    held = [name for name in (MASK_KEY, NODE_KEY) if (folder / name).exists()]
    if held and not ((folder / PUBLIC).exists() and read_public_keys(folder / PUBLIC) == keys):
        raise CtfedError(f"{folder} holds {' and '.join(held)} of an earlier trial; choose another folder")


def _check_enough(sites: Sequence[str]) -> None:
    if len(sites) < FEWEST_SITES:
        raise CtfedError(
            f"secure summation needs at least {FEWEST_SITES} sites, found {len(sites)} ({', '.join(sites)}): the sum "
            "of two tells each what the other holds; for public data, `ctfed provision --unmasked` does without masks"
        )


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
    write_private(folder / "ca.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
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
    write_private(folder / "server.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
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


def _check_names(sites: Sequence[str]) -> None:
    if not sites or len(set(sites)) < len(sites):
        raise CtfedError(f"a federation needs sites with different names, found {list(sites)}")
    for name in sites:
        check_site_name(name)


def _private_folder(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
