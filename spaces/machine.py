"""What a model may run on and in, by name, so that a wrong name is refused before torch is loaded."""

from typing import Literal, get_args

from vittle.spaces.errors import VittleError

Dtype = Literal["float32", "bfloat16", "float16"]
DEVICES = ("cpu", "cuda")
DTYPES: tuple[Dtype, ...] = get_args(Dtype)


def check_device(name: str) -> None:
    """Refuse a device that there is nowhere; whether it is there on this machine only torch can tell.

    Raises:
        VittleError: an unknown device.
    """
    if name not in DEVICES:
        raise VittleError(f"unknown device {name!r}; accepted: {', '.join(DEVICES)}")


def check_dtype(name: str) -> None:
    """Refuse a type that models do not run in.

    Raises:
        VittleError: an unknown type.
    """
    if name not in DTYPES:
        raise VittleError(f"unknown dtype {name!r}; accepted: {', '.join(DTYPES)}")
