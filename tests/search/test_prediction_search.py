"""A search that predicts latency: what costs nothing, what is measured, and when predictions are not believed."""

from dataclasses import replace

import pytest

from recorded import ENVIRONMENT, SHAPE, coordinate, latency_profile, make_study, outcome, run
from vittle import Schedule
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.evaluation import Evaluation
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.measurement import exact
from vittle.search.coordinator import Coordinator
from vittle.search.cost_estimates import HOPELESS, CostEstimates
from vittle.search.schedules import Knowledge
from vittle.search.starts import HEURISTIC
from vittle.spaces import tokens
from vittle.spaces.costs import parameters
from vittle.spaces.space import Space
from vittle.storage.records import profiled
from vittle.storage.settings import Settings
from vittle.storage.store import Store


def coordinated(store: Store, profile: LatencyProfile, trials: int = 30, **settings: object) -> Coordinator:
    return coordinate(make_study(store, trials=trials, **settings), store, known=Knowledge(profile))


def test_the_synthetic_profile_predicts_what_is_measured() -> None:
    profile = latency_profile()
    for kept in ((65,) * 12, (60, 55, 50, 45, 40, 35, 30, 25, 20, 15, 10, 8)):
        one = Schedule.from_dict({"tail": "prefix", "merging": {"kept": list(kept)}})
        measured = outcome(one, Settings(latency_budget="500%")).measurements["latency_ratio"].value
        assert profile.ratio(one) == pytest.approx(measured, rel=1e-9)


def test_what_is_over_the_budget_is_never_evaluated(store) -> None:
    profile = latency_profile()
    coordinator = coordinated(store, profile, latency_budget="45%")
    run(coordinator)
    trials = [trial for trial in store.trials("study") if trial.origin != "backbone"]
    assert len(trials) == 30
    assert all(profile.ratio(trial.schedule) <= 0.45 * (1 + profile.margin) for trial in trials)
    told = coordinator._sampler._study.trials
    rejected = [one for one in told if one.constraints.get("latency budget", 0) > 0]
    assert len(rejected) >= 3  # the sampler asked for them, and learnt that they cost too much
    assert all(one.state.name == "COMPLETE" and one.values[1] > 0.45 for one in rejected)


def test_the_first_schedules_meet_the_budget_by_prediction(store) -> None:
    profile = latency_profile()
    coordinator = coordinated(store, profile, latency_budget="60%")
    run(coordinator, limit=6)
    first = store.trials("study")[1:6]
    assert [trial.origin for trial in first] == ["constant", "decreasing", "decreasing", "delayed", "delayed"]
    for trial in first:
        assert HEURISTIC[0] * 0.6 - 0.02 <= profile.ratio(trial.schedule) <= HEURISTIC[0] * 0.6


def test_a_trial_is_told_its_latency_and_its_rivals_and_the_backbone_is_not(store) -> None:
    profile = latency_profile()
    coordinator = coordinated(store, profile, latency_budget="60%")
    backbone = coordinator.next()
    assert (backbone.hints["predicted"], backbone.hints["profile"]) == (None, profile.key)
    coordinator.finish(backbone.number, outcome(backbone.candidate, coordinator.study.settings))
    first = coordinator.next()
    assert first.hints["predicted"]["latency_ratio"].protocol["source"] == "predicted"
    assert first.hints["predicted"]["latency_ratio"].value == profile.ratio(first.candidate)
    assert first.rivals == {}
    measured = outcome(first.candidate, coordinator.study.settings).measurements
    coordinator.finish(first.number, Evaluation(measured))
    assert coordinator.next().rivals == {first.number: measured}


def test_a_profile_that_is_too_far_off_predicts_nothing(store) -> None:
    coordinator = coordinated(store, latency_profile(error=0.2), latency_budget="45%")
    coordinator.finish(coordinator.next().number, outcome(Schedule(), coordinator.study.settings))
    assignment = coordinator.next()
    assert assignment.hints["predicted"] is None
    assert assignment.hints["profile"] == "0123456789ab"  # it is still named, so that a page can show why


