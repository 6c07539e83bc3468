"""Run by ``test_totalsegmentator_offline`` in a process of its own: TotalSegmentator's real code on small models.

Usage: totalsegmentator_child.py SCAN WEIGHTS MASK PROVENANCE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from ctfed.imaging.segment import SegmenterSettings, build
from ctfed.imaging.volume import Volume

LICENCE = "not-a-licence-0000"  # 18 characters, which is all that is looked at offline; the weights are our own


def fit_torchvision() -> object:
    """A torch without CUDA beside PyPI's torchvision cannot import it; nnU-Net imports it for networks that are not
    used here. Its two operators without kernels are declared, so that the import passes."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None


def main(scan: str, weights: str, mask: str, provenance: str) -> None:
    import SimpleITK as sitk

    kept = fit_torchvision()
    image = Volume.from_sitk(sitk.ReadImage(scan))
    settings = SegmenterSettings(
        model="totalsegmentator-coronary-arteries", weights=Path(weights), licence_number=LICENCE, device="cpu"
    )
    found = build(settings).segment(image)
    np.save(mask, found.masks["coronaries"].array)
    Path(provenance).write_text(json.dumps({"provenance": dict(found.provenance), "notes": found.notes}))
    del kept


if __name__ == "__main__":
    main(*sys.argv[1:])
