"""Sparse attention in one block: which keys are read, the rests that stand for the others, and attention to both.

See `vittle.spaces.sparsity`. For the p patch keys k_j with values v_j of a head, of which the set S is read,

    rest of part r:   k_r = mean of k_j,  v_r = mean of v_j,  its logit raised by log(count)      over the j in r, not in S

and where tokens stand for several patches, means and counts are weighted by size. Without rests the output is biased: what the
keys outside S would have added is missing from every query alike.

Departures from the paper (arXiv 2303.13755). Rests. One set S for all patch queries of a head, since only that is fast. And
where nothing is trained, keys are scored by

    score_j = |v_j - mean of v over the part of j| * mean over m queries of softmax(q k)_j

that is by how much the output would change if the rest stood for j, with the m queries evenly spread over the image.
`benchmarks/sparsity.py` compares it with the attention of all queries, with a trained scorer and with chance.
"""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from vittle.reductions.attention import weighted_attention
from vittle.reductions.sparsity_explained import explained
from vittle.reductions.sparsity_predictor import SparsityPredictor
from vittle.reductions.tokens import Heads, Operator, Site
from vittle.spaces.sparsity import SAMPLED, Sparsity

ALIGNED = 16  # kernels are up to half as fast again where the number of keys is a multiple of it
TINY = 1e-6  # patches in a part of which everything is read: its rest has no weight, whatever its mean


class Choice(NamedTuple):
    """What the patch queries of a block read.

    Attributes:
        positions: (b, h, k) of the patch keys that are read, or (b, h, p, k) where each query has its own.
        passed_over: (b, h, p) or (b, h, p, p), 1 for patch keys that are not read and 0 for those that are.
    """

    positions: Tensor
    passed_over: Tensor


class Sparsify(Operator):
    """A block's attention, in which patch queries read some keys and the rests of the others."""

    measures: ClassVar[tuple[str, ...]] = ("recall", "mass")

    parts: Tensor
    sample: Tensor

    def __init__(self, settings: Sparsity, site: Site, predictor: SparsityPredictor | None = None) -> None:
        super().__init__()
        shape, row = site.shape, site.row
        patches = row.keys - shape.prefix
        self.prefix = shape.prefix
        self.form = settings.form
        self.read = settings.read(row.visit.block, patches)
        self.side = settings.side(shape, row)
        self.grid = shape.grid if row.keys == shape.tokens else (1, patches)
        self.blocks = shape.depth
        self.register_buffer("parts", parts_of(self.grid, self.side), persistent=False)
        self.register_buffer("sample", spread(patches, SAMPLED), persistent=False)
        # A copy, which follows the model to its device and data type; no gradient passes a choice.
        self.predictor: Any = None
        if predictor is not None:
            self.predictor = copy.deepcopy(predictor.blocks[row.visit.block]).requires_grad_(False)

    def attend(self, heads: Heads) -> Tensor:
        prefix, patches = self._split(heads)
        choice = self.choose(patches)
        mixed = (
            self._attend_each(heads, patches, choice) if self.form == "queries" else self._attend_all(heads, patches, choice)
        )
        if prefix is None:
            return mixed
        # Token by token, as fused kernels leave it, so that joining the heads copies nothing.
        return torch.cat([prefix.transpose(1, 2), mixed.transpose(1, 2)], 1).transpose(1, 2)

    def explain(self, *given: Any) -> Mapping[str, Tensor]:
        """What `vittle.reductions.sparsity_explained` says of what is read."""
        (heads,) = given
        choice = self.choose(self._split(heads)[1])
        return explained(heads, self.prefix, choice.positions, choice.passed_over, self.grid, self.blocks)

    @torch.no_grad()
    def choose(self, patches: Heads) -> Choice:
        """Which keys the queries of the patches read."""
        scores = self.scores(patches)
        positions = scores.argsort(dim=-1, descending=True, stable=True)[..., : self.read]
        return Choice(positions, torch.ones_like(scores, dtype=torch.float32).scatter(-1, positions, 0.0))

    def scores(self, patches: Heads) -> Tensor:
        """How much each key matters: (b, h, p), or (b, h, p, p) to each query. Only their order counts."""
        if self.predictor is None:
            return attended(patches, self.sample) * apart(patches.values, self.parts, patches.log_sizes)
        if self.form == "queries":
            found: Tensor = self.predictor.logits(patches.queries * patches.scale, patches.keys)
            return found if patches.log_sizes is None else found + patches.log_sizes
        found = self.predictor.scores(patches.keys)
        return found if patches.log_sizes is None else found + patches.log_sizes[:, :, 0]

    def _split(self, heads: Heads) -> tuple[Tensor | None, Heads]:
        """What the prefix queries mix of all values, None where there are none, and the heads of the patches alone."""
        queries, keys, values, log_sizes, scale, form = heads
        p = self.prefix
        # Several products need keys and values head by head; they are copied once for all of them, and only where they have to.
        by_head = [one[:, :, p:].flatten(0, 1).view(*one.shape[:2], -1, one.shape[3]) for one in (keys, values)]
        of_patches = None if log_sizes is None else log_sizes[..., p:]
        patches = Heads(queries[:, :, p:], by_head[0], by_head[1], of_patches, scale, form)
        if not p:
            return None, patches
        return weighted_attention(queries[:, :, :p], keys, values, log_sizes, scale=scale, dropout=0.0, form=form), patches

    def _attend_all(self, heads: Heads, patches: Heads, choice: Choice) -> Tensor:
        """What the patch queries mix (b, h, p, c) where they all read the same."""
        p, positions = self.prefix, choice.positions
        keys, values = [heads.keys[:, :, :p]], [heads.values[:, :, :p]]
        chosen = positions[..., None].expand(-1, -1, -1, patches.keys.shape[-1])
        keys.append(patches.keys.gather(2, chosen))
        values.append(patches.values.gather(2, chosen))
        b, h, k = positions.shape
        if heads.log_sizes is None:
            logs = [patches.keys.new_zeros(b, h, p + k)]
        else:
            of_patches = patches.log_sizes[:, :, 0].expand(b, h, -1)  # type: ignore[index]
            logs = [heads.log_sizes[:, :, 0, :p].expand(b, h, -1), of_patches.gather(2, positions)]
        if self.side:
            weights = choice.passed_over
            if patches.log_sizes is not None:
                weights = weights * patches.log_sizes[:, :, 0].exp()
            pooled = self.parts.to(weights.dtype) * weights[:, :, None]  # (b, h, r, p)
            counts = pooled.sum(-1)
            mean = pooled / counts.clamp(min=TINY)[..., None]
            mean = mean.to(patches.keys.dtype)
            keys.append(mean @ patches.keys)
            values.append(mean @ patches.values)
            logs.append(counts.log().to(logs[0].dtype))
        filling = -sum(part.shape[2] for part in keys) % ALIGNED
        nothing = patches.keys.new_zeros(b, h, filling, patches.keys.shape[-1])
        keys.append(nothing)
        values.append(nothing)
        logs.append(nothing[..., 0] - torch.inf)
        return weighted_attention(
            patches.queries,
            torch.cat(keys, 2),
            torch.cat(values, 2),
            torch.cat(logs, 2)[:, :, None],
            scale=heads.scale,
            dropout=0.0,
            form=heads.form,
        )

    def _attend_each(self, heads: Heads, patches: Heads, choice: Choice) -> Tensor:
        """What the patch queries mix (b, h, p, c) where each reads keys of its own: dense attention with a mask."""
        p, passed_over = self.prefix, choice.passed_over
        found = patches.queries * heads.scale @ heads.keys.mT  # (b, h, p, n)
        logits = found if heads.log_sizes is None else found + heads.log_sizes
        logits = torch.cat([logits[..., :p], logits[..., p:].masked_fill(passed_over.bool(), -torch.inf)], -1)
        if not self.side:
            return logits.softmax(-1, dtype=_wide(logits)).to(logits.dtype) @ heads.values
        weights = passed_over if patches.log_sizes is None else passed_over * patches.log_sizes.exp()
        counts = weights.sum(-1, keepdim=True)  # (b, h, p, 1)
        mean = weights / counts.clamp(min=TINY)
        # A query's product with a mean of keys is the mean of its products; a share of a mean value is one of each value.
        rest = (mean * found[..., p:]).sum(-1, keepdim=True) + counts.log()
        shares = torch.cat([logits, rest], -1).softmax(-1, dtype=_wide(logits))
        read, of_rest = shares[..., :-1], shares[..., -1:]
        return torch.cat([read[..., :p], read[..., p:] + of_rest * mean], -1).to(found.dtype) @ heads.values


