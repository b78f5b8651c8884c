"""Rungs, stopping and limits of a search, on outcomes that are computed image by image."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recorded import DENSE, SHAPE, coordinate, make_study, outcome, run
from vittle import Schedule, presets
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.evaluation import Evaluation, failed
from vittle.objectives.fronts.early_stopping import beaten_by
from vittle.objectives.goals import inference_goals
from vittle.objectives.measurement import Measurement, exact, proportion
from vittle.objectives.quality import paired
from vittle.search import scheduler as scheduler_module
from vittle.search.coordinator import Assignment, Coordinator
from vittle.search.ending import ending
from vittle.search.scheduler import RECYCLED, SEEN, EarlyStopping, RollCall
from vittle.search.schedules import Knowledge
from vittle.search.workers import Bridge
from vittle.spaces import macs
from vittle.storage.store import Store

N = 400
GOALS = inference_goals(LatencyBudget.parse("60%"))


def answered(wrong: int, seen: int = N, share: float = 0.5, extra: int = 0) -> dict[str, Measurement]:
    """Measurements of a trial that answers the first `wrong` images wrongly, at a cost."""
    right = np.arange(seen) >= wrong
    protocol = {"right": paired.pack(right), "image_macs": extra}
    return {
        "macs": exact("macs", round(share * DENSE)),
        "latency_ms": Measurement("latency_ms", 100 * share, 100 * share, 100 * share, 5, {"backbone_ms": 100.0}),
        "latency_ratio": exact("latency_ratio", share),
        "accuracy": proportion("accuracy", int(right.sum()), seen, protocol),
    }


def test_a_trial_is_beaten_by_a_rival_that_costs_no_more_and_is_better_beyond_doubt() -> None:
    cheap = answered(0, share=0.4)
    assert beaten_by(answered(10, seen=64), {3: cheap}, GOALS) == 3
    assert beaten_by(answered(3, seen=64), {3: cheap}, GOALS) is None  # three images are no proof
    assert beaten_by(answered(10, seen=64, share=0.3), {3: cheap}, GOALS) is None  # it costs less
    dear_in_macs = {**cheap, "macs": exact("macs", DENSE)}
    assert beaten_by(answered(10, seen=64), {3: dear_in_macs}, GOALS) is None  # latency alone is not all
    assert beaten_by(answered(30, seen=64), {3: answered(20, share=0.4), 5: cheap, 7: answered(25, share=0.4)}, GOALS) == 5
    silent = {**cheap, "accuracy": proportion("accuracy", N, N, {})}
    assert beaten_by(answered(10, seen=64), {3: silent}, GOALS) is None  # nobody knows which images
    assert beaten_by(answered(10, seen=64), {}, GOALS) is None
    ours, theirs = (
        {**one, "accuracy": replace(one["accuracy"], protocol={**one["accuracy"].protocol, "images": images})}
        for one, images in ((answered(10, seen=64), "a"), (cheap, "b"))
    )
    assert beaten_by(ours, {3: theirs}, GOALS) is None  # answers to other images say nothing
    assert beaten_by(ours, {3: theirs, 5: cheap}, GOALS) == 5


def told_apart(codes: int, seen: int = N, share: float = 0.5, wrong: int = 0) -> dict[str, Measurement]:
    """Measurements of a trial whose answers are all as far from the backbone's."""
    nats = paired.FINEST * 2.0 ** (codes / paired.STEPS)
    each = {"each": paired.pack_divergence(np.full(seen, nats))}
    return {**answered(wrong, seen, share), "divergence": Measurement("divergence", nats, nats, nats, seen, each)}


def test_a_trial_is_beaten_by_the_closest_of_those_that_cost_no_more_where_it_is_right_as_often() -> None:
    near, far = told_apart(100, share=0.4), told_apart(150, seen=32)
    assert beaten_by(far, {3: near}, GOALS) == 3  # not one answer differs, and 32 images are enough
    assert beaten_by(far, {2: told_apart(120, share=0.4), 3: near, 4: told_apart(90, share=0.6)}, GOALS) == 3
    assert beaten_by(told_apart(150, seen=4), {3: near}, GOALS) is None
    assert beaten_by(told_apart(150, seen=32, share=0.3), {3: near}, GOALS) is None  # it costs less
    assert beaten_by(told_apart(100, seen=32), {3: near}, GOALS) is None  # as close
    assert beaten_by(far, {3: told_apart(100, share=0.4, wrong=1)}, GOALS) is None  # closer, but right less often
    assert beaten_by(far, {3: answered(0, share=0.4)}, GOALS) is None  # nobody knows how close, and no answer differs
    assert beaten_by(told_apart(150, seen=64, wrong=10), {3: answered(0, share=0.4)}, GOALS) == 3


