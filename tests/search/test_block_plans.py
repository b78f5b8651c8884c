"""Plans of sparse attention against every choice there is, on a backbone small enough to list them all."""

import itertools

import numpy as np
import pytest

from vittle.objectives.backbones.sensitivity import Point, Sensitivity
from vittle.search.block_plans import Plan, block_plans, pairs
from vittle.search.planning import plans
from vittle.spaces import BackboneShape, Merging, Schedule, Space, Sparsity
from vittle.spaces.sparsity import PROBED

SHAPE = BackboneShape(
    depth=4, width=8, heads=2, grid=(16, 16), prefix=1, attention_width=8, key_macs=128, query_macs=128, mlp_macs=512,
    embed_macs=300, head_macs=80, reads_prefix_only=True,
)  # fmt: skip
SPACE = Space(SHAPE, ("sparsity",))
LOSSES = {0.25: 0.1, 0.1: 0.3, 0.05: 0.8}


def sensitivity(scales: tuple[float, ...] = (1.0, 0.2, 3.0)) -> Sensitivity:
    """Each block loses its scale times what the share loses."""
    probes = Sparsity.probes(SPACE.context)
    blocks: list[list[Point]] = [[] for _ in scales]
    for probe, share in zip(probes, PROBED * len(scales), strict=True):
        loss = scales[probe.block] * LOSSES[share]
        blocks[probe.block].append(Point(probe.strength, loss, loss, loss))
    merging = tuple((Point(0.5, scale, scale, scale),) for scale in scales)
    return Sensitivity("0123456789ab", "digits", 64, {"sparsity": tuple(map(tuple, blocks)), "merging": merging})


def cost(schedule: Schedule) -> float:
    return SPACE.macs_share(schedule)


def listed() -> list[tuple[float, float]]:
    """The cost and loss of every choice."""
    known, found = sensitivity(), []
    of_block = [[(1.0, 0.0), *((share, known.points["sparsity"][block][at].loss) for at, share in enumerate(PROBED))]
                for block in range(3)]  # fmt: skip
    for chosen in list(itertools.product(*of_block))[1:]:  # without the one that changes nothing
        shares = tuple(share for share, _ in chosen)
        found.append((cost(Schedule((Sparsity(shares=(*shares, 1.0)),), "prefix")), sum(loss for _, loss in chosen)))
    return found


@pytest.mark.parametrize("most", [0.55, 0.6, 0.7, 0.8, 0.9])
def test_a_plan_loses_as_little_as_any_choice_within_the_cost(most: float) -> None:
    (plan,) = block_plans(SPACE, Sparsity, sensitivity(), [most], cost)
    within = [loss for share, loss in listed() if share <= most]
    if not within:
        assert plan is None
        return
    assert plan is not None
    assert cost(plan.schedule) <= most
    # Costs are counted in thousandths, so a choice at the very edge may be missed.
    clear = [loss for share, loss in listed() if share <= most - 0.003]
    assert min(within) - 1e-9 <= plan.loss <= min(clear, default=np.inf) + 1e-9


def test_nothing_is_planned_of_what_was_not_probed_or_saves_nothing() -> None:
    bare = Sensitivity("0123456789ab", "digits", 64, {"sparsity": ()})
    assert block_plans(SPACE, Sparsity, bare, [0.9], cost) == [None]
    assert block_plans(SPACE, Sparsity, sensitivity(), [0.9], lambda _: 1.0) == [None]


def test_pairs_lose_least_of_those_within_the_cost() -> None:
    one = [Plan(Schedule((Sparsity(shares=(share,) * 3 + (1.0,)),), "prefix"), loss) for share, loss in LOSSES.items()]
    kept = [(200, 200, 200, 200), (130, 80, 80, 80)]
    other = [Plan(Schedule((Merging(kept=counts),), "prefix"), loss) for counts, loss in zip(kept, (0.2, 0.5), strict=True)]
    for most in (0.4, 0.5, 0.6):
        (found,) = pairs(one, other, [most], cost)
        both = {
            Schedule((*a.schedule.reductions, *b.schedule.reductions), "prefix"): a.loss + b.loss for a in one for b in other
        }
        within = {schedule: loss for schedule, loss in both.items() if cost(schedule) <= most}
        assert (found is None) == (not within)
        if found is not None:
            assert found.loss == pytest.approx(min(within.values()))
            assert cost(found.schedule) <= most


def test_a_space_of_both_is_planned_alone_and_together() -> None:
    space = Space(SHAPE, ("sparsity", "merging"))
    found = plans(space, sensitivity(), [0.6, 0.45])
    assert {tuple(part.name for part in schedule.reductions) for schedule in found} >= {
        ("sparsity", "merging"),
        ("merging",),
    }
    assert all(space.macs_share(schedule) <= 0.6 for schedule in found)
