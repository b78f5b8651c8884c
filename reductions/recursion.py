"""Who takes part in a step of a recursion, and the blocks that run there. See `vittle.spaces.recursion`.

Of the patches that took part in the step before, the k with the highest scores go on (expert choice: Bae et al., arXiv
2507.10524), in their order. Departures from the papers: a patch's change is not multiplied by its score, so that the same
weights run with any rule; and every step has a router of its own.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vittle.reductions.recursive_blocks import Dress, RecursiveBlocks
from vittle.reductions.tokens import Operator, Site, Tokens
from vittle.spaces.recursion import Recursion

SEED = 0  # of the positions that router `random` takes


class Recur(Operator):
    """One visit of a recursion."""

    positions: Tensor

    def __init__(self, settings: Recursion, site: Site, weights: RecursiveBlocks) -> None:
        super().__init__()
        row = site.row
        patches = row.entering - site.shape.prefix
        self.prefix = site.shape.prefix
        self.rule = site.act.rule
        self.taking_part = row.keys
        # The first of a step's blocks has its router whatever the rule, so that it can be watched.
        self.signals = row.visit.block == 1 < site.shape.depth - 1
        self.router: Any = weights.routers[row.visit.step] if self.signals else None
        self.own = weights.own(row.visit)
        self.dressed: Dress | None = None
        # Of the same order in every step, so that those of a later one are among those of an earlier one.
        order = torch.randperm(patches, generator=torch.Generator().manual_seed(SEED))
        drawn = order[: self.taking_part - self.prefix].sort().values + self.prefix
        self.register_buffer("positions", torch.cat([torch.arange(self.prefix), drawn]), persistent=False)

    def dress(self, block: nn.Module) -> Any:
        if self.own is None:
            return block
        self.dressed = Dress(self.own, block)
        return self.dressed.on(block)

    def select(self, tokens: Tokens) -> Tensor | None:
        if self.rule == "all":
            return None
        if not self._chooses(tokens):
            return tokens.active
        if self.rule == "random":
            return self.positions.expand(tokens.features.shape[0], -1)
        return self._ranked(tokens, self.scores(tokens))

    def signalled(self, *given: Any) -> tuple[Tensor | None, Tensor]:
        """What the step's router makes of the patches that took part in the step before, whoever chooses: (b, p)."""
        (tokens,) = given
        routed: Tensor = self._routed(tokens)
        chosen = self._ranked(tokens, routed) if self.rule == "learned" and self._chooses(tokens) else self.select(tokens)
        return chosen, routed.gather(1, self._before(tokens))

    def _ranked(self, tokens: Tokens, scores: Tensor) -> Tensor:
        """The prefix tokens, and those patches that have the highest of the scores (b, p)."""
        before = self._before(tokens)
        chosen = self._chosen(scores.gather(1, before))
        prefix = torch.arange(self.prefix, device=chosen.device).expand(chosen.shape[0], self.prefix)
        return torch.cat([prefix, before.gather(1, chosen) + self.prefix], 1)

    @torch.no_grad()
    def scores(self, tokens: Tokens) -> Tensor:
        """How deep each patch should go: (b, p). Only their order counts."""
        found: Tensor
        if self.rule == "learned":
            found = self._routed(tokens)
        else:
            patches = tokens.features[:, self.prefix :]
            found = torch.linalg.vector_norm(patches, dim=-1, dtype=torch.promote_types(patches.dtype, torch.float32))
        return found

    @torch.no_grad()
    def _routed(self, tokens: Tokens) -> Tensor:
        scores: Tensor = self.router(tokens.features[:, self.prefix :])
        return scores

    def explain(self, *given: Any) -> Mapping[str, Tensor]:
        """`scores` (b, p) of the patches that it chooses from, and `chosen` (b, p), 1 for those that go on.

        Nothing where it does not choose, or by no score: where all take part, the same as in the step before, or by chance.
        """
        (tokens,) = given
        if self.rule in ("all", "random") or not self._chooses(tokens):
            return {}
        scores = self.scores(tokens).gather(1, self._before(tokens))
        chosen = torch.zeros_like(scores, dtype=torch.uint8).scatter(1, self._chosen(scores), 1)
        return {"scores": scores, "chosen": chosen}

    def _chooses(self, tokens: Tokens) -> bool:
        return tokens.active is None or tokens.active.shape[1] > self.taking_part

    def _before(self, tokens: Tokens) -> Tensor:
        """The patches (b, p) that took part in the visit before."""
        b, n, _ = tokens.features.shape
        if tokens.active is None:
            return torch.arange(n - self.prefix, device=tokens.features.device).expand(b, -1)
        return tokens.active[:, self.prefix :] - self.prefix

    def _chosen(self, scores: Tensor) -> Tensor:
        """Positions (b, k) of the highest of the scores (b, p), rising."""
        ranked = scores.argsort(dim=-1, descending=True, stable=True)
        return ranked[:, : self.taking_part - self.prefix].sort(dim=-1).values
