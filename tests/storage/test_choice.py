"""Which schedule is recommended: over random studies, as a reader of the table would check it."""

import dataclasses
import math
from functools import cache

import numpy as np
import pytest

from rankings import ranked
from vittle import Schedule, VittleError
from vittle.dashboards import text
from vittle.objectives.budget import CostBudget, LatencyBudget
from vittle.objectives.goals import Asked, Goals, inference_goals, parse_quality
from vittle.objectives.measurement import Measurement, exact, proportion, shown
from vittle.objectives.quality import paired
from vittle.spaces import Merging
from vittle.storage.ranking import Ranking
from vittle.storage.records import Trial

BUDGET = LatencyBudget.parse("60%")
BACKBONE_MS = 67.7
SEEDS = range(25)
LOWER = ("latency_ratio", "latency_ms", "macs")


def around(name: str, value: float, spread: float) -> Measurement:
    return Measurement(name, value, value * (1 - spread), value * (1 + spread), 20)


def timed(random: np.random.Generator, ratio: float, macs: float) -> dict[str, Measurement]:
    """Costs of a trial; its milliseconds drift with the machine, its share of the backbone's time does not."""
    drift = 1 + 0.08 * random.normal()
    return {
        "latency_ratio": around("latency_ratio", ratio, 0.01),
        "latency_ms": around("latency_ms", BACKBONE_MS * drift * ratio, 0.01),
        "macs": exact("macs", macs),
    }


def judged(random: np.random.Generator, right: np.ndarray, dense: np.ndarray) -> dict[str, Measurement]:
    n = len(right)
    drop = paired.difference(dense, right)
    divergence = max(0.0, 3 * drop.value + 0.05 * random.random())
    return {
        "accuracy": proportion("accuracy", int(right.sum()), n, {"right": paired.pack(right)}),
        "accuracy_drop": Measurement("accuracy_drop", *drop, n),
        "divergence": Measurement("divergence", divergence, divergence * 0.8, divergence * 1.2, n),
    }


@cache
def study(seed: int, count: int = 40) -> tuple[Trial, ...]:
    """The backbone and schedules whose accuracy rises with their latency, with luck; most are confirmed, as after a search."""
    random = np.random.default_rng(seed)
    n, steps = int(random.integers(80, 600)), int(random.integers(3, 60))
    ease = {phase: random.random(n) for phase in ("search", "confirmation")}
    dense = {phase: one < 0.97 for phase, one in ease.items()}
    found = []
    for number in range(count):
        # Latencies and MACs lie on a grid, so that ties are many.
        ratio = 1.0 if number == 0 else round(0.25 + 0.4 * int(random.integers(0, steps)) / steps, 4)
        share = 0.97 - (0 if number == 0 else 0.06 * (1 - ratio) ** 2 + 0.01 * random.random())
        macs = 1e9 if number == 0 else 1e9 * round(ratio + 0.05 * random.normal(), 2)
        phases = {}
        for phase in ("search", "confirmation") if number == 0 or random.random() < 0.8 else ("search",):
            right = dense[phase] if number == 0 else ease[phase] + 0.02 * random.normal(size=n) < share
            phases[phase] = {**timed(random, ratio, macs), **judged(random, right, dense[phase])}
        origin = "sampler" if number else "backbone"
        schedule = Schedule((Merging(kept=(64 - number,) * 12),), "prefix") if number else Schedule()
        found.append(Trial(number, "complete", origin, schedule, {}, phases))
    return tuple(found)


def columns(ranking: Ranking, trial: Trial, read=shown) -> list[float]:
    """What a table shows of a trial, less is better; what is not known is worse than anything."""
    qualities = [
        ranking.expected[trial.number]["accuracy"],
        trial.judged["accuracy"],
        trial.measurements.get("confirmation", {}).get("accuracy"),
    ]
    return [*(read(trial.judged[name]) for name in LOWER), *(math.inf if one is None else -read(one) for one in qualities)]


