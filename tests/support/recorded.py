"""A study without a model: a backbone's shape, and evaluations computed from a schedule instead of measured."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from vittle.objectives.evaluation import Evaluation
from vittle.objectives.latency.profile import (
    LAST,
    MLP,
    PLAIN,
    WEIGHTED,
    ActingCost,
    Check,
    Correction,
    LatencyProfile,
    Staircase,
)
from vittle.objectives.measurement import Measurement, exact, proportion
from vittle.search.coordinator import Coordinator
from vittle.search.schedules import Knowledge, ScheduleProblem
from vittle.spaces import BackboneShape, Schedule, Space, macs, shares, tokens, work
from vittle.spaces.curve import Curve
from vittle.spaces.table import REDUCTIONS
from vittle.storage.records import BackboneRecord, Study
from vittle.storage.settings import Settings
from vittle.storage.store import Store

SHAPE = BackboneShape(
    depth=12, width=96, heads=3, grid=(8, 8), prefix=1, attention_width=96, key_macs=18432, query_macs=18432,
    mlp_macs=36864, embed_macs=294912, head_macs=960, reads_prefix_only=True,
)  # fmt: skip
BACKBONE = BackboneRecord("digits", "0123456789ab", 10, SHAPE)
DENSE = macs(SHAPE, Schedule())


def neutral(space: Space) -> dict[str, float | str]:
    """Values under which nothing is reduced."""
    parts = (REDUCTIONS[name].settings.neutral(space.context) for name in REDUCTIONS)
    names = {one.name for one in space.parameters}
    return {name: value for part in parts for name, value in part.items() if name in names}


def line(space: Space, name: str, end: float, start: int = 0) -> dict[str, float | str]:
    """Values of shares that fall on a line."""
    return shares.written(name, Curve(start, end).shares(space.context.blocks))


def outcome(schedule: Schedule, settings: Settings) -> Evaluation:
    """Latency follows MACs with an overhead; accuracy falls with the tokens merged, early ones counting double."""
    share = macs(SHAPE, schedule) / DENSE
    ratio = min(1.0, 0.05 + 0.95 * share)
    lost = sum(
        (65 - left) * (2 if block < 4 else 1) for block, left in enumerate(tokens(SHAPE, schedule)[:-1])
    )  # the tail block loses nothing
    measured = {
        "macs": exact("macs", macs(SHAPE, schedule)),
        "latency_ms": Measurement("latency_ms", 100 * ratio, 99 * ratio, 101 * ratio, 5, {"backbone_ms": 100.0}),
        "latency_ratio": Measurement("latency_ratio", ratio, 0.99 * ratio, 1.01 * ratio, 5),
    }
    if schedule.reductions and settings.budget.excess(measured) > 0:
        return Evaluation(measured, "over budget")
    measured["accuracy"] = proportion("accuracy", round(450 * (0.99 - (lost / 1200) ** 3)), 450, {})
    measured["divergence"] = exact("divergence", 2 * (lost / 1200) ** 3)
    return Evaluation(measured)


class Recorded(ScheduleProblem):
    """The problem of a study whose evaluations are computed."""

    def evaluator(self) -> Any:
        raise AssertionError("there is no model")


def coordinate(study: Study, store: Store, known: Knowledge | None = None, **told: Any) -> Coordinator:
    """The coordinator of a study, as a search makes it once the backbone has been examined."""
    known = replace(known or Knowledge(), merge_start=store.merge_start(study.backbone.fingerprint))
    return Coordinator(study, Recorded(study.inference, study.backbone, known), store, **told)


def make_study(store: Store, name: str = "study", **settings: object) -> Study:
    """A study that proposes the same whatever the time, and runs all its trials."""
    return store.create_study(name, Settings(**{"sampler": "tpe", "until_flat": False, **settings}), BACKBONE)


def run(coordinator: Coordinator, limit: int | None = None) -> list[int]:
    """Evaluate one trial after another; the numbers, in order."""
    numbers = []
    while (limit is None or len(numbers) < limit) and (assignment := coordinator.next()) is not None:
        coordinator.finish(assignment.number, outcome(assignment.candidate, coordinator.study.settings))
        numbers.append(assignment.number)
    return numbers


ENVIRONMENT = {"device": "a processor", "threads": 2, "torch": "2.15.0", "python": "3.11.7"}


PROFILE = "0123456789ab"


def store_with_profile(url: str) -> Store:
    """A database with the latency profile PROFILE: a study that has it as its target measures no latency, and is soon done."""
    store = Store.open(url, create=True)
    store.save_profile(latency_profile())
    return store


def latency_profile(*, error: float = 0.01, flat: tuple[int, int] | None = None, key: str = PROFILE) -> LatencyProfile:
    """A profile that predicts exactly what `outcome` measures, and says that it is `error` off; `flat` is one free stretch."""

    def part(cost: Callable[[int], int]) -> Staircase:
        counts = range(1, SHAPE.tokens + 1)
        costs = [cost(flat[0] if flat and flat[0] <= count <= flat[1] else count) / DENSE for count in counts]
        return Staircase(tuple(counts), *(tuple(costs),) * 3)

    attention = part(lambda count: SHAPE.block_macs(queries=count, keys=count, mlp=0))
    rng = np.random.default_rng(0)
    space = Space(SHAPE, tuple(REDUCTIONS))
    drawn = [space.schedule(space.draw(rng)) for _ in range(300)]
    acting = {act.variant for one in drawn for row in work(SHAPE, one) for act in row.acts}
    measured = np.linspace(0.4, 1.0, 12)
    return LatencyProfile(
        key=key,
        model="digits",
        shape=SHAPE,
        environment=ENVIRONMENT,
        protocol={"batch_size": 64, "dtype": "float32", "compiled": False},
        backbone_ms=100.0,
        forms_ms={"fused": 100.0, "eager": 110.0},
        embed=(SHAPE.embed_macs + SHAPE.head_macs) / DENSE,
        parts={
            PLAIN: attention,
            WEIGHTED: attention,
            LAST: part(lambda count: SHAPE.block_macs(queries=SHAPE.prefix, keys=count, mlp=0)),
            MLP: part(lambda count: SHAPE.block_macs(queries=0, keys=0, mlp=count)),
        },
        acting=dict.fromkeys(acting, ActingCost(0.0, 0.0, 0.0)),
        correction=Correction(0.95, 1.0, 0.05),
        checks=tuple(Check("x", one, one, one, one, one * (1 + error)) for one in measured),
    )
