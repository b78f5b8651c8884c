"""This project's own search on a problem of `search.py`, as a launch runs it, without the confirmation at its end.

The objective that every search has beside accuracy is MACs, so the search is given a latency profile that says MACs. Apart from
that nothing is granted: what it takes to start Ray, to look at the backbone and to plan is in its seconds and in its MACs.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from methods import Run
from methods import Trial as Tried
from problem import WORKERS, Problem
from vittle.objectives.latency.profile import LAST, MLP, PLAIN, WEIGHTED, ActingCost, Check, LatencyProfile, Staircase
from vittle.search.inference import InferenceProblem
from vittle.search.reporter import Reporter
from vittle.search.study import search
from vittle.search.workers import ray_session
from vittle.spaces import BackboneShape, Space, costs
from vittle.spaces.reduction import Choice
from vittle.storage.records import Trial
from vittle.storage.settings import Settings
from vittle.storage.store import Store


def run(problem: Problem, trials: int, seed: int, **asked: Any) -> Run:
    """Search with a new database, so that nothing is known of the backbone before; `asked` are more of the study's settings."""
    profile = macs_profile(problem.space)
    settings = Settings(
        data=problem.source.dataset, target=profile.key, latency_budget="100%", reductions=problem.space.reductions,
        trials=trials, until_flat=False, workers=WORKERS, seed=seed, **asked,
    )  # fmt: skip
    inference = InferenceProblem(settings, problem.backbone, problem.splits)
    finished: list[tuple[Trial, float]] = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(f"sqlite:///{Path(folder) / 'vittle.db'}", create=True)
        store.save_profile(profile)
        study = store.create_study("benchmark", settings, inference.subject)
        reporter = Reporter(finished=lambda trial: finished.append((trial, time.perf_counter() - start)))
        inference.prepare(store, reporter)
        with ray_session(settings):
            coordinator = search(study, inference, store, reporter)
    wall = time.perf_counter() - start
    return _read(finished, int(coordinator.work), wall)


def macs_profile(space: Space) -> LatencyProfile:
    """A latency profile of a device on which time is MACs."""
    shape, counts = space.shape, tuple(range(1, space.shape.tokens + 1))
    embed = shape.embed_macs + shape.head_macs
    dense = embed + shape.depth * shape.block_macs(queries=shape.tokens, keys=shape.tokens, mlp=shape.tokens)

    def part(queries: int | None, keys: int | None, mlp: int | None) -> Staircase:
        asked = ([n if one is None else one for one in (queries, keys, mlp)] for n in counts)
        costs = tuple(shape.block_macs(queries=q, keys=k, mlp=m) / dense for q, k, m in asked)
        return Staircase(counts, costs, costs, costs)

    attention = part(None, None, 0)
    exact = tuple(Check("", one, one, one, one, one) for one in (0.25, 0.5, 0.75, 1.0))
    return LatencyProfile(
        key="macs", model="any", shape=shape, environment={"device": "MACs"},
        protocol={"batch_size": 64, "dtype": "float32", "compiled": False}, backbone_ms=1.0, forms_ms={"fused": 1.0},
        embed=embed / dense, checks=exact, acting=dict.fromkeys(_variants(space), ActingCost(0.0, 0.0, 0.0)),
        parts={PLAIN: attention, WEIGHTED: attention, LAST: part(shape.prefix, None, 0), MLP: part(0, 0, None)},
    )  # fmt: skip


def _variants(space: Space) -> set[str]:
    """Everything that may act: each choice, and windows."""
    shape: BackboneShape = space.shape
    starts = [start.values for start in space.starting_points([0.6])]
    options = [(one.name, option) for one in space.parameters if isinstance(one, Choice) for option in one.options]
    changed = [{**values, name: option} for values in starts for name, option in options]
    pairs = [{**values, name: option} for values in changed for name, option in options]
    triples = [{**values, name: option} for values in pairs for name, option in options]
    schedules = map(space.schedule, triples)
    return {act.variant for one in schedules for row in costs.work(shape, one) for act in row.acts}


def _read(finished: list[tuple[Trial, float]], image_macs: int, wall: float) -> Run:
    """The trials as the benchmark counts them; what was spent before the first of them is charged to it."""
    accuracies = {trial.number: trial.measurements["search"]["accuracy"] for trial, _ in finished}
    spent = {number: int(one.protocol["image_macs"]) for number, one in accuracies.items()}
    so_far = image_macs - sum(spent.values())
    tried, forward = [], 0.0
    for trial, seconds in finished:
        measured = trial.measurements["search"]
        so_far += spent[trial.number]
        if trial.is_baseline:  # the backbone itself is not one of the trials; the others begin when it is done
            began, backbone = seconds, measured
            continue
        forward += measured["accuracy"].protocol["seconds"]
        macs, complete = int(measured["macs"].value), trial.state == "complete"
        tried.append(Tried(trial.schedule, measured["accuracy"].value, macs, so_far, seconds, complete, measured))
    return Run(tuple(tried), wall, forward, WORKERS, finished[-1][1] - began, backbone)
