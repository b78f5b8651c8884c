"""Models by their timm names: built, with published weights or without, and what is said where that fails."""

import difflib
from typing import Any

import timm
import torch

from vittle.reductions.hub import hub
from vittle.spaces.errors import VittleError, one_line
from vittle.spaces.inputs import EMBEDDED

LONGEST = 160  # characters that are quoted of what others say


def create(name: str, *, pretrained: bool, **arguments: Any) -> Any:
    """A timm model.

    Args:
        name: an architecture with an optional weight tag, `hf-hub:owner/name` or `local-dir:path`.
        pretrained: with the weights of that name, which may be fetched.
        **arguments: of timm's constructor.

    Raises:
        VittleError: there is no such model, or its weights cannot be had.
    """
    architecture = name.partition(".")[0]
    if ":" not in name and not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models("*vit*") + timm.list_models("deit*"), n=3)
        hint = f" (did you mean {', '.join(close)}?)" if close else ""
        raise VittleError(f"unknown model {name!r}{hint}; accepted: {EMBEDDED}, a timm name, hf-hub:owner/name, local-dir:path")
    if name.startswith("local-dir:") or not (pretrained or ":" in name):
        return _create(name, pretrained, arguments, None)
    with hub() as unreachable:
        return _create(name, pretrained, arguments, unreachable)


def outline(name: str, **arguments: Any) -> Any:
    """A timm model that has shapes and no values: it takes no memory, and next to no time.

    Raises:
        VittleError: as `create`.
    """
    with torch.device("meta"):
        return create(name, pretrained=False, **arguments)


def _create(name: str, pretrained: bool, arguments: dict[str, Any], unreachable: str | None) -> Any:
    try:
        return timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # timm and the hub raise whatever they meet: RuntimeError, OSError, KeyError, HTTP errors
        if unreachable is not None and isinstance(error, OSError):
            said = f"{quoted(unreachable)}, and {name!r} is in no cache; check the network, or give --checkpoint FILE"
        elif pretrained:
            said = f"cannot load the weights of {name!r} ({quoted(error)}); check the name, or give --checkpoint FILE"
        else:
            said = f"cannot build {name!r} ({quoted(error)})"
        raise VittleError(said) from None


def quoted(reason: object) -> str:
    """What somebody else says, as a refusal quotes it."""
    return one_line(reason, LONGEST)
