"""What `ctfed doctor` checks of the network: certificates, the server, clocks, and that nothing else can be reached."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from ctfed.doctor import Finding, Subject, look, ok, skipped, wrong
from ctfed.federation.errors import CtfedError

Address = tuple[str, int]

SECONDS = 10.0  # for the server to answer
RENEW_BEFORE = timedelta(days=30)
# Flower signs a timestamp: a site's clock may be 305 s behind the server's, and 5 s ahead.
MOST_AHEAD, MOST_BEHIND = 5.0, 300.0
# What a container that may reach only its server must not reach: Flower's telemetry, an index of packages, a resolver.
ELSEWHERE: tuple[Address, ...] = (("telemetry.flower.ai", 443), ("pypi.org", 443), ("1.1.1.1", 443))
PATIENCE = 3.0  # s, for one of them
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@dataclass(frozen=True)
class Place:
    """Where the site joins: the server's address, the federation's CA, the node's key."""

    address: str
    authority: Path
    node_key: Path

    @property
    def host_port(self) -> Address:
        """The address in two parts."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


def place_of(subject: Subject) -> Place | None:
    """As `ctfed join` finds it; None where neither a folder nor the site file says it.

    Raises:
        CtfedError: when the folder was made for another site or holds no join.json.
    """
    from ctfed.node import join_settings

    server = subject.site.server
    if subject.folder is None and (server is None or server.root_certificates is None or server.private_key is None):
        return None
    settings = join_settings(subject.site_file, Path(), subject.folder, Path(), "warm")
    return Place(settings.superlink, settings.root_certificates, settings.private_key)


# -- certificates


def certificates(subject: Subject) -> Iterator[Finding]:
    """The federation's CA and the node's key."""
    place = place_of(subject)
    if place is None:
        yield skipped("certificates", "no server is named: neither --folder nor the site file's section server")
        return
    yield _node_key(place.node_key)
    from cryptography import x509

    try:
        held = x509.load_pem_x509_certificates(place.authority.read_bytes())
    except (OSError, ValueError) as error:
        raise CtfedError(
            f"{place.authority} is no file of PEM certificates ({error}); `ctfed provision` writes it"
        ) from error
    now = datetime.now(UTC)
    for certificate in held:
        yield dates(f"{place.authority}", certificate.not_valid_before_utc, certificate.not_valid_after_utc, now)


def _node_key(path: Path) -> Finding:
    from ctfed.keys import read_node_key

    read_node_key(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        return wrong("node key", f"{path}: found mode {mode:04o}, expected a key closed to other users (chmod 600)")
    return ok("node key", f"{path} is an EC P-384 key, closed to other users")


def dates(name: str, begin: datetime, end: datetime, now: datetime) -> Finding:
    """Whether a certificate holds now, and for how long."""
    if now < begin:
        return wrong(
            "certificates",
            f"{name} holds from {begin:%Y-%m-%d %H:%M} UTC; it is {now:%Y-%m-%d %H:%M}: is the clock right?",
        )
    if now > end:
        return wrong("certificates", f"{name} ended on {end:%Y-%m-%d}; ask for new ones from `ctfed provision`")
    if now > end - RENEW_BEFORE:
        return look("certificates", f"{name} ends on {end:%Y-%m-%d}, in {(end - now).days} days; ask for new ones")
    return ok("certificates", f"{name} holds until {end:%Y-%m-%d}")


# -- the server


def server(subject: Subject) -> Iterator[Finding]:
    """Whether the server answers over TLS with a certificate of the federation's CA, and how the clocks differ."""
    place = place_of(subject)
    if place is None:
        yield skipped("server", "no server is named: neither --folder nor the site file's section server")
        return
    yield from reach(place)


