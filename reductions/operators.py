"""The operators of a schedule, one for each act of each visit, and what they want made with queries, keys and values."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vittle.reductions.tokens import Operator, Site
from vittle.spaces.errors import ScheduleError
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.table import REDUCTIONS
from vittle.spaces.work import Act, BlockWork


def operators_of(
    schedule: Schedule, shape: BackboneShape, work: Sequence[BlockWork], adapters: Mapping[str, nn.Module]
) -> nn.ModuleList:
    """For each visit the operators of its acts, in their order.

    Raises:
        ScheduleError: trained weights that are needed are missing, or others.
    """
    settings = {part.name: part for part in schedule.reductions}
    for part in schedule.reductions:
        adapter: Any = adapters.get(part.name)
        if part.adapter is not None and (adapter is None or adapter.name != part.adapter):
            given = "none is given" if adapter is None else f"{adapter.name} is given"
            raise ScheduleError(
                f"the schedule's {part.name} needs the trained weights {part.adapter}, {given}; give their file as adapter"
            )

    def operator(row: BlockWork, act: Act) -> Operator:
        module, _, name = REDUCTIONS[act.reduction].operator.partition(":")
        part = settings[act.reduction]
        weights = adapters[part.name] if part.adapter is not None else None
        made: Operator = getattr(importlib.import_module(module), name)(part, Site(shape, row, act), weights)
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
