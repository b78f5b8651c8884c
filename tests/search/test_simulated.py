"""Samplers, plans and rungs on recorded evaluations of real images."""

import numpy as np
from scipy.stats import spearmanr

import simulated
from rankings import ranked
from recorded import DENSE, SHAPE, coordinate, make_study
from simulated import table
from vittle.objectives.fronts import hypervolume
from vittle.objectives.goals import LOST
from vittle.search.coordinator import Coordinator
from vittle.search.schedules import Knowledge
from vittle.spaces import Schedule, Space, macs
from vittle.storage.ranking import Ranking
from vittle.storage.store import Store


def searched(store: Store, name: str, *, planned: bool = True, stopping: bool = True, **settings: object) -> Coordinator:
    study = make_study(store, name, **{"latency_budget": "100%", **settings})
    coordinator = coordinate(study, store, known=Knowledge(sensitivity=table().sensitivity if planned else None))
    simulated.search(coordinator, stopping=stopping)
    return coordinator


def volume(store: Store, name: str, trials: int | None = None) -> float:
    """The hypervolume of the first trials of a study, by what the search saw."""
    goals = store.study(name).goals
    reference = hypervolume.ReferencePoint(table().right[table().backbone].mean() - goals.worth, 1.0)
    done = store.trials(name)[1:][:trials]
    return float(hypervolume.volumes([one.judged if one.state == "complete" else {} for one in done], reference, goals)[-1])


def held_out(store: Store, name: str) -> float:
    """The hypervolume of a study's front, in MACs and in accuracy on images that it never saw."""
    known, front = table(), Ranking.of(store.trials(name), store.study(name).goals).front()
    points = [(macs(SHAPE, one.schedule) / DENSE, -known.held_out[known.nearest(one.schedule)]) for one in front]
    return hypervolume.hypervolume(points, (1.0, LOST - known.held_out[known.backbone]))


def test_the_table_holds_real_evaluations() -> None:
    known = table()
    assert len(known.schedules) >= 150
    assert known.right.shape == (len(known.schedules), 1500)
    assert known.right[known.backbone].mean() > 0.5
    losses = known.right[known.backbone].mean() - known.right.mean(1)
    assert losses.max() > 0.2  # some schedules ruin the model
    assert np.corrcoef(known.right.mean(1), known.held_out)[0, 1] > 0.95
    space = Space(SHAPE, ("merging",))
    for at in (3, 20, 100):
        again = space.schedule(space.encode(known.schedules[at]))
        assert known.nearest(again) == at
    assert known.nearest(Schedule()) == known.backbone


def test_plans_find_in_a_few_trials_what_people_try_by_hand_does_not(store) -> None:
    searched(store, "planned", trials=40)
    searched(store, "by hand", trials=40, planned=False)
    assert volume(store, "planned", 12) > volume(store, "by hand", 12)
    origins = [trial.origin for trial in store.trials("planned")]
    assert origins[1:10] == ["plan"] * 9
    assert {"plan"} <= {trial.origin for trial in ranked(store.trials("planned")).front()}


def test_a_sampler_beats_drawing_at_random(store) -> None:
    found = {}
    for kind in ("tpe", "random"):
        for seed in range(3):
            searched(store, f"{kind} {seed}", trials=60, sampler=kind, seed=seed, planned=False)
        found[kind] = np.median([volume(store, f"{kind} {seed}") for seed in range(3)])
    assert found["tpe"] > found["random"]


def test_rungs_save_images_and_lose_nothing(store) -> None:
    saved = searched(store, "rungs", trials=100, sampler="random")
    whole = searched(store, "whole", trials=100, sampler="random", stopping=False)
    assert saved.work < 0.8 * whole.work
    stopped = [trial for trial in store.trials("rungs") if trial.state == "stopped"]
    assert len(stopped) >= 20
    assert all(trial.judged["accuracy"].n < table().right.shape[1] for trial in stopped)
    assert held_out(store, "rungs") >= 0.99 * held_out(store, "whole")


def test_few_images_tell_by_divergence_what_many_tell_by_accuracy() -> None:
    known = table()
    others = [at for at in range(len(known.schedules)) if at != known.backbone]

    def rank(values: np.ndarray) -> float:
        return float(spearmanr(values[others], known.held_out[others]).statistic)

    near = -known.apart[:, :32].astype(float).mean(1)
    assert rank(near) > 0.85
    assert rank(near) > rank(known.right[:, :1024].mean(1))
    assert rank(known.right[:, :64].mean(1)) < 0.3


def test_a_study_of_real_evaluations_ends_by_itself(store) -> None:
    coordinator = searched(store, "study", trials=400, until_flat=True)
    assert coordinator.ended == "the front grows no more"
    assert len(store.trials("study")) < 300
