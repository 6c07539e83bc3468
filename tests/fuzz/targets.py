"""The borders, as functions of bytes: nothing but CtfedError may come out of them.

A target takes bytes, has seeds (valid inputs) and its own way of damaging an input. ``fuzz_*.py`` hand them to
libFuzzer; ``loop`` damages the seeds without it.
"""

from __future__ import annotations

from file_targets import Configs, Files, hostile_zip
from message_targets import Answers, Questions, packed, unpacked
from target import Found, Target, loop

__all__ = ["TARGETS", "Configs", "Files", "Found", "Questions", "Target", "hostile_zip", "loop", "packed", "unpacked"]

TARGETS: dict[str, type[Target]] = {"question": Questions, "answer": Answers, "config": Configs, "state": Files}
