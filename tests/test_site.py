"""Site files: what is wrong with one is said in words; secrets stay in files of their own."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctfed.config import ConfigError
from ctfed.site import SECRET_BYTES, Source, load_site

SHIPPED = Path(__file__).parents[1] / "site_config" / "sites"

REAL: dict[str, Any] = {
    "ctfed_site": 1,
    "site": "hospital-a",
    "data": {"csv": "clinical.csv"},
    "columns": {"id": "pid", "time": "days", "event": "dead"},
    "time_unit": "days",
    "secret": "site.secret",
}
SIMULATION: dict[str, Any] = {
    "ctfed_site": 1,
    "partition": {"by": "inst"},
    "data": {"package": "lifelines", "dataset": "lung"},
    "columns": {"time": "time", "event": "status"},
    "time_unit": "days",
    "fixture_secret": "fixture",
}
TRUST = {"key": "keys/mask.key", "roster": "keys/roster.json", "ledger": "ledger"}
ABSENT = object()


def edited(base: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """The base with one key (dotted) set, or removed."""
    document = copy.deepcopy(base)
    *path, last = key.split(".")
    here = document
    for part in path:
        here = here.setdefault(part, {})
    if value is ABSENT:
        del here[last]
    else:
        here[last] = value
    return document


def written(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


# base, key to set, value, key that is named, what is found, what is expected
BAD = [
    (REAL, "site", "a b", "site", "'a b'", "a name: letters, digits"),
    (REAL, "site", ABSENT, "", "neither", "exactly one of site or partition"),
    (REAL, "partition", {"by": "x"}, "", "both", "exactly one of site or partition"),
    (REAL, "stie", "a", "stie", "an unknown key", "(did you mean 'site'?)"),
    (REAL, "data", {}, "data", "neither", "exactly one of csv or package"),
    (REAL, "data.package", "lifelines", "data", "both", "exactly one of csv or package"),
    (REAL, "data.dataset", "lung", "data.package", "nothing", "a name, because dataset is given"),
    (REAL, "data.separator", "|", "data.separator", "'|'", "what stands between columns"),
    (REAL, "data.decimal", ";", "data.decimal", "';'", "the decimal mark"),
    (REAL, "data.csv", 7, "data.csv", "7", "the path of a CSV file"),
    (REAL, "columns.id", ABSENT, "columns.id", "nothing", "the column with the patient's identifier"),
    (REAL, "columns.time", ABSENT, "columns.time", "nothing", "the column with the follow-up time"),
    (REAL, "columns.date", "x", "columns.date", "an unknown key", "id, time or event"),
    (REAL, "time_unit", "years", "time_unit", "'years'", "'days' or 'months'"),
    (REAL, "event_codes", {"dead": 2}, "event_codes.dead", "2", "0 (not observed) or 1 (observed)"),
    (REAL, "event_codes", {}, "event_codes", "a mapping", "0 (not observed) or 1 (observed)"),
    (REAL, "features", {"age": 5}, "features.age", "5", "a mapping of the study's variables to columns"),
    (REAL, "features", {"age": {"colunm": "x"}}, "features.age.colunm", "an unknown key", "(did you mean 'column'?)"),
    (REAL, "features", {"s": {"column": "s", "codes": {"M": "0"}}}, "features.s.codes.M", "'0'", "codes to numbers"),
    (REAL, "missing", [999], "missing[0]", "999", "a list of texts (in quotes)"),
    (REAL, "secret", ABSENT, "secret", "nothing", "the path of the file with the site's secret"),
    (REAL, "fixture_secret", "x", "fixture_secret", "a secret in the file of a real site", "secret: path"),
    (REAL, "server", {"address": "host"}, "server.address", "'host'", "host:port in quotes"),
    (REAL, "trust", {"key": "k", "roster": "r"}, "trust.ledger", "nothing", "the folder with the ledger"),
    (REAL | {"trust": TRUST}, "trust.keys", "k", "trust.keys", "an unknown key", "(did you mean 'key'?)"),
    (REAL | {"trust": TRUST}, "unmasked", True, "unmasked", "true beside trust", "a site masks its answers or not"),
    (SIMULATION, "trust", TRUST, "trust", "keys beside partition", "none"),
    (SIMULATION, "unmasked", True, "unmasked", "true beside partition", "`ctfed simulate --unmasked`"),
    (SIMULATION, "partition.minimum", 0, "partition.minimum", "0", "the fewest patients of a site"),
    (SIMULATION, "partition.by", ABSENT, "partition.by", "nothing", "the column whose levels become sites"),
    (SIMULATION, "partition.remainder", "the rest", "partition.remainder", "'the rest'", "the small levels"),
    (SIMULATION, "fixture_secret", ABSENT, "", "neither", "exactly one of fixture_secret or secret"),
    (SIMULATION, "secret", "file", "", "both", "exactly one of fixture_secret or secret"),
    (SIMULATION, "server", {"address": "h:1"}, "server", "a server beside partition", "none"),
    (SIMULATION, "data.dataset", ABSENT, "data.dataset", "nothing", "a name, because package is given"),
    (SIMULATION, "data.dataset", "rossi", "data.dataset", "'rossi'", "'lung'"),
]


@pytest.mark.parametrize(("base", "key", "value", "named", "found", "expected"), BAD)
def test_a_wrong_value_gives_one_sentence(
    tmp_path: Path, base: dict[str, Any], key: str, value: object, named: str, found: str, expected: str
) -> None:
    path = written(tmp_path, edited(base, key, value))
    with pytest.raises(ConfigError) as caught:
        load_site(path)
    assert len(caught.value.faults) == 1
    [fault] = caught.value.faults
    subject, _, rest = fault.partition("found ")
    assert subject.startswith(f"{path}, line ")
    assert subject.endswith(f": {named}: " if named else ": ")
    assert rest.startswith(f"{found}, expected ")
    assert expected in rest


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    document = edited(REAL, "server", {"address": "h:9092", "root_certificates": "ca.pem", "private_key": "/keys/k"})
    site = load_site(written(tmp_path, document))
    assert site.data.csv == tmp_path / "clinical.csv"
    assert site.secret == tmp_path / "site.secret"
    assert site.server is not None
    assert site.server.root_certificates == tmp_path / "ca.pem"
    assert site.server.private_key == Path("/keys/k")
    assert site.origin == str(tmp_path / "site.yaml")


def test_the_paths_of_trust_are_relative_to_the_file(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, REAL | {"trust": TRUST | {"policy": "/etc/policy.yaml"}}))
    assert site.trust is not None
    assert site.trust.key == tmp_path / "keys" / "mask.key"
    assert site.trust.roster == tmp_path / "keys" / "roster.json"
    assert site.trust.ledger == tmp_path / "ledger"
    assert site.trust.policy == Path("/etc/policy.yaml")


def test_a_variable_comes_from_its_own_name_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    features = {"age": "alter", "sex": {"column": "geschlecht", "codes": {"M": 0, "F": 1}}, "n": {"column": "n_stage"}}
    site = load_site(written(tmp_path, edited(REAL, "features", features)))
    assert site.source("age") == Source(column="alter", codes=None)
    assert site.source("sex") == Source(column="geschlecht", codes={"M": 0.0, "F": 1.0})
    assert site.source("n").column == "n_stage"
    assert site.source("ecog") == Source(column="ecog", codes=None)


def test_codes_are_text_even_where_they_look_like_numbers_or_truth(tmp_path: Path) -> None:
    path = written(tmp_path, REAL)
    path.write_text(path.read_text() + "event_codes: {no: 0, yes: 1, 2: 1, true: 1}\n")
    assert load_site(path).event_codes == {"no": 0, "yes": 1, "2": 1, "true": 1}


def test_a_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, REAL))
    assert not (tmp_path / "site.secret").exists()
    first = site.secret_of("hospital-a")
    assert len(first) == SECRET_BYTES
    assert (tmp_path / "site.secret").stat().st_mode & 0o777 == 0o600
    assert site.secret_of("hospital-a") == first
    assert (tmp_path / "site.secret").read_bytes() == first


def test_two_sites_make_different_secrets(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(load_site(written(tmp_path / name, REAL)).secret_of("hospital-a"))
    assert made[0] != made[1]


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_secret_open_to_others_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "site.secret"
    secret.write_bytes(b"s" * SECRET_BYTES)
    secret.chmod(0o644)
    site = load_site(written(tmp_path, REAL))
    with pytest.raises(ConfigError, match=r"site\.secret: found mode 0644, expected a secret closed to other users"):
        site.secret_of("hospital-a")
    secret.chmod(0o440)
    assert site.secret_of("hospital-a") == b"s" * SECRET_BYTES


def test_a_secret_that_is_too_short_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "site.secret"
    secret.touch(mode=0o600)
    with pytest.raises(ConfigError, match=r"site\.secret: found 0 bytes, expected a secret of at least 16"):
        load_site(written(tmp_path, REAL)).secret_of("hospital-a")


def test_a_secret_in_a_folder_that_is_absent_is_refused(tmp_path: Path) -> None:
    """Making the folder would hide a mistyped path behind new folds."""
    site = load_site(written(tmp_path, edited(REAL, "secret", "gone/site.secret")))
    with pytest.raises(ConfigError) as caught:
        site.secret_of("hospital-a")
    wanted = f"secret: found {tmp_path / 'gone' / 'site.secret'} (No such file or directory), expected a file that can"
    assert str(caught.value).startswith(f"{tmp_path / 'site.yaml'}: {wanted}")
    assert not (tmp_path / "gone").exists()


def test_virtual_sites_have_secrets_of_their_own(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, SIMULATION))
    assert site.secret_of("institution-01") == site.secret_of("institution-01")
    assert len({site.secret_of("institution-01"), site.secret_of("institution-02"), b"fixture"}) == 3


@pytest.mark.parametrize("name", ["ncctg_lung.yaml", "example_site.yaml"])
def test_the_shipped_files_load(name: str) -> None:
    site = load_site(SHIPPED / name)
    assert (site.site is None) != (site.partition is None)
    assert site.fixture_secret is None or site.partition is not None
