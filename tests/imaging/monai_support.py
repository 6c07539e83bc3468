"""The published preprocessing as published: MONAI's own transforms on a whole scan, then the published crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ctfed.imaging.volume import Volume

FLIP = np.array([-1.0, -1.0, 1.0])


def monai_scan(image: Volume) -> Any:
    """The scan as ``LoadImaged`` gives it (RAS affine), scaled, resampled to 1 mm and turned to LPS: a MetaTensor."""
    import torch
    from monai import transforms
    from monai.data import MetaTensor

    affine = np.eye(4)
    affine[:3, :3] = FLIP[:, None] * image.matrix * np.array(image.spacing)
    affine[:3, 3] = FLIP * np.array(image.origin)
    array = np.ascontiguousarray(image.array.transpose(2, 1, 0)[None], dtype=np.float32)
    pipeline = transforms.Compose(
        [
            transforms.NormalizeIntensity(subtrahend=-1024, divisor=3072),
            transforms.Spacing(pixdim=1, padding_mode="zeros", mode="linear", align_corners=True, diagonal=True),
            transforms.Orientation(axcodes="LPS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
        ]
    )
    return pipeline(MetaTensor(torch.from_numpy(array), affine=torch.from_numpy(affine)))


def monai_cube(scan: Any, seed: Sequence[float], size: int) -> np.ndarray:
    """The published crop around a seed (LPS) and MONAI's padding: (size, size, size) [z, y, x]."""
    from monai import transforms

    centre = np.linalg.inv(scan.affine.numpy()) @ np.array((-seed[0], -seed[1], seed[2], 1.0))
    low = [max(int(i) - size // 2, 0) for i in centre[:3]]
    high = [min(int(i) + size // 2, n) for i, n in zip(centre[:3], scan.shape[1:], strict=True)]
    x, y, z = (slice(a, b) for a, b in zip(low, high, strict=True))
    patch = scan[:, x, y, z].permute(0, 3, 2, 1)
    return np.asarray(transforms.SpatialPad((size,) * 3)(patch).as_tensor().numpy()[0])
