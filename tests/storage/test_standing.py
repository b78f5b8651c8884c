"""How a study's front has grown, and what it is worth on images that the search never saw: told from its trials alone."""

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from rankings import ranked
from recorded import BACKBONE
from vittle import Schedule, VittleError
from vittle.dashboards import text
from vittle.dashboards.terminal.study_tables import standing
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.fronts import front as fronts
from vittle.objectives.fronts import hypervolume
from vittle.objectives.goals import inference_goals
from vittle.objectives.measurement import Measurement, exact, proportion
from vittle.objectives.parameter_importance import Importance
from vittle.objectives.quality import paired
from vittle.spaces import Merging
from vittle.storage.findings import MORE, Growth
from vittle.storage.records import Trial, seconds_left
from vittle.storage.settings import Settings
from vittle.storage.store import Store

BUDGET = LatencyBudget.parse("60%")
BACKBONE_MS = 10.0


def schedule(number: int) -> Schedule:
    return Schedule((Merging(kept=(65 - number,) * 12),), "prefix")


def measured(right: NDArray[np.bool_], ratio: float, *, kept: bool = True) -> dict[str, Measurement]:
    protocol = {"right": paired.pack(right)} if kept else {}
    return {
        "accuracy": proportion("accuracy", int(right.sum()), len(right), protocol),
        "latency_ratio": exact("latency_ratio", ratio),
        "latency_ms": exact("latency_ms", BACKBONE_MS * ratio),
        "macs": exact("macs", 1000 * ratio),
    }


def trials(searched: NDArray[np.bool_], held_out: NDArray[np.bool_] | None = None, *, kept: bool = True) -> list[Trial]:
    """The backbone, which comes first, and as many trials as there are other rows of answers; each costs more than the last."""
    found = []
    for number, right in enumerate(searched):
        ratio = 1.0 if number == 0 else 0.3 + 0.2 * number / len(searched)
        phases = {"search": measured(right, ratio, kept=kept)}
        if held_out is not None:
            phases["confirmation"] = measured(held_out[number], ratio, kept=kept)
        origin = "sampler" if number else "backbone"
        found.append(Trial(number, "complete", origin, schedule(number) if number else Schedule(), {}, phases))
    return found


def timed(number: int, value: float, high: float, *, state: str = "complete", right: int = 400) -> Trial:
    latency = {name: Measurement(name, value, value, high, 5) for name in ("latency_ratio", "latency_ms")}
    found = {**latency, "macs": exact("macs", 1000 * value), "accuracy": proportion("accuracy", right, 450, {})}
    return Trial(
        number, state, "sampler" if number else "backbone", schedule(number) if number else Schedule(), {}, {"search": found}
    )


BASELINE = timed(0, 1.0, 1.0, right=440)


class TestTheFastest:
    def test_is_the_first_of_the_table(self) -> None:
        calm, shaky = timed(1, 0.41, 0.415), timed(2, 0.40, 0.45, right=390)
        ranking = ranked([BASELINE, calm, shaky, timed(3, 0.39, 0.39, state="infeasible")])
        assert ranking.front()[0] == shaky
        assert ranking.fastest() == shaky
        assert ranking.nearest().number == 3

    def test_is_the_nearest_where_no_schedule_is_in_the_table(self) -> None:
        slow = timed(1, 0.7, 0.72, state="infeasible")
        assert ranked([BASELINE, slow]).fastest() == slow

    def test_is_never_the_baseline(self) -> None:
        for ranking in (ranked([BASELINE]), ranked([])):
            assert ranking.fastest() is None
            assert ranking.nearest() is None

    @pytest.mark.parametrize(("high", "saves"), [(0.99, True), (1.0, False), (1.2, False)])
    def test_saves_something_or_is_no_budget_to_offer(self, high: float, saves: bool) -> None:
        trial = timed(1, 0.9, high)
        assert ranked([BASELINE, trial]).saves(trial) is saves


