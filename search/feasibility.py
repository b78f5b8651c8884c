"""What a backbone's latency profile says before a search: what can be had, and whether a budget can be met at all."""

import copy
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.evaluator import make_stand
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.latency.profiler import Profiler, key
from vittle.objectives.latency.provenance import hardware
from vittle.objectives.latency.stand import Stand, median, tails_of
from vittle.objectives.latency.turns import take_turns
from vittle.objectives.measurement import Measurement
from vittle.objectives.quality.decoding import Progress
from vittle.reductions.backbone import Backbone
from vittle.reductions.vit import ReducedViT
from vittle.spaces.errors import VittleError
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space
from vittle.spaces.table import REDUCTIONS
from vittle.storage.settings import Settings
from vittle.storage.store import Store

PROBE_ROUNDS = 3
MIDDLE = 0.5  # of the way from the cheapest schedule to the dense one
LAUNCH_SECONDS = 30.0  # that a launch takes for a profile nobody has measured yet


class InfeasibleBudgetError(VittleError):
    """A budget that no schedule meets; not wrong, but out of reach."""

    exit_code = 1


class ExampleSchedule(NamedTuple):
    """A schedule to judge a budget by, with its predicted latency."""

    name: str
    schedule: Schedule
    latency: dict[str, Measurement]


