"""Where a latency was measured: the device and everything else that it depends on besides the model."""

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pynvml
import torch

IDENTITY = ("device", "processors", "threads", "driver", "cuda", "torch")
"""What makes two environments different ones; a latency of one says nothing of the other."""
HARDWARE = ("device", "processors", "threads")
"""What of it is the device itself."""


def environment(device: torch.device) -> dict[str, Any]:
    """Device, driver and library versions. Threads are those of the processor, which CUDA does not compute on."""
    libraries = {"torch": torch.__version__, "python": platform.python_version()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about = {"device": properties.name, "processors": properties.multi_processor_count, "cuda": torch.version.cuda}
        return {**about, "driver": _driver(), **libraries}
    return {"device": _cpu_name(), "threads": torch.get_num_threads(), **libraries}


def fingerprint(about: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of an environment, or of anything else that JSON can say."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


def identity(about: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an environment that decides whether latencies can be compared."""
    return {name: about[name] for name in IDENTITY if name in about}


def hardware(about: Mapping[str, Any]) -> str:
    """The device in words: `AMD EPYC, 2 threads`."""
    units = {"threads": "threads", "processors": "processors"}
    return ", ".join([str(about["device"]), *(f"{about[name]} {unit}" for name, unit in units.items() if name in about)])


def physical(device: torch.device) -> str:
    """A name of the device that every process of this machine knows it by, whatever number it has there."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else "cpu"


def clocks(device: torch.device) -> dict[str, int]:
    """The clock of a GPU's processors now and at most, in MHz; nothing where NVML does not tell, as for a CPU."""
    if device.type != "cuda":
        return {}
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{physical(device)}".encode())
        kind = pynvml.NVML_CLOCK_SM
        return {
            "clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, kind),
            "clock_limit_mhz": pynvml.nvmlDeviceGetMaxClockInfo(handle, kind),
        }
    except pynvml.NVMLError:
        return {}


def _driver() -> str | None:
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


@cache
def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
