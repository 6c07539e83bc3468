"""The errors that ctfed raises on purpose. Each is one sentence that a person can act on."""

from __future__ import annotations


class CtfedError(Exception):
    """Base of all errors that are meant for a reader: a sentence, never a traceback."""


class MalformedMessage(CtfedError):
    """A message that is not what the wire format allows: unknown name, wrong type, shape, size or range."""


class Refusal(CtfedError):
    """A site declines to answer.

    Only ``rule`` (a fixed name chosen by ctfed) may leave the site; the sentence stays in the site's own log.
    ``of_data`` says that it was the site's data, and not the question alone, that made it decline.
    """

    of_data = False

    def __init__(self, rule: str, sentence: str) -> None:
        super().__init__(f"{rule}: {sentence}")
        self.rule = rule
        self.sentence = sentence
