"""Pairwise masks: what a site sends is its integers plus noise that only the sum over all sites takes away again.

Every two sites share a secret (X25519, from the keys pinned in the roster). For each round they derive the same
keystream from it; the one whose name comes first adds it, the other one subtracts it, modulo 2**64. The server sees
uniformly random integers from each site and the exact total of all of them.

A keystream is bound to a session (run, study, roster, a fresh nonce and the cohort of every site) and to a tag (round
and content of the question), so that no two payloads of a site ever share one, also after its disk was restored.

Reference: Bonawitz et al. 2017, Practical Secure Aggregation for Privacy-Preserving Machine Learning, section 4
(without its recovery from dropouts: ctfed waits for a site that is away).
"""

from __future__ import annotations

import hmac
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ctfed.federation.arrays import IntArray
from ctfed.federation.errors import CtfedError
from ctfed.federation.roster import Roster

_PAIR = b"ctfed pair 1|"
_NONCE = bytes(16)  # a key is used for one stream alone


class Masks:
    """One site's side of the masks of one session."""

    def __init__(self, site: str, private: X25519PrivateKey, roster: Roster, session: str) -> None:
        """``session`` is the session's digest (hex).

        Raises:
            CtfedError: when the roster holds another key for this site, or a peer's key is no point of the curve.
        """
        own = private.public_key().public_bytes_raw()
        if roster.keys.get(site) != own:
            raise CtfedError(f"the roster holds another key for {site!r} than this site's own; ask for a new roster")
        self.site = site
        self._pairs: dict[str, bytes] = {}
        for peer in roster.sites:
            if peer != site:
                self._pairs[peer] = _pair_key(private, peer, roster.keys[peer], session, sorted([site, peer]))

    def mask(self, limbs: IntArray, tag: str) -> IntArray:
        """(n,) limbs with all pairwise masks added modulo 2**64; uniformly random to whoever lacks the keys."""
        masked = limbs.view(np.uint64).copy()
        zeros, stream = bytes(masked.nbytes), bytearray(masked.nbytes)
        words = np.frombuffer(stream, dtype="<u8")
        for peer, pair in self._pairs.items():
            key = hmac.digest(pair, b"mask|" + tag.encode(), sha256)
            # A ChaCha20 keystream (RFC 8439): what zeros become.
            Cipher(algorithms.ChaCha20(key, _NONCE), None).encryptor().update_into(zeros, stream)
            (np.add if self.site < peer else np.subtract)(masked, words, out=masked)
        return masked.view(np.int64)

    def seal(self, peer: str, sender: str, message: bytes) -> str:
        """MAC (hex) by which ``peer`` and this site know what ``sender``, one of the two, sent to everybody."""
        return hmac.digest(self._pairs[peer], f"seal|{sender}|".encode() + message, sha256).hex()

    @property
    def peers(self) -> tuple[str, ...]:
        """The other sites."""
        return tuple(self._pairs)


def _pair_key(private: X25519PrivateKey, peer: str, public: bytes, session: str, names: list[str]) -> bytes:
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise CtfedError(f"the roster's key of {peer!r} is not a usable X25519 key") from error
    info = _PAIR + "|".join(names).encode()  # a name holds no '|'
    return HKDF(SHA256(), 32, salt=bytes.fromhex(session), info=info).derive(shared)


def make_mask_key(path: Path) -> bytes:
    """Make a site's X25519 key in a file that its owner alone can read, unless it is there; returns the public half.

    Raises:
        CtfedError: when the file cannot be written, or what is there is not a key.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_mask_key(path).public_key().public_bytes_raw()
    except OSError as error:
        raise CtfedError(f"the key file {path} cannot be made: {error.strerror}") from error
    key = X25519PrivateKey.generate()
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes_raw())
        file.flush()
        os.fsync(file.fileno())
    return key.public_key().public_bytes_raw()


def read_mask_key(path: Path) -> X25519PrivateKey:
    """A site's private key.

    Raises:
        CtfedError: when the file is missing, open to other users, or not a key.
    """
    try:
        mode = path.stat().st_mode & 0o777
        content = path.read_bytes()
    except OSError as error:
        raise CtfedError(f"the key file {path} cannot be read ({error.strerror}); `ctfed keygen` makes it") from error
    if os.name == "posix" and mode & 0o077:
        raise CtfedError(f"{path}: found mode {mode:04o}, expected a key closed to other users (chmod 600)")
    if len(content) != 32:
        raise CtfedError(f"{path}: found {len(content)} bytes, expected an X25519 key of 32")
    return X25519PrivateKey.from_private_bytes(content)
