"""The search's decisions, on computed outcomes: no model, no Ray, hundreds of trials in seconds."""

import numpy as np
import pytest

from recorded import DENSE, SHAPE, coordinate, make_study, neutral, outcome, run
from refusals import KNOWN
from vittle import Schedule, VittleError
from vittle.objectives.evaluation import Evaluation, failed
from vittle.objectives.fronts.hypervolume import ReferencePoint, volumes
from vittle.objectives.measurement import Measurement, exact
from vittle.search.sampler import Sampler
from vittle.spaces import Space, macs
from vittle.storage.ranking import Ranking
from vittle.storage.settings import Settings
from vittle.storage.store import Store


def test_a_search_runs_its_trials_and_the_backbone_first(store) -> None:
    coordinator = coordinate(make_study(store, trials=40), store)
    assert run(coordinator) == list(range(41))
    assert coordinator.done
    trials = store.trials("study")
    assert trials[0].origin == "backbone"
    assert trials[0].schedule == Schedule()
    assert {trial.state for trial in trials} <= {"complete", "infeasible"}
    origins = [trial.origin for trial in trials[1:]]
    first = origins.index("sampler")
    assert set(origins[:first]) == {"constant", "decreasing", "delayed", "published"}
    assert set(origins[first:]) == {"sampler"}
    assert origins.count("sampler") >= 12


def test_a_search_finds_better_than_its_starting_points(store) -> None:
    study = make_study(store, trials=60)
    run(coordinate(study, store))
    trials = store.trials("study")
    reference = ReferencePoint.of(study.goals, trials[0].judged)
    started = [trial.judged for trial in trials[1:] if trial.origin != "sampler"]
    found = [trial.judged for trial in trials[1:]]
    assert volumes(found, reference, study.goals)[-1] > 1.15 * volumes(started, reference, study.goals)[-1] > 0
    ranking = Ranking.of(trials, study.goals)
    assert ranking.best().judged["latency_ratio"].high <= 0.6
    assert len(ranking.front(study.budget)) >= 5


def test_no_schedule_is_paid_for_twice(store) -> None:
    run(coordinate(make_study(store, trials=60), store))
    ids = [trial.schedule.id for trial in store.trials("study")]
    assert len(set(ids)) == len(ids)


def test_what_arithmetic_rules_out_is_never_evaluated(store) -> None:
    run(coordinate(make_study(store, trials=60, latency_budget="30%"), store))
    shares = [macs(SHAPE, trial.schedule) / DENSE for trial in store.trials("study")[1:]]
    assert max(shares) <= 0.33


def test_a_device_that_gains_less_than_the_macs_promise_is_learnt(store) -> None:
    """Where latency is 1.6 times what MACs promise, nothing is wasted on schedules that only MACs put within the budget."""
    coordinator = coordinate(make_study(store, trials=50), store)
    while (assignment := coordinator.next()) is not None:
        measured, over = dict(outcome(assignment.candidate, Settings(latency_budget="1000%")).measurements), False
        if assignment.candidate.reductions:
            ratio = min(1.0, 1.6 * measured["macs"].value / DENSE)
            measured["latency_ratio"] = Measurement("latency_ratio", ratio, ratio, ratio, 5)
            over = ratio > 0.6
        coordinator.finish(assignment.number, Evaluation(measured, "over budget" if over else "complete"))
    later = store.trials("study")[15:]
    assert max(macs(SHAPE, trial.schedule) / DENSE for trial in later) <= 1.1 * 0.6 / 1.6 + 1e-9
    assert sum(trial.state == "complete" for trial in later) >= 0.6 * len(later)


def test_an_absolute_budget_is_compared_once_the_backbone_is_known(store) -> None:
    run(coordinate(make_study(store, trials=30, latency_budget="30ms"), store))
    shares = [macs(SHAPE, trial.schedule) / DENSE for trial in store.trials("study")[1:]]
    assert max(shares) <= 0.33  # the backbone takes 100 ms


def test_an_exhausted_space_ends_the_search(store) -> None:
    coordinator = coordinate(make_study(store, trials=50, latency_budget="1%"), store)
    assert run(coordinator) == [0]
    assert coordinator.done


def test_the_same_seed_proposes_the_same(tmp_path) -> None:
    def proposals(folder: str, seed: int) -> list[str]:
        store = Store.open(f"sqlite:///{tmp_path / folder}.db", create=True)
        run(coordinate(make_study(store, trials=15, seed=seed), store))
        return [trial.schedule.id for trial in store.trials("study")]

    assert proposals("a", 3) == proposals("b", 3)
    assert proposals("c", 4) != proposals("a2", 3)


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "nsga3"])
def test_a_search_that_was_killed_and_resumed_proposes_what_it_would_have(store, sampler) -> None:
    settings = {"trials": 40, "seed": 3, "sampler": sampler, "latency_budget": "500%"}  # nothing is over it
    whole = coordinate(make_study(store, "whole", **settings), store)
    run(whole)
    for number in (9, 22, 31):
        killed = coordinate(make_study(store, "killed", **settings), store)
        run(killed, limit=number - len(store.trials("killed")))
        killed.next()
    run(coordinate(make_study(store, "killed", **settings), store))
    proposed = {name: [trial.schedule.id for trial in store.trials(name)] for name in ("whole", "killed")}
    assert proposed["whole"] == proposed["killed"]
    assert len(set(proposed["whole"])) == 41


