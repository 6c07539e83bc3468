"""nnU-Net v2 model folders: any trained model that takes a CT and nothing else.

A folder describes itself: labels and channels in ``dataset.json``, everything else in ``plans.json``; the model card
only says which names mean which region. Prediction is nnU-Net's own, in memory and in this process: logits of all
folds averaged, Gaussian weights, mirrored copies as trained.

The arrays that nnU-Net gets are [z, y, x] with spacing in the same order. Scans are turned so that their axes run as
those of the training data did (LPS for its SimpleITK reader, RAS for 'NibabelIOWithReorient') and masks are turned
back.

Reference: Isensee et al. 2021, Nature Methods 18:203.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ctfed.cohort.faults import CaseFault
from ctfed.config import ConfigError, listed
from ctfed.imaging.device import resolve_device
from ctfed.imaging.segment.base import Segmentation, SegmenterSettings, orientation_of, reoriented, require_scan
from ctfed.imaging.segment.card import ModelCard, Region, region_labels
from ctfed.imaging.segment.postprocess import clean
from ctfed.imaging.segment.weights import CheckedWeights, WeightsError, check_weights
from ctfed.imaging.volume import Volume

CHECKPOINT = "checkpoint_final.pth"
ORIENTATIONS = {"NibabelIOWithReorient": "RAS"}  # nnU-Net's readers that turn scans; all others leave them, LPS here
_PATHS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
_log = logging.getLogger(__name__)
_declared: list[Any] = []  # a declaration of operators holds as long as its object


@dataclass(frozen=True)
class ModelFolder:
    """An nnU-Net model folder, read but not loaded.

    Attributes:
        path: the folder that holds plans.json.
        dataset: content of dataset.json.
        plans: content of plans.json.
        folds: the folds that are there and whose checkpoints were checked.
    """

    path: Path
    dataset: Mapping[str, Any]
    plans: Mapping[str, Any]
    folds: tuple[int, ...]

    @property
    def orientation(self) -> str:
        """Whither the axes of the training data ran."""
        return ORIENTATIONS.get(str(self.plans.get("image_reader_writer")), "LPS")


def read_folder(weights: CheckedWeights, configuration: str | None, folds: tuple[int, ...] | None) -> ModelFolder:
    """Find the model in a folder of checked weights: the folder itself, or one below it.

    Raises:
        WeightsError: when there is no model, more than one, or a fold that was asked for is not there.
        ConfigError: when the model takes more than a CT.
    """
    parents = [PurePosixPath(name).parent for name in weights.files if PurePosixPath(name).name == "plans.json"]
    if configuration is not None and len(parents) > 1:
        parents = [parent for parent in parents if parent.name.endswith(f"__{configuration}")]
    if len(parents) != 1:
        wanted = f" of configuration {configuration}" if configuration else ""
        raise WeightsError(
            f"{weights.folder}: found {len(parents)} nnU-Net models{wanted}, expected exactly one plans.json"
        )
    name = parents[0]
    dataset = _json(weights, str(name / "dataset.json"))
    _require_ct(dataset, weights.folder / name / "dataset.json")
    there = sorted(
        int(path.parent.name.removeprefix("fold_"))
        for path in map(PurePosixPath, weights.files)
        if path.parent.parent == name and path.name == CHECKPOINT and path.parent.name.removeprefix("fold_").isdigit()
    )
    wanted_folds = tuple(there) if folds is None else folds
    missing = [fold for fold in wanted_folds if fold not in there]
    if missing or not wanted_folds:
        raise WeightsError(
            f"{weights.folder / name}: found folds {listed(there)} with a {CHECKPOINT}, "
            f"expected {listed(missing) if missing else 'at least one'}"
        )
    return ModelFolder(weights.folder / name, dataset, _json(weights, str(name / "plans.json")), wanted_folds)


def _json(weights: CheckedWeights, name: str) -> Mapping[str, Any]:
    path = weights.path(name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path}: found no JSON ({error}), expected nnU-Net's description of a model") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: found no mapping, expected nnU-Net's description of a model")
    return content


def _require_ct(dataset: Mapping[str, Any], path: Path) -> None:
    channels = list(dict(dataset.get("channel_names", dataset.get("modality", {}))).values())
    if [str(channel).upper() for channel in channels] != ["CT"]:
        raise ConfigError(
            f"{path}: channel_names: found {listed(map(repr, channels))}, expected 'CT' as the one channel"
        )


@dataclass(eq=False)
class NnunetSegmenter:
    """A checked nnU-Net model; its networks are loaded with the first scan."""

    card: ModelCard
    settings: SegmenterSettings
    weights: CheckedWeights
    folder: ModelFolder
    labels: Mapping[Region, tuple[int, ...]]
    identity: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, card: ModelCard, settings: SegmenterSettings) -> NnunetSegmenter:
        """Check the weights and read what the folder says; no network is loaded, no pickle opened.

        Raises:
            WeightsError: when the weights are missing or wrong.
            ConfigError: when the folder's labels or channels do not fit the card.
        """
        weights = check_weights(
            settings.weights, card.origin, manifest=settings.manifest, expected=settings.weights_sha256
        )
        folder = read_folder(weights, card.configuration, settings.folds)
        unused = (*card.unused, *settings.unused)
        labels = region_labels(
            folder.dataset, settings.labels or card.regions, unused, str(folder.path / "dataset.json")
        )
        return cls(card, settings, weights, folder, labels, _identity(card, settings, weights, folder, labels))

    def segment(self, image: Volume) -> Segmentation:
        """The regions of a CT in HU, after the card's rules and the site's tumour policy.

        Raises:
            CaseFault: 'image-not-finite', 'image-without-contrast', 'out-of-memory' or 'segmentation-failed'.
        """
        require_scan(image)
        turned = reoriented(image, self.folder.orientation)
        labels = turned.with_array(self._predict(turned))
        masks = {region: labels.with_array(np.isin(labels.array, values)) for region, values in self.labels.items()}
        cleaned = clean(
            masks, self.card.cleaning, self.settings.tumour, lung_includes_tumour=self.settings.lung_includes_tumour
        )
        back = orientation_of(image)
        kept = {region: image.with_array(reoriented(mask, back).array) for region, mask in cleaned.masks.items()}
        provenance = {**self.identity, "device": str(self._predictor.device), **cleaned.report()}
        return Segmentation(kept, provenance, cleaned.notes)

    def _predict(self, image: Volume) -> np.ndarray:
        """Labels (nz, ny, nx), as nnU-Net numbers them."""
        array = np.ascontiguousarray(image.array[None], dtype=np.float32)
        properties = {"spacing": list(image.spacing[::-1])}
        try:
            with quiet():
                found = self._predictor.predict_single_npy_array(array, properties, None, None, False)
        except RuntimeError as error:
            raise fault_of(error) from error
        return np.asarray(found)

    @cached_property
    def _predictor(self) -> Any:
        set_paths()
        with quiet():
            from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

            predictor = nnUNetPredictor(
                tile_step_size=self.settings.tile_step,
                use_gaussian=True,
                use_mirroring=self.settings.mirroring,
                perform_everything_on_device=True,
                device=resolve_device(self.settings.device),
                allow_tqdm=False,
            )
            fit_torchvision()
            predictor.initialize_from_trained_model_folder(
                str(self.folder.path), use_folds=self.folder.folds, checkpoint_name=CHECKPOINT
            )
        return predictor


def _identity(
    card: ModelCard,
    settings: SegmenterSettings,
    weights: CheckedWeights,
    folder: ModelFolder,
    labels: Mapping[Region, tuple[int, ...]],
) -> dict[str, Any]:
    return {
        "model": card.name,
        "engine": f"nnunetv2 {version('nnunetv2')}",
        "weights_sha256": weights.digest,
        "licence": card.licence.weights,
        "dataset": str(folder.plans.get("dataset_name")),
        "labels": {region: list(values) for region, values in labels.items()},
        "orientation": folder.orientation,
        "folds": list(folder.folds),
        "mirroring": settings.mirroring,
        "tile_step": settings.tile_step,
        "cleaning": card.cleaning.model_dump(mode="json"),
        "tumour": settings.tumour,
        "lung_includes_tumour": settings.lung_includes_tumour,
    }


def version(package: str) -> str:
    """The installed version of a package; 'absent' when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def fault_of(error: RuntimeError) -> CaseFault:
    """What torch or nnU-Net found wrong with one scan, as a fault of that scan; the whole story goes to the log."""
    import torch

    _log.warning("segmentation failed: %s", error)
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        return CaseFault("out-of-memory", "found too little GPU memory for this scan, expected more")
    return CaseFault("segmentation-failed", "found a scan on which the network failed (see the log), expected masks")


def set_paths() -> None:
    """Give nnU-Net the three folders it wants to hear of; prediction uses none of them.

    Must come before nnU-Net is imported: older versions read the variables then, and warn on the screen.
    """
    for name in _PATHS:
        os.environ.setdefault(name, tempfile.gettempdir())


def fit_torchvision() -> None:
    """Make torchvision importable beside a torch that it was not built for, as PyPI's beside a torch without CUDA.

    nnU-Net looks for a model's trainer in all its modules, and some import torchvision by way of timm, for networks
    that no model here has. Its import fails where its two compiled operators are not there; declared without a kernel
    they let it pass, and would name themselves if anything called them.

    Raises:
        RuntimeError: torchvision does not load for another reason.
    """
    try:
        import torchvision
    except ModuleNotFoundError:
        return  # nnU-Net says so itself, if it needs it
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        import torch

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        import torchvision  # noqa: F401


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What a library prints goes to the log; screens and logs of a site are for sentences of ours."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            yield
    finally:
        for line in filter(None, map(str.strip, said.getvalue().splitlines())):
            _log.debug("%s", line)
