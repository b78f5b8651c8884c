"""Latency on the device itself: the median time of one batch, the backbone measured in turn beside it.

A run is backbone, candidate, backbone, candidate, ...; what is compared is the ratio of each candidate time to the mean of the
two backbone times around it, so that drift of clock or load cancels. On CUDA a time is taken between events around the call,
on CPU by the monotonic clock.
"""

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vittle.objectives.measurement import Measurement, Phase

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure: `warmup` runs of each that are thrown away, then `repeats` pairs."""

    warmup: int
    repeats: int


EFFORTS: Mapping[Phase, Effort] = {"search": Effort(warmup=1, repeats=3), "confirmation": Effort(warmup=2, repeats=12)}


@torch.inference_mode()
def measure(
    candidate: nn.Module, backbone: nn.Module, images: Tensor, phase: Phase, about: Mapping[str, Any] | None = None
) -> dict[str, Measurement]:
    """Time one batch through both models.

    Args:
        images: (b, 3, height, width) on the models' device.
        phase: how much effort to spend.
        about: what else belongs into the protocol.

    Returns:
        `latency_ms` and `latency_ratio`, each with a bootstrap interval of its median, and the protocol.
    """
    effort = EFFORTS[phase]
    stopwatch = _cuda_ms if images.is_cuda else _cpu_ms
    for _ in range(effort.warmup):
        backbone(images)
        candidate(images)
    before = [stopwatch(backbone, images)]
    times = []
    for _ in range(effort.repeats):
        times.append(stopwatch(candidate, images))
        before.append(stopwatch(backbone, images))
    taken, reference = np.array(times), np.array(before)
    protocol = {
        **environment(images.device),
        "batch_size": len(images),
        "dtype": str(images.dtype).removeprefix("torch."),
        "warmup": effort.warmup,
        "repeats": effort.repeats,
        "clock": "cuda events" if images.is_cuda else "monotonic",
        **(about or {}),
    }
    samples = {"latency_ms": taken, "latency_ratio": 2 * taken / (reference[:-1] + reference[1:])}
    tails: Mapping[str, Mapping[str, Any]] = {
        "latency_ms": {"p95_ms": _p95(taken), "backbone_ms": float(np.median(reference)), "backbone_p95_ms": _p95(reference)},
        "latency_ratio": {},
    }
    return {name: _median(name, values, {**protocol, **tails[name]}) for name, values in samples.items()}


def environment(device: torch.device) -> dict[str, Any]:
    """What a latency depends on besides the model."""
    common = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {"device": properties.name, "cuda": torch.version.cuda, "processors": properties.multi_processor_count, **common}
    return {"device": _cpu_name(), **common}


def _median(objective: str, samples: NDArray[np.float64], protocol: Mapping[str, Any]) -> Measurement:
    draws = np.random.default_rng(0).choice(samples, (RESAMPLES, len(samples)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    value = float(np.median(samples))
    return Measurement(objective, value, min(value, float(low)), max(value, float(high)), len(samples), protocol)


def _p95(samples: NDArray[np.float64]) -> float:
    return float(np.quantile(samples, 0.95))


def _cpu_ms(model: Callable[[Tensor], Any], images: Tensor) -> float:
    start = time.perf_counter()
    model(images)
    return (time.perf_counter() - start) * 1000


def _cuda_ms(model: Callable[[Tensor], Any], images: Tensor) -> float:
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    torch.cuda.synchronize(images.device)
    start.record()
    model(images)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