def beats(one: list[float], other: list[float]) -> bool:
    """Better in one column and worse in none."""
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("read", [shown, lambda one: one.value], ids=["shown", "exact"])
@pytest.mark.parametrize(
    "asked",
    [Asked(BUDGET, 0.003), Asked(BUDGET, 0.02), Asked(BUDGET, 0.003, 0.01), Asked(LatencyBudget.parse("30ms"), 0.003)],
    ids=str,
)
def test_no_other_schedule_within_the_budget_is_better_in_a_column_and_worse_in_none(seed: int, asked: Asked, read) -> None:
    ranking = ranked(study(seed))
    choice = ranking.choice(asked)
    if choice is None:
        assert asked.most_lost is not None
        return
    mine = columns(ranking, choice.recommended, read)
    for other in ranking:
        if ranking.holds(other, asked.budget):
            assert not beats(columns(ranking, other, read), mine), (other.number, choice)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_fastest_of_those_within_the_tolerance_is_recommended(seed: int) -> None:
    ranking = ranked(study(seed))
    accuracy = {number: shown(one["accuracy"]) for number, one in ranking.expected.items()}
    pool = [one for one in ranking if ranking.holds(one, BUDGET) and one.confirmed]
    most = max(accuracy[one.number] for one in pool)
    for tolerance in (0.001, 0.003, 0.01, 0.05):
        worth = [one for one in pool if accuracy[one.number] >= most - tolerance - 1e-9]
        choice = ranking.choice(Asked(BUDGET, tolerance))
        assert choice.recommended in worth
        assert accuracy[choice.finest.number] == most
        assert shown(choice.recommended.judged["latency_ratio"]) == min(shown(one.judged["latency_ratio"]) for one in worth)
    exact_best = max(pool, key=lambda one: ranking.expected[one.number]["accuracy"].value)
    assert ranking.choice(Asked(BUDGET)).recommended == ranking.choice(Asked(BUDGET)).finest
    best = ranking.choice(Asked(BUDGET)).recommended
    assert ranking.expected[best.number]["accuracy"].value == ranking.expected[exact_best.number]["accuracy"].value


@pytest.mark.parametrize("seed", SEEDS)
def test_the_other_way_round_it_is_the_fastest_that_loses_at_most(seed: int) -> None:
    ranking = ranked(study(seed))
    accuracy = {number: shown(one["accuracy"]) for number, one in ranking.expected.items()}
    pool = [one for one in ranking if ranking.holds(one, BUDGET) and one.confirmed]
    steps = ranking.best_by_loss()
    for tenths in range(80):
        lost = tenths / 1000
        worth = [one for one in pool if accuracy[one.number] >= accuracy[0] - lost - 1e-9]
        choice = ranking.choice(Asked(BUDGET, most_lost=lost))
        reached = [one for one in steps if one.limit <= lost + 1e-9]
        if not worth:
            assert choice is None
            assert reached == []
            continue
        assert choice.recommended in worth
        assert shown(choice.recommended.judged["latency_ratio"]) == min(shown(one.judged["latency_ratio"]) for one in worth)
        assert reached[-1][1:] == (choice.recommended.number, choice.finest.number)


@pytest.mark.parametrize("seed", SEEDS)
def test_both_latency_axes_recommend_the_same_trial(seed: int) -> None:
    """A budget in percent is one in milliseconds by the backbone's time, and back, whatever the machine's drift."""
    ranking = ranked(study(seed))
    backbone = ranking.baseline.judged
    steps = {name: ranking.best_by_budget(name) for name in ("latency_ratio", "latency_ms")}
    assert [one[1:] for one in steps["latency_ratio"]] == [one[1:] for one in steps["latency_ms"]]
    for share in np.linspace(0.2, 1.1, 40):
        budget = LatencyBudget(float(share), relative=True)
        in_ms = budget.converted(backbone)
        assert in_ms.limit == pytest.approx(share * backbone["latency_ms"].value)
        assert ranking.choice(Asked(budget, 0.003)) == ranking.choice(Asked(in_ms, 0.003))
        assert ranking.front(budget) == ranking.front(in_ms)
    for one, other in zip(steps["latency_ratio"], steps["latency_ms"], strict=True):  # just where a trial comes in
        for step, relative in ((one, True), (other, False)):
            assert ranking.choice(Asked(LatencyBudget(step.limit, relative), 0.003)).recommended.number == step.trial


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("objective", ["latency_ratio", "latency_ms", "macs"])
def test_every_budget_at_once_is_every_budget_asked_for(seed: int, objective: str) -> None:
    ranking = ranked(study(seed))
    steps = ranking.best_by_budget(objective)
    for limit in np.linspace(0.9 * steps[0].limit, 1.05 * steps[-1].limit, 30):
        budget = CostBudget(float(limit), "macs") if objective == "macs" else LatencyBudget(
            float(limit), relative=objective == "latency_ratio"
        )  # fmt: skip
        choice = ranking.choice(Asked(budget, 0.003))
        reached = [one[1:] for one in steps if one.limit <= limit]
        assert reached[-1:] == ([] if choice is None else [(choice.recommended.number, choice.finest.number)])


