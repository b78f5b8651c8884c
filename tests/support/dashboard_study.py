"""A synthetic but valid study for the dashboard's tests: digits-like, 40 trials, every state. No model is run.

To look at it:  python tests/dashboard_study.py /tmp/demo.db
"""

import dataclasses
import itertools
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import NormalDist

import numpy as np
from sqlalchemy import select

from rankings import ranked
from vittle import presets
from vittle.objectives.backbones.merge_start import MergeStart, detect
from vittle.objectives.backbones.sensitivity import Point, Sensitivity
from vittle.objectives.goals import TOLERANCE
from vittle.objectives.latency.profile import LAST, MLP, PLAIN, WEIGHTED, ActingCost, Check, LatencyProfile, Staircase
from vittle.objectives.measurement import Measurement, Phase, exact, proportion
from vittle.objectives.parameter_importance import Importance
from vittle.objectives.quality import paired
from vittle.spaces import costs
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.storage import rows
from vittle.storage.records import BackboneRecord, Study, StudyState
from vittle.storage.settings import Settings
from vittle.storage.store import Store
from vittle.storage.tables import MeasurementRow, TrialRow

WIDTH = 96
SHAPE = BackboneShape(
    depth=12,
    width=WIDTH,
    heads=3,
    grid=(8, 8),
    prefix=1,
    attention_width=WIDTH,
    key_macs=2 * WIDTH * WIDTH,
    query_macs=2 * WIDTH * WIDTH,
    mlp_macs=4 * WIDTH * WIDTH,
    embed_macs=64 * 48 * WIDTH,
    head_macs=10 * WIDTH,
    reads_prefix_only=True,
)
WEIGHTS = 940_000  # of the digits' backbone, about
BACKBONE_MS = 8.2
FINGERPRINT = "5f2c9a0d71be"
DENSE = costs.macs(SHAPE, Schedule())
PROFILE = "c4d91be07a35"
NOISE = "something else had the processor for 31% of the time"
IMAGES = 449
STARTS = {  # first block, exponent
    "plan": (1, 0.7),
    "constant": (0, 1.0),
    "decreasing": (0, 0.5),
    "delayed": (3, 1.0),
    "published": (2, 0.8),
}
COUNTS = (2, 9, 17, 25, 33, 41, 48, 55, 60, 65)
PROTOCOL = {
    "device": "Intel(R) Xeon(R) Gold 6448Y",
    "torch": "2.15.0",
    "threads": 2,
    "batch_size": 64,
    "dtype": "float32",
    "clock": "monotonic",
}


RECURSIVE = Schedule.from_dict({"recursion": {"weights": "distilled-0123456789ab", "capacities": [1, 0.75, 0.5, 0.5]}})


