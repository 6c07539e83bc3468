"""Fixed point: sums are exact, the same bits in any order, and out-of-range is refused."""

from __future__ import annotations

import math
import random
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ctfed.federation import Refusal
from ctfed.federation.fixedpoint import MAX_SITES, add_limbs, from_limbs, to_limbs

exponents = st.integers(-240, 240)


@st.composite
def sites(draw: st.DrawFn, most: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """(sites, n) values up to 2**35 times, and down to 2**-40 of, their declared scales (n,)."""
    shape = (draw(st.integers(1, most)), draw(st.integers(1, 6)))
    scale = np.array(draw(st.lists(exponents, min_size=shape[1], max_size=shape[1])), dtype=np.int64)
    mantissa = draw(hnp.arrays(np.float64, shape, elements=st.floats(-1, 1, allow_subnormal=False)))
    shift = draw(hnp.arrays(np.int64, shape, elements=st.integers(-40, 35)))
    return np.ldexp(mantissa, shift + scale), scale


def summed(values: np.ndarray, scale: np.ndarray) -> Any:
    return reduce(add_limbs, [to_limbs(row, scale) for row in values])


@given(sites())
def test_a_sum_is_exact_to_the_sum_of_magnitudes(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    values, scale = drawn
    found = from_limbs(summed(values, scale), scale)
    for j in range(values.shape[1]):
        magnitude = math.fsum(np.abs(values[:, j]))
        resolution = values.shape[0] * math.ldexp(1.0, int(scale[j]) - 68)
        assert abs(found[j] - math.fsum(values[:, j])) <= 1e-15 * magnitude + resolution
        if np.abs(values[:, j]).max() >= math.ldexp(1.0, int(scale[j]) - 20):
            assert abs(found[j] - math.fsum(values[:, j])) <= 1e-12 * magnitude


@given(sites(), st.randoms(use_true_random=False))
def test_any_order_of_sites_gives_the_same_bits(drawn: tuple[np.ndarray, np.ndarray], order: random.Random) -> None:
    values, scale = drawn
    shuffled = values[order.sample(range(len(values)), len(values))]
    assert from_limbs(summed(shuffled, scale), scale).tobytes() == from_limbs(summed(values, scale), scale).tobytes()


@given(sites(), st.integers(0, 2**32 - 1))
def test_masks_modulo_2_to_the_64_cancel(drawn: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    values, scale = drawn
    rng = np.random.default_rng(seed)
    limbs = [to_limbs(row, scale) for row in values]
    masks = [rng.integers(-(2**63), 2**63, limbs[0].size, dtype=np.int64) for _ in limbs[1:]]
    minus = np.zeros_like(limbs[0]) - reduce(add_limbs, masks, np.zeros_like(limbs[0]))
    masked = [add_limbs(a, b) for a, b in zip(limbs, [minus, *masks], strict=True)]
    assert np.array_equal(reduce(add_limbs, masked), summed(values, scale))


@given(sites(most=1))
def test_one_number_of_about_its_scale_keeps_every_bit(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    values, scale = drawn
    sizeable = np.where(np.abs(values) >= np.ldexp(1.0, scale - 15), values, np.ldexp(1.0, scale))
    assert np.array_equal(from_limbs(to_limbs(sizeable[0], scale), scale), sizeable[0])


def test_counts_are_exact() -> None:
    scale = np.zeros(1, dtype=np.int64)
    limbs = reduce(add_limbs, [to_limbs(np.array([float(2**30 + i)]), scale) for i in range(100)])
    assert from_limbs(limbs, scale)[0] == 100 * 2**30 + 4950


def test_what_cancels_is_zero_to_the_last_bit() -> None:
    scale = np.array([5, 5, 5])
    values = np.array([[1 / 3, -1e9 / 7, 31.7], [-1 / 3, 1e9 / 7, -31.7]])
    assert np.array_equal(from_limbs(summed(values, scale), scale), np.zeros(3))


@pytest.mark.parametrize("exponent", [-240, -1, 0, 7, 80, 240])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_range_is_2_to_the_36_times_the_scale(exponent: int, sign: float) -> None:
    scale = np.array([exponent], dtype=np.int64)
    limit = math.ldexp(1.0, exponent + 36)
    inside = sign * np.nextafter(limit, 0.0)
    assert from_limbs(to_limbs(np.array([inside]), scale), scale)[0] == inside
    with pytest.raises(Refusal, match="exceeds") as caught:
        to_limbs(np.array([sign * limit]), scale)
    assert caught.value.rule == "fixed-point-range"


def test_the_most_sites_at_the_edge_of_the_range_do_not_overflow() -> None:
    scale = np.zeros(2, dtype=np.int64)
    edge = np.nextafter(2.0**36, 0.0)
    limbs = to_limbs(np.array([edge, -edge]), scale)
    total = reduce(add_limbs, [limbs] * MAX_SITES)
    np.testing.assert_allclose(from_limbs(total, scale), np.array([edge, -edge]) * MAX_SITES, rtol=1e-15)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308])
def test_what_is_not_finite_or_far_too_large_is_refused_by_name(value: float) -> None:
    with pytest.raises(Refusal, match="fixed-point-range"):
        to_limbs(np.array([1.0, value]), np.array([0, -240]))


def test_the_refusal_names_the_worst_number() -> None:
    with pytest.raises(Refusal, match=r"magnitude 1e\+20 exceeds 2\*\*38"):
        to_limbs(np.array([1.0, 1e20, 2e12]), np.array([0, 2, 1]))


@pytest.mark.parametrize("exponent", [-3, 0, 5])
def test_resolution_is_2_to_the_minus_68_of_the_scale(exponent: int) -> None:
    scale = np.array([exponent], dtype=np.int64)
    step = math.ldexp(1.0, exponent - 68)
    for value in (step, -step, 3 * step):
        assert from_limbs(to_limbs(np.array([value]), scale), scale)[0] == value
    assert from_limbs(to_limbs(np.array([step / 4]), scale), scale)[0] == 0.0


def test_an_empty_array_is_fine() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert from_limbs(to_limbs(np.zeros(0), none), none).size == 0
