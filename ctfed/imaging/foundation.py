"""Foundation-model features: cubes around the largest tumour, seen by FMCIB's encoder.

The encoder is MONAI's 3-D ResNet-50 of width 2: one input channel, a 7 x 7 x 7 stem of 128 channels with stride 2,
four stages, average pooling to 4,096 numbers. Cubes are those of ``fm_crop``; their seed is the centroid of the
tumour's largest component, as in the study (it can lie outside a concave tumour).

Published checkpoints hold the encoder under 'trunk_state_dict' with bare names, or under 'state_dict' with the prefix
'model.trunk.' beside heads ('model.heads.'), either perhaps with 'module.'. Loading is strict: every one of the 322
tensors must be there with its shape, and nothing else but heads.

Reference: Pai et al. 2024, Nature Machine Intelligence 6:354.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ctfed.cohort.faults import CaseFault
from ctfed.config import Section, listed
from ctfed.imaging.device import DeviceName, resolve_device
from ctfed.imaging.fm_crop import Cube, cube
from ctfed.imaging.segment.card import load_card
from ctfed.imaging.segment.nnunet import version
from ctfed.imaging.segment.postprocess import largest_component
from ctfed.imaging.segment.weights import CheckedWeights, Sha256, WeightsError, check_weights
from ctfed.imaging.volume import GeometryError, Volume

CUBES = (50, 96, 128)
WIDTH = 4096
WIDEN = 2.0
KEYS = 322  # tensors of a ResNet-50, whatever its width
_HEADS = ("heads.", "head.")
Edge = Annotated[int, Field(ge=32, le=256, multiple_of=2)]


class FoundationSettings(Section):
    """Which encoder, on which cubes.

    Attributes:
        weights: the folder that holds the checkpoint and its manifest.
        manifest: the manifest, when it does not lie in that folder.
        weights_sha256: the digest of the weights that a study pins.
        cubes: edges in mm.
        batch: cubes of one size that are encoded together; more is faster on a GPU and takes more memory.
        device: where it computes.
    """

    weights: Path | None = Field(default=None, description="the path of a folder of weights")
    manifest: Path | None = Field(default=None, description="the path of a manifest")
    weights_sha256: Sha256 | None = None
    cubes: Annotated[tuple[Edge, ...], Field(min_length=1)] = Field(
        default=CUBES, description="a list of even numbers of millimetres from 32 to 256"
    )
    batch: int = Field(default=4, ge=1, le=1024, description="a whole number >= 1")
    device: DeviceName = "auto"


@dataclass(frozen=True)
class FoundationFeatures:
    """The features of one tumour.

    Attributes:
        values: every column of the cubes that were asked for; NaN when there is a reason.
        reason: why there is none, 'rule: sentence'; None when there are features.
        flags: remarks such as 'fm50-clamped': that cube reached over the scan's edge and its tumour is not in its
            middle.
    """

    values: dict[str, float]
    reason: str | None
    flags: tuple[str, ...]


def column_names(cubes: Sequence[int] = CUBES, width: int = WIDTH) -> tuple[str, ...]:
    """fm50_0000 ... fm128_4095, always all of them and in this order."""
    return tuple(f"fm{size}_{number:04d}" for size in cubes for number in range(width))


def build_network(widen: float = WIDEN) -> Any:
    """FMCIB's encoder, with random weights (``torch.nn.Module``): (n, 1, d, d, d) to (n, 2048 * widen)."""
    from monai.networks.nets import resnet50

    return resnet50(
        pretrained=False,
        n_input_channels=1,
        widen_factor=widen,
        conv1_t_stride=2,
        feed_forward=False,
        bias_downsample=True,
    )


def encoder_tensors(checkpoint: Any, origin: str) -> dict[str, Any]:
    """The encoder's tensors by MONAI's names, from any of the published forms, or a bare mapping of them.

    Raises:
        WeightsError: when it is none of these.
    """
    tensors = checkpoint
    if isinstance(checkpoint, Mapping):
        for key in ("trunk_state_dict", "state_dict"):
            tensors = tensors.get(key, tensors)
    if not isinstance(tensors, Mapping) or not all(hasattr(value, "shape") for value in tensors.values()):
        raise WeightsError(f"{origin}: found no trunk_state_dict and no state_dict of tensors, expected one of them")
    named = {_without_prefix(str(name)): value for name, value in tensors.items()}
    if len(named) != len(tensors):
        raise WeightsError(f"{origin}: found two tensors of one name behind their prefixes, expected each once")
    return {name: value for name, value in named.items() if not name.startswith(_HEADS)}


def _without_prefix(name: str) -> str:
    for prefix in ("module.", "model.", "module.", "trunk."):
        name = name.removeprefix(prefix)
    return name


def load_encoder(path: Path, widen: float = WIDEN) -> Any:
    """The encoder with the weights of a checkpoint, in evaluation mode, on the CPU.

    The file is read with ``weights_only``: it can hold tensors and plain containers, and run nothing.

    Raises:
        WeightsError: naming what is missing, too much or of another shape.
    """
    from pickle import UnpicklingError

    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{path}: found no checkpoint of plain tensors ({first}), expected one") from error
    tensors = encoder_tensors(checkpoint, str(path))
    with torch.device("meta"):
        network = build_network(widen)
    wanted = network.state_dict()
    missing = sorted(set(wanted) - set(tensors))
    extra = sorted(set(tensors) - set(wanted))
    if missing or extra or len(wanted) != KEYS:
        raise WeightsError(
            f"{path}: found {len(tensors)} tensors, expected the {KEYS} of the encoder; "
            f"missing: {listed(missing[:3])}; unknown: {listed(extra[:3])}"
        )
    for name, value in tensors.items():
        if value.shape != wanted[name].shape:
            raise WeightsError(f"{path}: {name}: found {tuple(value.shape)}, expected {tuple(wanted[name].shape)}")
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.train(False)


