"""Many damaged messages through the decoders alone: what a site does before it judges, and a server before it adds.

    python tests/fuzz/decoding.py [--inputs N] [--seed S]

prints how many inputs were decoded and how many crashed: anything but CtfedError is a crash.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from functools import cache
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "federation")]

import border  # noqa: E402
import numpy as np  # noqa: E402

from ctfed.federation import CtfedError  # noqa: E402
from ctfed.federation.wire import (  # noqa: E402
    Answer,
    Invitation,
    Question,
    decode_question,
    encode_invitation,
    read_answer,
    read_census,
    read_opening,
)

SMALLEST = 60  # of the valid questions, the shortest are damaged: more inputs a second
EDGES: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**40, 0.5, -0.0, 1e308, "", "x", "\ud800", "view", [], {}, [[]]),
    *({"array": [2]}, {"array": [10**9, 10**9]}, {"array": [-1]}, {"shared": "0" * 64}, {"kind": "view"}),
)


PIECES = ("", '"', "{", "[", "]", "}", ",", ":", "\0", "é", "NaN", "1e999")


def _edge(rng: random.Random) -> object:
    """A value of the wrong type, size or form; a new one each time, because headers are changed in place."""
    return json.loads(json.dumps(rng.choice(EDGES)))


def _places(value: object, found: list[tuple[object, object]]) -> None:
    """All (container, key) of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        _places(inner, found)


def damaged(text: str, rng: random.Random) -> str:
    """A header with one to three values replaced, removed, doubled or swapped; or with its text damaged."""
    if rng.random() < 0.15:
        at, length = rng.randrange(len(text)), rng.choice((0, 1, 2, 9))
        return (
            text[:at]
            + rng.choice(("", '"', "{", "[", "]", "}", ",", ":", "\0", "é", "NaN", "1e999"))
            + text[at + length :]
        )
    value = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places: list[tuple[object, object]] = []
        _places(value, places)
        if not places:
            break
        container, key = rng.choice(places)
        what = rng.randrange(4)
        if what == 0:
            container[key] = _edge(rng)  # type: ignore[index]
        elif what == 1 and isinstance(container, dict):
            del container[key]
        elif what == 2:
            other, place = rng.choice(places)
            try:
                container[key] = json.loads(json.dumps(other[place]))  # type: ignore[index]
            except (KeyError, IndexError, ValueError, RecursionError):
                continue
        elif isinstance(container, dict):
            container[rng.choice(("kind", "view", "queries", "extra"))] = _edge(rng)
    return json.dumps(value)


@cache
def seeds() -> list[tuple[str, np.ndarray]]:
    """Valid headers with their numbers."""
    made = [(question.header, question.values) for question in border.seed_questions(250)]
    invitation = encode_invitation(Invitation("run-1", "0" * 64, "1" * 64))
    return [(invitation.header, invitation.values), *sorted(made, key=lambda pair: len(pair[0]))[:SMALLEST]]


def run(inputs: int, seed: int = 0) -> tuple[int, int, list[str]]:
    """Decode so many inputs; how many, how many of them were understood, and what crashed."""
    rng = random.Random(seed)
    valid = seeds()
    understood, crashes = 0, []
    asked = Question(*valid[0])
    for _ in range(inputs):
        text, numbers = rng.choice(valid)
        text = damaged(text, rng)
        if rng.random() < 0.2:
            numbers = numbers[: rng.randrange(numbers.size + 1)] if rng.random() < 0.5 else np.full(3, np.nan)
        try:
            decode_question(Question(text, numbers), {})
            understood += 1
        except CtfedError:
            pass
        except Exception as error:  # whatever comes out is what is looked for
            crashes.append(f"{type(error).__name__}: {error}: {text[:500]}")
        if rng.random() < 0.1:
            answer = Answer(text, np.zeros(rng.randrange(3), dtype=np.int64))
            for read in (read_opening, read_census, lambda a, q: read_answer(a, q, ())):
                try:
                    read(answer, asked)
                except CtfedError:
                    continue
                except Exception as error:
                    crashes.append(f"{type(error).__name__}: {error}: {text[:500]}")
    return inputs, understood, crashes


def main() -> int:
    """Print the count; exit code 1 when something crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started, done, understood, crashes = time.perf_counter(), 0, 0, []
    while done < options.inputs:
        count, good, bad = run(min(50_000, options.inputs - done), options.seed + done)
        done, understood, crashes = done + count, understood + good, crashes + bad
        print(
            f"{done:,} inputs decoded, {understood:,} understood, {len(crashes)} crashes, "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )
    for crash in crashes[:20]:
        print(crash)
    return 1 if crashes else 0


if __name__ == "__main__":
    raise SystemExit(main())
