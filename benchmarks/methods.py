"""The searches that `search.py` compares, each a function from a problem, a number of trials and a seed to what it ran.

A run's clock starts when the function is called, with the problem loaded, and covers all that it does, starting Ray included.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from problem import Problem, Source, load
from vittle import presets
from vittle.objectives.measurement import Measurement
from vittle.spaces.schedule import Schedule


class Trial(NamedTuple):
    """One schedule that was tried.

    Attributes:
        schedule: what was tried.
        accuracy: on the images to search on, 0 to 1.
        macs: of one image.
        image_macs: MACs of everything that has run through the model since the run started, this trial included.
        wall_s: seconds since the run started.
        complete: whether it has seen all images; one that was stopped has an estimate, and is never chosen.
        measured: what this project's search knows of it besides, which it chooses by.
    """

    schedule: Schedule
    accuracy: float
    macs: int
    image_macs: int
    wall_s: float
    complete: bool = True
    measured: Mapping[str, Measurement] | None = None


@dataclass(frozen=True)
class Run:
    """What one search tried, in order of completion.

    Attributes:
        trials: see `Trial`.
        wall_s: seconds in all.
        forward_s: seconds inside forward passes, summed over workers.
        workers: that ran at the same time.
        search_s: seconds in which they evaluated trials, without what comes before; all seconds where nobody knows.
        backbone: what this project's search knows of the backbone.
    """

    trials: tuple[Trial, ...]
    wall_s: float
    forward_s: float
    workers: int = 1
    search_s: float | None = None
    backbone: Mapping[str, Measurement] | None = None

    @property
    def overhead_share(self) -> float:
        """The share of the workers' time that was not spent in forward passes."""
        return 1 - self.forward_s / (self.workers * (self.wall_s if self.search_s is None else self.search_s))


Method = Callable[[Problem, int, int], Run]


def run_constant(problem: Problem, trials: int, seed: int) -> Run:
    """ToMe's constant schedules (arXiv 2210.09461): every number of tokens merged per block. It takes no number of trials."""
    del trials, seed
    return _sweep(problem, lambda removed: presets.constant(problem.space.shape, removed, tail=problem.space.context.tail))


def run_decreasing(problem: Problem, trials: int, seed: int) -> Run:
    """ToMe's decreasing schedules: merges fall to none over depth. It takes no number of trials."""
    del trials, seed
    return _sweep(problem, lambda removed: presets.linear(problem.space.shape, removed, -1, tail=problem.space.context.tail))


def run_random(problem: Problem, trials: int, seed: int) -> Run:
    """Independent draws from the space."""
    generator = np.random.default_rng(seed)
    return _evaluate(problem, (problem.space.schedule(problem.space.draw(generator)) for _ in range(trials)))


def run_stock(problem: Problem, trials: int, seed: int) -> Run:
    """Ray Tune with its stock `OptunaSearch`, in a process of its own."""
    return alone(_stock, problem.source, trials, seed)


def run_vittle(problem: Problem, trials: int, seed: int) -> Run:
    """This project's search, in a process of its own."""
    return alone(_vittle, problem.source, trials, seed)


METHODS: dict[str, Method] = {
    "constant": run_constant,
    "decreasing": run_decreasing,
    "random": run_random,
    "stock": run_stock,
    "vittle": run_vittle,
}
SWEEPS = ("constant", "decreasing")  # which have neither seed nor number of trials


def alone(method: Method, source: Source, trials: int, seed: int) -> Run:
    """Run a search in a fresh process, so that it meets nobody else's Ray, nor settings that Ray reads when imported."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_loaded, method, source, trials, seed).result()


def _loaded(method: Method, source: Source, trials: int, seed: int) -> Run:
    return method(load(source), trials, seed)


def _stock(problem: Problem, trials: int, seed: int) -> Run:
    from stock import run  # not above: Ray is imported in the process that uses it, and there alone

    return run(problem, trials, seed)


def _vittle(problem: Problem, trials: int, seed: int) -> Run:
    from ours import run

    return run(problem, trials, seed)


def _sweep(problem: Problem, schedule: Callable[[int], Schedule]) -> Run:
    """Every distinct schedule, nothing merged first. The lossless tail is granted, as the space has it."""
    asked = (schedule(removed) for removed in range(problem.space.shape.patches + 1))
    return _evaluate(problem, {one.id: one for one in asked}.values())


def _evaluate(problem: Problem, schedules: Iterable[Schedule]) -> Run:
    """One after another on all images, in this process."""
    start = time.perf_counter()
    images, trials, spent, forward = problem.splits.search, [], 0, 0.0
    for schedule in schedules:
        accuracy, seconds = problem.judge(schedule, images)
        macs = problem.macs(schedule)
        spent += macs * len(images)
        forward += seconds
        trials.append(Trial(schedule, accuracy, macs, spent, time.perf_counter() - start))
    return Run(tuple(trials), time.perf_counter() - start, forward)
