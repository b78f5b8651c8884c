"""Which device a model runs on, and in which type."""

import torch

from vittle.spaces import machine
from vittle.spaces.errors import VittleError

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in machine.DTYPES}


def choose_device(name: str | None) -> str:
    """The device of that name, cuda where there is one by default.

    Raises:
        VittleError: an unknown device, or cuda where there is none.
    """
    there = torch.cuda.is_available()
    if name is None:
        return "cuda" if there else "cpu"
    machine.check_device(name)
    if name == "cuda" and not there:
        raise VittleError("this machine has no CUDA device that torch can use; accepted here: cpu")
    return name
