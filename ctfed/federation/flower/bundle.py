"""The Flower app bundle (FAB) of ctfed: name, version, configuration keys, and no code.

Both ends run the code of their own image. The bundle only tells Flower which installed objects to call and which
configuration keys a run may set; a site refuses a bundle that carries anything else.

Uses of Flower's inside: ``flwr.cli.build.build_fab_from_files``.
"""

from __future__ import annotations

import io
import struct
import zipfile

from ctfed import __version__
from ctfed.federation.errors import Refusal

PUBLISHER, NAME = "ctfed", "ctfed"
FAB_ID = f"{PUBLISHER}/{NAME}"
CARRIES_NO_CODE = frozenset({"pyproject.toml", "README.md", "LICENSE", ".info/CONTENT"})

# Every key that a run may set, with its usual value; Flower refuses other keys. pyproject.toml has the same table.
RUN_CONFIG: dict[str, str | float] = {
    "study": "",
    "out": "",
    "folder": "",
    "runner": "flower-simulation",
    "round-deadline": 21600.0,
    "refused-deadline": 600.0,
    "join-deadline": 3600.0,
    "silence": 900.0,
    "ask-again": 1.0,
}

_README = "This bundle carries no code. Server and sites run the ctfed that is installed in their own image.\n"


def build_bundle() -> bytes:
    """The code-less bundle of this version of ctfed."""
    from flwr.cli.build import build_fab_from_files

    content, _ = build_fab_from_files({"pyproject.toml": _pyproject().encode(), "README.md": _README.encode()})
    return bytes(content)


def check_bundle(fab_id: str, content: bytes, expected: str = FAB_ID) -> None:
    """Refuse a bundle that is not ctfed's or carries more than its name.

    Raises:
        Refusal: by the rule 'other_app', 'unreadable_bundle' or 'bundle_carries_code'.
    """
    if fab_id != expected:
        raise Refusal("other_app", f"this node runs {expected!r} only, the run is of {fab_id!r:.100}")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, ValueError, struct.error) as error:
        raise Refusal("unreadable_bundle", "the bundle is not a zip archive") from error
    extra = sorted(set(names) - CARRIES_NO_CODE)
    if extra:
        raise Refusal("bundle_carries_code", f"the bundle carries {len(extra)} files that it must not: {extra[:5]}")


def _pyproject() -> str:
    keys = "\n".join(f"{key} = {_toml(value)}" for key, value in RUN_CONFIG.items())
    return f"""\
[project]
name = "{NAME}"
version = "{__version__}"
description = "Federated prognosis models from chest CT"
license = "Apache-2.0"
requires-python = ">=3.11"
dependencies = []

[tool.flwr.app]
publisher = "{PUBLISHER}"
fab-include = ["README.md"]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "ctfed.federation.client_app:app"

[tool.flwr.app.config]
{keys}
"""


def _toml(value: str | float) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
