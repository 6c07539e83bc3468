"""Masks: they hide a site's numbers entirely, leave nothing in the total, and are never used for two payloads."""

from __future__ import annotations

import hmac
import math
import random
import stat
from functools import reduce
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from masked_support import SESSION, all_masks, private_keys, roster_of

from ctfed.federation import CtfedError
from ctfed.federation.arrays import IntArray
from ctfed.federation.fixedpoint import add_limbs, from_limbs, to_limbs
from ctfed.federation.masking import Masks, make_mask_key, read_mask_key
from ctfed.federation.roster import Roster

OTHER_SESSION = "cd" * 32
SIZE = 20_000
# Points of order 1, 2, 4 and 8 on the curve and its twist (RFC 7748, section 7; https://cr.yp.to/ecdh.html#validate).
LOW_ORDER = (
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)


def zeros(size: int) -> IntArray:
    return np.zeros(size, dtype=np.int64)


def added(limbs: list[IntArray]) -> IntArray:
    return reduce(add_limbs, limbs)


def flipped_bits(one: IntArray, other: IntArray) -> float:
    """Share of bits in which two arrays differ; one half for independent random ones."""
    return float(np.unpackbits((one ^ other).view(np.uint8)).mean())


# -- the sum of all masks


@pytest.mark.parametrize("count", [3, 4, 5, 8, 13, 24, 50])
def test_all_masks_of_a_round_add_up_to_zero(count: int) -> None:
    masked = [one.mask(zeros(257), "0|question") for one in all_masks(count)]
    assert not added(masked).any()


@pytest.mark.parametrize("count", [3, 5, 24])
def test_without_one_site_the_sum_tells_nothing(count: int) -> None:
    masked = [one.mask(zeros(SIZE), "0|question") for one in all_masks(count)]
    for absent in range(count):
        rest = added(masked[:absent] + masked[absent + 1 :])
        assert abs(flipped_bits(rest, zeros(SIZE)) - 0.5) < 0.005


@given(st.data())
def test_the_masked_total_is_the_clear_one_bit_for_bit_in_any_order(data: st.DataObject) -> None:
    count = data.draw(st.integers(3, 12))
    size = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scales = rng.integers(-80, 81, size)
    values = np.ldexp(rng.uniform(-1, 1, (count, size)), scales + rng.integers(-60, 36, (count, size)))
    values[rng.random((count, size)) < 0.1] = 0.0
    clear = [to_limbs(row, scales) for row in values]
    tag = data.draw(st.text(max_size=8))
    masked = [one.mask(limbs, tag) for one, limbs in zip(all_masks(count), clear, strict=True)]
    order = data.draw(st.permutations(range(count)))
    assert np.array_equal(added([masked[i] for i in order]), added(clear))
    found = from_limbs(added([masked[i] for i in order]), scales)
    assert found.tobytes() == from_limbs(added(clear), scales).tobytes()


@pytest.mark.parametrize("count", [3, 10, 50])
def test_masked_totals_are_exact_over_the_range_of_radiomic_features(count: int) -> None:
    """Declared scales up to 2**80 (1.2e24); within 1e-12 of the sum of magnitudes, and the same bits in any order."""
    rng = np.random.default_rng(count)
    scales = np.linspace(-40, 80, 64).round().astype(np.int64)
    masks = all_masks(count)
    for turn in range(20):
        values = np.ldexp(rng.uniform(-1, 1, (count, 64)), scales + rng.integers(-20, 36, (count, 64)))
        masked = [one.mask(to_limbs(row, scales), f"{turn}|q") for one, row in zip(masks, values, strict=True)]
        found = from_limbs(added(masked), scales)
        again = from_limbs(added([masked[i] for i in rng.permutation(count)]), scales)
        assert found.tobytes() == again.tobytes()
        for j in range(64):
            error = abs(found[j] - math.fsum(values[:, j]))
            assert error <= 1e-12 * math.fsum(np.abs(values[:, j]))


