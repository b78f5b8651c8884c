"""Numbers and names as people read them, the same on the pages and in the terminal."""

from collections.abc import Sequence

from vittle.objectives.measurement import LatencyBudget
from vittle.objectives.phase import PhaseChange


def percent(share: float, digits: int = 1) -> str:
    """0.978 is 97.8%."""
    return f"{100 * share:.{digits}f}%"


def milliseconds(value: float) -> str:
    """Three significant digits: 3.91 ms, 128 ms."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:#.3g} ms"


def macs(value: float) -> str:
    """4.61 G or 34.2 M."""
    return f"{value / 1e9:.2f} G" if value >= 1e9 else f"{value / 1e6:.1f} M"


def tokens(counts: Sequence[int]) -> str:
    """Tokens after each block, the middle of a deep model left out: 65 65 … 9 1."""
    shown = [str(count) for count in counts]
    return " ".join(shown if len(shown) <= 5 else [*shown[:2], "…", *shown[-2:]])


def budget(limit: LatencyBudget) -> str:
    """60% of the backbone, or 4ms per batch."""
    return f"{limit} of the backbone" if limit.relative else f"{limit} per batch"


def plain(text: str) -> str:
    """A name without control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def merge_start(phase: PhaseChange) -> str:
    """Where merging may start, and how sure that is. Blocks are counted from 1."""
    dense = "no dense block" if phase.start == 0 else "1 dense block" if phase.start == 1 else f"{phase.start} dense blocks"
    where = f"in block {phase.start + 1} of {phase.depth}, after {dense}"
    if not phase.detected:
        return (
            "Similarity shows no lasting rise from a minimum in the first half of the blocks. "
            f"By rule of thumb, a sixth of the depth, merging may start {where}."
        )
    span = f"block {phase.low + 1}" + (f" to {phase.high + 1}" if phase.high > phase.low else "")
    return f"Merging may start {where} (95% interval: {span}; {phase.images} images)."