def test_divergences_survive_packing_to_a_few_percent_and_in_their_order() -> None:
    nats = np.geomspace(1e-8, 30, 500)
    codes = paired.unpack_divergence(paired.pack_divergence(nats))
    assert (np.diff(codes.astype(int)) >= 0).all()
    kept = paired.FINEST * 2.0 ** (codes / paired.STEPS)
    np.testing.assert_allclose(kept[nats > paired.FINEST], nats[nats > paired.FINEST], rtol=0.04)
    assert len(paired.unpack_divergence(paired.pack_divergence(np.ones(9000)))) == paired.CODED


@pytest.fixture
def coordinator(store: Store) -> Coordinator:
    """One whose front has the backbone's answers for a third of the cost, as trial 1."""
    coordinator = coordinate(make_study(store, trials=20, latency_budget="90%"), store)
    coordinator.finish(coordinator.next().number, Evaluation(answered(0, share=1.0)))
    coordinator.finish(coordinator.next().number, Evaluation(answered(0, share=0.3)))
    return coordinator


def test_a_stopped_trial_is_kept_with_its_estimate_and_the_sampler_is_told(coordinator, store) -> None:
    assignment = coordinator.next()
    assert set(assignment.rivals) == {1}
    seen = Evaluation(answered(12, seen=64), "going")
    assert coordinator.judge(assignment.number, seen) == Evaluation(seen.measurements, "beaten", rival=1)
    coordinator.finish(assignment.number, Evaluation(seen.measurements, "beaten", rival=1))
    trial = store.trials("study")[-1]
    assert (trial.state, trial.reason) == ("stopped", "trial 1 costs no more and is better, as 64 images show")
    assert trial.judged["accuracy"].n == 64
    assert set(coordinator.next().rivals) == {1}  # what was stopped is on no front


def result(*outcomes: tuple[int, Evaluation]) -> dict[str, object]:
    return {SEEN: list(outcomes), "done": False}


def test_the_scheduler_stops_a_tune_trial_once_all_that_runs_in_it_is_beaten(coordinator) -> None:
    scheduler = EarlyStopping(coordinator, RollCall())
    first, second, third = (coordinator.next().number for _ in range(3))
    lost, open_ = (Evaluation(answered(wrong, seen=64), "going") for wrong in (12, 2))
    done = Evaluation(answered(12))
    assert scheduler.on_trial_result(None, None, result((first, lost), (second, open_))) == scheduler.CONTINUE
    assert scheduler.on_trial_result(None, None, result((first, lost), (second, lost))) == scheduler.STOP
    assert scheduler.on_trial_result(None, None, result((first, lost), (third, done))) == scheduler.STOP
    assert scheduler.on_trial_result(None, None, result((third, done))) == scheduler.CONTINUE  # Tune ends it by itself


def test_no_worker_begins_before_all_are_there_and_each_hands_its_actor_on(coordinator, monkeypatch, dead) -> None:
    def results(scheduler: EarlyStopping, *trials: str) -> list[str]:
        return [scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial), result()) for trial in trials]

    roll_call = RollCall(lambda: 2)
    bridge, scheduler = Bridge(coordinator, roll_call), EarlyStopping(coordinator, roll_call)
    assert [bridge.suggest(trial) for trial in ("a", "b")] == [{"assignments": []}] * 2
    for _ in range(2):
        scheduler.on_trial_add(None, None)
    stop, go_on = scheduler.STOP, scheduler.CONTINUE
    assert results(scheduler, "a", "a", "b", "a") == [
        go_on,
        go_on,
        stop,
        go_on,
    ]  # the second waits for a trial to take the actor
    bridge.on_trial_complete("b", result())
    assert bridge.suggest("c")["assignments"]
    scheduler.on_trial_add(None, None)
    assert results(scheduler, "a") == [stop]

    # Its worker died: another one starts, and both wait for each other again.
    scheduler.on_trial_error(None, dead(*bridge._numbers["c"]))
    bridge.on_trial_complete("c", error=True)
    assert [bridge.suggest(trial)["assignments"] == [] for trial in ("d", "e", "f")] == [True, True, False]
    for _ in range(2):
        scheduler.on_trial_add(None, None)
    assert results(scheduler, "d", "d", "e", "d") == [go_on, go_on, stop, go_on]

    late = EarlyStopping(coordinator, RollCall(lambda: 2))
    assert results(late, "a") == [go_on]
    monkeypatch.setattr(scheduler_module, "PATIENCE", 0.0)
    for _ in range(2):
        late.on_trial_add(None, None)
    assert results(late, "a") == [stop]  # the other one may never come
    over = EarlyStopping(coordinator, RollCall(lambda: 2))
    coordinator.ended = "all trials are done"
    assert results(over, "a", "b") == [stop, stop]  # no trial will come to take their actors