def test_another_device_than_the_profile_is_of_ends_the_predictions(store) -> None:
    coordinator = coordinated(store, latency_profile(), latency_budget="60%")
    backbone = coordinator.next()
    measured = dict(outcome(backbone.candidate, coordinator.study.settings).measurements)
    elsewhere = {**ENVIRONMENT, "device": "another processor", "backbone_ms": 100.0}
    measured["latency_ms"] = replace(measured["latency_ms"], protocol=elsewhere)
    coordinator.finish(backbone.number, Evaluation(measured))
    assert coordinator.next().hints["predicted"] is None


def test_token_counts_are_raised_to_what_costs_no_more(store) -> None:
    profile = latency_profile(flat=(40, 50))
    assert profile.flats == ((40, 50),)
    run(coordinated(store, profile, latency_budget="80%", trials=25))
    counts = {count for trial in store.trials("study")[1:] for count in tokens(SHAPE, trial.schedule)}
    assert 50 in counts
    windowed = {trial.schedule.id for trial in store.trials("study") if "windows" in trial.schedule.summary}
    plain = [trial for trial in store.trials("study")[1:] if trial.schedule.id not in windowed]
    # What merges at most half of its tokens may land anywhere; nobody asked for these counts.
    asked = {count for trial in plain for count in tokens(SHAPE, trial.schedule)[1:]}
    assert not asked & set(range(41, 50))


def test_a_study_for_another_device_measures_nothing_here(store) -> None:
    profile = latency_profile()
    coordinator = coordinated(store, profile, latency_budget="60%", target=profile.key)
    backbone = coordinator.next()
    assert backbone.hints["predicted"]["latency_ratio"].value == pytest.approx(1.0)
    assert backbone.hints["predicted"]["latency_ms"].protocol["backbone_ms"] == 100.0


def test_the_profile_of_a_study_is_found_by_its_trials(store) -> None:
    profile = latency_profile()
    coordinator = coordinated(store, profile, latency_budget="60%", trials=3)
    store.save_profile(profile)
    while (assignment := coordinator.next()) is not None:
        measured = {
            **outcome(assignment.candidate, coordinator.study.settings).measurements,
            **(assignment.hints["predicted"] or {}),
        }
        coordinator.finish(assignment.number, Evaluation(measured))
    assert profiled(store.trials("study")) == profile.key
    assert store.profile(profile.key) == profile
    assert store.profiles() == [profile]


class TestEstimatesWithoutAProfile:
    """The least latency for its MACs that was seen: here half as much again as the backbone's."""

    @staticmethod
    def costs(budget: str, share: float) -> tuple[CostEstimates, Schedule]:
        """What is known after some trials, and a schedule with that share of the backbone's MACs."""
        space = Space(SHAPE, ("merging",))
        found = CostEstimates(space, LatencyBudget.parse(budget), None, elsewhere=False)
        for start in space.starting_points([0.3, 0.4, 0.5, 0.6, 0.7]):
            schedule = space.schedule(start.values)
            ratio = 1.5 * space.macs_share(schedule)
            protocol = {"backbone_ms": 20.0}
            measured = {"latency_ratio": exact("latency_ratio", ratio), "latency_ms": exact("latency_ms", 20 * ratio, protocol)}
            found.note(schedule, measured)
        *_, nearest = (space.schedule(start.values) for start in space.starting_points([share]))
        return found, nearest

    @pytest.mark.parametrize(
        ("budget", "over"), [("60%", True), ("100%", True), ("150%", False), ("22ms", True), ("30ms", False)]
    )
    def test_a_budget_of_more_than_the_backbone_is_held_to_itself(self, budget: str, over: bool) -> None:
        costs, schedule = self.costs(budget, 0.95)
        estimate = 1.5 * costs._space.macs_share(schedule) / HOPELESS
        assert 1.1 < estimate < 1.5
        found = costs.over(schedule)
        assert (found is not None) is over
        if found is not None:
            assert found["latency_ratio"].value == pytest.approx(estimate)
            assert found["latency_ms"].value == pytest.approx(20 * estimate)
            assert found["parameters"].value == parameters(costs._space.shape, schedule)
            assert LatencyBudget.parse(budget).excess(found) > 0

    def test_a_search_begins_below_the_backbone_whatever_the_budget(self) -> None:
        assert self.costs("150%", 0.5)[0].allowed == 1.0
        assert self.costs("30ms", 0.5)[0].allowed == 1.0
        assert self.costs("10ms", 0.5)[0].allowed == 0.5
        assert self.costs("60%", 0.5)[0].allowed == 0.6
