"""Which device a model runs on, and in which type."""

import torch

from vittle.spaces.errors import VittleError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_dtype(name: str) -> None:
    """Refuse a type that models do not run in.

    Raises:
        VittleError: an unknown type.
    """
    if name not in DTYPES:
        raise VittleError(f"unknown dtype {name!r}; accepted: {', '.join(DTYPES)}")


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