def answers(random: np.random.Generator, n: int, shares: list[float]) -> NDArray[np.bool_]:
    """Right answers of schedules that agree on which images are hard, (schedules, n), each to its share of all images."""
    ease = random.random(n)
    return np.array([ease + 0.1 * (random.random(n) - 0.5) < share for share in shares])


def with_images(trial: Trial, images: str) -> Trial:
    """The trial, judged on images with that digest."""
    measured = {
        phase: {
            name: dataclasses.replace(one, protocol={**one.protocol, "images": images}) if name == "accuracy" else one
            for name, one in objectives.items()
        }
        for phase, objectives in trial.measurements.items()
    }
    return dataclasses.replace(trial, measurements=measured)


RISING = [0.95, 0.86, 0.88, 0.9, 0.92]  # the backbone, and schedules that are all on the front


def test_a_front_grows_as_its_trials_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = trials(answers(np.random.default_rng(0), 400, RISING))
    backbone, *others = [trial.measurements["search"] for trial in found]
    goals = inference_goals(BUDGET)
    worst = hypervolume.ReferencePoint.of(goals, backbone)
    grown = ranked(found, BUDGET).growth()
    assert grown.volumes == pytest.approx(hypervolume.volumes(others, worst, goals))
    assert grown.volume == grown.volumes[-1] > 0
    right = paired.unpack(backbone["accuracy"].protocol["right"], 400)
    assert grown.spread == hypervolume.spread(others, worst, goals, baseline=right) > 0
    assert grown.outlook == hypervolume.outlook(grown.volumes, grown.spread, MORE)


def test_a_stopped_trial_counts_as_one_that_added_nothing() -> None:
    found = trials(answers(np.random.default_rng(0), 400, RISING))
    last = dataclasses.replace(found[-1], state="stopped")
    grown = ranked([*found[:-1], last], BUDGET).growth()
    assert len(grown.volumes) == 4
    assert grown.volumes[-1] == grown.volumes[-2] < ranked(found, BUDGET).growth().volume


@pytest.mark.parametrize("state", ["running", "failed", "infeasible"])
def test_a_trial_that_saw_no_images_does_not_count(state) -> None:
    found = trials(answers(np.random.default_rng(0), 400, RISING))
    other = Trial(9, state, "sampler", schedule(9), {})
    assert len(ranked([*found, other], BUDGET).growth().volumes) == 4
    assert ranked([found[0], other], BUDGET).growth() is None
    assert ranked(found[1:], BUDGET).growth() is None  # without the backbone nobody knows what is worth having


def test_a_budget_in_milliseconds_is_the_same_budget() -> None:
    found = trials(answers(np.random.default_rng(0), 400, RISING))
    assert ranked(found, LatencyBudget.parse("6ms")).growth().volumes == pytest.approx(ranked(found, BUDGET).growth().volumes)


def test_one_point_is_as_sure_as_the_paired_differences_on_both_sets() -> None:
    random = np.random.default_rng(1)
    sets = [answers(random, 300, [0.95, 0.9]), answers(random, 200, [0.95, 0.85])]
    searched, held_out = (paired.difference(*one) for one in sets)
    curse = ranked(trials(*sets), BUDGET).optimism()
    assert curse.value == pytest.approx(held_out.value - searched.value)
    assert curse.high - curse.value == pytest.approx(np.hypot(held_out.high - held_out.value, searched.value - searched.low))
    assert curse.value - curse.low == pytest.approx(np.hypot(held_out.value - held_out.low, searched.high - searched.value))


def test_points_that_agree_are_no_surer_together_than_one_of_them() -> None:
    random = np.random.default_rng(2)
    one = [answers(random, n, [0.95, 0.9]) for n in (300, 200)]
    alike = [np.concatenate([set_, set_[1:], set_[1:]]) for set_ in one]
    assert ranked(trials(*alike), BUDGET).optimism() == pytest.approx(ranked(trials(*one), BUDGET).optimism())


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        curse = ranked(trials(answers(random, 300, RISING), answers(random, 300, RISING)), BUDGET).optimism()
        held += curse.low <= 0 <= curse.high  # these were not chosen by any images
    assert 0.9 <= held / 300 <= 0.99


