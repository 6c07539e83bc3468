"""Keys and certificates: right for TLS and Flower, private where they must be, kept when run again."""

from __future__ import annotations

import ipaddress
import json
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from ctfed.federation.errors import CtfedError
from ctfed.federation.roster import read_roster
from ctfed.keys import PublicKeys, make_site_keys
from server.provision import ServerFolder, make_trial_keys, provision, read_hub, read_server_folder

SITES = ["bern", "lyon", "oslo"]
ADDRESS = "hub.example.org:443"


def trial(folder: Path, sites: list[str] = SITES, **options: object) -> ServerFolder:
    return provision(folder, make_trial_keys(folder, sites), ADDRESS, **options)  # type: ignore[arg-type]


def own_keys(folder: Path, sites: list[str] = SITES) -> list[PublicKeys]:
    return [make_site_keys(folder / site, site) for site in sites]


def test_every_private_key_is_its_owners_alone(tmp_path: Path) -> None:
    trial(tmp_path)
    keys = sorted(tmp_path.rglob("*.key"))
    assert [key.relative_to(tmp_path).as_posix() for key in keys] == [
        "ca/ca.key",
        "server/server.key",
        *[f"sites/{site}/{name}.key" for site in SITES for name in ("mask", "supernode")],
    ]
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert {stat.S_IMODE(key.parent.stat().st_mode) for key in keys} == {0o700}


def test_sites_with_keys_of_their_own_are_sent_no_private_key(tmp_path: Path) -> None:
    keys = own_keys(tmp_path / "at the sites")
    made = provision(tmp_path / "kit", keys, ADDRESS)
    for site in SITES:
        files = {path.name for path in (tmp_path / "kit" / "sites" / site).iterdir()}
        assert files == {"ca.crt", "join.json", "roster.json"}
    assert sorted(path.name for path in (tmp_path / "kit").rglob("*.key")) == ["ca.key", "server.key"]
    assert made.hub.keys == {key.site: key.supernode for key in keys}
    assert made.roster is not None
    assert made.roster.keys == {key.site: key.mask for key in keys}


def test_the_server_and_every_site_hold_the_same_roster(tmp_path: Path) -> None:
    made = trial(tmp_path)
    assert made.roster is not None
    for folder in (tmp_path / "server", *(tmp_path / "sites" / site for site in SITES)):
        assert read_roster(folder / "roster.json").digest == made.roster.digest
    again = read_server_folder(tmp_path / "server")
    assert (again.hub, again.roster) == (made.hub, made.roster)
    join = json.loads((tmp_path / "sites" / "bern" / "join.json").read_text(encoding="utf-8"))
    assert join == {"site": "bern", "superlink": ADDRESS}


def test_the_certificate_holds_every_name_and_is_signed_by_the_ca(tmp_path: Path) -> None:
    trial(tmp_path, hosts=["10.0.0.5", "superlink"])
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


def test_run_again_it_keeps_the_keys_and_adds_sites(tmp_path: Path) -> None:
    first = trial(tmp_path)
    authority = (tmp_path / "ca" / "ca.crt").read_bytes()
    second = trial(tmp_path, [*SITES, "rome"])
    assert first.roster is not None
    assert second.roster is not None
    assert {site: second.hub.keys[site] for site in SITES} == dict(first.hub.keys)
    assert {site: second.roster.keys[site] for site in SITES} == dict(first.roster.keys)
    assert second.hub.sites == (*SITES, "rome")
    assert second.roster.digest != first.roster.digest, "every site has to approve the new roster"
    assert (tmp_path / "ca" / "ca.crt").read_bytes() == authority


def test_a_federation_without_masks_has_no_roster(tmp_path: Path) -> None:
    made = trial(tmp_path, ["bern"], masked=False)
    assert made.roster is None
    assert read_server_folder(tmp_path / "server").roster is None
    assert not list(tmp_path.rglob("roster.json"))


