"""What a recursion costs, what a search may vary of it, and what is refused."""

import numpy as np
import pytest
import timm
import torch

from vittle import Schedule, ScheduleError, VittleError
from vittle.reductions.backbone import shape_of
from vittle.spaces import BackboneShape, Recursion, Space, Visit, costs
from vittle.spaces.recursion import LEAST, falling
from vittle.spaces.reduction import AdapterRecord
from vittle.spaces.table import check_adapters, unaided

NAME = "distilled-0123456789ab"
AT_HAND = {"recursion": AdapterRecord(NAME, 1, 10)}


@pytest.fixture(scope="module")
def shape() -> BackboneShape:
    with torch.device("meta"):
        return shape_of(timm.create_model("deit_small_patch16_224"))


def recursion(*capacities: float, **more: object) -> Schedule:
    return Schedule((Recursion(weights=NAME, capacities=capacities, **more),))


def test_shares_fall_evenly_from_all_to_the_last() -> None:
    assert falling(5, 0.2) == (1.0, 0.8, 0.6, 0.4, 0.2)
    assert falling(4, 0.35) == (1.0, 0.78, 0.57, 0.35)
    assert falling(3, 1.0) == (1.0, 1.0, 1.0)
    assert falling(1, 0.2) == (1.0,)


def test_the_first_and_the_last_block_run_once_and_the_shared_ones_in_every_step(shape) -> None:
    assert recursion(1, 0.5).reductions[0].route(shape) == [Visit(0), Visit(1, 0, 1), Visit(1, 1, 0.5), Visit(11)]
    two = recursion(1, 0.5, shared=2).reductions[0].route(shape)
    assert two == [Visit(0), Visit(1, 0, 1), Visit(2, 0, 1), Visit(1, 1, 0.5), Visit(2, 1, 0.5), Visit(11)]


@pytest.mark.parametrize("router", ["random", "norm", "learned"])
def test_macs_are_those_of_the_tokens_that_take_part(shape, router: str) -> None:
    d, n = shape.width, shape.tokens
    taking_part = [n, 1 + 98, 1 + 39]  # of 196 patches all, half, and a fifth

    def block(tokens: int) -> int:
        return 12 * tokens * d * d + 2 * tokens * tokens * d

    routing = 2 * 196 * d if router == "learned" else 0
    expected = shape.embed_macs + shape.head_macs + 2 * block(n) + sum(map(block, taking_part)) + routing
    assert costs.macs(shape, recursion(1, 0.5, 0.2, router=router)) == expected
    assert costs.tokens(shape, recursion(1, 0.5, 0.2)) == (n,) * 5


def test_shared_weights_count_once_and_what_steps_have_of_their_own_besides(shape) -> None:
    block, others, d = shape.block_parameters, shape.other_parameters, shape.width
    assert costs.parameters(shape, recursion(1)) == 3 * block + others + (d + 1)
    assert costs.parameters(shape, recursion(1, 1, 1)) == 3 * block + others + 2 * 6 * d + 3 * (d + 1)
    assert costs.parameters(shape, recursion(1, 0.5)) == costs.parameters(shape, recursion(1, 0.5, router="learned"))
    assert costs.parameters(shape, recursion(1, 0.5, shared=2)) == 4 * block + others + 2 * 6 * d + 2 * (d + 1)
    assert costs.parameters(shape, recursion(*falling(10, 0.2))) / costs.parameters(shape, Schedule()) < 0.28


def test_every_value_is_feasible_and_every_schedule_is_found_again(shape) -> None:
    space = Space(shape, ["recursion"], adapters=AT_HAND)
    generator = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        schedule = space.schedule(space.draw(generator))
        costs.work(shape, schedule)
        assert space.schedule(space.encode(schedule)) == schedule
        seen.add(schedule.id)
    assert len(seen) > 100