def pair(right: list[bool], other: list[bool], **kept: bool) -> list[Trial]:
    """The backbone, a trial that is fast, and one that is slower and as it ranks more accurate."""
    rows = [[True] * len(right), right, other]
    random = np.random.default_rng(0)
    found = []
    for number, (answers, ratio) in enumerate(zip(rows, (1.0, 0.44, 0.584), strict=True)):
        row = np.array(answers)
        accuracy = proportion(
            "accuracy", int(row.sum()), len(row), {"right": paired.pack(row)} if kept.get("kept", True) else {}
        )
        one = {**timed(random, ratio, 1e9 * ratio), "accuracy": accuracy}
        schedule = Schedule((Merging(kept=(64 - number,) * 12),), "prefix") if number else Schedule()
        found.append(Trial(number, "complete", "sampler" if number else "backbone", schedule, {}, {"search": one}))
    return found


def test_the_trade_is_said_in_words() -> None:
    right, other = [True] * 445 + [False] * 4, [True] * 446 + [False] * 3
    ranking = ranked(pair(right, other))
    choice = ranking.choice(Asked(BUDGET, 0.003))
    assert (choice.recommended.number, choice.finest.number) == (1, 2)
    trade = ranking.trade(choice)
    assert trade.saved == pytest.approx(1 - 0.44 / 0.584)
    assert trade.lost == pytest.approx(0.002)
    assert trade.more == paired.difference(np.array(right), np.array(other))
    assert text.trade(trade, ranking.goals) == (
        "Trial 1 takes 25% less time than trial 2, the most accurate, for 0.2 points of expected accuracy, "
        "which 449 search images cannot tell apart."
    )
    held_out = [
        dataclasses.replace(one, measurements={**one.measurements, "confirmation": one.measurements["search"]})
        for one in ranking
    ]
    ranking = ranked(held_out)
    assert text.trade(ranking.trade(ranking.choice(Asked(BUDGET, 0.003))), ranking.goals).endswith(
        "which 449 held-out images cannot tell apart."
    )


def test_a_difference_that_images_show_is_said_too() -> None:
    right, other = [True] * 400 + [False] * 49, [True] * 430 + [False] * 19
    ranking = ranked(pair(right, other))
    told = text.trade(ranking.trade(ranking.choice(Asked(BUDGET, 0.1))), ranking.goals)
    assert told.endswith("for 6.7 points of expected accuracy; 449 search images show a loss of 4.3 to 9 points.")
    silent = ranked(pair(right, other, kept=False))
    assert text.trade(silent.trade(silent.choice(Asked(BUDGET, 0.1))), ranking.goals).endswith(
        "for 6.7 points of expected accuracy."
    )
    assert ranking.trade(ranking.choice(Asked(BUDGET))) is None  # it is the most accurate itself


def test_a_study_of_any_kind_has_its_tolerance_in_its_own_unit() -> None:
    trials = pair([True] * 90 + [False] * 10, [True] * 92 + [False] * 8)
    goals = Goals("accuracy", ("macs",), CostBudget(0.9e9, "macs"), tolerance=0.05)
    assert Ranking.of(trials, goals).best().number == 1
    assert Ranking.of(trials, dataclasses.replace(goals, tolerance=0.0)).best().number == 2
    assert Ranking.of(trials, dataclasses.replace(goals, most_lost=0.08)).best().number == 2


def test_a_loss_takes_the_place_of_the_tolerance() -> None:
    goals = inference_goals(BUDGET, "1%", "0.5%")
    assert goals.asked == Asked(BUDGET, 0.01, 0.005)
    assert goals.asking(tolerance=0.0) == Asked(BUDGET, 0.0)
    assert goals.asking(most_lost=0.02).most_lost == 0.02
    assert goals.asking(LatencyBudget.parse("40%")) == Asked(LatencyBudget.parse("40%"), 0.01, 0.005)
    with pytest.raises(VittleError, match="cannot both be asked for; accepted: one of them"):
        goals.asking(tolerance=0.1, most_lost=0.1)


@pytest.mark.parametrize(("given", "read"), [("0.3%", 0.003), ("0", 0.0), (" .5 % ", 0.005), ("100", 1.0)])
def test_points_are_read(given: str, read: float) -> None:
    assert parse_quality(given, "accuracy") == pytest.approx(read)


@pytest.mark.parametrize("given", ["", "-1", "101", "much", "0.3 %%", "nan", "1e3", "9" * 400])
def test_what_is_no_amount_of_accuracy_is_one_line(given: str) -> None:
    with pytest.raises(VittleError, match=r"is no amount of accuracy; accepted: percentage points from 0 to 100") as refused:
        parse_quality(given, "accuracy")
    assert len(str(refused.value)) < 200
