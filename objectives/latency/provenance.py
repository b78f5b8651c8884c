"""What a measurement's environment says: which parts of it make it another device, and a name for it. Starts without torch."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

HARDWARE = ("device", "processors", "threads")
"""What of an environment is the device itself."""
IDENTITY = (*HARDWARE, "driver", "cuda", "torch")
"""What makes two environments different ones; a latency of one says nothing of the other."""
ENVIRONMENT = (*IDENTITY, "python")
"""All of an environment."""


def fingerprint(about: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of an environment, or of anything else that JSON can say."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


def identity(about: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an environment that decides whether latencies can be compared."""
    return {name: about[name] for name in IDENTITY if name in about}


def device_phase(about: Mapping[str, Any]) -> str:
    """The phase under which measurements are kept that were made again in an environment."""
    return f"device:{fingerprint(identity(about))}"


def hardware(about: Mapping[str, Any]) -> str:
    """The device in words: `AMD EPYC, 2 threads`."""
    counts = {name: about[name] for name in HARDWARE[1:] if name in about}
    units = [f"{count} {name.removesuffix('s') if count == 1 else name}" for name, count in counts.items()]
    return ", ".join([str(about["device"]), *units])