def test_choosing_by_the_images_shows() -> None:
    random = np.random.default_rng(4)
    searched, held_out = (answers(random, 400, [0.95, *[0.9] * 200]) for _ in range(2))
    best = [0, 1 + int(searched[1:].sum(1).argmax())]
    assert ranked(trials(searched[best], held_out[best]), BUDGET).optimism().value > 0


def test_what_nobody_wrote_down_is_not_made_up() -> None:
    random = np.random.default_rng(5)
    sets = [answers(random, 100, RISING) for _ in range(2)]
    found = trials(*sets)
    assert ranked(found, BUDGET).optimism() is not None
    assert ranked(trials(sets[0]), BUDGET).optimism() is None  # nothing is confirmed
    unconfirmed = dataclasses.replace(found[0], measurements=trials(sets[0])[0].measurements)
    assert ranked([unconfirmed, *found[1:]], BUDGET).optimism() is None
    assert ranked(trials(*sets, kept=False), BUDGET).optimism() is None  # a study from before answers were kept
    assert ranked(found[:1], BUDGET).optimism() is None
    assert ranked([with_images(found[0], "a"), *found[1:]], BUDGET).optimism() is not None  # of others nobody knows
    mixed = [with_images(trial, "a" if trial.number < 3 else "b") for trial in found]
    assert ranked(mixed, BUDGET).optimism() is None  # a study that went on with other images
    assert ranked(found, LatencyBudget.parse("10%")).optimism() is None


def test_sentences_say_how_sure_they_are() -> None:
    cursed = text.optimism(paired.Interval(0.009, 0.004, 0.014))
    assert cursed == (
        "On images that the search never saw, the front loses 0.9% ± 0.5% more than on those it chose by (winner's curse)."
    )
    assert text.optimism(paired.Interval(0.002, -0.01, 0.014)).endswith(
        "loses 0.2% ± 1.2% more than on those it chose by, which may be chance."
    )
    assert text.optimism(paired.Interval(-0.02, -0.03, -0.01)).endswith("loses 2.0% ± 1.0% less than on those it chose by.")
    grown = Growth(np.array([0.2, 0.3, 0.3, 0.3]), 0.001)
    expected = grown.outlook
    assert text.outlook(grown) == (
        f"Another 100 trials are expected to add {expected.gain:.1%} (at most {expected.high:.1%}) "
        f"to the front's hypervolume, 30.0% now."
    )


def test_only_what_is_known_is_said() -> None:
    random = np.random.default_rng(6)
    sets = [answers(random, 100, RISING) for _ in range(2)]
    assert [sentence.split()[0] for sentence in standing(ranked(trials(*sets), BUDGET), ["merging"])] == ["On", "Another"]
    assert [sentence.split()[0] for sentence in standing(ranked(trials(sets[0]), BUDGET), ["merging"])] == ["Another"]
    assert standing(ranked([], BUDGET), ["merging", "sparsity"]) == []


def test_what_never_paid_is_said_of_what_was_searched() -> None:
    found = ranked(trials(answers(np.random.default_rng(6), 100, RISING)), BUDGET)
    assert found.unpaid(["merging"]) == []
    assert found.unpaid(["sparsity", "merging"]) == ["sparsity"]
    assert standing(found, ["sparsity", "merging"])[-1] == (
        "No schedule on the front has sparsity: on this model, device and budget it did not pay."
    )
    assert ranked(found[:1], BUDGET).unpaid(["merging"]) == []  # before anything is on a front


