"""What a target of fuzzing is, and the plain loop that damages its seeds."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

LONGEST = 20_000  # bytes of an input that is damaged again
OTHERS = 500  # inputs that are damaged again, beside the seeds


class Target(ABC):
    """One border."""

    name: str

    @abstractmethod
    def seeds(self) -> list[bytes]:
        """Valid inputs."""

    @abstractmethod
    def run(self, data: bytes) -> bool:
        """Take one input in; True when it was understood. Raises only what is a defect."""

    @abstractmethod
    def damaged(self, data: bytes, rng: random.Random) -> bytes:
        """Another input, made from one."""


@dataclass
class Found:
    """What a loop came to.

    Attributes:
        inputs: how many were taken in.
        understood: how many of them were no error.
        crashes: the inputs of which something else than CtfedError came, with what came.
    """

    inputs: int = 0
    understood: int = 0
    crashes: list[tuple[bytes, BaseException]] = field(default_factory=list)


def loop(target: Target, inputs: int, seed: int = 0) -> Found:
    """Damage seeds, and damaged ones again, and take them in."""
    rng = random.Random(seed)
    seeds = target.seeds()
    pool = list(seeds)
    found = Found()
    for number in range(inputs):
        data = seeds[number] if number < len(seeds) else target.damaged(rng.choice(pool), rng)
        found.inputs += 1
        try:
            understood = target.run(data)
        except Exception as error:  # whatever comes out is what is looked for
            found.crashes.append((data, error))
            continue
        found.understood += understood
        if understood and len(data) < LONGEST:
            if len(pool) < len(seeds) + OTHERS:
                pool.append(data)
            else:
                pool[rng.randrange(len(seeds), len(pool))] = data
    return found
