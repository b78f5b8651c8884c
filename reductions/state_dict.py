"""Weights out of a file that somebody saved: told by its content, read without running code, and unwrapped.

People keep a model's weights inside a training script's dictionary, under the name of the module that held the model, or both.
One wrapper or one common prefix is taken off; where there are several, a rule says which is used, and a note tells it.
"""

import argparse
import pathlib
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor

from vittle.spaces.errors import VittleError

ACCEPTED = "a .safetensors or .pth state dict, or the .npz of a JAX model"
# The first that is there is used: an average before what it is the average of, as timm does, and a teacher before its student.
WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "teacher", "state_dict", "model", "model_state_dict", "encoder"),
    *("backbone", "student", "module", "net", "network", "weights", "params"),
)
LAST_OF_A_PREFIX = "patch_embed.proj.weight"  # every model of timm's, MAE's, DINO's and DINOv2's has one
FOR_FILTERS = ("visual.trunk.", "vision_encoder.", "radio_model.model.")  # prefixes that timm's own filters read
DECODER = "decoder_"  # of MAE's pretraining


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The weights in a file by name, and what there is to say of them.

    Raises:
        VittleError: there is nothing in it that can be read safely, or several models, none of which is known to be meant.
    """
    file = shortened(path.name)
    found, notes = _unwrap(_read(path, file), file)
    weights, more = _without_prefix(clean_state_dict(found), file)
    decoder = [name for name in weights if name.startswith(DECODER)]
    if decoder:
        more = [*more, f"{file} holds a decoder, too; its {len(decoder)} weights are left out"]
    return {name: weight for name, weight in weights.items() if name not in decoder}, [*notes, *more]


def is_jax(path: Path) -> bool:
    """Whether it is an archive of numpy arrays, as JAX's models come."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(name.endswith(".npy") for name in archive.namelist())


def named(names: Iterable[str]) -> str:
    """Three of many names, and how many more there are."""
    there = list(names)
    shown = ", ".join(map(shortened, there[:3]))
    return f"{shown} and {len(there) - 3} more" if len(there) > 3 else shown


def shortened(name: str) -> str:
    """A name that is not too long to be told."""
    return name if len(name) <= 36 else f"{name[:20]}…{name[-15:]}"


def _read(path: Path, file: str) -> Any:
    with path.open("rb") as opened:
        start = opened.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise VittleError(f"{file} is a pointer of Git LFS, no weights; fetch them with: git lfs pull")
    with torch.serialization.safe_globals(_harmless()):
        try:
            # The length of the header, then the header, which is JSON.
            if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
                return load_file(path)
            if path.suffix == ".safetensors":  # which torch would go by
                with path.open("rb") as opened:
                    return torch.load(opened, map_location="cpu", weights_only=True)
            # Mapped, so that an optimizer's state beside the weights is not read.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:  # whatever a file that is none can make a reader raise
            raise VittleError(f"cannot read {file} as weights: {_why(path, error)}") from None


def _harmless() -> list[Any]:
    """What checkpoints hold beside weights and can be made without running anybody's code: numbers, arguments and paths."""
    makers: list[Any] = [np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]]
    dtypes = {type(np.dtype(kind)) for kind in "?bhilqBHILQefd"}
    functions = [
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for function in makers
        for core in ("core", "_core")  # as numpy 1 and numpy 2 call it
    ]
    paths = [(pathlib.PosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")]
    return [*functions, *paths, np.ndarray, np.dtype, *dtypes, argparse.Namespace]


def _why(path: Path, error: Exception) -> str:
    """What is wrong with a file that torch does not read, and what to do about it."""
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the format of before torch 1.6, or no checkpoint
        unsafe = re.findall(r"GLOBAL (\S+)", str(error))
    if unsafe:
        # What is its own comes before torch's and before timm's layers.
        unsafe = sorted(unsafe, key=lambda name: (name.startswith("torch."), ".layers." in name, name))
        if any(name.startswith(("torch.nn.modules.", "timm.")) for name in unsafe):
            held = f"a pickled model ({named(name.rpartition('.')[2] for name in unsafe)})"
        else:
            held = f"more than weights ({named(unsafe)})"
        return f"it holds {held}, which may run code; save the weights alone: torch.save(model.state_dict(), file)"
    if "TorchScript" in str(error):
        return "it is a TorchScript archive; save the weights alone: torch.save(model.state_dict(), file)"
    return f"give {ACCEPTED}"


def _unwrap(found: Any, file: str) -> tuple[dict[str, Tensor], list[str]]:
    notes: list[str] = []
    while True:
        if not isinstance(found, Mapping):
            raise VittleError(f"{file} holds a {type(found).__name__}, no weights by name; give {ACCEPTED}")
        inside = {key: value for key, value in found.items() if isinstance(key, str) and _holds_weights(value)}
        if not inside:
            weights = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, Tensor)}
            if not weights:
                raise VittleError(f"{file} holds no weights; give {ACCEPTED}")
            return weights, notes
        wrapper = next((name for name in WRAPPERS if name in inside), None)
        if len(inside) == 1:
            (wrapper,) = inside
        elif wrapper is None:
            raise VittleError(f"{file} holds {len(inside)} sets of weights ({named(inside)}); save the one that is meant alone")
        else:
            notes.append(f"{file} holds {named(inside)}; {wrapper} is used")
        found = inside[wrapper]


def _holds_weights(value: Any, deep: bool = True) -> bool:
    """Whether something is weights by name, or wraps some; the state of an optimizer has no names with dots."""
    if not isinstance(value, Mapping):
        return False
    if any(isinstance(key, str) and "." in key and isinstance(one, Tensor) for key, one in value.items()):
        return True
    return deep and any(isinstance(key, str) and _holds_weights(one, deep=False) for key, one in value.items())


def _without_prefix(weights: Mapping[str, Tensor], file: str) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of one model, called as it calls them, out of those of a module that has it, or several, as a part."""
    found = [name.removesuffix(LAST_OF_A_PREFIX) for name in weights if name.endswith(LAST_OF_A_PREFIX)]
    prefixes = list(dict.fromkeys(_outside(prefix) for prefix in found))
    if prefixes in ([], [""]):
        return dict(weights), []
    chosen = prefixes
    for word in ("ema", "teacher"):
        chosen = [prefix for prefix in chosen if word in prefix] or chosen
    if len(chosen) > 1:
        raise VittleError(
            f"{file} holds {len(chosen)} models, with names that begin {_begin(chosen)}; save the one that is meant alone"
        )
    (prefix,) = chosen
    notes = []
    rivals = tuple(other for other in prefixes if other != prefix)
    if rivals:
        notes.append(f"{file} holds models with names that begin {_begin(prefixes)}; {_begin([prefix])} is used")
    others = [name for name in weights if not name.startswith((prefix, *rivals))]
    if others:
        notes.append(f"{file} holds more than the model whose names begin {_begin([prefix])}; left out: {named(others)}")
    within = tuple(other for other in rivals if other.startswith(prefix))
    own = {name: weight for name, weight in weights.items() if name.startswith(prefix) and not name.startswith(within)}
    return {name.removeprefix(prefix): weight for name, weight in own.items()}, notes


def _begin(prefixes: Iterable[str]) -> str:
    return named(repr(prefix) for prefix in prefixes)


def _outside(prefix: str) -> str:
    return next((prefix.removesuffix(inner) for inner in FOR_FILTERS if prefix.endswith(inner)), prefix)
