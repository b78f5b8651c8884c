import math

import numpy as np
import pytest

from vittle import VittleError
from vittle.dashboards import text
from vittle.objectives.budget import CostBudget, LatencyBudget
from vittle.objectives.fronts.front import front, may_enter_front, tied
from vittle.objectives.goals import Goals, inference_goals, parse_quality, write_quality
from vittle.objectives.measurement import OBJECTIVES, Measurement, Objective, define, exact, proportion, shown

GOALS = inference_goals(LatencyBudget.parse("60%"))


def latency(ratio: float, high: float | None = None, ms: float = 10.0) -> dict[str, Measurement]:
    return {
        "latency_ratio": Measurement("latency_ratio", ratio, ratio, high or ratio, 5),
        "latency_ms": Measurement("latency_ms", ms, ms, ms, 5),
    }


@pytest.mark.parametrize(
    ("text", "limit", "relative", "shown"),
    [
        ("60%", 0.6, True, "60%"),
        ("4ms", 4, False, "4ms"),
        (" 4.5 ms ", 4.5, False, "4.5ms"),
        (".5ms", 0.5, False, "0.5ms"),
        ("1234.5678%", 12.345678, True, "1234.5678%"),
        ("12345678ms", 12345678, False, "12345678ms"),
        ("57%", 0.57, True, "57%"),
        ("0.00002ms", 2e-5, False, "0.00002ms"),
    ],
)
def test_budgets(text: str, limit: float, relative: bool, shown: str) -> None:
    budget = LatencyBudget.parse(text)
    assert budget == LatencyBudget(limit, relative)
    assert str(budget) == shown
    assert LatencyBudget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "budget", "shown"),
    [
        ("p95 4ms", LatencyBudget(4, relative=False, tail=True), "p95 4ms"),
        (" 4 ms  p95 ", LatencyBudget(4, relative=False, tail=True), "p95 4ms"),
        ("1000 images/s", LatencyBudget(64, relative=False, batch=64), "1000 images/s"),
        ("1000img/s", LatencyBudget(64, relative=False, batch=64), "1000 images/s"),
        ("2.5 images/s", LatencyBudget(25600, relative=False, batch=64), "2.5 images/s"),
    ],
)
def test_budgets_of_a_tail_and_of_images_per_second(text: str, budget: LatencyBudget, shown: str) -> None:
    assert LatencyBudget.parse(text, 64) == budget
    assert str(budget) == shown
    assert LatencyBudget.parse(shown, 64) == budget


def test_a_budget_of_a_tail_is_about_the_tail() -> None:
    budget = LatencyBudget.parse("p95 4ms")
    about = {"p95_ms": 3.8, "p95_ms_interval": [3.6, 3.9]}

    def taken(ms: float, protocol: dict[str, object]) -> dict[str, Measurement]:
        return {"latency_ms": Measurement("latency_ms", ms, ms, ms, 20, protocol)}

    assert budget.holds(taken(3, about))
    assert budget.excess(taken(3, about)) == pytest.approx(-0.05)
    assert not budget.holds(taken(3, {**about, "p95_ms_interval": [3.6, 4.1]}))
    assert not budget.holds(taken(3, {}))  # predicted: nobody knows
    assert budget.excess(taken(3, {})) < 0 < budget.excess(taken(5, {}))  # it is no less than the median
    assert budget.comparable(taken(10, {})) == budget
    assert str(budget.covering(taken(3, about))) == "p95 3.9ms"


def test_images_per_second_are_a_time_for_a_batch() -> None:
    budget = LatencyBudget.parse("1000 images/s", 50)
    assert budget.holds(latency(0.5, ms=50))
    assert not budget.holds(latency(0.5, ms=50.1))
    near = LatencyBudget.parse("9999 images/s", 50).covering(latency(0.5, ms=10.3))
    assert str(near) == "4800 images/s"
    assert near.holds(latency(0.5, ms=10.3))
    assert budget.comparable(latency(1.0, ms=100)).limit == pytest.approx(0.5)


