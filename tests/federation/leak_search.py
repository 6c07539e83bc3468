"""Searches bytes for planted texts in every form in which they could travel, also inside what is packed.

A form is an encoding of the text (UTF-8, UTF-16, Latin-1, JSON or percent escapes ...), that as it is, in hexadecimal
or in Base64 at each of its three alignments; and plain digests of the text, which whoever has a list of names can undo.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import quote

DEEPEST = 3  # packings inside one another
LONGEST = 64 * 2**20  # bytes of one unpacked member
SHORTEST = 8  # bytes; what is shorter holds no planted text

_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
_GZIP = re.compile(rb"\x1f\x8b\x08")
_ZIP_MEMBER = re.compile(rb"PK\x03\x04")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{40,}")
_BASE64_LINES = re.compile(rb"(?:[A-Za-z0-9+/]{60,76}\r?\n)+[A-Za-z0-9+/]*")
_STANDARD = bytes.maketrans(b"-_", b"+/")
_PARQUET, _SQLITE = b"PAR1", b"SQLite format 3\0"
_DEFLATED = 8
_RAW_DEFLATE, _GZIP_WINDOW = -15, 31


@dataclass(frozen=True)
class Hit:
    """A planted text that was found.

    Attributes:
        where: the name of what was searched.
        inside: how it was unpacked; '' where it stood open.
        text: the planted text.
        form: in which form it was there.
    """

    where: str
    inside: str
    text: str
    form: str


def forms(text: str) -> dict[str, bytes]:
    """Every form of a text that is searched: name -> bytes."""
    encoded = {
        "utf-8": text.encode(),
        "upper": text.upper().encode(),
        "lower": text.lower().encode(),
        "utf-16-le": text.encode("utf-16-le"),
        "utf-16-be": text.encode("utf-16-be"),
        "latin-1": text.encode("latin-1", errors="replace"),
        "json": json.dumps(text)[1:-1].encode(),
        "repr": ascii(text)[1:-1].encode(),
        "percent": quote(text, safe="").encode(),
        "html": html.escape(text).encode("ascii", "xmlcharrefreplace"),
        "reversed": text[::-1].encode(),
    }
    found = dict(encoded)
    for name, value in encoded.items():
        found[f"hex of {name}"] = value.hex().encode()
        found[f"HEX of {name}"] = value.hex().upper().encode()
        for alphabet in (b"+/", b"-_"):
            found |= {
                f"base64 {alphabet.decode()} of {name} at {place}": _aligned(value, place, alphabet)
                for place in range(3)
            }
    for digest in ("md5", "sha1", "sha256", "sha512"):
        value = hashlib.new(digest, text.encode()).digest()
        found |= {digest: value, f"hex of {digest}": value.hex().encode(), f"base64 of {digest}": _whole(value)}
    unique: dict[bytes, str] = {}
    for name, value in found.items():
        unique.setdefault(value, name)
    return {name: value for value, name in unique.items()}


def _aligned(value: bytes, place: int, alphabet: bytes) -> bytes:
    """The middle of the Base64 text of ``value`` when ``place`` bytes stand before it, the same whatever they are."""
    text = base64.b64encode(bytes(place) + value, alphabet)
    first = -(-place * 8 // 6)
    last = (place + len(value)) * 8 // 6
    return text[first:last]


def _whole(value: bytes) -> bytes:
    return base64.b64encode(value).rstrip(b"=")


def find(captures: Mapping[str, bytes], texts: Sequence[str]) -> list[Hit]:
    """Every planted text that is in one of the captures, or in its name, in any form and any packing."""
    needles = [(text, name, value) for text in texts for name, value in forms(text).items()]
    hits = []
    for where, raw in captures.items():
        for inside, content in chain([("its name", where.encode())], unpacked(raw)):
            hits += [Hit(where, inside, text, name) for text, name, value in needles if value in content]
    return hits


def files_in(*folders: Path, base: Path) -> dict[str, bytes]:
    """Every file at any depth (or each path that is a file): path from ``base`` -> bytes."""
    found: dict[str, bytes] = {}
    for folder in folders:
        for path in sorted([folder] if folder.is_file() else folder.rglob("*")):
            if path.is_file():
                found[str(path.relative_to(base))] = path.read_bytes()
    return found


def unpacked(raw: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """The bytes, and whatever can be unpacked from any place in them: (how, bytes).

    zlib (also of PNG texts), gzip, members of zip files (also .npz, .xlsx), Parquet, SQLite, Base64 (also in lines).
    """
    yield "", raw
    if depth == DEEPEST:
        return
    for how, content in _members(raw):
        if len(content) >= SHORTEST:
            for inside, piece in unpacked(content, depth + 1):
                yield f"{how}{' > ' if inside else ''}{inside}", piece


def _members(raw: bytes) -> Iterator[tuple[str, bytes]]:
    yield from _streams(raw, _ZLIB, "zlib", zlib.MAX_WBITS)
    yield from _streams(raw, _GZIP, "gzip", _GZIP_WINDOW)
    yield from _zipped(raw)
    for how, pattern in (("base64", _BASE64), ("base64 in lines", _BASE64_LINES)):
        for match in pattern.finditer(raw):
            yield how, _decoded(match[0])
    if raw.startswith(_SQLITE):
        yield "sqlite", b"\0".join(_cells_of_database(raw))
    if (start := raw.find(_PARQUET)) >= 0 and (end := raw.rfind(_PARQUET)) > start:
        yield "parquet", _parquet(raw[start : end + len(_PARQUET)])


def _decoded(text: bytes) -> bytes:
    """What a run of Base64 letters holds; one letter too many holds nothing."""
    letters = text.translate(_STANDARD, b"\r\n")
    letters = letters[: len(letters) - (len(letters) % 4 == 1)]
    return base64.b64decode(letters + b"=" * (-len(letters) % 4))


def _streams(raw: bytes, mark: re.Pattern[bytes], how: str, window: int) -> Iterator[tuple[str, bytes]]:
    place = 0
    while match := mark.search(raw, place):
        content, used = _inflated(raw, match.start(), window)
        yield f"{how} at {match.start()}", content
        place = match.start() + max(used, 1)


def _inflated(raw: bytes, start: int, window: int) -> tuple[bytes, int]:
    """What comes out of a stream until it ends or breaks, and how many bytes a whole one has (0: it broke)."""
    unpacker = zlib.decompressobj(window)
    found, size = [], 0
    for place in range(start, len(raw), 1024):
        try:
            found.append(unpacker.decompress(raw[place : place + 1024], LONGEST))
        except zlib.error:
            return b"".join(found), 0  # a piece of a stream, or what only looked like one
        size += len(found[-1])
        if unpacker.eof:
            return b"".join(found), min(place + 1024, len(raw)) - len(unpacker.unused_data) - start
        if size > LONGEST:
            break
    return b"".join(found), 0


def _zipped(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Deflated members of zip files, from their own headers, so that a file that is cut short is read too."""
    for match in _ZIP_MEMBER.finditer(raw):
        header = raw[match.start() : match.start() + 30]
        if len(header) < 30:
            return
        (method,) = struct.unpack("<H", header[8:10])
        names, extra = struct.unpack("<HH", header[26:30])
        start = match.start() + 30 + names + extra
        if method == _DEFLATED:
            yield f"zip member at {match.start()}", _inflated(raw, start, _RAW_DEFLATE)[0]


def _cells_of_database(raw: bytes) -> list[bytes]:
    """Every cell, whole; a long one lies in pieces in the file."""
    plain = raw[:18] + b"\1\1" + raw[20:]  # not in the mode that wants a second file beside it
    database = sqlite3.connect(":memory:")
    try:
        database.deserialize(plain)
        tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
        rows = [row for table in tables for row in database.execute(f'select * from "{table}"')]
    except sqlite3.DatabaseError:
        return []  # a piece of a database, or a copy with something planted; its bytes are searched as they lie
    finally:
        database.close()
    cells = [cell for row in rows for cell in row if isinstance(cell, bytes | str)]
    return [cell if isinstance(cell, bytes) else cell.encode() for cell in cells]


def _parquet(raw: bytes) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(raw))
    except (pa.ArrowException, OSError):
        return b""  # two marks that are not those of a file
    told = [str(table.schema), str(table.schema.metadata or ""), *map(str, table.to_pylist())]
    return "\n".join(told).encode()
