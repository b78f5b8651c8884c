"""What every kind of sampler keeps to, on outcomes that are computed."""

import itertools

import numpy as np
import optuna
import pytest

from recorded import SHAPE, outcome
from refusals import refusal
from vittle import VittleError
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import INDISTINCT, inference_goals
from vittle.objectives.measurement import Measurement, exact
from vittle.search.sampler import Proposal, Sampler
from vittle.spaces import Schedule, Space
from vittle.spaces.reduction import Values
from vittle.storage.settings import SAMPLERS, Settings

SPACE = Space(SHAPE, ("merging",))
GOALS = inference_goals(LatencyBudget.parse("60%"))
SETTINGS = Settings()
KINDS = [kind for kind in SAMPLERS if kind != "auto"]


def measured(schedule: Schedule) -> dict[str, Measurement]:
    """Without accuracy where it is over the budget."""
    return dict(outcome(schedule, SETTINGS).measurements)


def drawn(number: int, seed: int = 0) -> list[Schedule]:
    rng = np.random.default_rng(seed)
    return [SPACE.schedule(SPACE.draw(rng)) for _ in range(number)]


def taught(kind: str, number: int = 14, seed: int = 0) -> Sampler:
    """A sampler that has learnt from random trials, within the budget and over it."""
    sampler = Sampler(SPACE, GOALS, seed, kind=kind)
    for schedule in drawn(number):
        sampler.remember(schedule, measured(schedule))
    return sampler


def follow(sampler: Sampler, number: int) -> list[Proposal]:
    """Ask and tell, one after another."""
    found = []
    for _ in range(number):
        found.append(sampler.ask())
        sampler.tell(found[-1].ticket, measured(found[-1].candidate))
    return found