@pytest.mark.parametrize(
    "text",
    [
        "p95 60%",
        "p95 4ms p95",
        "p95",
        "p95 100 images/s",
        "0 images/s",
        "images/s",
        "100 image/s",
        "10 images",
        "p99 4ms",
        "p954ms",
    ],
)
def test_what_is_no_budget_of_a_tail_or_of_images_is_one_line(text: str) -> None:
    with pytest.raises(VittleError, match=f"^latency budget '{text}' is not a time; accepted: ") as error:
        LatencyBudget.parse(text, 64)
    assert "\n" not in str(error.value)


def test_images_per_second_need_a_batch() -> None:
    with pytest.raises(VittleError, match="is not a time"):
        LatencyBudget.parse("1000 images/s")


@pytest.mark.parametrize("value", [0.0, 0.5004, 0.98449, 0.98451, 0.99951, 1.0])
@pytest.mark.parametrize(
    ("name", "scale"), [("accuracy", 1), ("latency_ms", 100), ("latency_ms", 300), ("macs", 5e9), ("macs", 3e7)]
)
def test_what_is_shown_alike_is_compared_alike(name: str, scale: float, value: float) -> None:
    for other in (value, min(1.0, value + 0.00004), min(1.0, value + 0.0007)):
        one, two = (exact(name, scale * number) for number in (value, other))
        assert (shown(one) == shown(two)) == (text.measured(one) == text.measured(two))


@pytest.mark.parametrize(
    "text", ["-3ms", "fast", "0%", "0ms", "", "4", "4s", "ms", "nan%", "inf ms", "1e3ms", "60%%", "4ms 5ms", f"{'9' * 400}ms"]
)
def test_what_is_no_budget_is_one_line(text: str) -> None:
    with pytest.raises(VittleError) as error:
        LatencyBudget.parse(text)
    assert str(error.value) == (
        f"latency budget {text[:60]!r} is not a time; accepted: milliseconds such as 4ms, or p95 4ms for 95 of 100 batches, "
        "a share such as 60%, or images per second such as 1000 images/s"
    )


def test_a_budget_holds_beyond_the_noise_only() -> None:
    budget = LatencyBudget.parse("60%")
    assert budget.holds(latency(0.58, high=0.60))
    assert not budget.holds(latency(0.58, high=0.61))
    assert budget.excess(latency(0.58, high=0.61)) < 0
    assert budget.excess(latency(0.66)) == pytest.approx(0.1)
    assert LatencyBudget.parse("10ms").holds(latency(0.9, ms=10))


def test_the_nearest_budget_covers_the_interval() -> None:
    near = LatencyBudget.parse("20%").covering(latency(0.3101, high=0.3401))
    assert str(near) == "35%"
    assert near.holds(latency(0.3101, high=0.3401))
    assert str(LatencyBudget.parse("1ms").covering(latency(0.3, ms=12.34))) == "13ms"
    assert str(LatencyBudget.parse("1ms").covering(latency(0.3, ms=0.1234))) == "0.13ms"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_failure_is_never_a_number(value: float) -> None:
    with pytest.raises(ValueError, match="macs is"):
        exact("macs", value)


def test_a_value_lies_in_its_interval() -> None:
    with pytest.raises(ValueError, match=r"accuracy is 0.9 in \[0.95, 0.99\]"):
        Measurement("accuracy", 0.9, 0.95, 0.99, 10)


@pytest.mark.parametrize(("hits", "n", "low", "high"), [(50, 100, 0.4038, 0.5962), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)])
def test_wilson_interval(hits: int, n: int, low: float, high: float) -> None:
    measured = proportion("accuracy", hits, n, {})
    assert (measured.low, measured.high) == pytest.approx((low, high), abs=1e-4)


def candidate(accuracy: float, ratio: float, macs: int, noise: float = 0.0, wrong: float = 0.0) -> dict[str, Measurement]:
    return {
        **latency(ratio),
        "latency_ratio": Measurement("latency_ratio", ratio, ratio - noise, ratio + noise, 5),
        "accuracy": Measurement("accuracy", accuracy, accuracy - wrong, accuracy + wrong, 100),
        "macs": exact("macs", macs),
    }


