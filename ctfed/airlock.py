"""What output checkers' tools read beside files that shall leave an enclave: ACRO's layout, and a Five Safes RO-Crate.

* ``results.json``, ``config.json`` and ``checksums/`` as ACRO 1.0.2 writes them, which SACRO Viewer opens
  (https://github.com/AI-SDC/ACRO);
* ``ro-crate-metadata.json`` by the Five Safes RO-Crate profile 0.4 (https://w3id.org/5s-crate/0.4), whose disclosure
  check is open, for the checker to sign.

The same files always give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ctfed import __version__

RESULTS, CONFIG, CHECKSUMS, CRATE = "results.json", "config.json", "checksums", "ro-crate-metadata.json"
ACRO_FORMAT = "1.0.2"
CRATE_PROFILE = "https://w3id.org/5s-crate/0.4"
CRATE_SPEC = "https://w3id.org/ro/crate/1.1"
_FORMATS = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".txt": "text/plain",
}


@dataclass(frozen=True)
class Output:
    """One output, as a checker decides on it.

    Attributes:
        name: unique in the folder.
        files: names of its files, relative to the folder.
        command: what made it.
        summary: what it is, in a sentence.
        properties: method and the like.
        comments: what the checker should know.
    """

    name: str
    files: tuple[str, ...]
    command: str
    summary: str
    properties: Mapping[str, object] = field(default_factory=dict)
    comments: tuple[str, ...] = ()


def sha256(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def json_bytes(body: object) -> bytes:
    """JSON with two spaces of indentation and a line feed at the end."""
    return (json.dumps(body, indent=2) + "\n").encode()


def acro_results(outputs: Sequence[Output], at: str) -> dict[str, object]:
    """ACRO's results.json; each output waits for a person's review. ``at`` is an ISO time."""
    found = {
        one.name: {
            "uid": one.name,
            "status": "review",
            "type": "custom",
            "properties": dict(one.properties),
            "files": [{"name": name, "sdc": {}} for name in one.files],
            "outcome": {},
            "command": one.command,
            "summary": f"review; {one.summary}",
            "timestamp": at,
            "comments": list(one.comments),
            "exception": "",
            "fair": {},
        }
        for one in outputs
    }
    return {"version": ACRO_FORMAT, "tool": _tool(), "results": found}


def checksums(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """ACRO's checksums: a text file with the SHA-256 of each file; '/' in a name becomes '-'."""
    return {
        f"{CHECKSUMS}/{name.replace('/', '-')}.txt": sha256(content).encode() for name, content in sorted(files.items())
    }


def crate(
    files: Mapping[str, bytes],
    *,
    others: Sequence[str],
    name: str,
    description: str,
    at: str,
    site: str,
    action: str,
    results: Sequence[str],
) -> dict[str, object]:
    """The content of ro-crate-metadata.json.

    Args:
        files: everything in the folder whose digest is known: relative name -> bytes.
        others: files that are named without a digest, because they are written later. The crate cannot name its own.
        name, description: of the folder.
        at: ISO time.
        site: who made it.
        action: what made ``results``, which are names in ``files``.
    """
    names = [*sorted(files), *others]
    described = {
        "@id": CRATE,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": CRATE_SPEC},
    }
    root = {
        "@id": "./",
        "@type": "Dataset",
        "conformsTo": {"@id": CRATE_PROFILE},
        "name": name,
        "description": description,
        "datePublished": at,
        "license": "not for use outside the study",
        "hasPart": [{"@id": part} for part in names],
        "mentions": [{"@id": "#made"}, {"@id": "#disclosure"}],
        "sourceOrganization": {"@id": "#site"},
    }
    made = {
        "@id": "#made",
        "@type": "CreateAction",
        "name": action,
        "instrument": {"@id": "#ctfed"},
        "agent": {"@id": "#site"},
        "endTime": at,
        "actionStatus": "http://schema.org/CompletedActionStatus",
        "result": [{"@id": result} for result in results],
    }
    check = {
        "@id": "#disclosure",
        "@type": "AssessAction",
        "additionalType": {"@id": "https://w3id.org/shp#DisclosureCheck"},
        "name": "output review by this site's checker, to be done",
        "object": {"@id": "./"},
        "actionStatus": "http://schema.org/PotentialActionStatus",
    }
    entities = [_file(part, files) for part in names]
    organization = {"@id": "#site", "@type": "Organization", "name": site}
    graph = [described, root, *entities, made, check, {"@id": "#ctfed", **_tool()}, organization]
    return {"@context": f"{CRATE_SPEC}/context", "@graph": graph}


def _tool() -> dict[str, str]:
    return {"@type": "SoftwareApplication", "name": "ctfed", "version": __version__}


def _file(name: str, files: Mapping[str, bytes]) -> dict[str, object]:
    suffix = name[name.rfind(".") :]
    about: dict[str, object] = {
        "@id": name,
        "@type": "File",
        "encodingFormat": _FORMATS.get(suffix, "application/octet-stream"),
    }
    if name in files:
        about |= {"contentSize": str(len(files[name])), "sha256": sha256(files[name])}
    return about
