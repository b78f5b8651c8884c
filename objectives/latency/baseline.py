"""What a schedule has to beat: the backbone in the fastest of the forms that its user could run it in anyway.

eager       timm's attention spelled out: a matrix product, a softmax, a matrix product
fused       timm's default: one kernel for the whole of attention
compiled    the fused model through `torch.compile`, where it is asked for
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vittle.objectives.latency.turns import take_turns
from vittle.spaces.errors import VittleError

ROUNDS = 5
GRAPHS = 10_000  # schedules that one process may compile; beyond this torch would run them uncompiled, and not say so


@dataclass(frozen=True)
class Baseline:
    """The fastest form of a backbone on one device.

    Attributes:
        form: which one it is.
        call: runs it on images (b, 3, height, width).
        times_ms: the median time of every form, so that the choice can be checked.
    """

    form: str
    call: Callable[[Tensor], Tensor]
    times_ms: Mapping[str, float]


def find_baseline(model: nn.Module, images: Tensor, *, compiled: bool = False) -> Baseline:
    """Time every form of a timm model in turn and choose the one of the least median time; of equal ones timm's own.

    Args:
        model: in evaluation mode, on the device of the images; it is left as it is.
        images: (b, 3, height, width), one batch.
        compiled: whether compiling is among the forms.

    Raises:
        VittleError: it cannot be compiled here.
    """
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "fused": lambda batch: _with_fused(model, batch, fused=True),
        "eager": lambda batch: _with_fused(model, batch, fused=False),
    }
    if compiled:
        calls["compiled"] = compile_model(model, images)
    reference, *others = ((lambda call=call: call(images)) for call in calls.values())
    turns = take_turns(reference, others, images.device, rounds=ROUNDS)
    medians = [float(np.median(turns.reference)), *map(float, np.median(turns.times, 0))]
    times: dict[str, float] = dict(zip(calls, medians, strict=True))
    best = min(times, key=lambda form: times[form])
    return Baseline(best, calls[best], times)


def compile_model(model: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    """A model through `torch.compile`, for batches of exactly this shape; it is compiled here and now.

    Raises:
        VittleError: it cannot be compiled here.
    """
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = GRAPHS
    try:
        compiled = cast("Callable[[Tensor], Tensor]", torch.compile(model, dynamic=False))
        with torch.inference_mode():
            compiled(images)
    except Exception as error:  # whatever a compiler can meet, a missing C++ compiler first of all
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise VittleError(f"torch.compile fails here ({reason}); leave --compile out, or install a C++ compiler") from None
    return compiled


def _with_fused(model: nn.Module, images: Tensor, *, fused: bool) -> Tensor:
    """Run timm's model with attention fused or spelled out, and leave its switch as it was."""
    vit: Any = model
    before = [block.attn.fused_attn for block in vit.blocks]
    for block in vit.blocks:
        block.attn.fused_attn = fused
    try:
        logits: Tensor = model(images)
    finally:
        for block, was in zip(vit.blocks, before, strict=True):
            block.attn.fused_attn = was
    return logits
