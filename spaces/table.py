"""The one table of reductions. A new one is a file in `spaces/`, a file in `reductions/` and a line here.

The order is the order in which they act inside a block. Operator and adapter are named as text because `spaces` starts without
torch.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from vittle.spaces.errors import VittleError
from vittle.spaces.merging import Merging
from vittle.spaces.pruning import Pruning
from vittle.spaces.recursion import Recursion
from vittle.spaces.reduction import Reduction
from vittle.spaces.sparsity import Sparsity


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
    Entry(Recursion, "vittle.reductions.recursion:Recur", "vittle.reductions.recursive_blocks:RecursiveBlocks"),
    Entry(Sparsity, "vittle.reductions.sparsity:Sparsify", "vittle.reductions.sparsity_predictor:SparsityPredictor"),
    Entry(Pruning, "vittle.reductions.pruning:Prune"),
    Entry(Merging, "vittle.reductions.merging:Merge", "vittle.reductions.merge_embedding:MergeEmbedding"),
)

REDUCTIONS = {entry.settings.name: entry for entry in ENTRIES}
if len(REDUCTIONS) != len(ENTRIES):
    raise RuntimeError("two reductions have the same name in vittle.spaces.table")


def check_reductions(names: Sequence[str]) -> None:
    """Refuse names that are not in the table, or none at all.

    Raises:
        VittleError: an unknown reduction, or no reduction.
    """
    unknown = [name for name in names if name not in REDUCTIONS]
    if unknown or not names:
        wrong = f"unknown reduction {unknown[0]!r}" if unknown else "no reduction to search"
        raise VittleError(f"{wrong}; accepted: {', '.join(REDUCTIONS)}")


def unaided() -> list[str]:
    """The names of the reductions that can be searched without trained weights."""
    return [name for name, entry in REDUCTIONS.items() if not entry.settings.needs_adapter]


def adapter_of(name: str) -> str:
    """What reads the trained weights of a reduction, as `module:class`.

    Raises:
        VittleError: a reduction that has none.
    """
    known = {one: entry.adapter for one, entry in REDUCTIONS.items() if entry.adapter is not None}
    if name not in known:
        raise VittleError(f"no reduction {name!r} has an adapter; accepted: {', '.join(known)}")
    return known[name]


def check_adapters(files: Mapping[str, str], reductions: Sequence[str]) -> None:
    """Refuse trained weights that a search of these reductions has no use for, and one that lacks those that it needs.

    Raises:
        VittleError: a reduction that has none or is not searched, or one without those that it cannot do without.
    """
    for name in reductions:
        if REDUCTIONS[name].settings.needs_adapter and name not in files:
            raise VittleError(
                f"{name} needs trained weights; give them as --adapter {name}=FILE, or make them with: vittle train {name}"
            )
    for name, path in files.items():
        adapter_of(name)
        if name not in reductions:
            raise VittleError(f"{path} is an adapter of {name}, and {name} is not searched; add it to --reductions")


def check_adapter_files(files: Mapping[str, str]) -> None:
    """Refuse files of trained weights, by reduction, that are not there.

    Raises:
        VittleError: no such file.
    """
    for name, path in files.items():
        if not Path(path).is_file():
            raise VittleError(f"no adapter of {name} at {path}; put it there, or make one with: vittle train")


def adapter_files(given: str | PathLike[str] | Mapping[str, str | PathLike[str]]) -> dict[str, str]:
    """Files of trained weights by reduction; a file alone is a merge embedding's, which was once the only adapter."""
    files = given if isinstance(given, Mapping) else {Merging.name: given}
    return {name: str(path) for name, path in files.items()}
