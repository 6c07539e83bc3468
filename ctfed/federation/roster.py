"""Roster: the sites of a federation and the public keys with which they mask their answers to each other.

Every site holds the same roster file and pins its digest when it approves a study. Keys come from there and never
from the server, so that nobody can put a key of their own between two sites.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ctfed.federation.codec import canonical_json
from ctfed.federation.errors import CtfedError
from ctfed.federation.fixedpoint import MAX_SITES

FORMAT = 1
KEY_BYTES = 32
MAX_BYTES = 2**20  # of a roster file; 1,024 sites take a tenth of it
SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class RosterError(CtfedError):
    """A roster that cannot be used: not a roster, a wrong key, two sites with one key."""


@dataclass(frozen=True)
class Roster:
    """The sites of a federation.

    Attributes:
        keys: site name -> its raw X25519 public key (32 bytes).
    """

    keys: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if not 0 < len(self.keys) <= MAX_SITES:
            raise RosterError(f"a roster names 1 to {MAX_SITES} sites, found {len(self.keys)}")
        for name, key in self.keys.items():
            if not SITE_NAME.fullmatch(name):
                raise RosterError(f"a site's name has 1 to 64 letters, digits, '_', '-' or '.', found {name!r:.80}")
            if len(key) != KEY_BYTES:
                raise RosterError(f"the key of {name!r} has {len(key)} bytes, expected {KEY_BYTES}")
        if len(set(self.keys.values())) < len(self.keys):
            raise RosterError("two sites of the roster have the same key; each site makes its own")

    @property
    def sites(self) -> tuple[str, ...]:
        """The names in alphabetical order, which decides who adds a mask and who takes it away."""
        return tuple(sorted(self.keys))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of names and keys; what a site pins."""
        content = {name: key.hex() for name, key in self.keys.items()}
        return hashlib.sha256(canonical_json({"ctfed_roster": FORMAT, "sites": content}).encode()).hexdigest()

    def fingerprint(self, site: str) -> str:
        """A site's key in a form that two people can compare on the telephone: eight groups of four."""
        text = hashlib.sha256(b"ctfed key|" + self.keys[site]).hexdigest()[:32]
        return " ".join(text[i : i + 4] for i in range(0, 32, 4))

    def write(self, path: Path) -> None:
        """Write the roster file."""
        content = {name: base64.b64encode(self.keys[name]).decode() for name in self.sites}
        path.write_text(json.dumps({"ctfed_roster": FORMAT, "sites": content}, indent=2) + "\n", encoding="utf-8")


def read_roster(path: Path) -> Roster:
    """Read a roster file.

    Raises:
        RosterError: naming the file, what was found and what was expected.
    """
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise RosterError(f"the roster {path} has {len(data)} bytes, expected at most {MAX_BYTES}")
        content = json.loads(data.decode("utf-8"), object_pairs_hook=_table)
    except OSError as error:
        raise RosterError(f"the roster {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RosterError(f"the roster {path} is not JSON: {error}") from error
    version = content.get("ctfed_roster") if isinstance(content, dict) else None
    if type(version) is not int or version != FORMAT:
        raise RosterError(f"the roster {path}: expected a table that begins with 'ctfed_roster': {FORMAT}")
    sites = content.get("sites")
    if not isinstance(sites, dict):
        raise RosterError(f"the roster {path}: sites: expected a table of names and keys")
    try:
        return Roster({str(name): parse_key(key, str(name)) for name, key in sites.items()})
    except RosterError as error:
        raise RosterError(f"the roster {path}: {error}") from error


def _table(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A table of which every key is written once: of two keys for one site, people would read the wrong one."""
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"found {twice!r:.80} for the second time")
    return table


def parse_key(text: object, site: str) -> bytes:
    """A public key from its base64 text.

    Raises:
        RosterError: when the text is not 32 bytes in base64.
    """
    try:
        key = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise RosterError(f"the key of {site!r} must be {KEY_BYTES} bytes in base64, found {text!r:.60}")
    return key
