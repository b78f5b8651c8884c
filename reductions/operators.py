"""The operators of a schedule, one for each act of each visit, and what they want made with queries, keys and values."""

import copy
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vittle.reductions.tokens import Operator, Site
from vittle.spaces.errors import ScheduleError
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.table import REDUCTIONS
from vittle.spaces.work import Act, BlockWork


def needed(schedule: Schedule, adapters: Mapping[str, nn.Module], like: Tensor) -> dict[str, nn.Module]:
    """The trained weights that a schedule needs, by reduction; copies where they are not where and as `like` is.

    Raises:
        ScheduleError: some are missing, or others.
    """
    found: dict[str, nn.Module] = {}
    for part in schedule.reductions:
        if part.adapter is None:
            continue
        adapter: Any = adapters.get(part.name)
        if adapter is None or adapter.name != part.adapter:
            given = "none is given" if adapter is None else f"{adapter.name} is given"
            raise ScheduleError(
                f"the schedule's {part.name} needs the trained weights {part.adapter}, {given}; give their file as adapter"
            )
        there = all((weight.device, weight.dtype) == (like.device, like.dtype) for weight in adapter.parameters())
        found[part.name] = adapter if there else copy.deepcopy(adapter).to(like)
    return found


def operators_of(
    schedule: Schedule, shape: BackboneShape, work: Sequence[BlockWork], adapters: Mapping[str, nn.Module]
) -> nn.ModuleList:
    """For each visit the operators of its acts, in their order; `adapters` are the trained weights that it `needed`."""
    settings = {part.name: part for part in schedule.reductions}

    def operator(row: BlockWork, act: Act) -> Operator:
        module, _, name = REDUCTIONS[act.reduction].operator.partition(":")
        part = settings[act.reduction]
        made: Operator = getattr(importlib.import_module(module), name)(part, Site(shape, row, act), adapters.get(part.name))
        return made

    return nn.ModuleList(nn.ModuleList(operator(row, act) for act in row.acts) for row in work)


def projections_of(backbone: nn.Module, work: Sequence[BlockWork], operators: nn.ModuleList) -> nn.ModuleDict:
    """For each visit with a learned embedding, the backbone's qkv with the embedding's rows below it."""
    model: Any = backbone
    fused = nn.ModuleDict()
    for row, there in zip(work, operators, strict=True):
        acting: Any = there
        for operator in acting:
            if (layer := operator.projection()) is not None:
                fused[str(row.index)] = _stacked(model.blocks[row.visit.block].attn.qkv, layer)
    return fused


@torch.no_grad()
def _stacked(above: nn.Linear, below: nn.Linear) -> nn.Linear:
    """One linear layer whose output is that of both, one after the other."""
    like: Any = {"device": above.weight.device, "dtype": above.weight.dtype}
    # Made without values, as all are copied: a random start would use up the caller's random numbers.
    both = nn.Linear(above.in_features, above.out_features + below.out_features, dtype=above.weight.dtype, device="meta")
    both.to_empty(device=above.weight.device)
    both.weight.copy_(torch.cat([above.weight, below.weight.to(**like)]))
    bias = [torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias for layer in (above, below)]
    both.bias.copy_(torch.cat([part.to(**like) for part in bias]))
    return both.requires_grad_(above.weight.requires_grad)