def reach(place: Place, seconds: float = SECONDS) -> Iterator[Finding]:
    """Connect as a SuperNode would, through the same proxy, and ask for the server's time."""
    try:
        context = ssl.create_default_context(cafile=str(place.authority))
    except (OSError, ssl.SSLError) as error:
        raise CtfedError(f"{place.authority} cannot be used as certificates of an authority ({error})") from error
    connection, way = _connection(place, context, seconds)
    try:
        connection.connect()
        secured = connection.sock
        if not isinstance(secured, ssl.SSLSocket):
            raise CtfedError(f"{place.address}: found a connection without TLS, expected TLS")
        told, protocol = secured.getpeercert() or {}, secured.version()
        before = time.time()
        connection.request("HEAD", "/health")
        date = connection.getresponse().headers.get("Date")
        clock = _clock(date, before, time.time())
    except ssl.SSLCertVerificationError as error:
        yield wrong(
            "server", f"{place.address}{way}: its certificate is not accepted: {error.verify_message}; {_advice(error)}"
        )
        return
    except (OSError, http.client.HTTPException) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        yield wrong(
            "server", f"{place.address}{way} does not answer ({said}); the firewall must let this out, and nothing in"
        )
        return
    finally:
        connection.close()
    yield ok("server", f"{place.address}{way} answers over {protocol}")
    begin, end = (
        datetime.fromtimestamp(ssl.cert_time_to_seconds(str(told[key])), UTC) for key in ("notBefore", "notAfter")
    )
    yield dates("the server's", begin, end, datetime.now(UTC))
    yield clock


def _advice(error: ssl.SSLCertVerificationError) -> str:
    if "expired" in error.verify_message or "not yet valid" in error.verify_message:
        return "renew it with `ctfed provision`, or set the clock"
    if "match" in error.verify_message:
        return "the address must be one that `ctfed provision` was given"
    return "ca.crt must be this federation's; a proxy that opens TLS must let this address through"


def _connection(place: Place, context: ssl.SSLContext, seconds: float) -> tuple[http.client.HTTPSConnection, str]:
    host, port = place.host_port
    proxy = urllib.request.getproxies().get("https")
    if not proxy or urllib.request.proxy_bypass(host):
        return http.client.HTTPSConnection(host, port, timeout=seconds, context=context), ""
    via = urllib.parse.urlsplit(proxy)
    connection = http.client.HTTPSConnection(str(via.hostname), via.port or 3128, timeout=seconds, context=context)
    connection.set_tunnel(host, port)
    return connection, f" through the proxy {via.hostname}:{via.port or 3128}"


def _clock(date: str | None, before: float, after: float) -> Finding:
    """How far this clock is ahead of the server's, whose header tells whole seconds."""
    if date is None:
        return skipped("clock", "the server does not tell its time")
    theirs = parsedate_to_datetime(date).timestamp()
    # Their time lay in [theirs, theirs + 1) at some moment of [before, after].
    ahead, behind = before - (theirs + 1), theirs - after
    if ahead > MOST_AHEAD - 1:
        return wrong(
            "clock", f"this clock is at least {ahead:.0f} s ahead of the server's, expected at most 5; set up NTP"
        )
    if behind > MOST_BEHIND:
        return wrong(
            "clock", f"this clock is at least {behind:.0f} s behind the server's, expected at most 300; set up NTP"
        )
    if max(ahead, behind) > 2:
        return look("clock", f"this clock differs from the server's by {max(ahead, behind):.0f} s; set up NTP")
    return ok("clock", "this clock agrees with the server's within 2 s")


# -- elsewhere


def egress(subject: Subject) -> Iterator[Finding]:
    """Whether anything but the server can be reached from here. Connections are opened and closed; nothing is sent."""
    yield unexpected(ELSEWHERE)


def unexpected(elsewhere: Iterable[Address], seconds: float = PATIENCE) -> Finding:
    """A finding on which of some addresses can be reached."""
    targets = list(elsewhere)
    with ThreadPoolExecutor(max_workers=max(1, len(targets))) as pool:
        reached = [
            target
            for target, open_ in zip(targets, pool.map(lambda each: _opens(each, seconds), targets), strict=True)
            if open_
        ]
    proxy = next((name for name in _PROXIES if os.environ.get(name)), None)
    behind = f"; {proxy} is set, what it lets through was not tried" if proxy else ""
    if reached:
        names = ", ".join(f"{host}:{port}" for host, port in reached)
        return look("egress", f"{names} can be reached; a site needs its server and nothing else{behind}")
    return ok("egress", f"none of {len(targets)} public addresses can be reached{behind}")


def _opens(address: Address, seconds: float) -> bool:
    try:
        socket.create_connection(address, timeout=seconds).close()
    except OSError:  # this is the answer: it cannot be reached
        return False
    return True