def test_two_sites_are_too_few_for_masks(tmp_path: Path) -> None:
    with pytest.raises(CtfedError, match="needs at least 3 sites, found 2"):
        trial(tmp_path / "a", SITES[:2])
    trial(tmp_path / "b")
    two = {site: key for site, key in read_hub(tmp_path / "b" / "server" / "hub.json").keys.items() if site != "oslo"}
    for name, content in (
        ("hub.json", {"ctfed_hub": 1, "address": ADDRESS, "sites": two}),
        ("roster.json", _without(tmp_path / "b" / "server" / "roster.json", "oslo")),
    ):
        (tmp_path / "b" / "server" / name).write_text(json.dumps(content))
    with pytest.raises(CtfedError, match="needs at least 3 sites, found 2"):
        read_server_folder(tmp_path / "b" / "server")


def _without(path: Path, site: str) -> dict[str, object]:
    content: dict[str, object] = json.loads(path.read_text())
    del content["sites"][site]  # type: ignore[attr-defined]
    return content


def test_masks_are_not_given_up_in_a_folder_that_has_them(tmp_path: Path) -> None:
    trial(tmp_path)
    with pytest.raises(CtfedError, match="choose another folder for one without"):
        trial(tmp_path, masked=False)


def test_keys_of_a_trial_do_not_lie_in_what_a_real_site_is_sent(tmp_path: Path) -> None:
    trial(tmp_path / "kit")
    with pytest.raises(CtfedError, match=r"sites/bern holds mask\.key and supernode\.key of an earlier trial"):
        provision(tmp_path / "kit", own_keys(tmp_path / "own"), ADDRESS)


@pytest.mark.parametrize(
    ("sites", "address", "words"),
    [
        ([], "hub:443", "different names"),
        (["bern", "bern", "oslo"], "hub:443", "different names"),
        (["../bern", "lyon", "oslo"], "hub:443", "a site's name"),
        (SITES, "https://hub:443", "host:port without a scheme"),
        (SITES, "hub", "host:port without a scheme"),
        (SITES, "hub:99999", "host:port without a scheme"),
    ],
)
def test_what_cannot_work_is_refused_in_words(tmp_path: Path, sites: list[str], address: str, words: str) -> None:
    with pytest.raises(CtfedError, match=words):
        provision(tmp_path, make_trial_keys(tmp_path, sites), address)


def test_two_sites_with_one_key_are_refused(tmp_path: Path) -> None:
    bern, lyon, oslo = own_keys(tmp_path)
    with pytest.raises(CtfedError, match="same SuperNode key"):
        provision(tmp_path / "kit", [bern, lyon, PublicKeys("oslo", oslo.mask, bern.supernode)], ADDRESS)
    with pytest.raises(CtfedError, match="two sites of the roster have the same key"):
        provision(tmp_path / "kit", [bern, lyon, PublicKeys("oslo", bern.mask, oslo.supernode)], ADDRESS)


def test_a_missing_or_broken_hub_says_so(tmp_path: Path) -> None:
    with pytest.raises(CtfedError, match=r"hub\.json cannot be read .*`ctfed provision` writes it"):
        read_server_folder(tmp_path)
    for text, words in (("{", "not JSON"), ("{}", "'ctfed_hub': 1"), ('{"ctfed_hub": 1}', "an 'address'")):
        (tmp_path / "hub.json").write_text(text, encoding="utf-8")
        with pytest.raises(CtfedError, match=words):
            read_server_folder(tmp_path)


def test_hub_and_roster_must_name_the_same_sites(tmp_path: Path) -> None:
    trial(tmp_path)
    server = tmp_path / "server"
    (server / "roster.json").write_text(json.dumps(_without(server / "roster.json", "oslo")))
    with pytest.raises(CtfedError, match=r"names the sites bern, lyon, hub\.json beside it bern, lyon, oslo"):
        read_server_folder(server)
