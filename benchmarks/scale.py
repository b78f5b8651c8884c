"""How a search scales: with workers, and with what its database already holds.

    python benchmarks/scale.py                   SQLite
    python benchmarks/scale.py --postgres URL    a server as well
    python benchmarks/scale.py --quick           seconds: that it works, not how well

Workers are real, on a real Ray, and evaluate nothing: each trial sleeps for a second, in rungs, so that what is lost is what
the search itself takes. Efficiency is the seconds that trials took over those that workers were there for, from the beginning
of the first trial to the end of the last. Databases are filled with trials of one study; then single trials are started and
finished like a search does it, and memory is what the process has grown by while they were.

`benchmarks/results/scale.json` holds `environment`, `rows` of both kinds and `summary`.
"""

import gc
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import torch
import typer
from sqlalchemy import func, insert, select

from report import environment, write
from vittle.objectives.evaluation import Evaluation
from vittle.objectives.measurement import Measurement, exact, proportion
from vittle.reductions.backbone import load_backbone
from vittle.search import scheduler, workers
from vittle.search.coordinator import Coordinator
from vittle.search.schedules import ScheduleProblem
from vittle.spaces import BackboneShape, Schedule, Space, macs
from vittle.storage import fronts
from vittle.storage.ranking import Ranking
from vittle.storage.records import BackboneRecord, Study
from vittle.storage.settings import Settings
from vittle.storage.store import Store
from vittle.storage.tables import MeasurementRow, TrialRow, now

SECONDS, RUNGS = 1.0, 4  # that a trial takes, and in how many parts
ROUNDS = 12  # trials for each worker
WORKERS = (1, 2, 4, 8, 16)
TRIALS = 100_000
TIMED = 300  # trials that are written one by one
CHUNK = 2_000  # trials that are filled in at once
SUMMED = ("start_ms", "finish_ms", "memory_mib_per_1000", "open_ms", "front_ms")
OUTPUT = Path(__file__).parent / "results" / "scale.json"


def record() -> BackboneRecord:
    """The digits' backbone."""
    backbone = load_backbone()
    return BackboneRecord(backbone.name, backbone.fingerprint, backbone.classes, backbone.shape)


def measured(share: float, whole: int) -> dict[str, Measurement]:
    """What a trial with a share of the MACs might measure: what it loses grows with what it saves."""
    lost = 0.3 * (1 - share) ** 3
    ratio = 0.05 + 0.95 * share
    return {
        "macs": exact("macs", round(share * whole)),
        "latency_ratio": Measurement("latency_ratio", ratio, 0.99 * ratio, 1.01 * ratio, 5),
        "latency_ms": Measurement("latency_ms", 100 * ratio, 99 * ratio, 101 * ratio, 5, {"backbone_ms": 100.0}),
        "accuracy": proportion("accuracy", round(450 * (0.99 - lost)), 450, {}),
        "divergence": exact("divergence", lost),
    }


class Sleeper:
    """Evaluates by sleeping, in rungs."""

    def __init__(self, whole: int, shape: BackboneShape, seconds: float) -> None:
        self._whole, self._shape, self._seconds = whole, shape, seconds

    def climb(self, candidate: Schedule, rivals: Any, hints: Any) -> Iterator[Evaluation]:
        """What a schedule with as many MACs might measure."""
        del rivals, hints
        share = macs(self._shape, candidate) / self._whole
        for rung in range(1, RUNGS + 1):
            time.sleep(self._seconds / RUNGS)
            yield Evaluation(measured(share, self._whole), "complete" if rung == RUNGS else "going")

    def confirm(self, candidate: Schedule) -> dict[str, Measurement]:
        """Not asked for."""
        raise NotImplementedError


class SleepingProblem(ScheduleProblem):
    """Schedules whose evaluation takes so many seconds."""

    def __init__(self, settings: Settings, subject: BackboneRecord, seconds: float) -> None:
        super().__init__(settings, subject)
        self._sleeper = Sleeper(macs(subject.shape, Schedule()), subject.shape, seconds)

    def evaluator(self) -> Sleeper:
        return self._sleeper


def scaled(backbone: BackboneRecord, count: int, rounds: int, seconds: float) -> dict[str, Any]:
    """A search with so many workers: what share of their time was evaluation."""
    trials = rounds * count - 1  # and the backbone
    settings = Settings(latency_budget="500%", trials=trials, workers=count, until_flat=False, sampler="tpe", predict=False)
    scheduler.PATIENCE = 600.0
    with tempfile.TemporaryDirectory() as folder, workers.ray_session(settings):
        store = Store.open(f"sqlite:///{folder}/vittle.db", create=True)
        study = store.create_study("scale", settings, backbone)
        finished: list[float] = []
        problem = SleepingProblem(settings, backbone, seconds)
        coordinator = Coordinator(study, problem, store, lambda _: finished.append(time.monotonic()))
        workers.Pool(problem).search(coordinator)
    wall = finished[-1] - finished[0] + seconds
    return {
        "workers": count,
        "trials": len(finished),
        "trial_s": seconds,
        "wall_s": round(wall, 3),
        "efficiency": round(len(finished) * seconds / (count * wall), 4),
    }


