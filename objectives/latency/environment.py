"""Where a latency was measured: the device and everything else that it depends on besides the model."""

import platform
from functools import cache
from pathlib import Path
from typing import Any

import pynvml
import torch


def environment(device: torch.device) -> dict[str, Any]:
    """Device, driver and library versions. Threads are those of the processor, which CUDA does not compute on."""
    libraries = {"torch": str(torch.__version__), "python": platform.python_version()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about = {"device": properties.name, "processors": properties.multi_processor_count, "cuda": torch.version.cuda}
        return {**about, "driver": _driver(), **libraries}
    return {"device": _cpu_name(), "threads": torch.get_num_threads(), **libraries}


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
