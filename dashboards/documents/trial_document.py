"""What the page of one trial shows, as plain values: its JSON twin."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from vittle.dashboards import text
from vittle.dashboards.documents import pictures, study_document
from vittle.dashboards.words import ENGLISH, Words
from vittle.objectives.measurement import OBJECTIVES, Measurement
from vittle.objectives.quality import rungs
from vittle.spaces import costs
from vittle.spaces.plain_yaml import to_yaml
from vittle.spaces.schedule import Schedule
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial

ORDER = ("search", "confirmation")  # of phases; those of other devices and what came late follow
TAILS = ("p95_ms", "p95_ms_interval", "backbone_ms", "backbone_p95_ms")  # numbers of a protocol, which are no environment


def detailed(study: Study, trials: Sequence[Trial], trial: Trial, speak: Words = ENGLISH) -> dict[str, Any]:
    """One trial with everything that is known of it.

    Args:
        study: the trial's.
        trials: all of the study.
        trial: one of them.
        speak: the language of its sentences.
    """
    ranking = Ranking.of(trials, study.goals)
    points = {point.number for point in ranking.front()}
    choice = ranking.choice()
    best = None if choice is None else choice.recommended
    url = study_document.study_url(study.name)
    numbers = [one.number for one in trials]
    place = numbers.index(trial.number)
    phases = sorted(trial.measurements, key=lambda phase: (ORDER.index(phase) if phase in ORDER else len(ORDER), phase))
    compare = None if best is None or best.number == trial.number else f"{url}/compare?trials={best.number},{trial.number}"
    return {
        **study_document.listed_trial(study, trial, ranking, speak, on_front=trial.number in points),
        "measurements": study_document.measurements(trial),
        "study": {
            "name": study.name,
            "state": study.state,
            "url": url,
            "budget": study.inference.latency_budget,
            "limit": study_document.limit(study, ranking, speak),
            "batch_size": study.inference.batch_size,
            "tokens": study.backbone.shape.tokens,
            "prefix": study.backbone.shape.prefix,
        },
        "previous": study_document.trial_url(study.name, numbers[place - 1]) if place > 0 else None,
        "next": study_document.trial_url(study.name, numbers[place + 1]) if place + 1 < len(numbers) else None,
        "compare": compare,
        "best": best is not None and best.number == trial.number,
        "most_accurate": choice is not None and choice.finest.number == trial.number,
        "started": _iso(trial.started),
        "finished": _iso(trial.finished),
        "objectives": list(OBJECTIVES),
        "phases": phases,
        "devices": {phase: device for phase in phases if (device := _device(trial, phase)) is not None},
        "blocks": blocks(study, trial.schedule),
        "macs_share": costs.macs(study.backbone.shape, trial.schedule) / costs.macs(study.backbone.shape, Schedule()),
        "samples": {phase: found for phase in phases if (found := samples(trial, phase)) is not None},
        "classes": {phase: found for phase in phases if (found := classes(trial, phase)) is not None},
        "environment": {phase: found for phase in phases if (found := environment(trial, phase))},
        "log": log(trial),
        "yaml": to_yaml(trial.schedule.to_dict(), width=80),
        "pictures": pictures.drawn(trial.schedule),
    }


def blocks(study: Study, schedule: Schedule) -> list[dict[str, Any]]:
    """Visit by visit the tokens that enter, what each reduction does and by which rule, and the MACs as a share."""
    shape = study.backbone.shape
    dense = shape.block_macs(queries=shape.tokens, keys=shape.tokens, mlp=shape.tokens)
    return [
        {
            "block": row.visit.block,
            "step": row.visit.step,
            "entering": row.entering,
            "resting": row.resting,
            "queries": row.queries,
            "acts": [
                {
                    "reduction": act.reduction,
                    "rule": act.rule,
                    "removed": act.entering - act.leaving if act.place == "tokens" else 0,  # who rests is still there
                    "left": act.leaving,
                    "strength": act.strength,
                }
                for act in row.acts
            ],
            "leaving": row.leaving,
            "macs_share": costs.row_macs(shape, row) / dense,
        }
        for row in costs.work(shape, schedule)
    ]


def samples(trial: Trial, phase: str) -> dict[str, Any] | None:
    """The ratios of single rounds with their median and 95th percentile; None where no latency was measured.

    `ratios` are None where nobody kept them.
    """
    measured = trial.measurements[phase]
    ratio, ms = measured.get("latency_ratio"), measured.get("latency_ms")
    if ratio is None or text.predicted(ratio):
        return None
    kept = ratio.protocol.get("samples")
    about = (
        {}
        if ms is None
        else {name: ms.protocol[name] for name in ("p95_ms", "backbone_ms", "backbone_p95_ms") if name in ms.protocol}
    )
    return {
        "ratios": kept,
        "p50": ratio.value,
        "p95": None if not kept else float(np.quantile(kept, 0.95)),
        "rounds": ratio.protocol.get("rounds", ratio.n),
        **about,
    }


def classes(trial: Trial, phase: str) -> dict[str, Any] | None:
    """What is lost in each class against the backbone, the most first; None where images have no labels or none were seen.

    `whole` says whether these are all classes with images, or only those that lose most.
    """
    drop = trial.measurements[phase].get("accuracy_drop")
    if drop is None or "worst" not in drop.protocol:
        return None
    kept = drop.protocol.get("classes")
    if kept is None:
        rows = [{"class": label, "lost": share, "images": n} for label, share, n in drop.protocol["worst"]]
        return {"whole": False, "rows": rows}
    counted = enumerate(zip(kept["lost"], kept["images"], strict=True))
    rows = [{"class": label, "lost": lost / n, "images": n} for label, (lost, n) in counted if n]
    return {"whole": True, "rows": sorted(rows, key=lambda row: (-row["lost"], row["class"]))}


def environment(trial: Trial, phase: str) -> dict[str, Any]:
    """Where and how the latency was taken, in plain values by dotted names."""
    measured = trial.measurements[phase].get("latency_ms")
    protocol = {} if measured is None else measured.protocol
    return dict(_flat({name: value for name, value in protocol.items() if name not in (*study_document.PACKED, *TAILS)}))


def log(trial: Trial) -> list[dict[str, Any]]:
    """What happened to a trial, in order of time; `at` is None where nobody wrote down when."""
    happened = list(_happened(trial))
    known = ""
    for one in happened:
        one["order"] = known = one["at"] or known
    happened.sort(key=lambda one: one["order"])
    return [{name: value for name, value in one.items() if name != "order"} for one in happened]


def _happened(trial: Trial) -> Iterator[dict[str, Any]]:
    if trial.started is not None:
        yield {"what": "started", "at": _iso(trial.started)}
    if trial.attempts > 1:
        yield {"what": "again", "at": None, "count": trial.attempts}
    accuracy = trial.measurements.get("search", {}).get("accuracy")
    if accuracy is not None:
        total = accuracy.estimated_of or accuracy.n
        # The untouched backbone is judged by its own pass over all images at once.
        seen = [n for n in rungs.sizes(total) if n <= accuracy.n] if trial.schedule.reductions else [total]
        yield {"what": "seen", "at": None, "rungs": seen, "total": total}
    if trial.ended:
        yield {"what": "ended", "at": _iso(trial.finished), "state": trial.state, "reason": trial.reason}
    for phase in trial.measurements:
        if phase == "search":
            continue
        kind = phase if phase in ("confirmation", "late") else "device"
        yield {"what": kind, "at": _measured_at(trial, phase), "device": _device(trial, phase)}


def _measured_at(trial: Trial, phase: str) -> str | None:
    measured = trial.measurements[phase].get("latency_ms")
    return None if measured is None else measured.protocol.get("measured_at")


def _device(trial: Trial, phase: str) -> str | None:
    measured: Measurement | None = trial.measurements[phase].get("latency_ms")
    return text.device(measured.protocol) if measured is not None and "device" in measured.protocol else None


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
