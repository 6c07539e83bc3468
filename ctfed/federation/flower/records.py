"""A Question or an Answer as Flower records: a ConfigRecord with the header, and the numbers as ONE flat array.

Every object of a message costs an HTTP request on each hop, and the SuperLink about 20 ms of a core. Up to 128 kB of
numbers therefore ride as plain little-endian bytes inside the ConfigRecord (3 objects a message); more of them go into
one Array of an ArrayRecord (6 objects), which Flower sends in chunks. The SHA-256 beside the header lets the receiver
tell a message that was damaged on its way from one that is merely wrong. No container format is parsed at the border.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict

from ctfed.federation.arrays import FloatArray, IntArray
from ctfed.federation.errors import MalformedMessage, Refusal
from ctfed.federation.roster import SITE_NAME
from ctfed.federation.wire import Answer, Question

ASK = "query.ask"
HELLO = "query.hello"
CLIENT_ERROR = 2  # the code that Flower itself gives to an exception in a ClientApp
UNNAMED_RULE = "unnamed_rule"

_HEADER, _ARRAY, _FLAT = "header", "array", "flat"
_PLAIN = "little-endian"  # Flower's field for how an Array's bytes were made
INLINE_BYTES = 128 * 2**10  # of numbers; larger ConfigRecords are slow to serialise and are not sent in chunks
_VERSION = re.compile(r"[A-Za-z0-9.+-]{1,64}")
_PUBLIC_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def pack_question(question: Question) -> RecordDict:
    """The records that carry a question to a site."""
    return _pack(question.header, question.values, "<f8")


def unpack_question(records: RecordDict) -> Question:
    """The question inside records.

    Raises:
        MalformedMessage: when a record is missing, of another type, or damaged.
    """
    header, values = _unpack(records, "<f8")
    return Question(header, values)


def pack_answer(answer: Answer) -> RecordDict:
    """The records that carry an answer to the server."""
    return _pack(answer.header, answer.limbs, "<i8")


def unpack_answer(records: RecordDict) -> Answer:
    """The answer inside records.

    Raises:
        MalformedMessage: when a record is missing, of another type, or damaged.
    """
    header, limbs = _unpack(records, "<i8")
    return Answer(header, limbs)


def pack_hello(site: str, version: str) -> RecordDict:
    """What a node tells about itself: the site's name in the roster and its version of ctfed."""
    return RecordDict({_HEADER: ConfigRecord({"site": site, "ctfed": version})})


def unpack_hello(records: RecordDict) -> tuple[str, str]:
    """Site name and version of ctfed.

    Raises:
        MalformedMessage: when the reply is not a greeting.
    """
    record = records.get(_HEADER)
    site = record.get("site") if isinstance(record, ConfigRecord) else None
    version = record.get("ctfed") if isinstance(record, ConfigRecord) else None
    if not isinstance(site, str) or not SITE_NAME.fullmatch(site):
        raise MalformedMessage("a greeting must name the site")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise MalformedMessage("a greeting must name the site's version of ctfed")
    return site, version


def public_reason(error: BaseException) -> str:
    """The only words about an error that may leave a site: the rule of a refusal, or the error's class name."""
    if isinstance(error, Refusal):
        # A rule is a fixed name of ctfed; anything longer than a name could be carrying text about a patient.
        rule = error.rule if _PUBLIC_NAME.fullmatch(error.rule) else UNNAMED_RULE
        return f"refused:{rule}"
    return f"error:{type(error).__name__}"


def scrubbed_reply(error: BaseException, message: Message) -> Message:
    """An error reply that carries ``public_reason`` and nothing else."""
    return Message(Error(CLIENT_ERROR, public_reason(error)), reply_to=message)


def _pack(header: str, values: FloatArray | IntArray, dtype: Literal["<f8", "<i8"]) -> RecordDict:
    data = np.ascontiguousarray(values, dtype=dtype).tobytes()
    config = ConfigRecord({"json": header, "sha256": _digest(header, dtype, data)})
    if len(data) <= INLINE_BYTES:
        config[_FLAT] = data
        return RecordDict({_HEADER: config})
    array = Array(np.dtype(dtype).name, (values.size,), _PLAIN, data)
    return RecordDict({_HEADER: config, _ARRAY: ArrayRecord({_FLAT: array})})


def _unpack(records: RecordDict, dtype: Literal["<f8", "<i8"]) -> tuple[str, npt.NDArray[Any]]:
    if not {_HEADER} <= set(records) <= {_HEADER, _ARRAY}:
        raise MalformedMessage(f"a message has the records {_HEADER!r} and {_ARRAY!r}, found {sorted(records)!r:.200}")
    config = records[_HEADER]
    if not isinstance(config, ConfigRecord):
        raise MalformedMessage("a message's header must be a ConfigRecord")
    header, expected = config.get("json"), config.get("sha256")
    if not isinstance(header, str) or not isinstance(expected, str):
        raise MalformedMessage("a message's header and digest must be text")
    data = _array_bytes(records[_ARRAY], np.dtype(dtype)) if _ARRAY in records else config.get(_FLAT)
    if not isinstance(data, bytes) or len(data) % np.dtype(dtype).itemsize:
        raise MalformedMessage("a message must hold whole numbers of 8 bytes each")
    if _digest(header, dtype, data) != expected:
        raise MalformedMessage("a message's content does not have the digest it names")
    return header, np.frombuffer(data, dtype=dtype)


def _array_bytes(record: Any, dtype: np.dtype[Any]) -> bytes:
    if not isinstance(record, ArrayRecord) or set(record) != {_FLAT}:
        raise MalformedMessage("a message's numbers are one Array in one ArrayRecord")
    array = record[_FLAT]
    if (array.stype, array.dtype) != (_PLAIN, dtype.name):
        raise MalformedMessage(f"a message's array must be {_PLAIN} {dtype.name}")
    return bytes(array.data)


def _digest(header: str, dtype: str, data: bytes) -> str:
    sha = hashlib.sha256(f"{dtype}\0{header}\0".encode())
    sha.update(data)
    return sha.hexdigest()