def test_a_failed_trial_is_kept_with_its_reason_and_the_search_goes_on(store) -> None:
    coordinator = coordinate(make_study(store, trials=4), store)
    run(coordinator, limit=1)
    coordinator.finish(coordinator.next().number, failed("RuntimeError: out of memory"))
    run(coordinator)
    trials = store.trials("study")
    assert (trials[1].state, trials[1].reason) == ("failed", "RuntimeError: out of memory")
    assert len(trials) == 5
    assert coordinator.broken is None


def test_where_the_backbone_fails_nothing_else_is_tried_until_it_is_resumed(store) -> None:
    study = make_study(store, trials=4)
    coordinator = coordinate(study, store)
    coordinator.finish(coordinator.next().number, failed("RuntimeError: no such device"))
    assert run(coordinator) == []
    assert coordinator.broken == "the backbone itself cannot be evaluated (RuntimeError: no such device)"
    again = coordinate(study, store)
    assert run(again) == [1, 2, 3, 4, 5]
    assert [trial.origin for trial in store.trials("study")][:2] == ["backbone", "backbone"]


def test_a_resumed_search_hands_out_what_was_in_flight_and_repeats_nothing(store) -> None:
    study = make_study(store, trials=20)
    first = coordinate(study, store)
    run(first, limit=8)
    lost = [first.next().number, first.next().number]  # handed out, then the process died
    assert not first.done
    second = coordinate(study, store)
    assert run(second)[:2] == lost
    trials = store.trials("study")
    assert [trial.number for trial in trials] == list(range(21))
    assert "running" not in {trial.state for trial in trials}
    assert len({trial.schedule.id for trial in trials}) == 21


def test_what_is_handed_out_again_is_not_proposed_to_another_worker_meanwhile(store) -> None:
    study = make_study(store, trials=20)
    first = coordinate(study, store)
    run(first, limit=3)
    lost = [first.next().candidate.id for _ in range(3)]  # of three workers, all of which died with the search
    second = coordinate(study, store)
    at_once = [second.next().candidate.id for _ in range(8)]
    assert at_once[:3] == lost
    assert len(set(at_once)) == 8


def test_a_finished_search_has_nothing_left_to_hand_out(store) -> None:
    study = make_study(store, trials=5)
    run(coordinate(study, store))
    again = coordinate(study, store)
    assert run(again) == []
    assert again.done


def test_a_resumed_sampler_has_learnt_from_the_database(store) -> None:
    study = make_study(store, trials=30)
    run(coordinate(study, store))
    resumed = coordinate(store.set_trials("study", 45), store)
    run(resumed)
    fresh_space = Space(SHAPE, ("merging",))
    rng = np.random.default_rng(0)
    blind = [outcome(fresh_space.schedule(fresh_space.draw(rng)), study.settings) for _ in range(100)]
    feasible_by_chance = np.mean([one.verdict == "complete" for one in blind])
    later = store.trials("study")[31:]
    assert np.mean([trial.state == "complete" for trial in later]) > feasible_by_chance


def test_a_time_limit_starts_nothing_more(store) -> None:
    coordinator = coordinate(make_study(store, trials=50, time_limit=1e-9), store)
    assert run(coordinator) == [0]
    assert coordinator.done


def test_the_sampler_sees_the_constraint_of_every_kind_of_trial(store) -> None:
    study = make_study(store)
    space = Space(SHAPE, ("merging",))
    sampler = Sampler(space, study.goals, seed=0, kind="tpe")
    for strength, name in ((0.9, "over"), (0.1, "within"), (0.5, "rejected"), (0.2, "failed"), (0.3, "remembered")):
        values = {**neutral(space), **{f"merging.kept.{block}": 1 - (1 - strength) * block / 10 for block in range(11)}}
        measured = outcome(space.schedule(values), study.settings).measurements
        if name == "remembered":
            sampler.remember(space.schedule(values), measured)
            continue
        ticket = sampler.ask(values).ticket
        if name == "rejected":  # by prediction: it has no accuracy
            measured = {"macs": exact("macs", 5), "latency_ratio": exact("latency_ratio", 0.75)}
        sampler.tell(ticket, None if name == "failed" else measured)
    over, within, rejected, failed, remembered = sampler._study.trials
    assert over.constraints["latency budget"] > 0
    assert within.constraints["latency budget"] <= 0
    assert rejected.constraints["latency budget"] == pytest.approx(0.25)
    assert rejected.values == [within.values[0], 0.75]
    assert failed.state.name == "FAIL"
    assert "latency budget" in remembered.constraints
    assert [trial.state.name for trial in (over, within, rejected, remembered)] == ["COMPLETE"] * 4


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(VittleError, match=f"unknown reduction 'magic'; accepted: {KNOWN}"):
        Space(SHAPE, ("merging", "magic"))
    with pytest.raises(VittleError, match="no reduction to search"):
        Space(SHAPE, ())
