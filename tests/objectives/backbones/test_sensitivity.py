"""How much reducing single blocks hurts: made-up losses in place of a model."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from vittle.objectives.backbones.sensitivity import TYPICAL, Point, Sensitivity, measure
from vittle.spaces import BackboneShape, Schedule, Space, VittleError, work
from vittle.spaces.reduction import Context
from vittle.spaces.table import REDUCTIONS, unaided
from vittle.spaces.token_reduction import TokenReduction

SHAPE = BackboneShape(
    depth=4, width=8, heads=2, grid=(4, 4), prefix=1, attention_width=8, key_macs=128, query_macs=128, mlp_macs=512,
    embed_macs=1000, head_macs=80, reads_prefix_only=True,
)  # fmt: skip
BOTH = ("pruning", "merging")


def context(tail: str = "prefix") -> Context:
    return Context(SHAPE, tail)


def points(*pairs: tuple[float, float]) -> tuple[Point, ...]:
    return tuple(Point(removed, loss, loss, loss) for removed, loss in pairs)


def sensitivity(*blocks: tuple[Point, ...], name: str = "merging") -> Sensitivity:
    return Sensitivity("0123456789ab", "digits", 64, {name: blocks})


def scale(block: int) -> float:
    return (3.0, 1.0, 0.2, 0.5)[block]


def evaluate(schedule: Schedule) -> NDArray[np.float64]:
    """Each block loses with the 1.5th power of the share removed in it; 64 images differ by a half."""
    spread = np.linspace(0.5, 1.5, 64)
    rows = work(SHAPE, schedule)[: 3 if schedule.tail == "prefix" else 4]
    return spread * sum(scale(row.index) * ((row.keys - row.leaving) / (row.keys - 1)) ** 1.5 for row in rows)


def test_a_power_law_is_found_again_between_and_beyond_what_was_measured() -> None:
    one = sensitivity(points(*((share, 0.3 * share**1.7) for share in (1 / 8, 1 / 4, 1 / 2))))
    for share in (0.01, 1 / 8, 0.2, 0.4, 1 / 2, 0.75, 1.0):
        assert one.loss("merging", 0, share) == pytest.approx(0.3 * share**1.7)


def test_loss_is_zero_where_nothing_is_removed_and_never_falls() -> None:
    noisy = points((0.1, 0.02), (0.2, 0.01), (0.4, 0.2), (0.5, 0.1), (0.7, 0.9))
    silent = points((0.1, 0.0), (0.5, -1e-9))
    one = sensitivity(noisy, silent, points((0.5, 0.3)))
    for block in range(3):
        losses = one.losses("merging", block, np.linspace(0, 1, 201))
        assert losses[0] == 0.0
        assert losses[1] > 0.0
        assert (np.diff(losses) >= 0).all()


def test_points_that_fall_are_pooled() -> None:
    one = sensitivity(points((0.1, 0.02), (0.2, 0.01), (0.4, 0.2)))
    assert [one.loss("merging", 0, share) for share in (0.1, 0.15, 0.2, 0.4)] == pytest.approx([0.015, 0.015, 0.015, 0.2])


def test_a_single_point_loses_with_the_typical_power() -> None:
    assert sensitivity(points((0.5, 0.3))).loss("merging", 0, 0.25) == pytest.approx(0.3 / 2**TYPICAL)


@pytest.mark.parametrize(("tail", "blocks"), [("prefix", 3), ("full", 4)])
@pytest.mark.parametrize("name", unaided())
def test_probes_reduce_one_block_alone(name: str, tail: str, blocks: int) -> None:
    kind = REDUCTIONS[name].settings
    found = kind.probes(context(tail))
    assert {one.block for one in found} == set(range(blocks))
    for block, strength, settings in found:
        (act,) = (act for row in work(SHAPE, Schedule((settings,), tail)) for act in row.acts)
        assert (act.reduction, act.strength) == (name, strength)
        assert act.leaving == (17 - round(strength * 16) if issubclass(kind, TokenReduction) else 17)
        assert work(SHAPE, Schedule((settings,), tail))[block].acts == (act,)
    strengths = {(one.block, one.strength) for one in found}
    assert len(strengths) == len(found)
    wanted = {"merging": [1 / 2], "pruning": [1 / 2, 15 / 16], "sparsity": [12 / 16, 14 / 16, 15 / 16]}
    assert strengths == {(block, share) for block in range(blocks) for share in wanted[name]} or name not in wanted


@pytest.mark.parametrize("name", unaided())
def test_probes_of_different_blocks_are_joined(name: str) -> None:
    kind = REDUCTIONS[name].settings
    probes = list({one.block: one for one in kind.probes(context("full"))}.values())
    joined = kind.joined([one.settings for one in probes])
    if joined is None:  # planned otherwise
        assert issubclass(kind, TokenReduction)
        return
    assert kind.joined([]) is None
    alone = [work(SHAPE, Schedule((one.settings,)))[one.block].acts for one in probes]
    assert [row.acts for row in work(SHAPE, Schedule((joined,)))] == alone


def test_it_measures_the_law_behind_the_losses() -> None:
    one = measure(evaluate, context("full"), BOTH, fingerprint="0123456789ab", data="digits")
    assert (one.fingerprint, one.data, one.images) == ("0123456789ab", "digits", 64)
    for block in range(4):
        assert one.loss("pruning", block, 0.3) == pytest.approx(scale(block) * 0.3**1.5)
        assert one.loss("merging", block, 0.5) == pytest.approx(scale(block) * 0.5**1.5)  # the one strength that it looked at
    assert [one.blocks(name) for name in BOTH] == [4, 4]
    assert one.blocks("sparsity") == 0  # nobody asked


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    found = [
        measure(lambda one: rng.gamma(4.0, 0.25, 64), context(), ("merging",), fingerprint="", data="").points["merging"]
        for _ in range(60)
    ]
    covered = [point.low <= 1.0 <= point.high for blocks in found for block in blocks for point in block]
    assert 0.91 < np.mean(covered) < 0.98


def test_the_drop_in_accuracy_is_kept_beside_the_loss() -> None:
    seen: list[str] = []

    def looking(schedule: Schedule) -> NDArray[np.float64]:
        seen.append(schedule.id)
        return evaluate(schedule)

    def drop(schedule: Schedule) -> float:
        assert seen[-1] == schedule.id
        return float(evaluate(schedule).mean()) / 10

    one = measure(looking, context(), ("merging",), fingerprint="", data="", accuracy_drop=drop)
    for block in one.points["merging"]:
        assert [point.accuracy_drop for point in block] == pytest.approx([point.loss / 10 for point in block])


@pytest.mark.parametrize(("losses", "reason"), [([0.1], "1 image says nothing"), ([0.1, np.inf], "not finite")])
def test_answers_that_say_nothing_are_refused(losses: list[float], reason: str) -> None:
    with pytest.raises(VittleError, match=reason):
        measure(lambda _: np.array(losses), context(), ("merging",), fingerprint="", data="")


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ((), "have to rise"),
        (points((0.0, 0.1)), "have to rise"),
        (points((0.5, 0.1), (0.25, 0.1)), "have to rise"),
        ((Point(0.5, 0.1, 0.2, 0.3),), "loss is 0.1 in"),
        ((Point(0.5, 0.1, 0.0, np.inf),), "loss is 0.1 in"),
    ],
)
def test_points_that_cannot_be_are_refused(block: tuple[Point, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        sensitivity(block)


def test_it_covers_what_it_knows() -> None:
    one = replace(sensitivity(points((0.5, 0.3))), digest="0123456789ab")
    assert one.covers(("merging",), "0123456789ab")
    assert not one.covers(("merging",), "ba9876543210")  # other images, wherever they are
    assert not one.covers(BOTH, "0123456789ab")
    before = {name: value for name, value in one.to_dict().items() if name != "digest"}
    assert not Sensitivity.from_dict(before).covers(("merging",), "0123456789ab")  # nobody knows which they were


def test_it_is_read_as_it_was_written() -> None:
    one = measure(evaluate, Space(SHAPE, BOTH).context, BOTH, fingerprint="x", data="d", accuracy_drop=lambda _: 0.25)
    again = Sensitivity.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again == one
    assert again.loss("pruning", 2, 0.6) == one.loss("pruning", 2, 0.6)


def test_it_starts_without_torch() -> None:
    code = "import sys, vittle.objectives.backbones.sensitivity, vittle.search.planning; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