class Clock:
    """A second passes whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_proposed_and_what_is_known_of_it_is_canonical(kind) -> None:
    sampler = taught(kind)
    start = sampler.ask(SPACE.draw(np.random.default_rng(5)))
    for proposal in (start, *(sampler.ask() for _ in range(3))):
        assert proposal.parameters == SPACE.encode(proposal.candidate)
        assert sampler._study.trials[proposal.ticket].params == proposal.parameters
        sampler.tell(proposal.ticket, measured(proposal.candidate))
        assert sampler._study.trials[proposal.ticket].params == proposal.parameters


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_given_are_proposed(kind) -> None:
    sampler = taught(kind)
    for schedule in drawn(3, seed=7):
        assert sampler.ask(SPACE.encode(schedule)).candidate == schedule


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_and_a_trial_over_budget_leave_it_able_to_go_on(kind) -> None:
    sampler = taught(kind)
    over = {"latency_ratio": exact("latency_ratio", 0.9), "macs": exact("macs", 1)}
    sampler.tell(sampler.ask().ticket, None)
    sampler.tell(sampler.ask().ticket, over)
    assert len(follow(sampler, 2)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_asked_for_before_anything_is_told_differs(kind) -> None:
    sampler = taught(kind)
    number = 3 if kind == "gp" else 16
    assert len({sampler.ask().candidate.id for _ in range(number)}) == number


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_proposes_the_same_and_another_does_not(kind) -> None:
    first, again, other = ([one.candidate.id for one in follow(taught(kind, seed=seed), 2)] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_an_infeasible_trial_is_learnt_as_complete_with_its_constraint_and_the_least_loss() -> None:
    sampler = Sampler(SPACE, GOALS, 0, kind="random")
    cheap, dense = (sampler.ask(SPACE.encode(schedule)) for schedule in (drawn(1)[0], Schedule()))
    sampler.tell(cheap.ticket, {"divergence": exact("divergence", 0.3), "latency_ratio": exact("latency_ratio", 0.5)})
    sampler.tell(dense.ticket, {"latency_ratio": exact("latency_ratio", 0.9)})
    first, second = sampler._study.trials
    assert (first.state.name, second.state.name) == ("COMPLETE", "COMPLETE")
    assert (first.values, second.values) == ([0.3, 0.5], [0.3, 0.9])
    assert list(first.constraints.values()) == pytest.approx([0.5 / 0.6 - 1])
    assert list(second.constraints.values()) == pytest.approx([0.9 / 0.6 - 1])


def test_a_failed_trial_is_not_learnt_from() -> None:
    sampler = Sampler(SPACE, GOALS, 0, kind="random")
    sampler.tell(sampler.ask().ticket, None)
    assert [trial.state.name for trial in sampler._study.trials] == ["FAIL"]


def test_the_estimate_of_a_stopped_trial_is_learnt() -> None:
    sampler = Sampler(SPACE, GOALS, 0, kind="tpe")
    estimate = {"divergence": Measurement("divergence", 0.2, 0.1, 0.3, 32), "latency_ratio": exact("latency_ratio", 0.4)}
    sampler.tell(sampler.ask().ticket, estimate)
    assert sampler._study.trials[0].values == [0.2, 0.4]


def test_divergence_is_learnt_down_to_what_nobody_sees_and_accuracy_where_an_old_trial_lacks_it() -> None:
    sampler = Sampler(SPACE, GOALS, 0, kind="random")
    latency = {"latency_ratio": exact("latency_ratio", 0.4)}
    for known in (exact("divergence", 0.001), exact("divergence", 0.5), exact("accuracy", 0.9)):
        sampler.tell(sampler.ask().ticket, {"accuracy": exact("accuracy", 0.7), known.objective: known, **latency})
    assert [trial.values[0] for trial in sampler._study.trials] == pytest.approx([INDISTINCT, 0.5, 0.1])


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_learnt_to_be_lowered_where_they_are_asked_for(kind) -> None:
    goals = inference_goals(LatencyBudget.parse("60%"), objectives=("accuracy", "latency", "macs", "parameters"))
    sampler = Sampler(SPACE, goals, 0, kind=kind)
    for number, schedule in enumerate(drawn(12)):
        sampler.remember(schedule, {**measured(schedule), "parameters": exact("parameters", 1000 - number)})
    told = [trial.values for trial in sampler._study.trials]
    assert [values[2] for values in told] == [1000 - number for number in range(12)]
    assert all(len(values) == 3 for values in told)  # MACs fall with latency, and are not told
    assert sampler.ask().candidate.reductions


@pytest.mark.parametrize("kind", ["nsga2", "nsga3"])
def test_what_is_remembered_is_a_generation_that_has_children(kind) -> None:
    sampler = taught(kind, number=10)  # as many as make a population
    sampler.ask()
    attributes = [trial.system_attrs for trial in sampler._study.trials]
    generations = [value for one in attributes for key, value in one.items() if key.endswith(":generation")]
    assert generations == [0] * 10 + [1]


def test_a_schedule_outside_the_space_is_passed_over() -> None:
    pruning = Space(SHAPE, ("pruning",))
    schedule = next(
        one for seed in itertools.count() if (one := pruning.schedule(pruning.draw(np.random.default_rng(seed)))).reductions
    )
    sampler = Sampler(SPACE, GOALS, 0)
    sampler.remember(schedule, measured(schedule))
    assert not sampler._study.trials


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(VittleError, match="unknown sampler 'cma'; accepted: auto, tpe, nsga2, nsga3, gp, random"):
        Sampler(SPACE, GOALS, 0, kind="cma")


def test_a_gaussian_process_that_repeats_itself_is_not_listened_to() -> None:
    """Told the same again it would propose the same again, at the price of another fit."""
    sampler = taught("gp")
    sampler._study.sampler = Repeating(SPACE.encode(drawn(1)[0]))
    assert sampler.ask().candidate not in drawn(14)


class Repeating(optuna.samplers.RandomSampler):
    def __init__(self, values: Values) -> None:
        super().__init__(0)
        self._values = values

    def sample_independent(self, study, trial, param_name, param_distribution):
        return self._values[param_name]


def test_automatic_sampling_is_tpe() -> None:
    sampler = taught("auto")
    assert sampler.kind == "tpe"
    assert [one.candidate for one in follow(sampler, 3)] == [one.candidate for one in follow(taught("tpe"), 3)]


def test_the_time_that_asking_and_telling_take_is_counted() -> None:
    clock = Clock()
    sampler = Sampler(SPACE, GOALS, 0, clock=clock)
    follow(sampler, 3)
    clock.now += 100  # while trials run
    sampler.remember(drawn(1)[0], measured(drawn(1)[0]))
    assert sampler.seconds == 8


def test_searching_finds_a_larger_front_than_chance() -> None:
    """Volume above nine tenths of the accuracy and within the budget, from 15 random trials on; the median of 5 seeds."""
    volumes = {kind: np.median([volume(kind, seed) for seed in range(5)]) for kind in ("random", "tpe")}
    assert volumes["tpe"] > 1.03 * volumes["random"]


def volume(kind: str, seed: int) -> float:
    sampler = Sampler(SPACE, GOALS, seed, kind=kind)
    found = [measured(schedule) for schedule in drawn(15, seed)]
    for schedule, one in zip(drawn(15, seed), found, strict=True):
        sampler.remember(schedule, one)
    found += [measured(proposal.candidate) for proposal in follow(sampler, 45)]
    best, area = 0.9, 0.0
    for one in sorted(found, key=lambda one: one["latency_ratio"].value):
        if "accuracy" in one and one["accuracy"].value > best:
            area += (one["accuracy"].value - best) * (0.6 - one["latency_ratio"].value)
            best = one["accuracy"].value
    return area


def test_a_launch_with_an_unknown_sampler_writes_nothing(url, tmp_path, monkeypatch, capsys) -> None:
    line = refusal(monkeypatch, capsys, "launch", "--sampler", "magic", "--storage", url)
    assert "unknown sampler 'magic'; accepted: auto, tpe, nsga2, nsga3, gp, random" in line
    assert list(tmp_path.iterdir()) == []