def filled(backbone: BackboneRecord, url: str, count: int, timed: int) -> list[dict[str, Any]]:
    """A study that grows to so many trials: what writing, opening and reading its front take, at first and at last."""
    store = Store.open(url, create=True)
    study = store.create_study("scale", Settings(latency_budget="500%", trials=count), backbone)
    space = Space(backbone.shape, ("merging",))
    rng = np.random.default_rng(0)
    schedules = [space.schedule(space.draw(rng)) for _ in range(200)]
    rows = []
    for wanted in (10 * timed, count):
        fill(store, study, schedules, wanted - timed)
        before = memory()
        started, finished = written(store, study, schedules, timed)
        grown = memory() - before
        rows.append(
            {
                "database": store.engine.dialect.name,
                "trials": wanted,
                "start_ms": round(1e3 * statistics.median(started), 3),
                "finish_ms": round(1e3 * statistics.median(finished), 3),
                "memory_mib_per_1000": round(1e3 * grown / timed / 2**20, 3),
                "open_ms": round(1e3 * took(lambda: Store.open(url).study("scale")), 3),
                "front_ms": round(1e3 * kept(store, study), 3),
            }
        )
        print(rows[-1], flush=True)
    store.engine.dispose()
    return rows


def kept(store: Store, study: Study) -> float:
    """Seconds that the front takes, once it is known."""
    fronts.keep(store, study.name, Ranking.of(store.trials(study.name), study.goals).standing)
    return statistics.median(took(lambda: fronts.standing(store, study.name)) for _ in range(9))


def fill(store: Store, study: Study, schedules: list[Schedule], until: int) -> None:
    """Write complete trials, many at once."""
    whole = macs(study.backbone.shape, Schedule())
    with store.transaction() as session:
        study_id = store.id(session, study.name)
        there = session.scalar(select(func.count()).select_from(TrialRow).where(TrialRow.study_id == study_id)) or 0
    for first in range(there, until, CHUNK):
        numbers = range(first, min(first + CHUNK, until))
        with store.transaction() as session:
            trials = [
                trial_of(study_id, number, schedules[number % len(schedules)] if number else Schedule()) for number in numbers
            ]
            ids = session.scalars(insert(TrialRow).returning(TrialRow.id, sort_by_parameter_order=True), trials).all()
            session.execute(
                insert(MeasurementRow), [row for at, one in zip(ids, trials, strict=True) for row in rows_of(at, one, whole)]
            )


def trial_of(study: int, number: int, schedule: Schedule) -> dict[str, Any]:
    """A row of a trial that is complete."""
    return {
        "study_id": study,
        "number": number,
        "state": "complete",
        "origin": "sampler" if number else "backbone",
        "candidate_id": schedule.id,
        "candidate": schedule.to_dict(),
        "parameters": {},
        "attempts": 1,
        "started": now(),
        "finished": now(),
    }


def rows_of(trial: int, row: dict[str, Any], whole: int) -> list[dict[str, Any]]:
    """Rows of what it measured; no two trials measure the same."""
    share = 0.3 + 0.7 * (row["number"] * 0.6180339887 % 1)
    return [
        {
            "trial_id": trial,
            "phase": "search",
            "objective": name,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "n": one.n,
            "protocol": dict(one.protocol),
        }
        for name, one in measured(share, whole).items()
    ]


def written(store: Store, study: Study, schedules: list[Schedule], count: int) -> tuple[list[float], list[float]]:
    """Seconds that starting and finishing single trials takes."""
    started, finished = [], []
    found = measured(0.5, macs(study.backbone.shape, Schedule()))
    for turn in range(count):
        schedule = schedules[turn % len(schedules)]
        begin = time.perf_counter()
        number = store.start_trial(study.name, "sampler", schedule, {})
        middle = time.perf_counter()
        store.finish_trial(study.name, number, "complete", found)
        started.append(middle - begin)
        finished.append(time.perf_counter() - middle)
    return started, finished


def took(act: Callable[[], object]) -> float:
    """Seconds."""
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def memory() -> int:
    """Bytes that this process holds."""
    gc.collect()
    return psutil.Process().memory_info().rss


def main(
    postgres: Annotated[str | None, typer.Option(help="URL of an empty PostgreSQL database.", show_default=False)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Check that it works.")] = False,
    output: Annotated[Path, typer.Option(help="Where to write.")] = OUTPUT,
) -> None:
    """Measure and write."""
    backbone = record()
    counts, rounds, seconds = ((1, 2), 3, 0.1) if quick else (WORKERS, ROUNDS, SECONDS)
    trials, timed = (400, 20) if quick else (TRIALS, TIMED)
    rows: list[dict[str, Any]] = []
    for count in counts:
        rows.append(scaled(backbone, count, rounds, seconds))
        print(rows[-1], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for url in [f"sqlite:///{folder}/scale.db", *([] if postgres is None else [postgres])]:
            rows += filled(backbone, url, trials, timed)
    cores = len(os.sched_getaffinity(0))
    summary = {
        "cores": cores,
        "efficiency_up_to_cores": min(row["efficiency"] for row in rows if row.get("workers", math.inf) <= cores),
        **{
            row["database"]: {name: row[name] for name in SUMMED}
            for row in rows
            if row.get("trials") == trials and "database" in row
        },
    }
    write(output, {"environment": environment(torch.device("cpu")), "rows": rows, "summary": summary})


if __name__ == "__main__":
    typer.run(main)