class Synthetic:
    """A study in `store` whose trials follow a plausible law of accuracy and latency over the tokens that are left.

    With the key of a `profile`, what the sampler proposes is predicted until it is confirmed, and one confirmation is noisy.
    """

    def __init__(
        self,
        store: Store,
        name: str = "digits-60",
        *,
        budget: str = "60%",
        trials: int = 40,
        seed: int = 0,
        profile: str | None = None,
        tolerance: str = TOLERANCE,
    ) -> None:
        self.store, self.name, self.profile = store, name, profile
        self.budget = Settings(latency_budget=budget).budget
        self.random = np.random.default_rng(seed)
        self.labels = self.random.integers(0, 10, IMAGES)
        self.ease = {phase: self.random.normal(size=IMAGES) for phase in ("search", "confirmation")}
        self.dense = {phase: self.answers(Schedule(), phase) for phase in ("search", "confirmation")}
        record = BackboneRecord("vit_digits_patch4_32", FINGERPRINT, 10, SHAPE)
        settings = Settings(model="digits", latency_budget=budget, tolerance=tolerance, trials=trials, seed=seed)
        store.create_study(name, settings, record)

    def fill(self, trials: int, state: StudyState = "complete") -> Study:
        """The backbone and so many trials of every kind, the front confirmed; while `running`, one is under way instead."""
        self.add(Schedule(), "backbone")
        for end in (0.4, 0.15):
            for origin, (start, exponent) in STARTS.items():
                self.add(curve(start, end, exponent), origin)
        for number in range(len(self.store.trials(self.name)), trials + (state != "running")):
            self.add(self.proposal(), "sampler", failed=number in (17, 29))
        if state == "running":
            self.store.start_trial(self.name, "sampler", self.proposal(), {})
        else:
            self.confirm()
        self.store.set_state(self.name, state)
        return self.store.study(self.name)

    def proposal(self) -> Schedule:
        """A schedule as a sampler would draw it."""
        start, end, exponent = self.random.integers(0, 5), self.random.beta(1.0, 5.0), self.random.uniform(-1.3, 0.1)
        return curve(int(start), float(end), float(np.exp(exponent)))

    def add(self, schedule: Schedule, origin: str, *, failed: bool = False) -> int:
        """One trial from start to end."""
        number = self.store.start_trial(self.name, origin, schedule, {})
        if failed:
            reason = "OutOfMemoryError: the worker was ended by the system (exit code -9)"
            self.store.finish_trial(self.name, number, "failed", reason=reason)
            return number
        measured = self.latency(schedule, repeats=5)
        if self.profile is not None and origin == "sampler":
            measured = {**predicted(measured, self.profile), "macs": measured["macs"]}
        if origin != "backbone" and self.budget.excess(measured) > 0:
            reason = f"{measured['latency_ratio'].value:.1%} of the backbone's latency, the budget is {self.budget}"
            self.store.finish_trial(self.name, number, "infeasible", measured, reason)
        elif origin == "sampler" and self.random.random() < 0.3 and self.accuracy(schedule) < 0.97:
            measured |= self.judge(schedule, "search", seen=128)
            reason = "trial 8 costs no more and is better, as 128 images show"
            self.store.finish_trial(self.name, number, "stopped", measured, reason)
        else:
            measured |= self.judge(schedule, "search")
            self.store.finish_trial(self.name, number, "complete", measured)
        return number

    def add_best(self, right: int = 447) -> int:
        """A complete trial that is best for the budget: `right` of 449 images, more than any other, at 40 % of the latency."""
        schedule = Schedule.from_dict({"tail": "prefix", "merging": {"kept": [65, 60, 50, 40, 30, 25, 20, 15, 10, 8, 6, 6]}})
        number = self.store.start_trial(self.name, "sampler", schedule, {})
        ratio = Measurement("latency_ratio", 0.4, 0.395, 0.405, 20, PROTOCOL)
        time = Measurement("latency_ms", 0.4 * BACKBONE_MS, 0.39 * BACKBONE_MS, 0.41 * BACKBONE_MS, 20, PROTOCOL)
        measured = {"latency_ratio": ratio, "latency_ms": time, "macs": exact("macs", costs.macs(SHAPE, schedule))}
        self.store.finish_trial(
            self.name, number, "complete", {**measured, "accuracy": proportion("accuracy", right, 449, {"against": "labels"})}
        )
        return number

    def confirm(self) -> None:
        """Measure the backbone and the front again: more repeats, other images."""
        trials = self.store.trials(self.name)
        found = trials[:1] + [one for one in ranked(trials, self.budget).front(self.budget) if one.number]
        for trial in found:
            measured = {**self.latency(trial.schedule, repeats=20), **self.judge(trial.schedule, "confirmation")}
            if self.profile is not None and trial is found[1]:
                measured = {name: disturbed(one) if name.startswith("latency") else one for name, one in measured.items()}
            self.store.confirm_trial(self.name, trial.number, measured)

    def latency(self, schedule: Schedule, repeats: int) -> dict[str, Measurement]:
        """MACs by arithmetic, times with a noise that falls with the repeats."""
        macs = costs.macs(SHAPE, schedule)
        untouched = not schedule.reductions and schedule.tail == "full"
        ratio = 1.0 if untouched else 0.04 + 0.96 * macs / DENSE
        ratio *= 1 + 0.02 * float(self.random.normal()) / np.sqrt(repeats)
        spread = 0.05 / np.sqrt(repeats) * float(self.random.uniform(0.6, 1.4))
        protocol = {**PROTOCOL, "rounds": repeats, "measured_at": datetime.now(UTC).isoformat(timespec="seconds")}
        around = np.random.default_rng(macs).normal(size=repeats)  # a generator of its own: the others draw what they drew
        samples = {"samples": (ratio * (1 + 0.03 * around)).round(4).tolist()}
        images = 1000 * PROTOCOL["batch_size"] / (BACKBONE_MS * ratio)
        return {
            "throughput": Measurement("throughput", images, images / (1 + spread), images / (1 - spread), repeats),
            "memory": exact("memory", 300 + 40 * ratio, {"of": "process"}),
            "macs": exact("macs", macs),
            "parameters": exact("parameters", WEIGHTS),
            "latency_ratio": Measurement(
                "latency_ratio", ratio, ratio * (1 - spread), ratio * (1 + spread), repeats, {**protocol, **samples}
            ),
            "latency_ms": Measurement(
                "latency_ms",
                BACKBONE_MS * ratio,
                BACKBONE_MS * ratio * (1 - spread),
                BACKBONE_MS * ratio * (1 + spread),
                repeats,
                {
                    **protocol,
                    "p95_ms": 1.06 * BACKBONE_MS * ratio,
                    "backbone_ms": BACKBONE_MS,
                    "backbone_p95_ms": 1.05 * BACKBONE_MS,
                },
            ),
        }

    def accuracy(self, schedule: Schedule) -> float:
        """What the model would reach: it forgives merging up to a point, and abrupt merging less."""
        counts = [SHAPE.tokens, *costs.tokens(SHAPE, schedule)[:-1]]
        abrupt = sum(((before - after) / before) ** 2 for before, after in itertools.pairwise(counts))
        return 0.984 - 0.2 * (1 - costs.macs(SHAPE, schedule) / DENSE) ** 4 - 0.05 * abrupt

    def answers(self, schedule: Schedule, phase: Phase) -> np.ndarray:
        """Which images are answered rightly: those that are easy, for all schedules more or less the same."""
        margin = (self.ease[phase] + 0.3 * self.random.normal(size=IMAGES)) / np.hypot(1, 0.3)
        return margin < NormalDist().inv_cdf(float(np.clip(self.accuracy(schedule), 0.1, 0.99)))

    def judge(self, schedule: Schedule, phase: Phase, seen: int = IMAGES) -> dict[str, Measurement]:
        """Accuracy and what is lost against the backbone, on the first images of a phase; of a part, an estimate."""
        dense = self.dense[phase]
        right = self.answers(schedule, phase)[:seen] if schedule.reductions else dense
        about = {"against": "labels", "right": paired.pack(right)}
        accuracy = proportion("accuracy", int(right.sum()), seen, about)
        if seen < IMAGES:
            accuracy = Measurement("accuracy", *paired.estimate(right, dense), seen, {**about, "of": IMAGES})
        lost = dense[:seen].astype(int) - right
        classes = [(label, lost[self.labels[:seen] == label]) for label in range(10)]
        worst = sorted(([label, float(one.mean()), len(one)] for label, one in classes), key=lambda row: -row[1])
        worst = [row for row in worst if row[1] > 0]
        by_class = {"lost": [int(one.sum()) for _, one in classes], "images": [len(one) for _, one in classes]}
        about = {"worst": worst, "classes": by_class}
        drop = Measurement("accuracy_drop", *paired.difference(dense[:seen], right), seen, about)
        return {"accuracy": accuracy, "accuracy_drop": drop}


