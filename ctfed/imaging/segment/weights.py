"""Weights: which files a model consists of, and that they are those files, checked before any is opened.

nnU-Net's checkpoints are pickles, and a pickle runs whatever its author wrote. So a folder of weights holds a manifest,
``ctfed_weights.yaml``:

    ctfed_weights: 1
    model: bamf-lung-nodule
    files:
      dataset.json: 3c1f...            # SHA-256, hex
      fold_0/checkpoint_final.pth: 9a0e...

and nothing is loaded unless every listed file has its digest and no other file lies there (nnU-Net finds folds by
looking into the folder). The digest of the whole, which a study can pin and provenance records, is the SHA-256 of the
lines that ``sha256sum`` prints for the files in the order of their names.

``ctfed weights FOLDER MODEL`` writes the manifest of a folder whose origin one trusts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ctfed.config import Faults, Section, load
from ctfed.federation.errors import CtfedError

MANIFEST = "ctfed_weights.yaml"
Sha256 = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$", description="a SHA-256, 64 lower-case hexadecimal digits in quotes")
]
_CHUNK = 2**22
_MOST_NAMES = 3  # of files, in a message


class WeightsError(CtfedError):
    """The weights of a model are not there, or are not the ones that the manifest names."""


class Manifest(Section):
    """The files of one model."""

    ctfed_weights: Literal[1] = Field(description="1")
    model: str = Field(min_length=1, description="the name of the model")
    source: str | None = Field(default=None, description="where the files were had from")
    files: Mapping[str, Sha256] = Field(
        min_length=1, description="a mapping of file names, relative to the folder, to their SHA-256"
    )

    @model_validator(mode="after")
    def _inside(self) -> Self:
        faults = Faults()
        for name in self.files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or str(path) != name:
                faults.add(("files", name), f"found {name!r}, expected a plain path inside the folder")
        faults.require()
        return self

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over all files: of the output of ``sha256sum`` in the order of names."""
        lines = "".join(f"{self.files[name]}  {name}\n" for name in sorted(self.files))
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class Origin:
    """What a message about missing weights says: whose they are, where they can be had, under which licence."""

    title: str
    source: str
    licence: str

    def __str__(self) -> str:
        return f"the weights of {self.title} (from {self.source}; licence: {self.licence})"


@dataclass(frozen=True)
class CheckedWeights:
    """Files that are what their manifest says.

    Attributes:
        folder: where they lie.
        files: their names, relative to the folder.
        digest: SHA-256 (hex) over all of them.
    """

    folder: Path
    files: tuple[str, ...]
    digest: str

    def path(self, name: str) -> Path:
        """The place of a file that was checked.

        Raises:
            WeightsError: for a file that was not.
        """
        if name not in self.files:
            raise WeightsError(
                f"{self.folder / name}: found a file that its manifest does not list, expected a listed one"
            )
        return self.folder / name


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_weights(
    folder: Path | None, origin: Origin, *, manifest: Path | None = None, expected: str | None = None
) -> CheckedWeights:
    """Compare a folder with its manifest; nothing in it is opened but to be hashed.

    Args:
        folder: where the weights should lie; None when the site's file names none.
        origin: for messages.
        manifest: the manifest's path; ``ctfed_weights.yaml`` in the folder when None.
        expected: the digest of the whole that the study pins, if it does.

    Raises:
        WeightsError: when something is missing, too much, or not what it should be; with the file and what to do.
        ConfigError: when the manifest is not one.
    """
    if folder is None:
        raise WeightsError(f"found no folder of weights, expected one that holds {origin}")
    if not folder.is_dir():
        raise WeightsError(f"{folder}: found no such folder, expected {origin}")
    where = folder / MANIFEST if manifest is None else manifest
    if not where.is_file():
        raise WeightsError(
            f"{where}: found no manifest, expected one with the SHA-256 of every file of {origin}; "
            f"'ctfed weights {folder} MODEL' writes it for files whose origin you trust"
        )
    content = load(Manifest, where, "ctfed_weights")
    _same_names(folder, content, origin)
    for name, digest in content.files.items():
        found = sha256_file(folder / name)
        if found != digest:
            raise WeightsError(f"{folder / name}: found SHA-256 {found}, expected {digest}; it is not loaded")
    if expected is not None and content.digest != expected:
        raise WeightsError(
            f"{folder}: found weights with digest {content.digest}, expected {expected} as the study says"
        )
    return CheckedWeights(folder, tuple(sorted(content.files)), content.digest)


def _same_names(folder: Path, manifest: Manifest, origin: Origin) -> None:
    missing = [name for name in manifest.files if not (folder / name).is_file()]
    if missing:
        raise WeightsError(f"{folder}: found no file {_some(missing)}, expected {origin}")
    extra = sorted(set(files_in(folder)) - set(manifest.files))
    if extra:
        raise WeightsError(
            f"{folder}: found {_some(extra)}, which the manifest does not list; expected it listed or gone"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def files_in(folder: Path) -> Iterator[str]:
    """Names, relative to the folder, of all files below it but manifests and hidden ones."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and path.name != MANIFEST and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix()


def write_manifest(folder: Path, model: str, source: str | None = None) -> Manifest:
    """Write the manifest of a folder of weights as it lies there, and return it.

    Raises:
        WeightsError: when the folder holds no file.
    """
    files = {name: sha256_file(folder / name) for name in files_in(folder)} if folder.is_dir() else {}
    if not files:
        raise WeightsError(f"{folder}: found no files, expected a folder of weights")
    manifest = Manifest(ctfed_weights=1, model=model, source=source, files=files)
    lines = ["ctfed_weights: 1", f"model: {json.dumps(model)}"]
    lines += [f"source: {json.dumps(source)}"] if source else []
    lines += ["files:", *(f'  {json.dumps(name)}: "{digest}"' for name, digest in files.items())]
    (folder / MANIFEST).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


def command(folder: Path, model: str, source: str | None) -> int:
    """``ctfed weights``: write the folder's manifest and print its digest.

    Raises:
        WeightsError: when the folder holds no file.
    """
    manifest = write_manifest(folder, model, source)
    print(f"{folder / MANIFEST}: {len(manifest.files)} files, digest {manifest.digest}")
    return 0