@given(st.integers(3, 6), st.integers(0, 2**32 - 1))
def test_limbs_at_the_ends_of_their_range_survive(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ends = np.array([-(2**63), 2**63 - 1, -1, 0, 1], dtype=np.int64)
    clear = [rng.choice(ends, 30) for _ in range(count)]
    masked = [one.mask(limbs, "0|q") for one, limbs in zip(all_masks(count), clear, strict=True)]
    assert np.array_equal(added(masked), added(clear))


def test_a_wrong_order_of_addition_on_the_way_changes_nothing() -> None:
    masked = [one.mask(zeros(64) + i, "0|q") for i, one in enumerate(all_masks(20))]
    expected = added(masked)
    for seed in range(5):
        assert np.array_equal(added(random.Random(seed).sample(masked, 20)), expected)


# -- what one site sends


def test_masked_limbs_of_one_site_look_uniform() -> None:
    for one in all_masks(3):
        content = one.mask(zeros(SIZE), "0|question").view(np.uint8)
        observed = np.bincount(content, minlength=256)
        expected = content.size / 256
        chi2 = float(((observed - expected) ** 2 / expected).sum())
        assert 160 < chi2 < 370  # 255 degrees of freedom: beyond these once in a million
        bits = np.unpackbits(content.reshape(-1, 8), axis=1).mean(axis=0)
        assert np.abs(bits - 0.5).max() < 0.02  # every one of the 64 bits, the sign among them
        words = np.sort(content.view(np.uint64))
        assert np.unique(words).size == words.size
        gaps = np.abs(np.linspace(0, 1, words.size) - words / 2.0**64)
        assert gaps.max() < 2.2 / np.sqrt(words.size)  # Kolmogorov and Smirnov


def test_the_same_numbers_and_none_look_the_same() -> None:
    one = all_masks(3)[0]
    large = np.full(SIZE, 2**51, dtype=np.int64)
    assert abs(flipped_bits(one.mask(large, "0|q"), one.mask(zeros(SIZE), "1|q")) - 0.5) < 0.005


@pytest.mark.parametrize(
    ("session", "tag"), [(SESSION, "1|question"), (SESSION, "0|questiom"), (OTHER_SESSION, "0|question")]
)
def test_another_round_question_or_session_changes_every_mask(session: str, tag: str) -> None:
    for one, other in zip(all_masks(3), all_masks(3, session), strict=True):
        before, after = one.mask(zeros(SIZE), "0|question"), other.mask(zeros(SIZE), tag)
        assert (before != after).all()
        assert abs(flipped_bits(before, after) - 0.5) < 0.005


def test_every_pair_of_sites_has_a_keystream_of_its_own() -> None:
    keys = private_keys(4)
    roster = roster_of(keys)
    streams = []
    for first in sorted(keys):
        for second in sorted(keys):
            if first < second:
                pair = Roster({site: roster.keys[site] for site in (first, second)})
                streams.append(Masks(first, keys[first], pair, SESSION).mask(zeros(500), "0|q"))
                assert not add_limbs(
                    streams[-1], Masks(second, keys[second], pair, SESSION).mask(zeros(500), "0|q")
                ).any()
    flat = np.concatenate(streams)
    assert len(streams) == 6
    assert np.unique(flat).size == flat.size


def test_the_same_question_has_the_same_mask_and_the_numbers_are_left_alone() -> None:
    one = all_masks(3)[0]
    numbers = np.arange(100, dtype=np.int64)
    first = one.mask(numbers, "0|q")
    assert np.array_equal(numbers, np.arange(100))
    assert np.array_equal(first, one.mask(numbers, "0|q"))
    assert np.array_equal(first, all_masks(3)[0].mask(numbers, "0|q"))


def test_a_short_array_is_masked_by_the_beginning_of_a_long_ones_mask() -> None:
    """Why a tag names the whole question: two payloads under one tag would differ by the difference of their sums."""
    one = all_masks(3)[0]
    assert np.array_equal(one.mask(zeros(10), "0|q"), one.mask(zeros(100), "0|q")[:10])


def test_no_numbers_need_no_mask() -> None:
    assert all_masks(3)[0].mask(zeros(0), "0|q").size == 0


def test_masks_are_what_the_format_says() -> None:
    """X25519, HKDF-SHA256 salted with the session, HMAC-SHA256 of the tag, ChaCha20 from block 0: step by step."""
    keys = private_keys(3)
    names = sorted(keys)
    expected = np.zeros(50, dtype=np.uint64)
    for peer in names[1:]:
        shared = keys[names[0]].exchange(keys[peer].public_key())
        info = f"ctfed pair 1|{names[0]}|{peer}".encode()
        pair = HKDF(SHA256(), 32, salt=bytes.fromhex(SESSION), info=info).derive(shared)
        key = hmac.digest(pair, b"mask|0|question", sha256)
        stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor().update(bytes(400))
        expected += np.frombuffer(stream, dtype="<u8")
    assert np.array_equal(all_masks(3)[0].mask(zeros(50), "0|question").view(np.uint64), expected)


# -- keys


def test_the_rosters_key_of_the_site_itself_must_be_its_own() -> None:
    keys = private_keys(4)
    roster = roster_of(keys)
    with pytest.raises(CtfedError, match="another key for 'site-00'"):
        Masks("site-00", keys["site-01"], roster, SESSION)
    with pytest.raises(CtfedError, match="another key for 'elsewhere'"):
        Masks("elsewhere", keys["site-01"], roster, SESSION)


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_public_key_of_low_order_is_refused(point: str) -> None:
    """With such a key the shared secret is zero for everybody, and the mask no secret."""
    keys = private_keys(3)
    roster = Roster({**roster_of(keys).keys, "site-02": bytes.fromhex(point)})
    with pytest.raises(CtfedError, match=r"key of 'site-02' is not a usable X25519 key"):
        Masks("site-00", keys["site-00"], roster, SESSION)


def test_a_roster_with_a_changed_key_does_not_add_up() -> None:
    keys = private_keys(4)
    right = roster_of({site: keys[site] for site in sorted(keys)[:3]})
    wrong = Roster({**right.keys, "site-02": keys["site-03"].public_key().public_bytes_raw()})
    masked = [
        Masks(site, keys[site], wrong if site == "site-00" else right, SESSION).mask(zeros(100), "0|q")
        for site in right.sites
    ]
    assert (added(masked) != 0).all()


def test_seals_bind_sender_receiver_session_and_message() -> None:
    first, second, third = all_masks(3)
    seal = first.seal("site-01", "site-00", b"message")
    assert seal == second.seal("site-00", "site-00", b"message")
    others = {
        first.seal("site-01", "site-00", b"messagf"),
        first.seal("site-01", "site-01", b"message"),
        first.seal("site-02", "site-00", b"message"),
        third.seal("site-01", "site-00", b"message"),
        all_masks(3, OTHER_SESSION)[0].seal("site-01", "site-00", b"message"),
    }
    assert seal not in others
    assert len(others) == 5


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "mask.key"
    public = make_mask_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert make_mask_key(path) == public
    assert read_mask_key(path).public_key().public_bytes_raw() == public
    assert make_mask_key(tmp_path / "other.key") != public


def test_a_key_file_that_is_open_damaged_or_missing_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "mask.key"
    with pytest.raises(CtfedError, match=r"mask\.key cannot be read .*keygen"):
        read_mask_key(path)
    make_mask_key(path)
    path.chmod(0o640)
    with pytest.raises(CtfedError, match="found mode 0640, expected a key closed to other users"):
        read_mask_key(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(CtfedError, match="found 5 bytes, expected an X25519 key of 32"):
        read_mask_key(path)
    with pytest.raises(CtfedError, match="cannot be made"):
        make_mask_key(tmp_path / "absent" / "mask.key")