def test_every_schedule_of_a_tune_trial_is_finished_once(coordinator, store) -> None:
    bridge = Bridge(coordinator, RollCall())
    bridge._numbers["t"] = numbers = {coordinator.next().number for _ in range(3)}
    first, second, third = sorted(numbers)
    lost = Evaluation(answered(12, seen=64), "going")
    bridge.on_trial_result("t", result((first, Evaluation(answered(12))), (second, lost), (third, lost)))
    assert [trial.state for trial in store.trials("study")[first:]] == ["complete", "running", "running"]
    beaten = Evaluation(lost.measurements, "beaten", rival=1)
    bridge.on_trial_complete("t", result((second, beaten), (third, lost)))  # the scheduler stopped it
    assert [trial.state for trial in store.trials("study")[first:]] == ["complete", "stopped", "stopped"]
    bridge.on_trial_complete("t", result((second, beaten)))
    assert len(store.trials("study")) == third + 1


def test_a_trial_without_a_result_stays_running_after_a_ctrl_c(coordinator, store, dead) -> None:
    bridge = Bridge(coordinator, RollCall())
    bridge._numbers = {"a": {coordinator.next().number}}
    bridge.on_trial_complete("a")
    assert [trial.state for trial in store.trials("study")[2:]] == ["running"]