def test_importance_is_kept_for_each_study(store: Store, url: str) -> None:
    for name in ("one", "two"):
        store.create_study(name, Settings(), BACKBONE)
    told = [Importance(trials, {"fanova": {"accuracy": {"merging.metric": 1.0}}}) for trials in (10, 20, 30)]
    assert store.importance("one") is None
    store.save_importance("one", told[0])
    store.save_importance("two", told[1])
    store.save_importance("one", told[2])
    again = Store.open(url)
    assert (again.importance("one"), again.importance("two")) == (told[2], told[1])
    with pytest.raises(VittleError, match="no study named 'three'"):
        store.importance("three")


def test_a_study_is_done_though_nobody_can_tell_what_mattered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from vittle.search import study as studies

    def explain(study: object, store: object) -> None:
        raise ValueError("a forest of nothing\nand more")

    monkeypatch.setattr(studies, "explain", explain)
    warnings: list[str] = []
    study = store.create_study("one", Settings(), BACKBONE)
    studies.explain_parameters(study, store, studies.Reporter(warned=warnings.append))
    assert warnings == ["which parameters mattered is not known (a forest of nothing)"]


def test_every_budget_has_its_best_trial() -> None:
    found = trials(answers(np.random.default_rng(0), 400, RISING))
    steps = ranked(found).best_by_budget("latency_ratio")
    assert len(steps) > 2
    assert [one.limit for one in steps] == sorted({one.limit for one in steps})
    for limit in np.linspace(0.2, 1.1, 91):
        fits = [one.trial for one in steps if one.limit <= limit]
        chosen = ranked(found, LatencyBudget(float(limit), True)).best()
        assert fits[-1:] == ([] if chosen is None else [chosen.number])


def test_a_confirmed_trial_is_chosen_before_those_that_are_not() -> None:
    found = trials(answers(np.random.default_rng(0), 400, RISING))
    cheap, dear = found[1], found[-1]
    sure = dataclasses.replace(cheap, measurements={**cheap.measurements, "confirmation": cheap.measurements["search"]})
    assert [one.trial for one in ranked([found[0], cheap, dear]).best_by_budget("macs")] == [cheap.number, dear.number, 0]
    assert [one.trial for one in ranked([found[0], sure, dear]).best_by_budget("macs")] == [cheap.number]


def test_the_knee_is_where_accuracy_begins_to_cost_more() -> None:
    found = trials(answers(np.random.default_rng(0), 4000, [0.99, 0.6, 0.9, 0.92, 0.94]))
    bend = ranked(found).knee()
    assert bend is not None
    assert bend.number == 2
    assert ranked(found[:2]).knee() is None
    straight = [{name: exact(name, value) for name in ("accuracy", "latency_ratio")} for value in (0.2, 0.4, 0.6)]
    assert fronts.knee(straight, inference_goals(BUDGET)) is None


def test_time_left_is_as_the_last_trials_went() -> None:
    found = trials(answers(np.random.default_rng(0), 400, RISING))
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    ended = [dataclasses.replace(one, finished=begun + timedelta(seconds=30 * one.number)) for one in found]
    assert seconds_left(ended, 10) == pytest.approx(30 * 6)
    assert seconds_left(ended, 4) is None
    assert seconds_left([*ended[:2], found[2]], 10) is None


def test_trials_that_are_asked_again_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    plain = trials(rng.random((8, 200)) < 0.9)
    compared = []
    find = fronts.front
    monkeypatch.setattr(fronts, "front", lambda *asked: compared.append(asked) or find(*asked))
    asked = ranked(plain)
    assert ranked(asked) is asked
    assert ranked(asked, LatencyBudget.parse("50%")) is not asked
    for _ in range(2):
        assert (asked.best(), asked.knee(), asked.front()) == (
            ranked(plain).best(),
            ranked(plain).knee(),
            ranked(plain).front(),
        )
    assert len(compared) == 1 + 2 * 2  # its front once, and of plain trials one for each question about it
