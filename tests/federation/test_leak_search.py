"""The search for planted texts and small cells finds them in every form and packing; so none found means none there."""

from __future__ import annotations

import base64
import gzip
import io
import sqlite3
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest
from leak_search import find, forms
from planted_support import FOLDER, IDENTIFIERS, PLANTED, small_numbers, small_numbers_of_csv, small_numbers_of_page
from wire_capture import Line, Recorder, requests

K = 5


def _png(texts: bytes) -> bytes:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    told, file = PngInfo(), io.BytesIO()
    told.add_itxt("note", texts.decode("latin-1"), zip=True)
    Image.new("L", (40, 40)).save(file, "png", pnginfo=told)
    return file.getvalue()


def _npz(content: bytes) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, column=np.frombuffer(content, dtype=np.uint8))
    return file.getvalue()


def _workbook(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/sharedStrings.xml", content)
    return file.getvalue()


def _parquet(content: bytes) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table({"note": [content.decode("utf-8")]}), file, compression="zstd")
    return file.getvalue()


def _database(content: bytes) -> bytes:
    """A database in which the text lies across the pieces of a long cell."""
    database = sqlite3.connect(":memory:")
    database.execute("create table message (body blob)")
    database.executemany(
        "insert into message values (?)", [(bytes(place) + content,) for place in range(4000, 4120, 12)]
    )
    database.commit()
    return database.serialize()


PACKINGS = {
    "open": lambda content: content,
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "npz": _npz,
    "xlsx": _workbook,
    "sqlite": _database,
    "base64 of gzip": lambda content: base64.b64encode(gzip.compress(content)),
    "base64 in lines": lambda content: base64.encodebytes(bytes(50) + content),
    "gzip in a zip": lambda content: _workbook(gzip.compress(content)),
    "png": _png,
    "parquet": _parquet,
}
TEXT_ONLY = {"png", "parquet"}  # these hold texts, and UTF-16 is none in them


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_search_finds_every_form_in_every_packing(packing: str) -> None:
    pack = PACKINGS[packing]
    assert find({"a": pack(b"<nothing of it, " * 20 + b">")}, PLANTED) == []
    for text in (*IDENTIFIERS, FOLDER):
        for name, value in forms(text).items():
            if packing in TEXT_ONLY and (not value.isascii() or b"\0" in value):
                continue
            found = {hit.form for hit in find({"a": pack(b"<" + value + b">")}, (text,))}
            assert name in found, name


def test_a_text_in_pieces_on_the_wire_is_put_together() -> None:
    first, last = IDENTIFIERS[0][:6].encode(), IDENTIFIERS[0][6:].encode()
    sent = b"POST /v1/x HTTP/1.1\r\nhost: hub\r\ntransfer-encoding: chunked\r\n\r\n"
    sent += b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (first, last)) + b"0\r\n\r\n"
    recorder = Recorder.__new__(Recorder)
    recorder.lines = [Line(bytearray(sent))]
    assert find({"raw": sent}, IDENTIFIERS) == []
    assert requests(sent) == [("/v1/x", IDENTIFIERS[0].encode())]
    assert {hit.where for hit in find(recorder.captures(), IDENTIFIERS)} == {"connection 0, body 0"}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"levels": [{"label": "2", "count": 3}, {"label": "1", "count": 67}]}, [("levels.count", 3)]),
        ({"a": {"n": 3.0, "horizon": 3}, "minimum": 3}, [("a.n", 3.0)]),
        ({"calibration": {"horizons": [{"groups": [{"cases": 0, "controls": 4}]}]}}, None),
        ({"anything new": [[0.5, 12, 4]]}, [("anything new", 4)]),
        ({"share": 0.3, "yes": True, "patients": 5, "events": 0}, []),
    ],
)
def test_a_small_whole_number_is_a_cell_unless_its_place_is_known(content: Any, found: Any) -> None:
    assert small_numbers(content, K) == ([("calibration.horizons.groups.controls", 4)] if found is None else found)


def test_small_cells_of_tables_and_sentences_are_found() -> None:
    page = "<table><tr><th>Level</th><th>Here</th><th>Asked</th></tr><tr><td>2</td><td>3 (2.2 %)</td><td>4</td></tr>"
    assert small_numbers_of_page(f"{page}</table><p>only 4 test patients and 12 events</p>", K) == [
        ("Level", 2),
        ("Here", 3),
        ("4 test patients", 4),
    ]
    assert small_numbers_of_csv("patients,sites\n3,3\n90,3\n", K) == [("patients", 3)]
