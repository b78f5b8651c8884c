"""The one table of reductions. A new one is a file in `spaces/`, a file in `reductions/` and a line here.

The order is the order in which they act inside a block. Operator and adapter are named as text because `spaces` starts without
torch.
"""

from collections.abc import Mapping
from os import PathLike
from typing import NamedTuple

from vittle.spaces.merging import Merging
from vittle.spaces.pruning import Pruning
from vittle.spaces.reduction import Reduction


class Entry(NamedTuple):
    """The settings of a reduction, and where the rest of it is, as `module:class`.

    Attributes:
        settings: what a schedule says of it.
        operator: what carries that out.
        adapter: what reads its trained weights from a file; None where it has none.
    """

    settings: type[Reduction]
    operator: str
    adapter: str | None = None


ENTRIES = (
    Entry(Pruning, "vittle.reductions.pruning:Prune"),
    Entry(Merging, "vittle.reductions.merging:Merge", "vittle.reductions.merge_embedding:MergeEmbedding"),
)

REDUCTIONS = {entry.settings.name: entry for entry in ENTRIES}
if len(REDUCTIONS) != len(ENTRIES):
    raise RuntimeError("two reductions have the same name in vittle.spaces.table")


def adapter_files(given: str | PathLike[str] | Mapping[str, str | PathLike[str]]) -> dict[str, str]:
    """Files of trained weights by reduction; a file alone is a merge embedding's, which was once the only adapter."""
    files = given if isinstance(given, Mapping) else {Merging.name: given}
    return {name: str(path) for name, path in files.items()}
