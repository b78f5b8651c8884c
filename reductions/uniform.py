"""The same weights in a mode that treats every patch alike, for images on which a schedule's choices are not to be trusted.

Of a recursion it runs every patch through as many steps as the schedule runs one on average, or through all of them. Merging,
pruning and sparse attention are left out. What is watched in the schedule (`ReducedViT.signals`) is watched here as well, so
that whoever fell back can tell when to return: routers go on scoring, and what would merge is looked for and left alone.
"""

from dataclasses import replace
from typing import Any

from torch import nn

from vittle.reductions.adapters import load_adapters
from vittle.reductions.merging import Look
from vittle.reductions.operators import projections_of
from vittle.reductions.tokens import Site
from vittle.reductions.vit import ReducedViT
from vittle.spaces.merging import Merging
from vittle.spaces.recursion import Recursion
from vittle.spaces.schedule import Schedule


def mean_depth(recursion: Recursion) -> int:
    """How many steps a patch takes on average, rounded, one at least."""
    return max(1, round(sum(recursion.capacities)))


def uniform_schedule(schedule: Schedule, *, full_depth: bool = False) -> Schedule:
    """A schedule that treats every patch alike, with the tail of `schedule`.

    Args:
        schedule: what is run otherwise.
        full_depth: run every patch through all steps of a recursion, not through the mean of them.
    """
    recursions = [part for part in schedule.reductions if isinstance(part, Recursion)]

    def whole(part: Recursion) -> Recursion:
        steps = part.steps if full_depth else mean_depth(part)
        return Recursion(weights=part.weights, shared=part.shared, capacities=(1.0,) * steps)

    return Schedule(tuple(whole(part) for part in recursions), schedule.tail)


def under(model: ReducedViT, schedule: Schedule) -> ReducedViT:
    """The weights of a reduced model under another schedule; what it needs and `model` does not have is read from its files.

    Raises:
        ScheduleError: it does not fit the model, or needs trained weights that are neither in the model nor in its files.
    """
    like = next(model.parameters())
    for adapter in model.adapters.values():
        # Steps that the schedule does not run have stayed where the file was read.
        adapter.to(device=like.device, dtype=like.dtype)
    missing = {name: path for name, path in schedule.files.items() if name not in model.adapters}
    found = ReducedViT(model.backbone, schedule, {**load_adapters(missing), **model.adapters}, model.form, model.shape)
    return found.train(model.training)


class Unmerged(ReducedViT):
    """The backbone of a reduced model whose schedule merges: here nothing merges, and its signals are those of `merging`.

    Args:
        model: whose backbone it is, and in whose visits pairs are looked for.
    """

    def __init__(self, model: ReducedViT) -> None:
        super().__init__(model.backbone, Schedule((), model.schedule.tail), form=model.form, shape=model.shape)
        settings = next(part for part in model.schedule.reductions if isinstance(part, Merging))
        work, operators = [], []
        for row, reduced in zip(self.work, model.work, strict=True):
            looking = []
            for act in reduced.acts:
                if act.reduction != Merging.name:
                    continue
                n, removed = row.leaving, act.entering - act.leaving
                macs = settings.embedding_macs(self.shape, row.keys)
                idle = replace(act, entering=n, leaving=n, strength=0.0, macs=macs)
                row = row.acting(idle)
                site = Site(self.shape, row, replace(idle, leaving=n - removed))
                looking.append(Look(settings, site, model.adapters.get(Merging.name)))  # type: ignore[arg-type]
            work.append(row)
            operators.append(nn.ModuleList(looking))
        self.work = tuple(work)
        self.operators = nn.ModuleList(operators).to(next(model.parameters()))
        fused: Any = projections_of(self.backbone, self.work, self.operators)
        self.projections = fused
        self.train(model.training)


def uniform(model: ReducedViT, *, full_depth: bool = False) -> ReducedViT:
    """The mode of a reduced model that treats every patch alike. It shares all weights with `model`.

    Args:
        model: whose schedule recurs or merges.
        full_depth: as in `uniform_schedule`.
    """
    schedule = uniform_schedule(model.schedule, full_depth=full_depth)
    merges = any(signal.reduction == Merging.name for signal in model.signals)
    return Unmerged(model) if not schedule.reductions and merges else under(model, schedule)
