"""Sparse attention written out in loops, one query and one key after the other, and what it is compared on."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from operators import SCORED, Predictor
from vittle import Schedule
from vittle.reductions.attention import Form
from vittle.reductions.sparsity import Sparsify
from vittle.reductions.tokens import Heads, Site
from vittle.spaces import BackboneShape, Merging, Sparsity, costs

Floats = NDArray[np.float64]
SHAPE = BackboneShape(
    depth=2, width=24, heads=2, grid=(8, 8), prefix=1, attention_width=24, key_macs=1152, query_macs=1152,
    mlp_macs=4608, embed_macs=1, head_macs=1, reads_prefix_only=True,
)  # fmt: skip
SETTINGS = {
    "one rest": {"rests": "one"},
    "2x2 rests": {},
    "4x4 rests": {"rests": "4x4"},
    "no rests": {"rests": "none"},
    "trained": {**SCORED},
    "each query": {"form": "queries", "rests": "one", **SCORED},
    "each query, no rests": {"form": "queries", "rests": "none", **SCORED},
}
HALVES = {torch.bfloat16: 0.06, torch.float16: 0.008}  # and how far an output may be off, of values about 2


def operator_of(shape: BackboneShape, settings: Sparsity, merged: int = 0) -> Sparsify:
    """What acts in the second block, into which `merged` patches fewer enter."""
    parts = (settings, Merging(kept=(shape.tokens - merged,) * 2)) if merged else (settings,)
    row = costs.work(shape, Schedule(parts))[1]
    (act,) = row.at("attention")
    return Sparsify(settings, Site(shape, row, act), None if settings.predictor is None else predictor(shape))


def predictor(shape: BackboneShape) -> Predictor:
    found = Predictor.for_backbone(shape)
    generator = torch.Generator().manual_seed(5)
    for weight in found.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
    return found.requires_grad_(False)


def heads_of(shape: BackboneShape, tokens: int, *, sizes: bool = False, form: Form = "mask", seed: int = 0) -> Heads:
    generator = torch.Generator().manual_seed(seed)
    c = shape.attention_width // shape.heads
    parts = [2 * torch.randn(2, shape.heads, tokens, c, generator=generator) for _ in range(3)]
    log_sizes = torch.randint(1, 5, (2, 1, 1, tokens), generator=generator).float().log() if sizes else None
    return Heads(*parts, log_sizes, c**-0.5, form)


class Reference:
    """What the operator should give, in float64 and in loops.

    Args:
        heads: as the operator is given them.
        prefix: tokens that are no patches.
        grid: of the patches; None where there is none any more.
        settings: what is asked for.
        read: keys that a patch query reads.
        weights: of a predictor's block.
    """

    def __init__(
        self, heads: Heads, prefix: int, grid: tuple[int, int] | None, settings: Sparsity, read: int, weights: nn.Module | None
    ) -> None:
        self.prefix, self.settings, self.read, self.scale = prefix, settings, read, heads.scale
        self.heads = heads
        patches = heads.keys.shape[2] - prefix
        side = {"none": 0, "one": 1, "2x2": 2, "4x4": 4}[settings.rests]
        if grid is None:
            grid, side = (1, patches), min(side, 1)
        rows, columns = grid
        self.rests = side > 0
        # A patch is in the part in which its row and column begin.
        self.part = [
            (row * max(1, side) // rows, column * max(1, side) // columns) for row in range(rows) for column in range(columns)
        ]
        self.weights = None if weights is None else {name: one.double().numpy() for name, one in weights.state_dict().items()}

    def __call__(self) -> Floats:
        b, h = self.heads.keys.shape[:2]
        return np.array([[self.of_head(image, head) for head in range(h)] for image in range(b)])

    def of_head(self, image: int, head: int) -> Floats:
        """(n, c) that all queries of one head of one image mix."""
        queries, keys, values = (one[image, head].double().numpy() for one in self.heads[:3])
        n = len(keys)
        logs = self.heads.log_sizes
        sizes = np.ones(n) if logs is None else np.exp(logs[image, 0, 0].double().numpy())
        shared = None if self.settings.form == "queries" else self.chosen(self.scores(queries, keys, values, sizes, head))
        mixed = []
        for place, query in enumerate(queries):
            if place < self.prefix:
                entries = [(keys[j], values[j], sizes[j]) for j in range(n)]
            else:
                chosen = shared or self.chosen(self.own_scores(query, keys, sizes, head))
                entries = list(self.entries(keys, values, sizes, chosen))
            logits = [query @ key * self.scale + math.log(size) for key, _, size in entries]
            shares = [math.exp(logit - max(logits)) for logit in logits]
            mixed.append(sum(share * value for share, (_, value, _) in zip(shares, entries, strict=True)) / sum(shares))
        return np.array(mixed)

    def entries(self, keys: Floats, values: Floats, sizes: Floats, chosen: set[int]) -> Iterator[tuple[Floats, Floats, float]]:
        """What a patch query reads, each with how many patches it stands for."""
        for j in range(len(keys)):
            if j < self.prefix or j - self.prefix in chosen:
                yield keys[j], values[j], sizes[j]
        for part in sorted(set(self.part)) if self.rests else ():
            others = [self.prefix + j for j, there in enumerate(self.part) if there == part and j not in chosen]
            if others:
                count = sum(sizes[j] for j in others)
                yield sum(sizes[j] * keys[j] for j in others) / count, sum(sizes[j] * values[j] for j in others) / count, count

    def chosen(self, scores: list[float]) -> set[int]:
        return set(sorted(range(len(scores)), key=lambda j: -scores[j])[: self.read])

    def scores(self, queries: Floats, keys: Floats, values: Floats, sizes: Floats, head: int) -> list[float]:
        """Of the patch keys of a head, for all of its patch queries."""
        queries, keys, values, sizes = (one[self.prefix :] for one in (queries, keys, values, sizes))
        if self.weights is not None:
            w = {name: one[head] for name, one in self.weights.items()}
            hidden = [np.maximum(key @ w["hidden"] + w["bias"][0], 0) for key in keys]
            learned = [one @ w["out"][:, 0] + key @ w["linear"][:, 0] for one, key in zip(hidden, keys, strict=True)]
            return [one + math.log(size) for one, size in zip(learned, sizes, strict=True)]
        paid = np.zeros(len(keys))
        for place in range(8):
            logits = keys @ queries[int((place + 0.5) * len(keys) / 8)] * self.scale
            shares = sizes * np.exp(logits - logits.max())
            paid += shares / shares.sum() / 8
        found = []
        for j, value in enumerate(values):
            there = [i for i in range(len(keys)) if self.part[i] == self.part[j]]
            mean = sum(sizes[i] * values[i] for i in there) / sum(sizes[i] for i in there)
            found.append(paid[j] * math.dist(value, mean))
        return found

    def own_scores(self, query: Floats, keys: Floats, sizes: Floats, head: int) -> list[float]:
        """Of the patch keys, for one query."""
        assert self.weights is not None
        of_query = query @ self.weights["queries"][head]
        pairs = zip(keys[self.prefix :], sizes[self.prefix :], strict=True)
        return [of_query @ (key @ self.weights["keys"][head]) * self.scale + math.log(size) for key, size in pairs]
