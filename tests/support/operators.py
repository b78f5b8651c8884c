"""Every way to reduce, as schedules that fit any of the small models."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from vittle import Schedule, presets
from vittle.reductions.backbone import shape_of
from vittle.reductions.recursive_blocks import RecursiveBlocks
from vittle.reductions.sparsity_predictor import SparsityPredictor
from vittle.reductions.vit import ReducedViT
from vittle.spaces import Pruning, Recursion, Sparsity

LEARNED = {"metric": "decoupled", "embedding": "modular-0123456789ab", "embedding_width": 8}
SCORED = {"selection": "trained", "predictor": "scored-0123456789ab"}
RECURRING = {1: "distilled-0123456789ab", 2: "distilled-ba9876543210"}  # by how many blocks are shared


class Embedding(nn.Module):
    """A merge embedding with random weights."""

    name = LEARNED["embedding"]

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layers = nn.ModuleList(nn.Linear(width, 8) for _ in range(depth))


class Predictor(SparsityPredictor):
    """A sparsity predictor with random weights."""

    name = SCORED["predictor"]

    @classmethod
    def of_model(cls, model: nn.Module) -> "Predictor":
        found = cls.for_backbone(shape_of(model))
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for weight in found.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator))
        return found.requires_grad_(False)


class Recurring(RecursiveBlocks):
    """Recursive blocks with random weights."""

    name = property(lambda self: RECURRING[self.width])

    @classmethod
    def of_model(cls, model: nn.Module, shared: int) -> "Recurring":
        found = cls.from_backbone(model, shared=shared, steps=3)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for weight in found.parameters():
                weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
        return found.requires_grad_(False)


def recur(*capacities: float, shared: int = 1, **choices: object) -> Schedule:
    return Schedule((Recursion(weights=RECURRING[shared], shared=shared, capacities=capacities, **choices),))


def merge_and_recur(model: nn.Module) -> Schedule:
    tokens = shape_of(model).tokens
    merging = presets.kept(model, [tokens - 7, tokens - 12, tokens - 12, tokens - 12])
    return combine(merging, recur(1, 0.5))


def sparse(model: nn.Module, share: float = 0.25, **choices: object) -> Schedule:
    return Schedule((Sparsity(shares=(share,) * shape_of(model).depth, **choices),))


def prune(model: nn.Module) -> Schedule:
    shape = shape_of(model)
    return Schedule((Pruning(kept=tuple(shape.tokens - 7 * (block + 1) for block in range(shape.depth))),))


def combine(*schedules: Schedule) -> Schedule:
    return Schedule(tuple(part for one in schedules for part in one.reductions))


def prune_and_merge(model: nn.Module, **choices: object) -> Schedule:
    tokens, depth = shape_of(model).tokens, shape_of(model).depth
    pruned = [tokens - 7 * (block + 1) + 4 for block in range(depth)]
    return presets.kept(model, [count - 4 for count in pruned], pruned, **choices)


OPERATORS: Mapping[str, Callable[[nn.Module], Schedule]] = {
    "key": lambda model: presets.constant(model, 7),
    "key, sizes unseen": lambda model: presets.constant(model, 7, proportional="off"),
    "feature": lambda model: presets.constant(model, 7, metric="feature"),
    "decoupled": lambda model: presets.constant(model, 7, **LEARNED),
    "equal weights": lambda model: presets.constant(model, 7, weights="equal"),
    "energy": lambda model: presets.constant(model, 7, matching="energy"),
    "importance": lambda model: presets.constant(model, 7, matching="importance"),
    "windows": lambda model: presets.delayed(model, 1, 8, window=4, global_from=3),
    "uneven windows": lambda model: presets.delayed(model, 0, 9, window=3, global_from=4),
    "pruning": prune,
    "pruning and merging": prune_and_merge,
    "pruning and merging by key and size": lambda model: prune_and_merge(
        model, metric="key", matching="bipartite", weights="size"
    ),
    "pruning and merging by embedding": lambda model: prune_and_merge(model, matching="bipartite", **LEARNED),
    "sparsity": sparse,
    "sparsity, many rests, trained": lambda model: sparse(model, 0.1, rests="4x4", **SCORED),
    "sparsity of each query": lambda model: sparse(model, form="queries", rests="one", **SCORED),
    "sparsity and merging": lambda model: combine(sparse(model), presets.constant(model, 7)),
    "sparsity, trained, no rests, pruning and merging": lambda model: combine(
        sparse(model, rests="none", **SCORED), prune_and_merge(model)
    ),
    "recursion": lambda _: recur(1, 0.7, 0.3),
    "recursion for all": lambda _: recur(1, 1),
    "recursion by what was learned": lambda _: recur(0.8, 0.4, router="learned"),
    "recursion by norm, two shared blocks": lambda _: recur(1, 0.6, 0.3, shared=2, router="norm"),
    "recursion and sparsity": lambda model: combine(sparse(model), recur(1, 0.5)),
    "merging and recursion": merge_and_recur,
}
NEED_CLASS = {name for name in OPERATORS if "pruning" in name or name == "importance"}
CONSERVING = {name for name in OPERATORS if "pruning" not in name and name != "equal weights"}


def reduced(model: nn.Module, name: str, tail: str = "full") -> ReducedViT:
    """The model under one of `OPERATORS`, sharing its weights."""
    schedule = OPERATORS[name](model)
    schedule = Schedule(schedule.reductions, tail)
    shape = shape_of(model)
    adapters = {"merging": Embedding(shape.depth, shape.width), "sparsity": Predictor.of_model(model)}
    for part in schedule.reductions:
        if isinstance(part, Recursion):
            adapters["recursion"] = Recurring.of_model(model, part.shared)
    return ReducedViT(model, schedule, adapters)
