"""The most memory that one batch needs."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vittle.objectives.latency import allocator
from vittle.objectives.measurement import Measurement, exact

STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEGABYTE = 1e6


def peak(call: Callable[[], Any], model: nn.Module, device: torch.device) -> Measurement | None:
    """The peak while a call runs a model; None where the system does not tell.

    On CUDA it is what tensors take, on a CPU by how much the process grows, in both cases with the weights.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return exact("memory", torch.cuda.max_memory_allocated(device) / MEGABYTE, {"of": "tensors"})
    try:
        allocator.release()  # what earlier runs have left would count
        before = _resident("VmRSS")
        PEAK_RESET.write_text("5")  # Linux: begin the peak anew
        call()
        grown = max(0, _resident("VmHWM") - before)
    except (OSError, LookupError):
        return None
    weights = sum(weight.nbytes for weight in model.parameters())
    return exact("memory", (weights + grown) / MEGABYTE, {"of": "process"})


def _resident(name: str) -> int:
    """Bytes of memory that the system counts under a name."""
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"))
    if found is None:
        raise LookupError(name)
    return int(found[1]) * 1024