def beats(one: dict[str, Measurement], other: dict[str, Measurement]) -> bool:
    """As the front says it in words."""
    no_worse = (
        one["accuracy"].value >= other["accuracy"].value
        and one["latency_ratio"].value <= other["latency_ratio"].value
        and one["macs"].value <= other["macs"].value
    )
    return no_worse and (
        one["accuracy"].low > other["accuracy"].high
        or one["latency_ratio"].high < other["latency_ratio"].low
        or one["macs"].value < other["macs"].value
    )


@pytest.mark.parametrize(("noise", "wrong"), [(0.0, 0.0), (0.05, 0.0), (0.0, 0.15), (0.06, 0.06)])
def test_front_against_brute_force(noise: float, wrong: float) -> None:
    rng = np.random.default_rng(0)
    sizes = set()
    for size in (0, 1, 2, 8, 20, 60):
        values = rng.integers(0, 5, (size, 3))  # coarse, so that ties and duplicates occur
        candidates = [candidate(a / 10, 0.1 + r / 10, int(m), noise, wrong) for a, r, m in values]
        expected = [i for i, one in enumerate(candidates) if not any(beats(other, one) for other in candidates)]
        found = front(candidates, GOALS)
        assert sorted(found) == expected
        assert found == sorted(expected, key=lambda i: (candidates[i]["latency_ratio"].value, i))
        sizes.add(len(found))
    assert max(sizes) < 60


def test_what_is_beaten_itself_still_beats() -> None:
    # The middle one beats the last, whose accuracy is unsure, by latency; the first beats the middle one by accuracy alone.
    first, middle, last = candidate(0.9, 0.5, 1, noise=0.3), candidate(0.8, 0.5, 1), candidate(0.8, 0.6, 1, 0.05, wrong=0.3)
    assert (beats(first, middle), beats(middle, last), beats(first, last)) == (True, True, False)
    assert front([first, middle, last], GOALS) == [0]


def test_only_what_is_apart_beats() -> None:
    slow = candidate(0.9, 0.50, 100, noise=0.02)
    assert front([slow, candidate(0.9, 0.47, 100, noise=0.02)], GOALS) == [1, 0]  # tied: both stay
    assert front([slow, candidate(0.9, 0.45, 100, noise=0.02)], GOALS) == [1]
    assert front([slow, candidate(0.89, 0.45, 100, noise=0.02)], GOALS) == [1, 0]  # worse in accuracy, by whatever
    assert front([slow, candidate(0.9, 0.50, 99, noise=0.02)], GOALS) == [1]  # MACs have no noise
    assert front([slow, candidate(0.95, 0.50, 100, noise=0.02, wrong=0.04)], GOALS) == [1]
    assert front([slow, candidate(0.95, 0.50, 100, noise=0.02, wrong=0.06)], GOALS) == [0, 1]
    assert front([slow] * 3, GOALS) == [0, 1, 2]
    assert front([slow, candidate(0.8, 0.45, 100, noise=0.02)], GOALS, ("latency_ratio", "macs")) == [1]


def test_tied_is_within_the_noise_of_accuracy_and_latency() -> None:
    one = candidate(0.9, 0.50, 100, noise=0.02, wrong=0.01)
    assert tied(one, candidate(0.9, 0.539, 1, noise=0.02), GOALS)
    assert tied(candidate(0.919, 0.461, 1, 0.02, 0.01), one, GOALS)
    for other in (candidate(0.9, 0.541, 100, 0.02), candidate(0.9, 0.459, 100, 0.02), candidate(0.921, 0.5, 100, wrong=0.01)):
        assert not tied(one, other, GOALS)
        assert not tied(other, one, GOALS)


