"""Budgets that cannot be met, and budgets of other devices."""

from dataclasses import replace

import pytest
import torch

from recorded import latency_profile
from refusals import refusal
from vittle import Schedule, VittleError
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.measurement import exact
from vittle.reductions.backbone import load_backbone
from vittle.search import feasibility
from vittle.search.feasibility import InfeasibleBudgetError, check_budget, example_schedules, find_profile, find_target
from vittle.search.inference import InferenceProblem
from vittle.search.reporter import Reporter
from vittle.search.schedules import Knowledge
from vittle.spaces.space import Space
from vittle.storage.settings import Settings
from vittle.storage.store import Store


@pytest.fixture
def profile() -> LatencyProfile:
    """A profile of the digits' shape."""
    return replace(latency_profile(), shape=load_backbone().shape)


def settings(budget: str = "60%", **others: object) -> Settings:
    return Settings(latency_budget=budget, batch_size=2, **others)


def test_what_nothing_meets_is_refused_with_the_nearest_budget_that_something_does(store, monkeypatch) -> None:
    monkeypatch.setattr(feasibility, "_probe", lambda *_: least(0.42))
    with pytest.raises(
        InfeasibleBudgetError, match="no schedule fits 20%: the cheapest, .* takes 42% of the backbone"
    ) as refused:
        check_budget(load_backbone(), settings("20%"), store)
    assert refused.value.exit_code == 1
    near = str(refused.value).split("--latency-budget ")[1]
    assert near == "42%"
    check_budget(load_backbone(), settings(near), store)
    with pytest.raises(InfeasibleBudgetError, match="the nearest feasible budget is 42ms"):
        check_budget(load_backbone(), settings("41ms"), store)


def least(ratio: float) -> dict:
    return {"latency_ratio": exact("latency_ratio", ratio), "latency_ms": exact("latency_ms", 100 * ratio)}


@pytest.mark.parametrize("budget", ["60%", "41ms"])
@pytest.mark.parametrize("ratio", [1.0, 1.3])
def test_a_budget_that_the_backbone_meets_itself_is_none_to_offer(store, monkeypatch, budget: str, ratio: float) -> None:
    monkeypatch.setattr(feasibility, "_probe", lambda *_: least(ratio))
    with pytest.raises(InfeasibleBudgetError, match="none is faster than the backbone itself; try a larger --batch-si") as told:
        check_budget(load_backbone(), settings(budget), store)
    assert "--latency-budget" not in str(told.value)


def test_the_cheapest_is_a_schedule_that_reduces_however_slow_it_is(profile) -> None:
    slow = {variant: replace(one, base=1.0) for variant, one in profile.acting.items()}
    cheapest, _, dense = example_schedules(replace(profile, acting=slow), Space(profile.shape, ("merging",)))
    assert cheapest.schedule.reductions
    assert cheapest.latency["latency_ratio"].value > dense.latency["latency_ratio"].value


def test_the_probe_times_the_cheapest_schedules(store) -> None:
    check_budget(load_backbone(), settings("500%"), store)
    with pytest.raises(InfeasibleBudgetError, match="no schedule fits 0.001ms"):
        check_budget(load_backbone(), settings("0.001ms"), store)


def test_a_profile_that_knows_the_budget_is_met_makes_the_probe_needless(store, profile, monkeypatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(feasibility, "_probe", lambda *_: asked.append(1.0) or least(0.05))
    monkeypatch.setattr(feasibility, "key", lambda *_: profile.key)
    store.save_profile(profile)
    check_budget(load_backbone(), settings("60%"), store)
    assert asked == []
    check_budget(load_backbone(), settings("6%"), store)  # by prediction it cannot be met, so it is looked at
    assert asked == [1.0]
    store.save_profile(replace(profile, checks=()))  # nobody knows how good its predictions are
    check_budget(load_backbone(), settings("60%"), store)
    assert asked == [1.0, 1.0]


def test_choices_are_what_the_profile_says(profile) -> None:
    space = Space(profile.shape, ("pruning", "merging"))
    cheapest, middle, dense = example_schedules(profile, space)
    assert dense.schedule == Schedule((), "prefix")
    assert profile.ratio(cheapest.schedule) == min(map(profile.ratio, space.cheapest()))
    wanted = (profile.ratio(cheapest.schedule) + profile.ratio(dense.schedule)) / 2
    assert profile.ratio(middle.schedule) == pytest.approx(wanted, abs=0.02)
    assert middle.latency["latency_ms"].value == pytest.approx(100 * profile.ratio(middle.schedule))


def test_a_launch_that_cannot_meet_its_budget_leaves_no_study(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(feasibility, "_probe", lambda *_: least(0.42))
    url = f"sqlite:///{tmp_path / 'vittle.db'}"
    line = refusal(monkeypatch, capsys, "launch", "--latency-budget", "20%", "--batch-size", "2", "--storage", url, code=1)
    assert "the nearest feasible budget is 42%: launch with --latency-budget 42%" in line
    assert Store.open(url).studies() == []


def elsewhere(profile: LatencyProfile, device: str, key: str, **protocol: object) -> LatencyProfile:
    about = {"batch_size": 2, "dtype": "float32", "compiled": False}
    return replace(profile, key=key, environment={"device": device, "threads": 4}, protocol={**about, **protocol})


def test_a_target_is_found_by_name_or_key(store, profile) -> None:
    backbone = load_backbone()
    with pytest.raises(VittleError, match="on 'pi' at batch 2 in float32; there are: none; measure one there with: vittle pro"):
        find_target(backbone, "pi", settings(), store)
    pi, board = elsewhere(profile, "Raspberry Pi", "a" * 12), elsewhere(profile, "Other Board", "b" * 12, batch_size=8)
    for one in (pi, board):
        store.save_profile(one)
    assert find_target(backbone, "raspberry", settings(), store) == pi
    assert find_target(backbone, "a" * 12, settings(), store) == pi
    with pytest.raises(VittleError, match="there are: .*Other Board, 4 threads at batch 8 in float32"):
        find_target(backbone, "board", settings(), store)
    store.save_profile(replace(pi, checks=tuple(replace(one, predicted=2 * one.measured) for one in pi.checks)))
    with pytest.raises(VittleError, match="100% off on average, too far to search by"):
        find_target(backbone, "raspberry", settings(), store)


def test_a_budget_is_checked_against_its_target(store, profile) -> None:
    store.save_profile(elsewhere(profile, "Raspberry Pi", "a" * 12))
    backbone = load_backbone()
    check_budget(backbone, settings("60%", target="a" * 12), store)
    with pytest.raises(InfeasibleBudgetError, match="as predicted for Raspberry Pi, 4 threads, takes"):
        check_budget(backbone, settings("5ms", target="a" * 12), store)
    assert find_profile(backbone, settings(target="a" * 12), store).environment["device"] == "Raspberry Pi"
    with pytest.raises(VittleError, match="no latency profile 'gone' in this database"):
        find_profile(backbone, settings(target="gone"), store)


def test_a_profile_that_cannot_be_measured_is_a_warning(store, splits) -> None:
    backbone = load_backbone()
    with torch.no_grad():
        backbone.model.head.bias[0] = float("nan")
    warned: list[str] = []
    problem = InferenceProblem(settings(), backbone, splits)
    problem.prepare(store, Reporter(warned=warned.append))
    assert problem.known == Knowledge()
    (warning,) = warned
    assert warning.startswith("latency cannot be predicted (this model cannot be reduced")
    InferenceProblem(settings(predict=False), backbone, splits).prepare(store, Reporter(warned=pytest.fail))
    assert store.profiles() == []
