"""Ray Tune with its stock `OptunaSearch`, as Ray's documentation shows it: what a user has without this project.

https://docs.ray.io/en/latest/tune/api/doc/ray.tune.search.optuna.OptunaSearch.html: several objectives given as lists to
`OptunaSearch`, a space of `tune.uniform` and the like that Tune translates, a function trainable that builds what it needs and
reports once, and defaults for the rest: one CPU per trial, as many trials at once as there are CPUs, a fresh actor for each,
no scheduler. Departures are in its favour, or make no difference: one thread per trial, so that trials do not fight over the
cores, and processes that give way to nobody; no output; a seed.
"""

import logging
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_worker_niceness", "0")  # read when Ray is imported

import ray
import torch
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from methods import Run, Trial
from problem import WORKERS, Problem, Source, load
from vittle.spaces.reduction import Choice, Parameter

OBJECTIVES = {"accuracy": "max", "macs": "min"}


def run(problem: Problem, trials: int, seed: int) -> Run:
    """Search, and read the trials off Tune's results. It starts and stops a Ray of its own."""
    # Where the workers find these modules.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    start, clock = time.time(), time.perf_counter()
    ray.init("local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = tune.Tuner(
                tune.with_parameters(evaluate, source=problem.source),
                tune_config=tune.TuneConfig(
                    search_alg=OptunaSearch(metric=list(OBJECTIVES), mode=list(OBJECTIVES.values()), seed=seed),
                    num_samples=trials,
                ),
                run_config=tune.RunConfig(storage_path=folder, verbose=0),
                param_space=param_space(problem.space.parameters),
            ).fit()
        wall = time.perf_counter() - clock
    finally:
        ray.shutdown()
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} trials failed, the first with: {results.errors[0]}")
    finished = sorted(results, key=lambda one: one.metrics["finished"])
    done, spent = [], 0
    for one in finished:
        macs = int(one.metrics["macs"])
        spent += macs * len(problem.splits.search)
        schedule = problem.space.schedule(one.config)
        done.append(Trial(schedule, one.metrics["accuracy"], macs, spent, one.metrics["finished"] - start))
    return Run(tuple(done), wall, sum(one.metrics["forward_s"] for one in finished), WORKERS)


def evaluate(config: dict[str, Any], source: Source) -> None:
    """The trainable: one schedule on all images."""
    torch.set_num_threads(1)
    problem = load(source)
    schedule = problem.space.schedule(config)
    accuracy, seconds = problem.judge(schedule, problem.splits.search)
    tune.report({"accuracy": accuracy, "macs": problem.macs(schedule), "forward_s": seconds, "finished": time.time()})


def param_space(parameters: Iterable[Parameter | Choice]) -> dict[str, Any]:
    """The same space in Tune's words."""
    return {one.name: _domain(one) for one in parameters}


def _domain(one: Parameter | Choice) -> Any:
    if isinstance(one, Choice):
        return tune.choice(list(one.options))
    if one.integer:
        return (tune.lograndint if one.log else tune.randint)(int(one.low), int(one.high) + 1)  # the end is excluded
    return (tune.loguniform if one.log else tune.uniform)(one.low, one.high)
