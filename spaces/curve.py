"""A curve over depth, which says in three numbers what else takes one number per block.

From block `start` on, the share of patch tokens kept falls from 1 to `end`:

    kept(l) = 1 - (1 - end) * ((l - start + 1) / (last - start + 1)) ** exponent + residual(l)

exponent 1 removes equally many in each block, below 1 more of them early, above 1 more of them late. The residuals correct
single blocks. The result never rises and stays between 0 and 1.
"""

from dataclasses import dataclass

from vittle.spaces.reduction import Context
from vittle.spaces.shape import BackboneShape


@dataclass(frozen=True, slots=True)
class Curve:
    """See the module. `residuals` holds a correction per block, or nothing."""

    start: int = 0
    end: float = 1.0
    exponent: float = 1.0
    residuals: tuple[float, ...] = ()

    def shares(self, blocks: int) -> list[float]:
        """The share of patch tokens kept after each of `blocks` blocks."""
        shares: list[float] = []
        lowest = 1.0
        for block in range(blocks):
            progress = max(0, block - self.start + 1) / max(1, blocks - self.start)
            residual = self.residuals[block] if self.residuals and progress > 0 else 0.0
            lowest = max(0.0, min(lowest, 1 - (1 - self.end) * progress**self.exponent + residual))
            shares.append(lowest)
        return shares

    def counts(self, context: Context) -> list[int]:
        """Tokens wanted after each block of the backbone, prefix tokens included; not yet feasible."""
        shape = context.shape
        shares = self.shares(context.blocks)
        shares += [shares[-1]] * (shape.depth - len(shares))
        return [shape.prefix + round(shape.patches * share) for share in shares]


def latest_start(shape: BackboneShape) -> int:
    """The last block in which it still makes sense to start."""
    return max(0, shape.depth - 2)
