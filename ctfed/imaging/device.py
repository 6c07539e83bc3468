"""Where a network computes: 'auto', 'cpu', 'cuda' or 'cuda:<n>'."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field

from ctfed.federation.errors import CtfedError

DEVICE = r"^(auto|cpu|cuda(:[0-9]{1,2})?)$"
DeviceName = Annotated[str, Field(pattern=DEVICE, description="auto, cpu, cuda or cuda:<number>")]


class DeviceError(CtfedError):
    """The device that was asked for is not there."""


def resolve_device(name: str) -> Any:
    """The ``torch.device`` of a name; 'auto' is the first GPU, or the CPU when there is none.

    Raises:
        DeviceError: for a GPU that is not there; nothing falls back to the CPU unasked, because a run that was planned
            for a GPU would take weeks without a word.
    """
    import torch

    if not re.match(DEVICE, name):
        raise DeviceError(f"found device {name!r}, expected auto, cpu, cuda or cuda:<number>")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda:0" if gpus else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index >= gpus:
        raise DeviceError(f"found device {name!r} on a machine with {gpus} CUDA GPUs, expected one of them, or cpu")
    return torch.device("cuda", index)
