import math

import pytest

from vittle import VittleError
from vittle.objectives.front import best, front
from vittle.objectives.measurement import LatencyBudget, Measurement, exact, proportion


def latency(ratio: float, high: float | None = None, ms: float = 10.0) -> dict[str, Measurement]:
    return {
        "latency_ratio": Measurement("latency_ratio", ratio, ratio, high or ratio, 5),
        "latency_ms": Measurement("latency_ms", ms, ms, ms, 5),
    }


@pytest.mark.parametrize(
    ("text", "limit", "relative", "shown"),
    [("60%", 0.6, True, "60%"), ("4ms", 4, False, "4ms"), (" 4.5 ms ", 4.5, False, "4.5ms"), (".5ms", 0.5, False, "0.5ms")],
)
def test_budgets(text: str, limit: float, relative: bool, shown: str) -> None:
    budget = LatencyBudget.parse(text)
    assert budget == LatencyBudget(limit, relative)
    assert str(budget) == shown
    assert LatencyBudget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "text", ["-3ms", "fast", "0%", "0ms", "", "4", "4s", "ms", "nan%", "inf ms", "1e3ms", "60%%", "4ms 5ms"]
)
def test_what_is_no_budget_is_one_line(text: str) -> None:
    with pytest.raises(VittleError) as error:
        LatencyBudget.parse(text)
    assert str(error.value) == (
        f"latency budget {text!r} is not a time; accepted: milliseconds such as 4ms, or a share such as 60%"
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


def candidate(accuracy: float, ratio: float, macs: int) -> dict[str, Measurement]:
    return {**latency(ratio), "accuracy": exact("accuracy", accuracy), "macs": exact("macs", macs)}


def test_front_against_brute_force() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 60):
        values = rng.integers(0, 6, (size, 3))  # coarse, so that ties and duplicates occur
        candidates = [candidate(a / 10, 0.1 + r / 10, int(m)) for a, r, m in values]
        costs = [(-a, r, m) for a, r, m in values.tolist()]

        def beaten(i: int, costs=costs) -> bool:
            return any(
                all(x <= y for x, y in zip(costs[j], costs[i], strict=True)) and (costs[j] != costs[i] or j < i)
                for j in range(len(costs))
                if j != i
            )

        assert sorted(front(candidates)) == [i for i in range(size) if not beaten(i)]


def test_best_is_the_most_accurate_that_holds_then_the_fastest() -> None:
    candidates = [candidate(0.99, 0.7, 1), candidate(0.97, 0.5, 1), candidate(0.97, 0.4, 1), candidate(0.9, 0.2, 1)]
    assert best(candidates, LatencyBudget.parse("60%")) == 2
    assert best(candidates, LatencyBudget.parse("70%")) == 0
    assert best(candidates, LatencyBudget.parse("10%")) is None
