"""Adapters: trained weights that a reduction needs. `vittle.spaces.table` says which class reads the file of which reduction.

A later adapter is a class here in `reductions/` that keeps to `Adapter`, and its name in the table.
"""

import importlib
from collections.abc import Mapping
from os import PathLike
from typing import Any, Protocol, runtime_checkable

from vittle.reductions.backbone import Backbone
from vittle.spaces.reduction import AdapterRecord
from vittle.spaces.table import REDUCTIONS, adapter_of


@runtime_checkable
class Adapter(Protocol):
    """Trained weights of one reduction for one backbone: a module whose class reads it by `load(path, backbone)`."""

    @property
    def name(self) -> str:
        """What was trained, and a fingerprint of the weights: equal names are equal adapters."""
        ...

    @property
    def record(self) -> AdapterRecord:
        """What a search has to know of it."""
        ...

    def check(self, backbone: Backbone) -> None:
        """Refuse a backbone that it does not belong to.

        Raises:
            VittleError: what does not fit.
        """
        ...

    def verdict(self) -> tuple[bool, str]:
        """Whether a search should use it, and why, in one sentence."""
        ...


def load_adapters(files: Mapping[str, str | PathLike[str]], backbone: Backbone | None = None) -> dict[str, Any]:
    """Read adapters from their files: by reduction, each an `Adapter` and an `nn.Module`, which no type can say at once.

    Args:
        files: by the name of the reduction.
        backbone: refuse adapters that were trained for another one.

    Raises:
        VittleError: a reduction that has no adapter, a file that is not one of that reduction, or another backbone's.
    """
    return {name: _class_of(name).load(path, backbone) for name, path in files.items()}


def stand_ins(backbone: Backbone) -> dict[str, Any]:
    """Untrained weights of the reductions that fit and can do nothing without, by name: they take as long as trained ones."""
    found = {}
    for name, entry in REDUCTIONS.items():
        if entry.settings.needs_adapter and entry.settings.refusal(backbone.shape) is None:
            found[name] = _class_of(name).from_backbone(backbone.model).requires_grad_(False)
    return found


def _class_of(name: str) -> Any:
    module, _, adapter = adapter_of(name).partition(":")
    return getattr(importlib.import_module(module), adapter)