def test_a_schedule_may_enter_a_front_that_it_is_better_than_with_luck() -> None:
    guess = candidate(0.9, 0.50, 100, noise=0.05, wrong=0.05)
    assert may_enter_front(guess, [], GOALS)
    for rival, wins in (
        (candidate(0.9, 0.46, 100), True),
        (candidate(0.9, 0.44, 100), False),
        (candidate(0.9, 0.46, 100, noise=0.1), True),  # a rival counts as measured
        (candidate(0.89, 0.44, 100), True),
        (candidate(0.9, 0.44, 101), True),
        (candidate(0.92, 0.44, 99), False),
        (candidate(0.89, 0.44, 100, wrong=0.1), True),
    ):
        assert may_enter_front(guess, [rival], GOALS) == wins
        assert may_enter_front(guess, [candidate(0.2, 0.1, 1), rival], GOALS) == wins
        assert may_enter_front(guess, [rival, candidate(0.95, 0.3, 1)], GOALS) is False


def test_a_budget_of_any_cost_holds_beyond_the_noise() -> None:
    budget = CostBudget(200.0, "memory")
    measured = {"memory": Measurement("memory", 190.0, 180.0, 210.0, 3)}
    assert (str(budget), budget.what) == ("200 MB", "memory")
    assert not budget.holds(measured)
    assert budget.excess(measured) == pytest.approx(-0.05)
    assert budget.covering(measured) == CostBudget(210.0, "memory")
    assert budget.covering(measured).holds(measured)


@pytest.mark.parametrize(
    ("budget", "cost", "told"),
    [
        ("60%", 0.601, "60.1%"),
        ("60%", 0.75, "75%"),
        ("60%", 0.60004, "60.004%"),
        ("60%", 1.2345, "123%"),
        ("4ms", 5.0, "5ms"),
        ("4ms", 4.0012, "4.001ms"),
        ("p95 4ms", 4.56789, "p95 4.57ms"),
        ("1000 images/s", 64.1, "998 images/s"),
        ("1000 images/s", 64.01, "999.8 images/s"),
    ],
)
def test_what_is_over_a_budget_is_never_told_as_the_budget(budget: str, cost: float, told: str) -> None:
    measured = {name: Measurement(name, cost, cost, cost, 5) for name in ("latency_ratio", "latency_ms")}
    assert LatencyBudget.parse(budget, 64).told(measured) == told


def test_an_amount_of_quality_is_written_as_it_is_read() -> None:
    assert [write_quality(parse_quality(one, "accuracy"), "accuracy") for one in ("0.3%", "0.1", "0", "29%")] == [
        "0.3%",
        "0.1%",
        "0%",
        "29%",
    ]
    assert parse_quality(write_quality(0.02, "divergence"), "divergence") == 0.02


def test_goals_name_objectives_that_there_are_and_costs_that_are_costs() -> None:
    budget = LatencyBudget.parse("60%")
    for quality, costs, reason in (
        ("beauty", ("macs",), "unknown objective 'beauty'"),
        ("accuracy", (), "goals have at least one cost"),
        ("accuracy", ("throughput",), "more of throughput is better, so it is no cost"),
        ("divergence", ("macs",), "divergence is not marked as what candidates are chosen by"),
    ):
        with pytest.raises(ValueError, match=reason):
            Goals(quality, costs, budget)
    assert Goals("accuracy", ("macs",), budget).learned_from == "accuracy"


def test_what_is_known_of_all_is_compared_in_place_of_quality() -> None:
    near, plain = {"divergence": exact("divergence", 0.1)}, {"accuracy": exact("accuracy", 0.9)}
    assert GOALS.compared([near]) == ("divergence", "latency_ratio", "macs")
    assert GOALS.compared([near, plain]) == ("accuracy", "latency_ratio", "macs")


def test_an_objective_is_defined_once() -> None:
    with pytest.raises(ValueError, match="objective 'macs' is defined twice"):
        define(Objective("macs", "MACs", "minimize", "something else"))
    assert OBJECTIVES["macs"].meaning == "multiply-accumulates of one image"
