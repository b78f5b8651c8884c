"""The share of patch tokens kept after each block, as a search varies it.

One number from 0 to 1 per block, read as a set: sorted, highest first. Sorting is continuous, so points that are near each
other stand for schedules that are near each other; numbers drawn uniformly give a line that falls over depth; and every
schedule has one point whose numbers fall, its own shares. `combination` makes counts of the shares, and shares of counts.
"""

from collections.abc import Sequence

from vittle.spaces.reduction import Context, Parameter, Value, Values


def parameters(name: str, context: Context) -> tuple[Parameter, ...]:
    """The shares that the reduction `name` keeps, one for each block in which reducing saves anything."""
    return tuple(Parameter(one, 0.0, 1.0) for one in _names(name, context.blocks))


def read(name: str, context: Context, values: Values) -> list[float]:
    """The share of patch tokens wanted after each block, highest first."""
    return sorted((float(values[one]) for one in _names(name, context.blocks)), reverse=True)


def written(name: str, shares: Sequence[float]) -> dict[str, Value]:
    """The values that stand for the share wanted after each block."""
    return dict(zip(_names(name, len(shares)), shares, strict=True))


def neutral(name: str, context: Context) -> dict[str, Value]:
    """Values that keep everything."""
    return written(name, [1.0] * context.blocks)


def _names(name: str, blocks: int) -> list[str]:
    return [f"{name}.kept.{block}" for block in range(blocks)]
