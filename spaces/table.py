"""The one table of reductions. A new one is a file in `spaces/`, a file in `reductions/` and a line here.

The order is the order in which they act inside a block. The operator is named as text because `spaces` starts without torch.
"""

from typing import NamedTuple

from vittle.spaces.merging import Merging
from vittle.spaces.pruning import Pruning
from vittle.spaces.reduction import Reduction


class Entry(NamedTuple):
    """The settings of a reduction, and the module and class that carry them out."""

    settings: type[Reduction]
    operator: str


ENTRIES = (
    Entry(Pruning, "vittle.reductions.pruning:Prune"),
    Entry(Merging, "vittle.reductions.merging:Merge"),
)

REDUCTIONS = {entry.settings.name: entry for entry in ENTRIES}
if len(REDUCTIONS) != len(ENTRIES):
    raise RuntimeError("two reductions have the same name in vittle.spaces.table")
