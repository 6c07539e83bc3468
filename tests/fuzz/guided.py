"""libFuzzer, by way of atheris, on one target: inputs that reach new code of ctfed or server are damaged further."""

from __future__ import annotations

import random
import resource
import sys

MEMORY = 6 * 2**30  # bytes of address space: a message that makes a border allocate more is a crash


def fuzz(name: str, arguments: list[str]) -> None:
    """Run libFuzzer with its own arguments; it ends the process: 0 when nothing but CtfedError came out."""
    import atheris

    with atheris.instrument_imports(include=["ctfed", "server"]):
        from targets import TARGETS
    target = TARGETS[name]()
    seeds = target.seeds()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def mutate(data: bytes, largest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if len(data) <= 1:
            data = rng.choice(seeds)
        if rng.random() < 0.1:
            return bytes(atheris.Mutate(data, largest))
        return target.damaged(data, rng)[:largest]

    def cross(data: bytes, other: bytes, largest: int, seed: int) -> bytes:
        return mutate(other, largest, seed)

    atheris.Setup(arguments, target.run, custom_mutator=mutate, custom_crossover=cross)
    sys.stderr.flush()
    atheris.Fuzz()
