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


def main(scan: str, weights: str, mask: str, provenance: str) -> None:
    import SimpleITK as sitk

    image = Volume.from_sitk(sitk.ReadImage(scan))
    settings = SegmenterSettings(
        model="totalsegmentator-coronary-arteries", weights=Path(weights), licence_number=LICENCE, device="cpu"
    )
    found = build(settings).segment(image)
    np.save(mask, found.masks["coronaries"].array)
    Path(provenance).write_text(json.dumps({"provenance": dict(found.provenance), "notes": found.notes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
