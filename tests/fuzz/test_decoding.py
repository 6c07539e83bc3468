"""Damaged messages through the decoders: nothing but CtfedError comes out. The long run is `make verify`'s."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "federation")]

import decoding  # noqa: E402


def test_thousands_of_damaged_messages_crash_no_decoder() -> None:
    inputs, understood, crashes = decoding.run(4000, seed=1)
    assert inputs == 4000
    assert 0 < understood < inputs
    assert crashes == []


def test_a_decoder_that_crashes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(question: object, shared: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(decoding, "decode_question", broken)
    assert len(decoding.run(20)[2]) >= 20


def test_damage_changes_nearly_every_message() -> None:
    rng = random.Random(0)
    text, _ = decoding.seeds()[3]
    changed = [decoding.damaged(text, rng) for _ in range(200)]
    assert sum(one != text and one != json.dumps(json.loads(text)) for one in changed) > 180


@pytest.mark.slow
def test_a_million_damaged_messages_crash_no_decoder() -> None:
    assert decoding.run(1_000_000, seed=2)[2] == []
