"""Trials of a study side by side, as plain values: which numbers differ beyond the noise, schedules, classes and single images.

The first trial is what the others are compared with. Accuracies are compared image by image where the answers to single images
are known (see `vittle.objectives.quality.paired`); other intervals are independent of each other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from vittle.dashboards import text
from vittle.dashboards.documents import pictures, study_document
from vittle.dashboards.words import Words
from vittle.objectives.fronts.early_stopping import right, same_images
from vittle.objectives.measurement import OBJECTIVES, Measurement, Phase
from vittle.objectives.quality import paired
from vittle.spaces import costs
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial

FEWEST, MOST = 2, 4  # trials that are compared at once
NUMBERS = ("accuracy", "expected", "held_out", "latency_ratio", "latency_ms", "memory", "macs", "parameters")
CLASSES = 12  # that a page shows
PHASES: tuple[Phase, ...] = ("search", "confirmation")

Verdict = Literal["better", "worse", "same"]
Rows = Sequence[tuple[int, float, int]]  # class, share lost, images


def compared(study: Study, trials: Sequence[Trial], chosen: Sequence[Trial], speak: Words) -> dict[str, Any]:
    """`FEWEST` to `MOST` trials out of all `trials` of a study; shares of 1, times in ms, blocks counted from 1."""
    ranking = Ranking.of(trials, study.goals)
    front = {trial.number for trial in ranking.front()}
    best = ranking.best()
    return {
        "study": study.name,
        "state": study.state,
        "depth": study.backbone.shape.depth,
        "tokens": study.backbone.shape.tokens,
        "trials": [
            {
                "number": trial.number,
                "kind": study_document.kind(trial, on_front=trial.number in front),
                "label": text.trial_label(trial, speak, best=trial is best),
                **study_document.work(study, trial.schedule),
                "pictures": list(pictures.drawn(trial.schedule)),
                "url": study_document.trial_url(study.name, trial.number),
            }
            for trial in chosen
        ],
        "numbers": numbers(chosen, ranking),
        "schedules": schedules(study, chosen, speak),
        "classes": classes(chosen),
        "images": [shared for other in chosen[1:] for phase in PHASES if (shared := images(chosen[0], other, phase))],
    }


def numbers(chosen: Sequence[Trial], ranking: Ranking) -> list[dict[str, Any]]:
    """For each of `NUMBERS` that any of the trials has: the values, and how each differs from the first."""
    rows = []
    for name in NUMBERS:
        values = [_measured(trial, name, ranking) for trial in chosen]
        if any(value is not None for value in values):
            against = [None, *(_against(values[0], other) for other in values[1:])]
            rows.append({"name": name, "values": [_plain(value) for value in values], "against": against})
    return rows


def difference(first: Measurement, other: Measurement) -> paired.Interval:
    """How much more the other has, with its 95 % interval: over the images that both have seen where these are known."""
    ours, theirs = right(first), right(other)
    if ours is not None and theirs is not None and same_images(first, other):
        seen = min(len(ours), len(theirs))
        return paired.difference(theirs[:seen], ours[:seen])
    value = other.value - first.value
    below = math.hypot(other.value - other.low, first.high - first.value)
    above = math.hypot(other.high - other.value, first.value - first.low)
    return paired.Interval(value, value - below, value + above)


def verdict(objective: str, found: paired.Interval) -> Verdict:
    """Whether a difference is an improvement, or no more than noise."""
    if found.low <= 0 <= found.high:
        return "same"
    return "better" if (found.value > 0) == (OBJECTIVES[objective].direction == "maximize") else "worse"


def schedules(study: Study, chosen: Sequence[Trial], speak: Words) -> list[dict[str, Any]]:
    """What tells the schedules apart: how they reduce, from which block, down to what, and every setting that differs."""
    shape = study.backbone.shape
    work = [costs.work(shape, trial.schedule) for trial in chosen]
    starts = [next((row.visit.block + 1 for row in rows if row.acts), None) for rows in work]
    settings = [_settings(trial) for trial in chosen]
    rows: dict[str, list[Any]] = {
        "summary": [text.summary(trial.schedule, speak) for trial in chosen],
        "start": starts,
        "last": [rows[-1].entering for rows in work],
        "origin": [trial.origin for trial in chosen],
    }
    found = [{"name": name, "setting": False, "values": values} for name, values in rows.items()]
    for name in sorted(set().union(*settings)):
        values = [one.get(name) for one in settings]
        if len({str(one[name]) for one in settings if name in one}) > 1:
            found.append({"name": name, "setting": True, "values": values})
    return found


def classes(chosen: Sequence[Trial]) -> dict[str, Any] | None:
    """The classes in whose losses against the backbone the trials differ most, on images that all of them were judged on.

    None where no class is known to differ. Of trials that hold their worst classes only, the other losses are not known.
    """
    phase: Phase = "confirmation" if all(_losses(trial, "confirmation") is not None for trial in chosen) else "search"
    known = [{label: (lost, n) for label, lost, n in _losses(trial, phase) or ()} for trial in chosen]
    rows = []
    for label in sorted(set().union(*known)):
        lost = [
            one[label][0] if label in one else 0.0 if trial.is_baseline else None
            for trial, one in zip(chosen, known, strict=True)
        ]
        images = max(one[label][1] for one in known if label in one)
        ends = [0.0 if share is None else share for share in lost]
        if spread := max(ends) - min(ends):
            rows.append((spread, {"class": label, "images": images, "lost": lost}))
    rows.sort(key=lambda row: -row[0])
    return {"phase": phase, "rows": [row for _, row in rows[:CLASSES]]} if rows else None


def images(first: Trial, other: Trial, phase: Phase) -> dict[str, Any] | None:
    """How many of the images that both have seen in a phase they answer rightly, and the positions of those they disagree on.

    None where the answers of one of them are not known, or are to other images.
    """
    judged = [trial.measurements.get(phase, {}).get("accuracy") for trial in (first, other)]
    known = [None if accuracy is None else right(accuracy) for accuracy in judged]
    if known[0] is None or known[1] is None or not same_images(*filter(None, judged)):
        return None
    seen = min(len(known[0]), len(known[1]))
    ours, theirs = known[0][:seen], known[1][:seen]
    only = [np.flatnonzero(ours & ~theirs).tolist(), np.flatnonzero(theirs & ~ours).tolist()]
    return {
        "phase": phase,
        "trials": [first.number, other.number],
        "images": seen,
        "both": int(np.count_nonzero(ours & theirs)),
        "neither": int(np.count_nonzero(~ours & ~theirs)),
        "only": only,
    }


def _measured(trial: Trial, name: str, ranking: Ranking) -> Measurement | None:
    if name == "held_out":
        return trial.measurements.get("confirmation", {}).get("accuracy")
    if name == "expected":
        one = ranking.expected.get(trial.number, {}).get("accuracy")
        return None if one is None else replace(one, protocol={})  # answers to single images are not what it was told by alone
    return trial.judged.get(name)


def _plain(measured: Measurement | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    return {**study_document.interval(measured), "mark": text.mark(measured), "of": measured.estimated_of}


def _against(first: Measurement | None, other: Measurement | None) -> dict[str, Any] | None:
    if first is None or other is None:
        return None
    found = difference(first, other)
    return {**found._asdict(), "verdict": verdict(first.objective, found)}


def _settings(trial: Trial) -> Mapping[str, Any]:
    """Every setting but the token counts, by its name in a schedule file."""
    parts = {
        f"{reduction.name}.{name}": value
        for reduction in trial.schedule.reductions
        for name, value in reduction.model_dump(mode="json").items()
        if name != "kept"
    }
    return {"tail": trial.schedule.tail, **parts}


def _losses(trial: Trial, phase: Phase) -> Rows | None:
    """What each class loses against the backbone, of all classes or of the worst; None where nobody looked."""
    drop = trial.measurements.get(phase, {}).get("accuracy_drop")
    protocol = {} if drop is None else drop.protocol
    if (every := protocol.get("classes")) is not None:
        counted = enumerate(zip(every["lost"], every["images"], strict=True))
        return [(label, lost / n, n) for label, (lost, n) in counted if n]
    rows: Rows | None = protocol.get("worst")
    return rows
