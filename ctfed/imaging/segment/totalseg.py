"""TotalSegmentator's coronary arteries, offline: nothing is downloaded, reported home, or asked of a server.

Left alone, TotalSegmentator reports every run to its authors, downloads weights that it does not find, and deletes
folders of old ones. So it gets a home of its own: a temporary folder with a ``config.json`` in which usage statistics
are off, and links to the checked weights of the task and nothing else. The task needs a licence number; ctfed passes
on the centre's own and has none to offer.

Reference: Wasserthal et al. 2023, Radiology: Artificial Intelligence 5(5):e230024.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ctfed.config import ConfigError
from ctfed.federation.errors import CtfedError
from ctfed.imaging.device import resolve_device
from ctfed.imaging.segment.base import Segmentation, SegmenterSettings, empty_notes, require_scan
from ctfed.imaging.segment.card import ModelCard
from ctfed.imaging.segment.nnunet import fault_of, fit_torchvision, quiet, version
from ctfed.imaging.segment.weights import CheckedWeights, WeightsError, check_weights
from ctfed.imaging.volume import Volume

LICENCE_PAGE = "https://backend.totalsegmentator.com/license-academic/"
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class LicenceError(CtfedError):
    """A model needs a licence that the site's settings do not hold."""


@dataclass(eq=False)
class TotalSegmenter:
    """TotalSegmentator with checked weights; it is imported with the first scan."""

    card: ModelCard
    settings: SegmenterSettings
    weights: CheckedWeights
    identity: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, card: ModelCard, settings: SegmenterSettings) -> TotalSegmenter:
        """Check licence number, folders and weights; TotalSegmentator is not imported.

        Raises:
            LicenceError: without a licence number.
            WeightsError: when weights are missing or wrong.
        """
        if not settings.licence_number:
            raise LicenceError(
                f"found no licence_number for {card.title}, expected the centre's own; it is free for "
                f"non-commercial use from {LICENCE_PAGE}"
            )
        _require_folders(card, settings.weights)
        weights = check_weights(
            settings.weights, card.origin, manifest=settings.manifest, expected=settings.weights_sha256
        )
        identity = {
            "model": card.name,
            "engine": f"TotalSegmentator {version('TotalSegmentator')}, nnunetv2 {version('nnunetv2')}",
            "task": card.task,
            "folders": {str(number): name for number, name in card.folders.items()},
            "weights_sha256": weights.digest,
            "licence": "the centre's own licence number",
        }
        return cls(card, settings, weights, identity)

    def segment(self, image: Volume) -> Segmentation:
        """The coronary arteries of a CT in HU. An empty mask is a result: they were not found.

        Raises:
            CaseFault: 'image-not-finite', 'image-without-contrast', 'out-of-memory' or 'segmentation-failed'.
            LicenceError: when TotalSegmentator does not take the licence number.
            ConfigError: when the installed TotalSegmentator wants other weights than the card lists.
        """
        require_scan(image)
        device = resolve_device(self.settings.device)
        with (
            tempfile.TemporaryDirectory(prefix="ctfed-totalsegmentator-") as folder,
            _home(Path(folder), self.card, self.weights, str(self.settings.licence_number)),
        ):
            names, labels = self._run(image, device, Path(folder))
        mask = np.isin(labels, [number for number, name in names.items() if name == self.card.task])
        masks = {"coronaries": image.with_array(mask)}
        return Segmentation(masks, {**self.identity, "device": str(device)}, empty_notes(masks))  # type: ignore[arg-type]

    def _run(self, image: Volume, device: Any, folder: Path) -> tuple[dict[int, str], np.ndarray]:
        """Names of labels, and labels [z, y, x]."""
        # Only when it has a place to write to does TotalSegmentator 2.18 stop where it finds no heart; without one it
        # looks for arteries in the whole scan.
        output = folder / "arteries.nii.gz"
        with quiet():
            from totalsegmentator.map_to_binary import class_map
            from totalsegmentator.python_api import totalsegmentator

            _require_same_task(self.card)
            _require_licence()
            name = "cpu" if device.type == "cpu" else f"gpu:{device.index}"
            options = {"task": self.card.task, "device": name, "quiet": True, "nr_thr_resamp": 1, "nr_thr_saving": 1}
            try:
                fit_torchvision()
                found = totalsegmentator(to_nifti(image), output, ml=True, skip_saving=True, **options)
            except RuntimeError as error:
                raise fault_of(error) from error
            except SystemExit as error:
                raise LicenceError(
                    "found a licence_number that TotalSegmentator refuses, expected a valid one"
                ) from error
        return dict(class_map[self.card.task]), np.asarray(found.dataobj).transpose(2, 1, 0)


def _require_folders(card: ModelCard, folder: Path | None) -> None:
    if folder is None:
        raise WeightsError(f"found no folder of weights, expected one that holds {card.origin}")
    for name in card.folders.values():
        if not (folder / name).is_dir():
            raise WeightsError(f"{folder / name}: found no such folder, expected {card.origin}")


def _require_same_task(card: ModelCard) -> None:
    """The installed TotalSegmentator must want exactly the card's folders, or it would download what it misses."""
    from totalsegmentator.map_tasks_config import TASK_CONFIGS, TASK_ID_WEIGHTS_CONFIGS

    wanted = TASK_CONFIGS.get(card.task, {}).get("task_id")
    folders = {number: TASK_ID_WEIGHTS_CONFIGS.get(number, {}).get("foldername") for number in card.folders}
    if wanted not in card.folders or folders != dict(card.folders):
        raise ConfigError(
            f"model card {card.name}: folders: found {dict(card.folders)}, expected those of the installed "
            f"TotalSegmentator {version('TotalSegmentator')}: task {wanted}, {folders}"
        )


def _require_licence() -> None:
    from totalsegmentator.config import has_valid_license_offline

    status, _ = has_valid_license_offline()  # its message holds the number
    if status != "yes":
        raise LicenceError(
            f"found a licence_number that TotalSegmentator does not take for one ({status}), "
            f"expected one from {LICENCE_PAGE}"
        )


@contextmanager
def _home(folder: Path, card: ModelCard, weights: CheckedWeights, licence_number: str) -> Iterator[None]:
    """TotalSegmentator's home and weights in ``folder`` while it runs; the environment is as before afterwards."""
    config = {
        "totalseg_id": "ctfed",
        "send_usage_stats": False,
        "statistics_disclaimer_shown": True,
        "prediction_counter": 0,
        "license_number": licence_number,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    models = folder / "weights"
    for name in weights.files:
        if PurePosixPath(name).parts[0] in card.folders.values():
            (models / name).parent.mkdir(parents=True, exist_ok=True)
            (models / name).symlink_to(weights.path(name).resolve())
    values = {"TOTALSEG_HOME_DIR": str(folder), "TOTALSEG_WEIGHTS_PATH": str(models)}
    touched = (*values, "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    before = {name: os.environ.get(name) for name in touched}
    os.environ.update(values)
    os.environ.update(dict.fromkeys(touched[2:], str(models)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def to_nifti(image: Volume) -> Any:
    """A ``nibabel.Nifti1Image`` in RAS with the voxels [x, y, z] of a volume in LPS."""
    import nibabel

    affine = np.eye(4)
    affine[:3, :3] = image.matrix * np.array(image.spacing)
    affine[:3, 3] = image.origin
    array = image.array.transpose(2, 1, 0)
    return nibabel.Nifti1Image(np.ascontiguousarray(array, dtype=np.float32), _TO_RAS @ affine)
