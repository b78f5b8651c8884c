"""A curve over depth, searched in place of one number per block.

From block `start` on, the share of patch tokens kept falls from 1 to `end`:

    kept(l) = 1 - (1 - end) * ((l - start + 1) / (last - start + 1)) ** exponent + residual(l)

exponent 1 removes equally many in each block, below 1 more of them early, above 1 more of them late. The residuals correct
single blocks. The result never rises and stays between 0 and 1.
"""

from dataclasses import dataclass

from vittle.spaces.reduction import Context, Parameter, Value, Values
from vittle.spaces.shape import BackboneShape

RESIDUAL = 0.1  # the most that a residual moves a block's share


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
        """Tokens wanted after each block of the backbone, prefix tokens included; not yet feasible.

        Each is rounded, and then raised to what costs the device no more.
        """
        shape = context.shape
        shares = self.shares(context.blocks)
        shares += [shares[-1]] * (shape.depth - len(shares))
        return [context.snapped(shape.prefix + round(shape.patches * share)) for share in shares]


def parameters(name: str, context: Context) -> tuple[Parameter, ...]:
    """The numbers of the curve of the reduction `name`."""
    curve = (
        Parameter(f"{name}.start", 0, latest_start(context.shape), integer=True),
        Parameter(f"{name}.end", 0.02, 1.0),
        Parameter(f"{name}.exponent", 0.25, 4.0, log=True),
    )
    if not context.residuals:
        return curve
    return curve + tuple(Parameter(_residual(name, block), -RESIDUAL, RESIDUAL) for block in range(context.blocks))


def curve(name: str, context: Context, values: Values) -> Curve:
    """The curve that searched values stand for."""
    residuals = tuple(float(values[_residual(name, block)]) for block in range(context.blocks)) if context.residuals else ()
    start, end, exponent = (float(values[f"{name}.{part}"]) for part in ("start", "end", "exponent"))
    return Curve(int(start), end, exponent, residuals)


def neutral(name: str, context: Context) -> dict[str, Value]:
    """Values of a curve that keeps everything."""
    values: dict[str, Value] = {f"{name}.start": 0, f"{name}.end": 1.0, f"{name}.exponent": 1.0}
    return values | {_residual(name, block): 0.0 for block in range(context.blocks) if context.residuals}


def latest_start(shape: BackboneShape) -> int:
    """The last block in which it still makes sense to start."""
    return max(0, shape.depth - 2)


def _residual(name: str, block: int) -> str:
    return f"{name}.residual.{block}"
