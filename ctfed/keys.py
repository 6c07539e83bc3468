"""Keys: what a site makes for itself, and the one file of them that leaves it.

mask.key         X25519; masks this site's answers
supernode.key    P-384; by it the server knows this site's node (supernode.pub is its public half)
public.json      both public halves and the site's name; the only file that leaves the site
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from ctfed.federation.errors import CtfedError
from ctfed.federation.masking import make_mask_key
from ctfed.federation.roster import SITE_NAME, Roster, parse_key

MASK_KEY, NODE_KEY, NODE_PUBLIC, PUBLIC = "mask.key", "supernode.key", "supernode.pub", "public.json"
FORMAT = 1


@dataclass(frozen=True)
class PublicKeys:
    """The public halves of one site's keys.

    Attributes:
        site: its name.
        mask: raw X25519 public key (32 bytes), for the roster.
        supernode: P-384 public key in OpenSSH's one-line form, for the hub.
    """

    site: str
    mask: bytes
    supernode: str

    @property
    def fingerprint(self) -> str:
        """Of the mask key, as every other site's roster shows it: eight groups of four, to be read on the telephone."""
        return Roster({self.site: self.mask}).fingerprint(self.site)


def make_site_keys(folder: Path, site: str) -> PublicKeys:
    """Make a site's keys in ``folder`` (mode 0700), unless they are there, and write its public.json.

    Raises:
        CtfedError: when the name is not a site's, the folder holds another site's keys, or cannot be written.
    """
    check_site_name(site)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CtfedError(f"the folder {folder} cannot be made: {error.strerror}") from error
    path = folder / PUBLIC
    if path.exists() and (found := read_public_keys(path).site) != site:
        raise CtfedError(f"{path}: found the keys of {found!r}, expected those of {site!r}; choose another folder")
    keys = PublicKeys(site, make_mask_key(folder / MASK_KEY), make_node_key(folder))
    content = {
        "ctfed_keys": FORMAT,
        "site": site,
        "mask": base64.b64encode(keys.mask).decode(),
        "supernode": keys.supernode,
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return keys


def read_public_keys(path: Path) -> PublicKeys:
    """The keys in a site's public.json.

    Raises:
        CtfedError: naming the file, what was found and what was expected.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CtfedError(f"{path} cannot be read ({error.strerror}); `ctfed keygen` makes it at the site") from error
    except (ValueError, RecursionError) as error:
        raise CtfedError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("ctfed_keys") != FORMAT:
        raise CtfedError(f"{path}: expected a site's public.json, which begins with 'ctfed_keys': {FORMAT}")
    site, supernode = content.get("site"), content.get("supernode")
    if not isinstance(site, str) or not isinstance(supernode, str):
        raise CtfedError(f"{path}: expected the texts 'site' and 'supernode'")
    try:
        check_site_name(site)
        check_node_key(supernode, site)
        return PublicKeys(site, parse_key(content.get("mask"), site), supernode)
    except CtfedError as error:
        raise CtfedError(f"{path}: {error}") from error


def make_node_key(folder: Path) -> str:
    """Make a SuperNode's P-384 key pair in a folder, unless it is there, and return the public half."""
    path = folder / NODE_KEY
    if path.exists():
        key = read_node_key(path)
    else:
        key = ec.generate_private_key(ec.SECP384R1())
        write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    (folder / NODE_PUBLIC).write_text(public + "\n", encoding="utf-8")
    return public


def read_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A SuperNode's private key.

    Raises:
        CtfedError: when the file cannot be read or holds another kind of key.
    """
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise CtfedError(f"{path} is not a key in OpenSSH's form: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise CtfedError(f"{path} is not an EC P-384 key; `ctfed keygen` makes one")
    return key


def check_site_name(site: str) -> None:
    """Do nothing for a name that a site may have.

    Raises:
        CtfedError: for any other.
    """
    if not SITE_NAME.fullmatch(site):
        raise CtfedError(f"a site's name has 1 to 64 letters, digits, '_', '-' or '.', found {site!r:.80}")


def check_node_key(text: str, site: str) -> None:
    """Do nothing for a SuperNode's public key.

    Raises:
        CtfedError: when it is not an EC P-384 key in OpenSSH's form.
    """
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, NotImplementedError, UnsupportedAlgorithm) as error:
        raise CtfedError(f"the public key of {site!r} is not in OpenSSH's form: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise CtfedError(f"the public key of {site!r} must be an EC P-384 key (ssh-keygen -t ecdsa -b 384)")


def write_private(path: Path, content: bytes) -> None:
    """Write a file that was never readable by anyone else, not even for a moment."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
