"""Which device a model runs on."""

import torch

from vittle.spaces.errors import VittleError


def choose_device(name: str | None) -> str:
    """The device of that name, cuda where there is one by default.

    Raises:
        VittleError: an unknown device, or cuda where there is none.
    """
    there = torch.cuda.is_available()
    if name is None:
        return "cuda" if there else "cpu"
    if name not in ("cpu", "cuda"):
        raise VittleError(f"unknown device {name!r}; accepted: cpu, cuda")
    if name == "cuda" and not there:
        raise VittleError("this machine has no CUDA device that torch can use; accepted here: cpu")
    return name