def repeated(store: Store, name: str, trials: int) -> None:
    """Add what the sampler proposed in a study again, each time a little slower, until there are so many trials."""
    with store.transaction() as session:
        there = list(session.scalars(select(TrialRow).where(TrialRow.origin == "sampler", TrialRow.state != "running")))
        study_id, revision, *_ = rows.touch(session, name)
        for number in range(session.query(TrialRow).count(), trials):
            turn, place = divmod(number, len(there))
            old = {key: value for key, value in vars(there[place]).items() if key in TrialRow.__table__.columns}
            added = TrialRow(**{**old, "id": None, "study_id": study_id, "number": number, "revision": revision})
            for one in there[place].measurements:
                factor = 1 + turn / 10_000 if one.objective.startswith("latency") else 1
                ends = {key: factor * getattr(one, key) for key in ("value", "low", "high")}
                kept = {key: getattr(one, key) for key in ("phase", "objective", "n", "protocol")}
                added.measurements.append(MeasurementRow(**kept, **ends))
            session.add(added)


def predicted(measured: dict[str, Measurement], profile: str) -> dict[str, Measurement]:
    """The latencies as a profile with that key would give them."""
    about = {"source": "predicted", "profile": profile, "mape": 0.02, **PROTOCOL, "backbone_ms": BACKBONE_MS}
    return {
        name: Measurement(name, one.value, one.value * 0.97, one.value * 1.03, 12, about)
        for name, one in measured.items()
        if name in ("latency_ratio", "latency_ms", "throughput")
    }


def disturbed(measured: Measurement) -> Measurement:
    """The same with a reason to doubt it."""
    return dataclasses.replace(measured, protocol={**measured.protocol, "noisy": NOISE})


def latency_profile(*, off: float = 0.02, flat: bool = True, checks: int = 12, noisy: str | None = None) -> LatencyProfile:
    """A staircase that is flat from 48 to 55 tokens, and held-out schedules that are predicted `off` too high or too low."""
    times = np.array(COUNTS) / 65
    if flat:
        times[7] = times[6]
    halves = [staircase(0.6 * times, 0.05), staircase(0.4 * times, 0.05)]
    measured = np.linspace(0.45, 1.05, checks)
    predicted_shares = measured * (1 + off * np.where(np.arange(checks) % 2, -1, 1))
    return LatencyProfile(
        key=PROFILE,
        model="digits",
        shape=SHAPE,
        environment={name: PROTOCOL[name] for name in ("device", "threads", "torch")},
        protocol={"batch_size": 64, "dtype": "float32", "compiled": False},
        backbone_ms=BACKBONE_MS,
        forms_ms={"eager": 8.9, "fused": BACKBONE_MS},
        embed=0.04,
        parts={PLAIN: halves[0], WEIGHTED: halves[0], LAST: halves[0], MLP: halves[1]},
        acting={"merging key bipartite size": ActingCost(0.001, 0.0001, 0.0001)},
        checks=tuple(
            Check(f"{index:012x}", float(share) - 0.03, float(share), float(share) * 0.98, float(share) * 1.03, float(guess))
            for index, (share, guess) in enumerate(zip(measured, predicted_shares, strict=True))
        ),
        noisy=noisy,
        seconds=33.0,
        measured_at="2026-11-24T20:57:19+00:00",
    )


