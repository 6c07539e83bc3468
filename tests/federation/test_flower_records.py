"""Questions and answers keep their bits as Flower records, and nothing else is read from a message."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from ctfed.federation.errors import MalformedMessage, Refusal
from ctfed.federation.flower.records import (
    INLINE_BYTES,
    pack_answer,
    pack_hello,
    pack_question,
    public_reason,
    unpack_answer,
    unpack_hello,
    unpack_question,
)
from ctfed.federation.wire import Answer, Question

LARGE = INLINE_BYTES // 8 + 1


@pytest.mark.parametrize("repeats", [1, LARGE])
def test_a_question_keeps_its_bits(repeats: int) -> None:
    values = np.tile([0.1, -0.0, 5e-324, 1.7976931348623157e308], repeats)
    back = unpack_question(pack_question(Question('{"a":"é"}', values)))
    assert back.header == '{"a":"é"}'
    assert back.values.tobytes() == values.tobytes()
    assert back.digest == Question('{"a":"é"}', values).digest


@pytest.mark.parametrize("size", [0, 1, 1000, LARGE])
def test_an_answer_keeps_its_bits(size: int) -> None:
    limbs = np.arange(size, dtype=np.int64) * (2**53 + 1) - 2**62
    back = unpack_answer(pack_answer(Answer("{}", limbs)))
    assert back.limbs.dtype == np.int64
    assert back.limbs.tolist() == limbs.tolist()


@pytest.mark.parametrize(("size", "objects"), [(1000, 3), (LARGE, 6)])
def test_a_message_is_few_objects(size: int, objects: int) -> None:
    """Each object is an HTTP request on every hop; one more is the message itself."""
    records = pack_question(Question("{}", np.arange(size, dtype=np.float64)))
    assert len(get_all_nested_objects(records)) + 1 == objects


def _with_array(array: Array) -> RecordDict:
    records = pack_question(Question("{}", np.zeros(LARGE)))
    records["array"] = ArrayRecord({"flat": array})
    return records


def _with_bytes(data: bytes) -> RecordDict:
    records = pack_question(Question("{}", np.zeros(2)))
    records["header"]["flat"] = data
    return records


@pytest.mark.parametrize(
    "records",
    [
        RecordDict(),
        RecordDict({"header": ConfigRecord({"json": "{}", "sha256": ""})}),
        RecordDict({"header": MetricRecord({"json": 1}), "array": ArrayRecord()}),
        _with_array(Array(np.zeros(LARGE))),  # numpy's container is not parsed
        _with_array(Array("float64", (2,), "little-endian", b"123")),
        _with_array(Array("object", (LARGE,), "little-endian", bytes(8 * LARGE))),
        _with_array(Array("float64", (LARGE,), "little-endian", bytes(8 * LARGE - 1) + b"\1")),  # a bit has flipped
        _with_bytes(bytes(15)),
        _with_bytes(bytes(15) + b"\1"),
        pack_answer(Answer("{}", np.zeros(2, dtype=np.int64))),
        pack_answer(Answer("{}", np.zeros(LARGE, dtype=np.int64))),
    ],
)
def test_anything_else_is_malformed(records: RecordDict) -> None:
    with pytest.raises(MalformedMessage):
        unpack_question(records)


def test_a_greeting_names_site_and_version() -> None:
    assert unpack_hello(pack_hello("bern", "0.1.0")) == ("bern", "0.1.0")
    with pytest.raises(MalformedMessage):
        unpack_hello(RecordDict())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("patient 12345"), "error:KeyError"),
        (Refusal("min_patients", "only 3 patients in the view"), "refused:min_patients"),
        (Refusal("patient 12345 is alone", "text"), "refused:unnamed_rule"),
        (Refusal("", "text"), "refused:unnamed_rule"),
    ],
)
def test_the_public_reason_is_a_name(error: Exception, reason: str) -> None:
    assert public_reason(error) == reason