@dataclass(frozen=True, eq=False)
class FoundationModel:
    """The encoder on its device.

    Attributes:
        network: a ``torch.nn.Module`` in evaluation mode.
        device: the ``torch.device`` that holds it.
        batch: cubes encoded together.
        width: features of a cube.
        identity: all that features depend on beside scan and mask (JSON types); a key for keeping them.
    """

    network: Any
    device: Any
    batch: int
    width: int
    identity: Mapping[str, Any]

    def encode(self, cubes: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """(n, width) features of n cubes of one size, in their order.

        Raises:
            CaseFault: 'out-of-memory', when ``batch`` cubes do not fit the GPU.
        """
        import torch

        parts = []
        with torch.inference_mode(), torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
            for start in range(0, len(cubes), self.batch):
                stacked = np.stack(cubes[start : start + self.batch])[:, None]
                try:
                    found = self.network(torch.from_numpy(stacked).to(self.device))
                except torch.OutOfMemoryError as error:
                    torch.cuda.empty_cache()
                    raise CaseFault(
                        "out-of-memory", f"found too little GPU memory for {len(stacked)} cubes, expected more"
                    ) from error
                parts.append(found.reshape(len(stacked), -1).float().cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, self.width), dtype=np.float32)

    def features(self, image: Volume, mask: Volume, cubes: Sequence[int] = CUBES) -> FoundationFeatures:
        """The features of the largest component of a tumour; see ``features_of``."""
        return self.features_of([(image, mask)], cubes)[0]

    def features_of(
        self, cases: Iterable[tuple[Volume, Volume]], cubes: Sequence[int] = CUBES
    ) -> list[FoundationFeatures]:
        """The features of many tumours, encoded in batches.

        Args:
            cases: a CT in HU and the tumour's mask on its grid, each.
            cubes: edges in mm.

        Returns:
            One for each case, in order. A case that fails has NaN in every column, and the reason.
        """
        found = [_cubes_or_fault(image, mask, cubes) for image, mask in cases]
        rows = [np.full((len(cubes), self.width), np.nan) for _ in found]
        reasons = [None if isinstance(item, list) else f"{item.rule}: {item.sentence}" for item in found]
        usable = [(row, item) for row, item in zip(rows, found, strict=True) if isinstance(item, list)]
        for number in range(len(cubes)):
            encoded = self.encode([item[number].array for _, item in usable])
            for (row, _), values in zip(usable, encoded, strict=True):
                row[number] = values
        names = column_names(cubes, self.width)
        results = []
        for row, item, reason in zip(rows, found, reasons, strict=True):
            if reason is None and not np.isfinite(row).all():
                row[:], reason = math.nan, "feature-not-finite: found a feature without a number, expected numbers"
            flags = _flags(item, cubes) if isinstance(item, list) else ()
            results.append(FoundationFeatures(dict(zip(names, row.reshape(-1).tolist(), strict=True)), reason, flags))
        return results


def _cubes_or_fault(image: Volume, mask: Volume, cubes: Sequence[int]) -> list[Cube] | CaseFault:
    try:
        return tumour_cubes(image, mask, cubes)
    except CaseFault as fault:
        return fault


def _flags(found: Sequence[Cube], cubes: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"fm{size}-clamped" for size, item in zip(cubes, found, strict=True) if item.clamped)


def tumour_cubes(image: Volume, mask: Volume, cubes: Sequence[int] = CUBES) -> list[Cube]:
    """The cubes around the centroid of the tumour's largest component.

    Raises:
        CaseFault: 'tumour-empty', 'mask-on-another-grid', 'seed-outside-the-scan' or 'cube-not-finite'.
    """
    if not image.same_grid(mask):
        raise CaseFault("mask-on-another-grid", f"found a mask of the tumour on {mask.grid}, expected {image.grid}")
    try:
        seed = largest_component(mask).centroid()
    except GeometryError as error:
        raise CaseFault("tumour-empty", "found no voxel of a tumour, expected at least one") from error
    return [cube(image, seed, size) for size in cubes]


def load_model(settings: FoundationSettings) -> FoundationModel:
    """Check the weights, then load them.

    Raises:
        WeightsError: when they are missing, are not those of the manifest, or do not fit the encoder.
        DeviceError: when the device is not there.
    """
    weights = check_weights(
        settings.weights, load_card("fmcib").origin, manifest=settings.manifest, expected=settings.weights_sha256
    )
    return FoundationModel(
        network=load_encoder(_checkpoint(weights)).to(device := resolve_device(settings.device)),
        device=device,
        batch=settings.batch,
        width=WIDTH,
        identity=foundation_identity(settings, weights),
    )


def foundation_identity(settings: FoundationSettings, weights: CheckedWeights) -> dict[str, Any]:
    """All that features depend on beside scan and mask; JSON types. Loads no network."""
    return {
        "model": "fmcib",
        "engine": f"monai {version('monai')}, torch {version('torch')}",
        "weights_sha256": weights.digest,
        "cubes": list(settings.cubes),
        "seed": "centroid of the largest component",
    }


def _checkpoint(weights: CheckedWeights) -> Path:
    if len(weights.files) != 1:
        raise WeightsError(f"{weights.folder}: found {len(weights.files)} files of weights, expected one checkpoint")
    return weights.path(weights.files[0])