def staircase(times: np.ndarray, spread: float) -> Staircase:
    """Over `COUNTS`, twelve blocks of which take 96 % of the backbone's time at all tokens for `times` of 1."""
    shares = 0.08 * times
    low, high = shares * (1 - spread), shares * (1 + spread)
    return Staircase(COUNTS, *(tuple(map(float, row)) for row in (low, high, shares)))


def made_merge_start(fingerprint: str = FINGERPRINT, *, rising: bool = True) -> MergeStart:
    """As a deep model shows it, with two blocks that are lowest but for the noise; or falling to the end."""
    random = np.random.default_rng(0)
    similarity = [0.46, 0.35, 0.29, 0.268, 0.272, 0.31, 0.37, 0.42, 0.46, 0.5, 0.52, 0.49]
    curves = {
        "similarity": similarity if rising else sorted(similarity, reverse=True),
        "partner": [0.83, 0.82, 0.82, 0.83, 0.84, 0.86, 0.87, 0.88, 0.9, 0.91, 0.92, 0.92],
        "sink": [0.05, 0.06, 0.06, 0.07, 0.09, 0.14, 0.22, 0.29, 0.33, 0.34, 0.35, 0.31],
        "entropy": [0.9, 0.86, 0.83, 0.8, 0.78, 0.74, 0.7, 0.66, 0.64, 0.63, 0.61, 0.6],
        "outlier": [8.0, 8.5, 9.0, 12.0, 18.0, 26.0, 31.0, 33.0, 34.0, 34.0, 32.0, 20.0],
    }
    observed = {name: np.array(values) * (1 + 0.12 * random.normal(size=(256, 12))) for name, values in curves.items()}
    return detect(observed, fingerprint)


def sensitivity(fingerprint: str = FINGERPRINT) -> Sensitivity:
    """Early blocks hurt most, and the more the more tokens go."""

    def point(block: int, removed: float) -> Point:
        loss = 0.4 * removed**2 / (1 + block)
        return Point(removed, loss, 0.9 * loss, 1.1 * loss)

    blocks = tuple(tuple(point(block, removed) for removed in (0.25, 0.5)) for block in range(SHAPE.depth - 1))
    return Sensitivity(fingerprint, "digits", 64, {"merging": blocks})


def importance() -> Importance:
    """The shares kept matter most, of early blocks for accuracy, of late ones for latency."""
    blocks = np.arange(SHAPE.depth - 1)
    over_depth = {"accuracy": np.exp(-0.3 * blocks), "latency_ratio": np.exp(0.2 * blocks)}
    other = {"merging.metric": 0.15, "merging.window": 0.05}

    def shares(objective: str, kept: float) -> dict[str, float]:
        weights = kept * over_depth[objective] / over_depth[objective].sum()
        rest = (1 - kept) / sum(other.values())
        named = {f"merging.kept.{block}": float(weight) for block, weight in enumerate(weights)}
        return {**named, **{name: rest * share for name, share in other.items()}}

    both = {"ped-anova": {"accuracy": 0.8, "latency_ratio": 0.95}, "fanova": {"accuracy": 0.6, "latency_ratio": 0.9}}
    return Importance(38, {method: {name: shares(name, kept) for name, kept in by.items()} for method, by in both.items()})


def curve(start: int, end: float, exponent: float) -> Schedule:
    """Merging from block `start` on, down to the share `end` of the patches."""
    return presets.curve(SHAPE, start, end, exponent, tail="prefix")


def open_store(folder: Path) -> Store:
    """An empty database in a folder."""
    return Store.open(f"sqlite:///{folder / 'studies.db'}", create=True)


if __name__ == "__main__":
    opened = Store.open(f"sqlite:///{sys.argv[1]}", create=True)
    opened.save_merge_start(made_merge_start())
    opened.save_profile(latency_profile())
    opened.save_sensitivity(sensitivity())
    Synthetic(opened, "digits-60", profile=PROFILE).fill(40)
    opened.save_importance("digits-60", importance())
    Synthetic(opened, "digits-4ms", budget="4ms", seed=3).fill(26, "running")
    Synthetic(opened, "digits-25", budget="25%", seed=5).fill(12, "interrupted")
