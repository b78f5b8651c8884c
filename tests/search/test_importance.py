"""Which parameter matters: told from trials whose outcome is computed by a law that is known."""

from collections.abc import Callable

import numpy as np
import pytest

from recorded import SHAPE
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import inference_goals
from vittle.objectives.measurement import exact
from vittle.objectives.parameter_importance import METHODS, Importance
from vittle.search.importance import importance
from vittle.spaces import Schedule, Space, tokens
from vittle.storage.records import Trial

SPACE = Space(SHAPE, ("merging",))
GOALS = inference_goals(LatencyBudget.parse("60%"))


def kept(schedule: Schedule) -> list[float]:
    return [(left - 1) / 64 for left in tokens(SHAPE, schedule)[:-1]]


def trials(number: int, accuracy: Callable[[Schedule], float], state: str = "complete") -> list[Trial]:
    """Random schedules; their latency is what they keep on average."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(number):
        schedule = SPACE.schedule(SPACE.draw(rng))
        measured = {
            "accuracy": exact("accuracy", accuracy(schedule)),
            "latency_ratio": exact("latency_ratio", float(np.mean(kept(schedule)))),
        }
        found.append(Trial(index, state, "sampler", schedule, SPACE.encode(schedule), {"search": measured}))
    return found


def by_metric(schedule: Schedule) -> float:
    return 0.9 if schedule.reductions[0].metric == "feature" else 0.5


@pytest.mark.parametrize("method", METHODS)
def test_what_decides_comes_first(method) -> None:
    told = importance(SPACE, trials(60, by_metric), GOALS)
    assert next(iter(told.shares[method]["accuracy"])) == "merging.metric"
    assert next(iter(told.grouped(method, "latency_ratio"))) == "merging.kept"
    shares = told.shares[method]["latency_ratio"]
    assert shares["merging.metric"] < 0.1
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


@pytest.mark.parametrize("method", METHODS)
def test_one_block_that_decides_stands_out_among_the_blocks(method) -> None:
    told = importance(SPACE, trials(100, lambda schedule: kept(schedule)[0]), GOALS)
    assert next(iter(told.shares[method]["accuracy"])) == "merging.kept.0"


def test_shares_sum_to_one_over_every_parameter_and_over_the_groups() -> None:
    told = importance(SPACE, trials(30, lambda schedule: float(np.prod(kept(schedule)) + by_metric(schedule))), GOALS)
    names = {parameter.name for parameter in SPACE.parameters}
    for method in METHODS:
        for objective in ("accuracy", "latency_ratio"):
            shares, groups = told.shares[method][objective], told.grouped(method, objective)
            assert set(shares) == names
            assert sum(shares.values()) == pytest.approx(1)
            assert sum(groups.values()) == pytest.approx(1)
            assert groups["merging.kept"] == pytest.approx(
                sum(share for name, share in shares.items() if name.startswith("merging.kept."))
            )
            assert "merging.metric" in groups


def test_an_objective_that_nothing_changes_has_no_shares() -> None:
    told = importance(SPACE, trials(20, lambda _: 0.5), GOALS)
    assert set(told.shares["fanova"]["accuracy"].values()) == {0.0}
    assert set(told.shares["ped-anova"]["accuracy"].values()) == {0.0}


def test_stopped_trials_count_and_unfinished_ones_do_not() -> None:
    found = trials(12, by_metric)
    assert importance(SPACE, [*found[:6], *trials(6, by_metric, "stopped")], GOALS).trials == 12
    for state in ("running", "failed", "infeasible"):
        assert importance(SPACE, [*found[:6], *trials(6, by_metric, state)], GOALS) is None


def test_too_few_trials_tell_nothing() -> None:
    assert importance(SPACE, [], GOALS) is None
    assert importance(SPACE, trials(9, by_metric), GOALS) is None
    assert importance(SPACE, trials(10, by_metric), GOALS).trials == 10


def test_a_trial_outside_the_space_is_left_out() -> None:
    pruning = Space(SHAPE, ("pruning",))
    assert importance(pruning, trials(20, by_metric), GOALS) is None


def test_the_same_trials_and_seed_tell_the_same() -> None:
    found = trials(30, lambda schedule: float(np.mean(kept(schedule)[:4])))
    assert importance(SPACE, found, GOALS, seed=3) == importance(SPACE, found, GOALS, seed=3)
    assert importance(SPACE, found, GOALS, seed=3) != importance(SPACE, found, GOALS, seed=4)


def test_it_is_read_as_it_was_written() -> None:
    told = importance(SPACE, trials(15, by_metric), GOALS)
    assert Importance.from_dict(told.to_dict()) == told


def test_wrong_methods_and_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="accepted: ped-anova, fanova"):
        Importance(10, {"shap": {}})
    with pytest.raises(ValueError, match="merging.metric has the share 1.5 of accuracy by fanova"):
        Importance(10, {"fanova": {"accuracy": {"merging.metric": 1.5}}})