def attended(patches: Heads, sample: Tensor) -> Tensor:
    """The attention that some of the patch queries, at `sample` (m,), pay to the patch keys on average: (b, h, p)."""
    logits = patches.queries[:, :, sample] * patches.scale @ patches.keys.mT  # scaled first: half precision ends at 65504
    if patches.log_sizes is not None:
        logits = logits + patches.log_sizes
    return logits.softmax(-1, dtype=_wide(logits)).mean(2)


def apart(values: Tensor, parts: Tensor, log_sizes: Tensor | None = None) -> Tensor:
    """How far values (b, h, p, c) are from the mean of their part, by size: (b, h, p), in single precision at least."""
    wide = _wide(values)
    where = (parts if len(parts) else parts.new_ones(1, parts.shape[1])).to(wide)  # without rests: of all
    weights = where if log_sizes is None else where * log_sizes[:, :, 0, None].to(wide).exp()  # (r, p), or (b, 1, r, p)
    # A part is empty where a grid has fewer rows than parts.
    mean = (weights / weights.sum(-1, keepdim=True).clamp(min=TINY)).to(values.dtype) @ values  # (b, h, r, c)
    # |v - m|^2 = |v|^2 - 2 v.m + |m|^2, in which nothing as large as the values is made.
    of_values, of_mean = (torch.linalg.vector_norm(one, dim=-1, dtype=wide).square() for one in (values, mean))
    differing = of_mean[..., None] - 2 * (mean @ values.mT).to(wide)  # (b, h, r, p)
    squared: Tensor = of_values + (differing * where).sum(-2)
    return squared.clamp(min=0).sqrt()


def _wide(values: Tensor) -> torch.dtype:
    """At least single precision."""
    return torch.promote_types(values.dtype, torch.float32)


def parts_of(grid: tuple[int, int], side: int) -> Tensor:
    """Which part of the grid each patch is in: (side * side, p), 1 or 0."""
    rows, columns = (torch.arange(length) * side // length for length in grid)
    number = (rows[:, None] * side + columns).flatten()
    return (number == torch.arange(side * side)[:, None]).float()


def spread(patches: int, count: int) -> Tensor:
    """The positions (count,) of patches that are evenly spread, or of all where there are no more."""
    count = min(count, patches)
    return ((torch.arange(count) + 0.5) * patches / count).long()
