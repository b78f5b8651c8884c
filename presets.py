"""Named schedules that people try by hand, for a timm model.

`constant`, `linear`, `delayed`, `curve`, `kept` and `published` merge tokens. A block can merge at most half of its patch
tokens. Where a preset asks for more, the block merges that half, as is usual; `vittle.tokens(model, schedule)` says what is
left. They take the other settings of `vittle.spaces.Merging` by name: `metric="feature"`, `matching="energy"`,
`proportional="off"`. `sparse` reads fewer keys. Presets keep `tail="full"` unless told otherwise, so that their costs are the
published ones.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn

from vittle.objectives.backbones.merge_start import detect
from vittle.reductions.attention_statistics import observe
from vittle.reductions.backbone import shape_of
from vittle.spaces import costs
from vittle.spaces.curve import Curve
from vittle.spaces.errors import ScheduleError
from vittle.spaces.merging import Matching, Merging, Metric, Switch, Weights
from vittle.spaces.pruning import Pruning
from vittle.spaces.reduction import Context, Reduction, Tail
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.sparsity import Rests, Sparsity

Model = nn.Module | BackboneShape
DETECTED_AT_ONCE = 32  # images


class MergingOptions(TypedDict, total=False):
    """How tokens merge; see `vittle.spaces.Merging`."""

    metric: Metric
    matching: Matching
    weights: Weights
    proportional: Switch
    window: int | None
    global_from: int
    embedding: str | None
    embedding_width: int


def constant(model: Model, removed: int, *, tail: Tail = "full", **choices: Unpack[MergingOptions]) -> Schedule:
    """Merge `removed` tokens away in every block (ToMe's r, arXiv 2210.09461)."""
    return delayed(model, 0, removed, tail=tail, **choices)


def linear(
    model: Model, removed: int, inflection: float, *, tail: Tail = "full", **choices: Unpack[MergingOptions]
) -> Schedule:
    """Merge `removed` tokens away in the average block, on a straight line over depth.

    `inflection` -1 falls from 2 x removed to none, 0 is constant, 1 rises from none to 2 x removed. Rounding is exact: where no
    block reaches its half, depth x removed tokens go in all (the published integer truncation loses some of them).
    """
    if not -1 <= inflection <= 1:
        raise ScheduleError(f"inflection is {inflection}; accepted: -1 (early) to 1 (late)")
    shape = shape_of(model)
    _check_removed(removed)
    last = max(1, shape.depth - 1)
    slopes = [removed * (1 + inflection * (2 * block / last - 1)) for block in range(shape.depth)]
    totals = [round(sum(slopes[: block + 1])) for block in range(shape.depth)]
    return _removing(shape, [after - before for before, after in itertools.pairwise([0, *totals])], tail, choices)


def delayed(
    model: Model,
    start: int | Literal["auto"],
    removed: int,
    *,
    images: Tensor | None = None,
    tail: Tail = "full",
    **choices: Unpack[MergingOptions],
) -> Schedule:
    """Merge `removed` tokens away in every block from block `start` on (delayed merging, arXiv 2303.02331).

    With `window` and `global_from`, the blocks before `global_from` merge inside windows first.

    Args:
        model: a timm VisionTransformer, or its shape.
        start: the first block that merges; `auto` finds the block from which tokens grow alike, on `images`.
        removed: tokens a block.
        images: (n, 3, height, width) as the model takes them, for `auto` alone; a few hundred.
        tail: what the last block computes.
        **choices: how tokens merge.
    """
    shape = shape_of(model)
    _check_removed(removed)
    if start == "auto":
        start = _detected(model, images)
    if not 0 <= start < shape.depth:
        raise ScheduleError(f"start is {start}; accepted: 0 to {shape.depth - 1}, the model's blocks, or auto")
    return _removing(shape, [0] * start + [removed] * (shape.depth - start), tail, choices)


def curve(
    model: Model,
    start: int,
    end: float,
    exponent: float = 1.0,
    *,
    residuals: Sequence[float] = (),
    tail: Tail = "full",
    **choices: Unpack[MergingOptions],
) -> Schedule:
    """Keep a share of patch tokens that falls from 1 at block `start` to `end`; see `vittle.spaces.curve`."""
    shape = shape_of(model)
    if not 0 <= start < shape.depth or not 0 <= end <= 1 or exponent <= 0:
        raise ScheduleError(
            f"start {start}, end {end}, exponent {exponent}; accepted: a start from 0 to {shape.depth - 1}, "
            f"an end from 0 to 1, an exponent above 0"
        )
    if len(residuals) not in (0, shape.depth):
        raise ScheduleError(f"{len(residuals)} residuals are given, the model has {shape.depth} blocks")
    wanted = Curve(start, end, exponent, tuple(residuals)).counts(Context(shape, tail))
    return _merging(shape, lambda block, _: wanted[block], tail, choices)


def kept(
    model: Model,
    merged: Sequence[int],
    pruned: Sequence[int] | None = None,
    *,
    tail: Tail = "full",
    **choices: Unpack[MergingOptions],
) -> Schedule:
    """Keep `merged[l]` tokens after block l, prefix tokens included, exactly.

    With `pruned`, block l first drops all but `pruned[l]` tokens. Unless told otherwise it then merges as DiffRate does (arXiv
    2305.17997): the least important tokens into the most similar of the others, compared by their features, averaged equally.
    Counts that rise again are no-ops, as in the published schedules.

    Raises:
        ScheduleError: not one count per block, counts that rise, or a block that would lose more than it can.
    """
    shape = shape_of(model)
    for counts in (merged, *([pruned] if pruned is not None else [])):
        if len(counts) != shape.depth:
            raise ScheduleError(f"{len(counts)} token counts are given, the model has {shape.depth} blocks")
    parts: list[Reduction] = []
    if pruned is not None:
        # A block keeps min(what enters, pruned, merged), so running minima say what is left.
        merged = list(itertools.accumulate(map(min, merged, pruned), min, initial=shape.tokens))[1:]
        entering = [shape.tokens, *merged[:-1]]
        parts.append(Pruning(kept=tuple(map(min, pruned, entering))))
        choices = {"metric": "feature", "matching": "importance", "weights": "equal", "proportional": "on", **choices}
    document = {"tail": tail, "merging": {"kept": list(merged), **choices}}
    schedule = Schedule((*parts, *Schedule.from_dict(document).reductions), tail)
    costs.work(shape, schedule)
    return schedule


def published(model: Model, path: str | Path, entry: str | None = None, *, tail: Tail = "full") -> Schedule:
    """Read a schedule of `prune_kept_num` and `merge_kept_num` lists, as DiffRate publishes them.

    Args:
        model: a timm VisionTransformer, or its shape.
        path: a JSON file with one such pair of lists, or with many of them under names.
        entry: which of many, its names joined by slashes, for example `ViT-S-DeiT/2.9`.
        tail: what the last block computes.

    Raises:
        ScheduleError: no such file or entry, or lists that do not fit the model.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ScheduleError(f"cannot read {path}: {error.strerror}; give a JSON file of kept counts") from None
    except ValueError:
        raise ScheduleError(f"{path} is not JSON; give a JSON file of kept counts") from None
    entries = dict(_rates(document, ""))
    if entry is None and len(entries) == 1:
        (entry,) = entries
    if entry not in entries:
        there = ", ".join(entries) or "none; a schedule is a pair of lists prune_kept_num and merge_kept_num"
        raise ScheduleError(
            f"{path} has no schedule {entry!r}; there are: {there}" if entry else f"{path}: choose one of: {there}"
        )
    rates = entries[entry]
    return kept(model, rates["merge_kept_num"], rates["prune_kept_num"], tail=tail)


def sparse(model: Model, share: float, *, start: int = 0, rests: Rests = "2x2", tail: Tail = "full") -> Schedule:
    """Read a `share` of the keys from block `start` on, chosen by a sample of the queries; see `vittle.spaces.Sparsity`.

    Raises:
        ScheduleError: a share that is none, or a block that there is not.
    """
    depth = shape_of(model).depth
    if not 0 < share <= 1:
        raise ScheduleError(f"share is {share}; accepted: above 0, up to 1")
    if not 0 <= start < depth:
        raise ScheduleError(f"start is {start}; accepted: 0 to {depth - 1}")
    return Schedule((Sparsity(shares=(1.0,) * start + (share,) * (depth - start), rests=rests),), tail)


def _rates(document: Any, path: str) -> Iterator[tuple[str, Mapping[str, list[int]]]]:
    if not isinstance(document, dict):
        return
    if {"prune_kept_num", "merge_kept_num"} <= document.keys():
        yield path, document
        return
    for name, inside in document.items():
        yield from _rates(inside, f"{path}/{name}" if path else name)


def _removing(shape: BackboneShape, removed: Sequence[int], tail: Tail, choices: MergingOptions) -> Schedule:
    # Where a block merges fewer than asked, the next ones do not catch up.
    return _merging(shape, lambda block, tokens: tokens - removed[block], tail, choices)


def _merging(shape: BackboneShape, wanted: Callable[[int, int], int], tail: Tail, choices: MergingOptions) -> Schedule:
    settings = _whole(shape, choices)
    schedule = Schedule((settings.following(shape, wanted) or settings,), tail)
    costs.work(shape, schedule)
    return schedule


def _whole(shape: BackboneShape, choices: MergingOptions) -> Merging:
    """Merging that keeps every token, to be given counts."""
    document = {"merging": {"kept": [shape.tokens] * shape.depth, **choices}}
    (merging,) = Schedule.from_dict(document).reductions
    assert isinstance(merging, Merging)
    return merging


def _detected(model: Model, images: Tensor | None) -> int:
    if images is None or isinstance(model, BackboneShape):
        raise ScheduleError("start auto needs the model and images to look at; give images=, or a block as start")
    return detect(observe(model, torch.split(images, DETECTED_AT_ONCE)), fingerprint="").start


def _check_removed(removed: int) -> None:
    if removed < 0:
        raise ScheduleError(f"removed is {removed}; accepted: 0 or more tokens per block")