def test_a_value_without_effect_makes_no_other_schedule(shape) -> None:
    space = Space(shape, ["recursion"], adapters=AT_HAND)
    steps = {"recursion.steps": 4, "recursion.share": 1.0}
    one, other = (space.schedule({**steps, "recursion.router": router}) for router in ("norm", "random"))
    assert one == other
    none = {"recursion.steps": 0, "recursion.share": 0.3, "recursion.router": "norm"}
    assert space.schedule(none) == Schedule((), "prefix")
    assert space.encode(Schedule((), "prefix"))["recursion.steps"] == 0


def test_starting_points_come_down_to_what_is_asked(shape) -> None:
    space = Space(shape, ["recursion"], adapters=AT_HAND)
    for share in (0.3, 0.5, 0.7):
        found = [space.schedule(start.values) for start in space.starting_points([share])]
        assert len(found) == 2
        assert all(space.macs_share(schedule) <= share for schedule in found)
        assert max(map(space.macs_share, found)) > share - 0.1
    assert space.macs_share(space.cheapest()[0]) < 0.25


def test_merging_before_it_leaves_it_fewer_tokens(shape) -> None:
    space = Space(shape, ["merging", "recursion"], adapters=AT_HAND)
    values = {**space.encode(Schedule((), "prefix")), "recursion.steps": 3, "recursion.share": LEAST}
    alone = space.schedule(values)
    merged = space.schedule({**values, "merging.end": 0.3}) if "merging.end" in values else None
    generator = np.random.default_rng(0)
    drawn = [space.schedule({**space.draw(generator), "recursion.steps": 3, "recursion.share": LEAST}) for _ in range(40)]
    both = [schedule for schedule in [merged, *drawn] if schedule is not None and len(schedule.reductions) == 2]
    assert both
    for schedule in both:
        rows = costs.work(shape, schedule)
        resting = next(row.index for row in rows if row.resting)
        assert all(not row.at("tokens") for row in rows[resting:])
        assert rows[resting].entering < shape.tokens
        assert costs.macs(shape, schedule) < costs.macs(shape, alone)
        assert space.schedule(space.encode(schedule)) == schedule


def test_shares_that_rise_are_refused() -> None:
    with pytest.raises(ScheduleError, match=r"recursion\.capacities: capacities rise; accepted: shares that stay or fall"):
        Schedule.from_dict({"recursion": {"weights": NAME, "capacities": [0.5, 1]}})


def test_a_backbone_without_blocks_to_share_is_refused() -> None:
    with torch.device("meta"):
        short = shape_of(timm.create_model("vit_tiny_patch16_224", depth=3))
        shortest = shape_of(timm.create_model("vit_tiny_patch16_224", depth=2))
    costs.work(short, recursion(1, 0.5))
    with pytest.raises(ScheduleError, match="recursion with 2 shared blocks needs 4 blocks, the model has 3"):
        costs.work(short, recursion(1, 0.5, shared=2))
    with pytest.raises(VittleError, match="recursion does not fit this model: it has no blocks between its first and its last"):
        Space(shortest, ["recursion"], adapters=AT_HAND)


def test_weights_that_are_not_at_hand_are_refused(shape) -> None:
    space = Space(shape, ["recursion"], adapters={"recursion": AdapterRecord("distilled-ba9876543210", 1, 10)})
    with pytest.raises(
        VittleError, match="recursion runs distilled-0123456789ab, which are not at hand; there is: distilled-ba98"
    ):
        space.encode(recursion(1, 0.5))
    with pytest.raises(VittleError, match="do not fall evenly from 1 are not searched"):
        Space(shape, ["recursion"], adapters=AT_HAND).encode(recursion(1, 0.5, 0.2))


def test_a_search_without_its_weights_is_refused_and_no_service_offers_one() -> None:
    with pytest.raises(
        VittleError, match="recursion needs trained weights; give them as --adapter recursion=FILE, or make them"
    ):
        check_adapters({}, ["merging", "recursion"])
    check_adapters({"recursion": "a.safetensors"}, ["recursion"])
    assert "recursion" not in unaided()
    assert "merging" in unaided()


def test_what_it_does_is_said_in_words() -> None:
    assert recursion(1, 0.5, 0.2).summary == "one shared block, 3 times, down to 20% of the patches, routed by chance"
    assert recursion(1, 1, shared=2).summary == "two shared blocks, 2 times"
