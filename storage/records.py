"""Studies and trials as the rest of the project sees them: immutable values without a database session."""

import itertools
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.fronts import front as fronts
from vittle.objectives.fronts import hypervolume
from vittle.objectives.fronts.early_stopping import right
from vittle.objectives.measurement import NORMAL_95, SEARCHED, Measurement, Phase
from vittle.objectives.quality import paired
from vittle.objectives.quality.expectation import Measured, expected
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import AdapterRecord, Values
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.table import adapter_files

TrialState = Literal["running", "complete", "stopped", "infeasible", "failed"]
StudyState = Literal["running", "complete", "interrupted", "failed"]

MORE = 100  # trials that an outlook is for
PACE = 20  # trials that tell how fast a search is
NAME = re.compile(r"(?!.*\.(json|yaml)$)\w[\w .+-]{0,99}")  # a study's name stands in addresses and file names


def check_name(name: str) -> None:
    """Refuse what no study can be called.

    Raises:
        VittleError: another name than what is accepted.
    """
    if not NAME.fullmatch(name):
        raise VittleError(f"study name {name!r} cannot be used; accepted: up to 100 letters, digits, spaces and . _ + -")


def free_name(model: str, taken: Container[str]) -> str:
    """A name for a study that is not taken: its model and a number."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", model).strip("-")
    return next(name for number in itertools.count(1) if (name := f"{stem}-{number}") not in taken)


class Settings(BaseModel):
    """What a search was asked to do. Written once, when the study is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "digits"
    checkpoint: str | None = None
    data: str = "digits"
    latency_budget: str = "60%"
    batch_size: int = 64
    device: str = "cpu"
    dtype: str = "float32"
    compiled: bool = False
    predict: bool = True  # latency, from a profile that is measured once
    target: str | None = None  # key of the latency profile of another device, whose budget this is
    reductions: tuple[str, ...] = ("merging",)
    adapters: dict[str, str] = {}  # files of trained weights, by reduction
    sampler: str = "auto"
    trials: int = 40
    time_limit: float | None = None
    trial_time_limit: float | None = None
    image_passes: float | None = None  # the most images to bring through the model, counted in whole passes of the backbone
    until_flat: bool = True  # end where the front grows no more
    cache: int = 2 * 2**30  # bytes of the backbone's activations to keep
    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _of_today(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        # Studies from before every block had a share of its own hold this setting of their curves.
        settings = {name: value for name, value in given.items() if name not in ("residuals", "adapter")}
        # Those from before there were several adapters have the file of a merge embedding, or None.
        return settings | ({"adapters": adapter_files(given["adapter"])} if given.get("adapter") else {})

    @property
    def budget(self) -> LatencyBudget:
        return LatencyBudget.parse(self.latency_budget)

    @property
    def stand(self) -> dict[str, Any]:
        """Where latency is measured: the arguments of `vittle.objectives.evaluator.make_stand`."""
        return {name: getattr(self, name) for name in ("device", "batch_size", "dtype", "compiled")}


@dataclass(frozen=True)
class BackboneRecord:
    """The backbone that a study's schedules belong to, with the trained weights that the search may use, by reduction."""

    name: str
    fingerprint: str
    classes: int
    shape: BackboneShape
    adapters: Mapping[str, AdapterRecord] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One attempt to evaluate one schedule.

    Attributes:
        number: 0, 1, 2, ... within its study; 0 is the backbone itself.
        origin: where the schedule came from: `backbone`, the heuristic that was tried first (`constant`, ...) or `sampler`.
        parameters: the searched values that the schedule stands for; empty for the backbone.
        measurements: by phase, then by objective; a front that was timed on another device has phases of its own.
        reason: why it failed or is infeasible.
        attempts: how often it was begun; more than once where a worker or the whole search died with it.
        started: when it was written down, in UTC.
        finished: when it ended; None while it runs.
    """

    number: int
    state: TrialState
    origin: str
    schedule: Schedule
    parameters: Values
    measurements: Mapping[str, Mapping[str, Measurement]] = field(default_factory=dict)
    reason: str | None = None
    attempts: int = 1
    started: datetime | None = None
    finished: datetime | None = None

    @cached_property
    def judged(self) -> Mapping[str, Measurement]:
        """What the trial is compared by: the accuracy that the search saw, and the most careful latency there is.

        The confirmed accuracy reports and never selects, or it would be flattered by the selection.
        """
        searched, confirmed = self.measurements.get("search", {}), self.measurements.get("confirmation", {})
        return {**searched, **{name: value for name, value in confirmed.items() if name != "accuracy"}}

    @property
    def profile(self) -> str | None:
        """The key of the latency profile that the search knew; None where there was none."""
        ratio = self.measurements.get("search", {}).get("latency_ratio")
        return None if ratio is None else ratio.protocol.get("profile")

    @property
    def seconds(self) -> float | None:
        """How long it took; None where it has not ended."""
        return (self.finished - self.started).total_seconds() if self.started and self.finished else None

    @property
    def confirmed(self) -> bool:
        return "confirmation" in self.measurements

    def within(self, budget: LatencyBudget) -> bool:
        """Whether it fits: beyond the noise once it is confirmed, as measured until then."""
        return budget.holds(self.judged) if self.confirmed else budget.excess(self.judged) <= 0


class Growth(NamedTuple):
    """How the front of a study has grown.

    Attributes:
        volumes: (n,) its hypervolume after each trial that has seen images.
        spread: standard error of the last of them.
    """

    volumes: hypervolume.Volumes
    spread: float

    @property
    def volume(self) -> float:
        """The hypervolume now, a share."""
        return float(self.volumes[-1])

    @property
    def outlook(self) -> hypervolume.Outlook:
        """What another `MORE` trials are expected to add."""
        return hypervolume.outlook(self.volumes, self.spread, MORE)


@dataclass(frozen=True)
class Study:
    """One search.

    Attributes:
        ended: why nothing more was tried; None of one that is not done, or of which nobody wrote it down.
        owner: who made it.
    """

    name: str
    state: StudyState
    settings: Settings
    backbone: BackboneRecord
    created: datetime
    ended: str | None = None
    owner: str | None = None

    @cached_property
    def budget(self) -> LatencyBudget:
        return self.settings.budget


class Standing(NamedTuple):
    """How far a study is.

    Attributes:
        finished: how many trials have ended; the backbone is none of them.
        points: the front, fastest first.
        best: the best trial for the study's budget.
    """

    finished: int
    points: Sequence[Trial]
    best: Trial | None


class Ranked(tuple[Trial, ...]):
    """The trials of a study that are compared once, however often it is asked: what follows takes them as any others."""

    def __init__(self, trials: Iterable[Trial]) -> None:
        del trials  # a tuple has them already
        self._fronts: dict[LatencyBudget | None, list[Trial]] = {}

    @cached_property
    def expected(self) -> dict[int, Measured]:
        """See `expectations`."""
        complete, backbone = [trial for trial in self if trial.state == "complete"], backbone_trial(self)
        judged: list[Measured] = [trial.judged for trial in complete]
        if backbone is not None:
            judged = expected(judged, backbone.judged)
        return {trial.number: one for trial, one in zip(complete, judged, strict=True)}

    def front(self, budget: LatencyBudget | None) -> list[Trial]:
        """See `front`."""
        if budget not in self._fronts:
            within = [one for one in self if one.state == "complete" and (budget is None or one.within(budget))]
            places = fronts.front([self.expected[trial.number] for trial in within])
            self._fronts[budget] = [within[place] for place in places]
        return self._fronts[budget]


def ranked(trials: Sequence[Trial]) -> Ranked:
    """The trials, to be asked about more than once."""
    return trials if isinstance(trials, Ranked) else Ranked(trials)


def standing(trials: Sequence[Trial], budget: LatencyBudget) -> Standing:
    """How far a study is, from all of its trials."""
    trials = ranked(trials)
    finished = sum(trial.state != "running" and trial.origin != "backbone" for trial in trials)
    return Standing(finished, front(trials), best(trials, budget))


def front(trials: Sequence[Trial], budget: LatencyBudget | None = None) -> list[Trial]:
    """The complete trials that none dominates in expected accuracy and cost, fastest first; of those within a `budget`."""
    return list(ranked(trials).front(budget))


def expectations(trials: Sequence[Trial]) -> dict[int, Measured]:
    """What each complete trial is ranked by, by its number: what was measured, with the accuracy that follows from all of it.

    See `vittle.objectives.quality.expectation`. Without a backbone to compare with it is the measured accuracy.
    """
    return ranked(trials).expected


def best(trials: Sequence[Trial], budget: LatencyBudget) -> Trial | None:
    """The most accurate trial that holds the budget beyond the noise, from the confirmed ones where there are any."""
    trials = ranked(trials)
    within = front(trials, budget)
    eligible = [trial for trial in within if trial.confirmed] or within
    expected = expectations(trials)
    chosen = fronts.best([expected[trial.number] for trial in eligible], budget)
    return None if chosen is None else eligible[chosen]


class BestWithin(NamedTuple):
    """The best trial from one budget on.

    Attributes:
        limit: the smallest budget, in the unit of its objective, that the trial holds beyond the noise.
        trial: its number.
    """

    limit: float
    trial: int


def best_by_budget(trials: Sequence[Trial], objective: str) -> list[BestWithin]:
    """What is best for every budget in `objective`, the smallest budget first: what `best` finds, in one go."""
    points = [trial for trial in front(trials) if objective in trial.judged]
    expected = expectations(trials)
    found: list[BestWithin] = []
    chosen: Trial | None = None
    for trial in sorted(points, key=lambda one: one.judged[objective].high):
        better = chosen is None or (not trial.confirmed, *_rank(expected[trial.number])) < (
            not chosen.confirmed,
            *_rank(expected[chosen.number]),
        )
        if better:
            chosen = trial
            limit = trial.judged[objective].high
            found = [*(one for one in found if one.limit < limit), BestWithin(limit, trial.number)]
    return found


def _rank(measured: Measured) -> tuple[float, ...]:
    return tuple(fronts.oriented(measured[name]) for name in SEARCHED)


def knee(trials: Sequence[Trial]) -> Trial | None:
    """Where the front bends most: from there on, accuracy costs more and more latency. None of a front without a bend."""
    points = front(trials)
    expected = expectations(trials)
    found = fronts.knee([expected[trial.number] for trial in points])
    return None if found is None else points[found]


def seconds_left(trials: Sequence[Trial], planned: int) -> float | None:
    """How long a running study will take for the rest of its trials, as fast as the last ones ended; None where none tells."""
    ended = sorted(trial.finished for trial in trials if trial.finished is not None)[-PACE:]
    done = sum(trial.finished is not None and trial.origin != "backbone" for trial in trials)
    if len(ended) < 3 or done >= planned:
        return None
    return (ended[-1] - ended[0]).total_seconds() / (len(ended) - 1) * (planned - done)


def tied_with_best(trials: Sequence[Trial], budget: LatencyBudget) -> set[int]:
    """Numbers of the trials on the front that differ from the best one by no more than noise."""
    trials = ranked(trials)
    chosen = best(trials, budget)
    if chosen is None:
        return set()
    expected = expectations(trials)
    others = (trial.number for trial in front(trials, budget) if trial.number != chosen.number)
    return {number for number in others if fronts.tied(expected[number], expected[chosen.number])}


def nearest(trials: Sequence[Trial]) -> Trial | None:
    """The fastest trial that was measured at all, whatever its accuracy; None where none was."""
    measured = [trial for trial in trials if "latency_ratio" in trial.judged]
    return min(measured, key=lambda trial: trial.judged["latency_ratio"].high, default=None)


def profiled(trials: Sequence[Trial]) -> str | None:
    """The key of the latency profile that a study knows; None where it measures everything."""
    return next((trial.profile for trial in trials if trial.profile is not None), None)


def backbone_trial(trials: Sequence[Trial]) -> Trial | None:
    """The trial of the backbone itself, once it is complete."""
    return next((trial for trial in trials if trial.origin == "backbone" and trial.state == "complete"), None)


def growth(trials: Sequence[Trial], budget: LatencyBudget) -> Growth | None:
    """How the front within a budget has grown, by what the search measured and what that lets expect.

    None before the backbone and one more trial have seen images.
    """
    backbone = backbone_trial(trials)
    seen = [trial for trial in trials if trial.state in ("complete", "stopped") and trial.origin != "backbone"]
    if backbone is None or not seen:
        return None
    dense = backbone.measurements["search"]
    accuracy, latency, ratio = (dense[name] for name in ("accuracy", "latency_ms", "latency_ratio"))
    allowed = budget.limit if budget.relative else budget.limit * ratio.value / latency.value
    worst = hypervolume.ReferencePoint.of(accuracy.value, allowed)
    measured: list[Measured] = [trial.measurements["search"] if trial.state == "complete" else {} for trial in seen]
    volumes = hypervolume.volumes(expected(measured, dense), worst)  # nothing is added by a trial that was stopped
    return Growth(volumes, hypervolume.spread(measured, worst, backbone=right(accuracy)))


def optimism(trials: Sequence[Trial], budget: LatencyBudget) -> paired.Interval | None:
    """How much more the front loses on held-out images than on those that it was chosen by: the winner's curse.

    A share, the mean over the confirmed points of the front, with its 95 % interval; the two sets of images are independent of
    each other. None where nothing is confirmed, or nobody wrote down which images were answered rightly.
    """
    backbone = backbone_trial(trials)
    points = [trial for trial in front(trials, budget) if trial.confirmed and trial.origin != "backbone"]
    if backbone is None or not backbone.confirmed or not points:
        return None
    held_out, searched = (_lost(backbone, points, phase) for phase in ("confirmation", "search"))
    if held_out is None or searched is None:
        return None
    value = held_out.value - searched.value
    below = np.hypot(held_out.value - held_out.low, searched.high - searched.value)
    above = np.hypot(held_out.high - held_out.value, searched.value - searched.low)
    return paired.Interval(value, value - float(below), value + float(above))


def _lost(backbone: Trial, points: Sequence[Trial], phase: Phase) -> paired.Interval | None:
    """What points lose against the backbone in a phase on average.

    Each image counts with the mean over the points, which are wrong about the same images more often than not; one win and one
    loss are added to them, as in `paired.difference`, whose interval this is for a single point.
    """
    answers = [right(trial.measurements[phase]["accuracy"]) for trial in (backbone, *points)]
    known = [one.astype(np.float64) for one in answers if one is not None]
    if len(known) < len(answers):
        return None
    lost = known[0] - np.mean(known[1:], axis=0)  # (n,)
    added = np.concatenate([lost, [1.0, -1.0]])
    centre, half = float(added.mean()), NORMAL_95 * float(added.std()) / np.sqrt(len(added))
    return paired.Interval(float(lost.mean()), centre - half, centre + half)