def find_profile(
    backbone: Backbone,
    settings: Settings,
    store: Store,
    *,
    again: bool = False,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> LatencyProfile:
    """The profile that settings ask for: another device's, or this one's, which is measured where nobody has.

    Raises:
        VittleError: there is no profile of the target, or the model cannot be compiled here.
    """
    if settings.target is not None:
        profile = store.profile(settings.target)
        if profile is None:
            raise VittleError(f"no latency profile {settings.target!r} in this database; measure it there with: vittle profile")
        return profile
    with stand_of(backbone, settings) as stand:
        known = None if again else store.profile(key(backbone, stand))
        if known is not None:
            return known
        profile = Profiler(backbone, stand, seconds=seconds, progress=progress).measure()
    store.save_profile(profile)
    return profile


def find_target(backbone: Backbone, wanted: str, settings: Settings, store: Store) -> LatencyProfile:
    """The newest profile of this backbone on another device, by a part of the device's name or by the profile's key.

    Raises:
        VittleError: there is none, or its predictions are too far off to search by.
    """
    of_model = [profile for profile in store.profiles() if profile.shape == backbone.shape]
    named = [
        profile for profile in of_model if profile.key == wanted or wanted.lower() in hardware(profile.environment).lower()
    ]
    asked = {name: value for name, value in settings.stand.items() if name != "device"}
    fitting = [profile for profile in named if all(profile.protocol[name] == value for name, value in asked.items())]
    if not fitting:
        there = "; ".join(_described(profile) for profile in of_model) or "none; measure one there with: vittle profile"
        raise VittleError(
            f"no latency profile of this model on {wanted!r} at batch {settings.batch_size} in {settings.dtype}; "
            f"there are: {there}"
        )
    if not fitting[0].trusted:
        raise VittleError(
            f"predictions for {hardware(fitting[0].environment)} are {fitting[0].mape:.0%} off on average, too far to search "
            f"by; measure the profile again there when it is idle: vittle profile --again"
        )
    return fitting[0]


def example_schedules(profile: LatencyProfile, space: Space) -> list[ExampleSchedule]:
    """The cheapest schedule, one half-way to the dense one, and the dense one, by prediction."""
    dense = Schedule((), space.context.tail)
    reducing = [*space.cheapest(), *_started(space, [0.1, 0.2, 0.3])]
    cheapest = min(filter(profile.knows, reducing), key=profile.ratio, default=dense)
    wanted = profile.ratio(cheapest) + MIDDLE * (profile.ratio(dense) - profile.ratio(cheapest))
    middles = [*_started(space, [wanted], profile.ratio), cheapest]
    middle = min(filter(profile.knows, middles), key=lambda schedule: abs(profile.ratio(schedule) - wanted))
    named = {"cheapest": cheapest, "middle": middle, "dense": dense}
    return [ExampleSchedule(name, schedule, profile.predict(schedule)) for name, schedule in named.items()]


def _started(space: Space, shares: Sequence[float], cost: Callable[[Schedule], float] | None = None) -> list[Schedule]:
    return [space.schedule(start.values) for start in space.starting_points(shares, cost)]


def check_budget(backbone: Backbone, settings: Settings, store: Store) -> None:
    """Refuse a budget that nothing meets, in seconds: by a profile that is there, else by timing the cheapest schedules.

    Raises:
        InfeasibleBudgetError: with the nearest budget that something meets.
        VittleError: there is no profile of the target.
    """
    essential = {name: one for name, one in backbone.adapters.items() if REDUCTIONS[name].settings.needs_adapter}
    records = {name: one.record for name, one in essential.items()}
    space = Space(backbone.shape, settings.reductions, adapters=records)
    budget = settings.budget
    if settings.target is not None:
        profile = find_profile(backbone, settings, store)
        _refuse(
            budget,
            example_schedules(profile, space)[0].latency,
            f"the cheapest, as predicted for {hardware(profile.environment)}",
        )
        return
    with stand_of(backbone, settings) as stand:
        known = store.profile(key(backbone, stand))
        if known is not None and known.trusted and budget.holds(example_schedules(known, space)[0].latency):
            return
        _refuse(budget, _probe(stand, space, essential), "the cheapest, measured just now")


def _probe(stand: Stand, space: Space, adapters: Mapping[str, Any]) -> dict[str, Measurement]:
    """The latency of the fastest of the cheapest schedules."""
    models = [ReducedViT(stand.model, schedule, adapters) for schedule in space.cheapest()]
    images = stand.images
    calls = [lambda model=model: model(images) for model in models]
    turns = take_turns(lambda: stand.model(images), calls, stand.device, rounds=PROBE_ROUNDS)
    fastest = int(np.argmin(np.median(turns.ratios, 0)))
    times, ratios = turns.times[:, fastest], turns.ratios[:, fastest]
    return {"latency_ms": median("latency_ms", times, tails_of(times)), "latency_ratio": median("latency_ratio", ratios, {})}


def out_of_reach(budget: LatencyBudget, least: dict[str, Measurement]) -> str | None:
    """The nearest budget that can be met, where the least latency there is exceeds this one for sure; None where it may not.

    A budget that the backbone itself meets is none to offer.
    """
    if budget.limited(least).low <= budget.limit:
        return None
    if least["latency_ratio"].high >= 1:
        return "none is faster than the backbone itself; try a larger --batch-size, where there is more to gain"
    near = budget.covering(least)
    return f"the nearest feasible budget is {near}: launch with --latency-budget {shlex.quote(str(near))}"


def _refuse(budget: LatencyBudget, least: dict[str, Measurement], what: str) -> None:
    nearest = out_of_reach(budget, least)
    if nearest is None:
        return
    reached = f"{least['latency_ratio'].value:.0%} of the backbone, {least['latency_ms'].value:.3g} ms"
    raise InfeasibleBudgetError(f"no schedule fits {budget}: {what}, takes {reached}; {nearest}")


@contextmanager
def stand_of(backbone: Backbone, settings: Settings) -> Iterator[Stand]:
    """A stand with a copy of the backbone, and the threads that a worker of a study has."""
    with copied(backbone, settings) as own:
        yield make_stand(own, **settings.stand)


@contextmanager
def copied(backbone: Backbone, settings: Settings) -> Iterator[Backbone]:
    """A copy of the backbone for this process to run, with the threads that a worker of a study has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.cpus_per_worker)
    try:
        yield replace(backbone, model=copy.deepcopy(backbone.model))
    finally:
        torch.set_num_threads(threads)
        if settings.device == "cuda":
            torch.cuda.empty_cache()  # the workers of a search are other processes, and want this memory


def _described(profile: LatencyProfile) -> str:
    protocol = profile.protocol
    compiled = ", compiled" if protocol["compiled"] else ""
    return f"{hardware(profile.environment)} at batch {protocol['batch_size']} in {protocol['dtype']}{compiled} ({profile.key})"