@pytest.fixture
def dead(tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """Makes a Tune trial whose worker has died."""

    def make(*numbers: int, error: Exception | None = None) -> SimpleNamespace:
        (tmp_path / "error.txt").write_text(f"Failure # 1\n{error}\n")
        assignments = [Assignment(number, Schedule()) for number in numbers]
        return SimpleNamespace(config={"assignments": assignments}, error_file=str(tmp_path / "error.txt"))

    return make


def test_what_a_dead_worker_had_is_handed_out_again_one_by_one_and_fails_where_it_always_dies(coordinator, store, dead) -> None:
    scheduler = EarlyStopping(coordinator, RollCall())
    done, innocent, guilty = (coordinator.next().number for _ in range(3))
    coordinator.finish(done, Evaluation(answered(2)))
    scheduler.on_trial_error(None, dead(done, innocent, guilty))
    coordinator.problem.know(Knowledge(pass_seconds=0.01))  # so short that schedules go out together
    assert [one.number for one in coordinator.batch()] == [innocent]
    coordinator.finish(innocent, Evaluation(answered(3)))
    for _ in range(2):
        assert [one.number for one in coordinator.batch()] == [guilty]
        scheduler.on_trial_error(None, dead(guilty, error=RuntimeError("killed as the node was low on memory")))
    assert guilty not in {one.number for one in coordinator.batch()}
    by_number = {trial.number: trial for trial in store.trials("study")}
    assert (by_number[guilty].state, by_number[guilty].attempts) == ("failed", 4)
    assert by_number[guilty].reason == "its worker died for want of memory, each of 3 times"
    assert {by_number[number].state for number in (done, innocent)} == {"complete"}
    assert by_number[innocent].attempts == 2


def test_a_search_whose_workers_never_get_ready_gives_up_with_the_reason(coordinator, dead) -> None:
    scheduler = EarlyStopping(coordinator, RollCall(lambda: 2))
    error = RuntimeError(
        "died because of an error raised in its creation task\n...\nModuleNotFoundError: No module named 'timm'\n"
    )
    for _ in range(5):
        scheduler.on_trial_error(None, dead(error=error))
    assert coordinator.broken is None
    scheduler.on_trial_error(None, dead(error=error))
    why = "no worker gets ready: its worker could not start (ModuleNotFoundError: No module named 'timm')"
    assert (coordinator.broken, coordinator.ended, coordinator.next()) == (why, why, None)


def test_nobody_is_to_blame_for_a_worker_that_makes_room_for_a_fresh_one(coordinator, store, dead) -> None:
    scheduler = EarlyStopping(coordinator, RollCall())
    number = coordinator.next().number
    for _ in range(5):
        scheduler.on_trial_error(None, dead(number, error=RuntimeError(RECYCLED)))
        assert coordinator.next().number == number
    assert store.trials("study")[number].attempts == 1


def test_a_search_waits_for_what_may_come_back_before_it_ends(store, dead) -> None:
    coordinator = coordinate(make_study(store, trials=1), store)
    bridge, scheduler = Bridge(coordinator, RollCall()), EarlyStopping(coordinator, RollCall())
    coordinator.finish(bridge.suggest("a")["assignments"][0].number, Evaluation(answered(0, share=1.0)))
    (last,) = bridge.suggest("b")["assignments"]
    assert bridge.suggest("c") is None  # not now, which is not the same as never
    assert coordinator.ended == "all 1 trials are done"
    scheduler.on_trial_error(None, dead(last.number))
    assert not coordinator.done
    assert bridge.suggest("d")["assignments"] == [last]
    coordinator.finish(last.number, Evaluation(answered(2)))
    assert bridge.suggest("e") == Bridge.FINISHED


def test_a_trial_that_its_search_dies_of_fails_and_one_that_was_only_interrupted_does_not(store) -> None:
    study = make_study(store, trials=20)
    first = coordinate(study, store)
    run(first, limit=3)
    guilty = first.next().number
    for _ in range(4):
        store.set_state("study", "interrupted")
        assert store.trials("study")[guilty].state == "interrupted"
        store.set_state("study", "running")
        assert coordinate(store.study("study"), store).next().number == guilty
        assert store.trials("study")[guilty].state == "running"
    assert store.trials("study")[guilty].attempts == 1
    for _ in range(2):
        assert coordinate(store.study("study"), store).next().number == guilty
    again = coordinate(store.study("study"), store)
    assert again.next().number != guilty
    trial = store.trials("study")[guilty]
    assert (trial.state, trial.reason) == ("failed", "the search died with it, each of 3 times")


def test_one_that_is_lost_after_its_time_is_over_its_time_limit(store, dead) -> None:
    coordinator = coordinate(make_study(store, trials=20, trial_time_limit=1e-9), store)
    scheduler = EarlyStopping(coordinator, RollCall())
    run(coordinator, limit=1)
    one, other = coordinator.next().number, coordinator.next().number
    scheduler.on_trial_error(None, dead(one, other))  # either may be the one
    assert coordinator.next().number == one
    scheduler.on_trial_error(None, dead(one))
    assert coordinator.next().number == other
    scheduler.on_trial_error(None, dead(other, error=RuntimeError(RECYCLED)))
    assert coordinator.next().number == other
    trial = store.trials("study")[one]
    assert (trial.state, trial.reason) == ("failed", "over its time limit: no result within 1e-09 s")


def test_failures_alike_are_told_once_with_what_to_do(store) -> None:
    warned: list[str] = []
    coordinator = coordinate(make_study(store, trials=30), store, warn=warned.append)
    run(coordinator, limit=1)
    for reason in ["ValueError: odd", *["RuntimeError: no kernel"] * 6, *["OutOfMemoryError: CUDA"] * 3]:
        coordinator.finish(coordinator.next().number, failed(reason))
    assert warned == [
        "3 schedules with merging have failed alike (RuntimeError: no kernel); "
        "leave merging out of --reductions, or report it with this model's name",
        "3 schedules with merging have failed alike (OutOfMemoryError: CUDA); "
        "a smaller --batch-size or --cache leaves more memory",
    ]


def test_short_evaluations_are_handed_out_together(store) -> None:
    def sizes(name: str, seconds: float, **settings: object) -> list[int]:
        coordinator = coordinate(make_study(store, name, trials=40, **settings), store, known=Knowledge(pass_seconds=seconds))
        found = []
        while batch := coordinator.batch():
            found.append(len(batch))
            for one in batch:
                coordinator.finish(one.number, outcome(one.candidate, coordinator.study.settings))
        return found

    assert set(sizes("slow", 10.0)) == {1}
    assert set(sizes("unknown", 0.0)) == {1}
    short = sizes("short", 0.1)
    assert short[0] == 1  # the backbone comes first, alone
    assert max(short) == 8
    assert sum(short) == 41
    assert short[-1] == 1  # towards the end each outcome counts
    assert max(sizes("many workers", 0.1, workers=8)) <= 3


def test_the_image_passes_of_a_study_are_limited(store) -> None:
    study = make_study(store, trials=40, image_passes=1000)
    coordinator = coordinate(study, store, known=Knowledge(image_macs=400 * DENSE))
    while (one := coordinator.next()) is not None:
        coordinator.finish(one.number, Evaluation(answered(2, share=macs(SHAPE, one.candidate) / DENSE, extra=100 * DENSE)))
    assert coordinator.ended == "1000 image passes are spent"
    assert coordinator.work == 1000 * DENSE
    assert len(store.trials("study")) == 6
    again = coordinate(study, store, known=Knowledge(image_macs=400 * DENSE))
    assert again.next() is None  # what is spent stays spent


def test_a_search_ends_where_its_front_grows_no_more_and_an_extended_one_goes_on(store) -> None:
    def ends(coordinator: Coordinator) -> int:
        """Every schedule answers alike, so after the cheapest nothing is gained."""
        while (one := coordinator.next()) is not None:
            share = max(0.3, macs(SHAPE, one.candidate) / DENSE)
            coordinator.finish(one.number, Evaluation(answered(0 if one.candidate.reductions else 1, share=share)))
        return len(store.trials("study")) - 1

    study = make_study(store, trials=120, until_flat=True)
    first = coordinate(study, store)
    assert 20 <= ends(first) < 60
    assert first.ended == "the front grows no more"
    before = ends(first)
    again = coordinate(store.set_trials("study", 120), store)
    assert ends(again) >= before + 20
    assert len({trial.schedule.id for trial in store.trials("study")}) == len(store.trials("study"))


def test_a_search_that_should_run_all_trials_does(store) -> None:
    coordinator = coordinate(make_study(store, trials=45, until_flat=False), store)
    assert len(run(coordinator)) == 46
    assert coordinator.ended == "all 45 trials are done"


def test_an_assignment_without_rivals_is_complete() -> None:
    assert Assignment(1, presets.constant(SHAPE, 4)).rivals == {}
    assert Evaluation().ended
    assert not Evaluation(verdict="going").ended
    assert Evaluation(verdict="beaten", rival=1).ended
    assert failed("no kernel").ended
    assert Schedule().reductions == ()


@pytest.mark.parametrize("wrong", [{"verdict": "beaten"}, {"verdict": "failed"}, {"reason": "x"}, {"rival": 1}])
def test_a_verdict_says_who_or_why(wrong) -> None:
    with pytest.raises(ValueError, match="an evaluation that is"):
        Evaluation(**wrong)


@pytest.mark.parametrize(
    ("evaluation", "end"),
    [
        (Evaluation(answered(0)), ("complete", None)),
        (Evaluation(answered(0, share=0.75), "over budget"), ("infeasible", "latency is 75%, the budget 60%")),
        (Evaluation(answered(9, 64), "beaten", rival=3), ("stopped", "trial 3 costs no more and is better, as 64 images show")),
        (failed("RuntimeError: no kernel"), ("failed", "RuntimeError: no kernel")),
        (Evaluation(answered(0), "going"), ("running", None)),
    ],
)
def test_each_verdict_is_one_state_with_its_reason(evaluation, end) -> None:
    assert ending(evaluation, GOALS) == end


def test_what_is_still_going_when_its_worker_lets_go_of_it_is_handed_out_again(coordinator, store) -> None:
    one = coordinator.next()
    coordinator.finish(one.number, Evaluation(answered(2, seen=64), "going"))
    assert store.trials("study")[one.number].state == "running"
    assert coordinator.next().number == one.number
