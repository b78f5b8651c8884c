"""A study without a model: a backbone's shape, and outcomes computed from a schedule instead of measured."""

from vittle.objectives.measurement import Measurement, exact, proportion
from vittle.search.coordinator import Coordinator, Outcome
from vittle.spaces import BackboneShape, Schedule, Space, macs, tokens
from vittle.spaces.reduction import Values
from vittle.spaces.table import REDUCTIONS
from vittle.storage.records import BackboneRecord, Settings, Study
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


def outcome(schedule: Schedule, settings: Settings) -> Outcome:
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
    if not schedule.reductions or settings.budget.excess(measured) <= 0:
        measured["accuracy"] = proportion("accuracy", round(450 * (0.99 - (lost / 1200) ** 3)), 450, {})
    return Outcome(measured)


def make_study(store: Store, name: str = "study", **settings: object) -> Study:
    return store.create_study(name, Settings(**settings), BACKBONE)


def run(coordinator: Coordinator, limit: int | None = None) -> list[int]:
    """Evaluate one trial after another; the numbers, in order."""
    numbers = []
    while (limit is None or len(numbers) < limit) and (assignment := coordinator.next()) is not None:
        coordinator.finish(assignment.number, outcome(assignment.schedule, coordinator.study.settings))
        numbers.append(assignment.number)
    return numbers
