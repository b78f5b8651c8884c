"""What leaves the database of an inference study: its front, and a document with a schedule and its evidence."""

import io
import re
from collections.abc import Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from vittle.objectives.goals import Asked
from vittle.objectives.latency.provenance import ENVIRONMENT
from vittle.objectives.measurement import Measurement, Phase
from vittle.spaces import costs, plain_yaml
from vittle.spaces.schedule import Schedule
from vittle.storage.plain_export import check_exportable, expected, measured, ranked, wanted
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial


def front_entry(_study: Study, trial: Trial, ranking: Ranking | None = None) -> dict[str, Any]:
    """One point of a front. `accuracy` is on the search images; `confirmed` is on images that the search never saw.

    With all trials of the study, `expected` is the accuracy that ranks them.
    """
    judged = trial.judged
    entry: dict[str, Any] = {
        "trial": trial.number,
        **_accuracy(judged["accuracy"]),
        "expected": expected(trial, ranking, "accuracy"),
        "macs": int(judged["macs"].value),
        "latency_ms": judged["latency_ms"].value,
        "backbone_ms": judged["latency_ms"].protocol.get("backbone_ms"),
        "latency_ratio": judged["latency_ratio"].value,
        "latency_ratio_interval": [judged["latency_ratio"].low, judged["latency_ratio"].high],
        "confirmed": None,
        "origin": trial.origin,
        "schedule": trial.schedule.to_dict(),
    }
    if trial.confirmed:
        entry["confirmed"] = _accuracy(trial.measurements["confirmation"]["accuracy"])
    return entry


def document(
    study: Study,
    trial: Trial,
    ranking: Ranking | None = None,
    asked: Asked | None = None,
    file: str = "best.yaml",
) -> dict[str, Any]:
    """The exported file: the schedule, the backbone it belongs to, and what was measured, how, and with which interval.

    Args:
        study: whose schedule it is.
        trial: the schedule and its measurements.
        ranking: all trials of the study: what ranks this one, and the backbone.
        asked: what it is exported for, and for whose budget it is certified; what the study was launched for where not given.
        file: what the file will be called: those of the schedule's adapters lie beside it and are called after it.

    Raises:
        VittleError: the trial has no measured accuracy, so there is no evidence to export.
    """
    check_exportable(study, trial)
    phase: Phase = "confirmation" if trial.confirmed else "search"
    shape = study.backbone.shape
    settings = study.inference
    about = trial.judged["latency_ms"].protocol
    exported: dict[str, Any] = {
        "schedule": trial.schedule.to_dict(),
        "backbone": {
            "model": study.backbone.name,
            "checkpoint": settings.checkpoint,
            **({"image_size": "{}x{}".format(*settings.image_size)} if settings.image_size else {}),
            "fingerprint": study.backbone.fingerprint,
            "blocks": shape.depth,
            "tokens": shape.tokens,
            "classes": study.backbone.classes,
            "macs": costs.macs(shape, Schedule()),
        },
        **wanted(study, trial, ranking, asked),
        "tokens": list(costs.tokens(shape, trial.schedule)),
        "measured_on": {"images": "held-out" if trial.confirmed else "search", "data": settings.data},
        "measurements": {
            **measured({**trial.judged, **trial.measurements[phase], **trial.costs}),
            **ranked(trial, ranking, "accuracy"),
        },
        "certificate": {
            "stand": settings.stand,
            "environment": {name: about[name] for name in ENVIRONMENT if name in about},
            "protocol": {name: value for name, value in about.items() if name not in (*ENVIRONMENT, *settings.stand)},
        },
        "study": study.name,
        "trial": trial.number,
        "id": trial.schedule.id,
    }
    adapters = {part.name: part.adapter for part in trial.schedule.reductions if part.adapter}
    named = sorted(adapters.keys() & settings.adapters.keys())
    if named:
        exported["adapters"] = {name: _beside(file, name, adapters[name], settings.adapters[name]) for name in named}
    baseline = None if ranking is None else ranking.baseline
    if baseline is not None and phase in baseline.measurements:
        exported["backbone"]["measurements"] = measured({"accuracy": baseline.measurements[phase]["accuracy"]})
    return exported


def to_yaml(exported: dict[str, Any], missing: Mapping[str, str] = MappingProxyType({})) -> str:
    """The document as text, with a word on how to use it.

    Args:
        exported: the document.
        missing: where the files of its adapters are, by reduction, if nobody puts copies beside it.
    """
    stream = io.StringIO()
    files: Mapping[str, str] = exported.get("adapters", {})
    beside = f", with {' and '.join(map(repr, files.values()))} beside it" if files else ""
    stream.write(f'# Apply with: vittle.apply(model, vittle.Schedule.load("this file")){beside}\n')
    for name in sorted(files.keys() & missing.keys()):
        stream.write(f"# Put beside this file: a copy of {missing[name]!r}, as {files[name]!r}\n")
    stream.write("# Check that it still holds, on this machine or another: vittle verify this-file\n")
    return stream.getvalue() + plain_yaml.to_yaml(exported)


def _beside(file: str, name: str, adapter: str, source: str) -> str:
    """What the copy of an adapter is called: `best.merging.modular-0123456789ab.safetensors`.

    Its own name tells its weights, so a copy of others never takes the place of one that an earlier export names.
    """
    return re.sub(r"[^\w.+ -]", "-", f"{PurePath(file).stem}.{name}.{adapter}{PurePath(source).suffix}")


def _accuracy(measured: Measurement) -> dict[str, Any]:
    return {"accuracy": measured.value, "accuracy_interval": [measured.low, measured.high], "images": measured.n}
