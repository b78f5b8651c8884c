"""Timing again what a study has found: a certificate on this machine, a front on another device. No image is evaluated."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vittle.objectives.evaluator import make_stand
from vittle.objectives.latency.environment import environment
from vittle.objectives.latency.provenance import HARDWARE, IDENTITY, device_phase, hardware
from vittle.objectives.latency.stand import EFFORTS, Stand
from vittle.objectives.measurement import Measurement
from vittle.objectives.quality.decoding import Progress
from vittle.reductions.adapters import load_adapters
from vittle.reductions.backbone import Backbone, load_backbone
from vittle.reductions.vit import ReducedViT
from vittle.spaces.errors import VittleError
from vittle.spaces.schedule import Schedule
from vittle.storage import fronts
from vittle.storage.certificate import Certificate, State, Verdict
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial
from vittle.storage.store import Store

STATES: Mapping[bool | None, State] = {True: "holds", False: "drifted", None: "cannot tell"}


def verify(path: Path, *, device: str, checkpoint: Path | None = None, adapters: Mapping[str, str] | None = None) -> Verdict:
    """Measure the latency of an exported schedule again, as it was measured for the export.

    Args:
        path: what `vittle export` wrote.
        device: where to measure.
        checkpoint: the backbone's weights, where they lie elsewhere now.
        adapters: files of its trained weights by reduction, where they do not lie beside it.

    Raises:
        VittleError: no certificate, or the weights are not those that it is of.
    """
    certificate = Certificate.load(path)
    certificate.check_adapters(adapters or {})
    backbone = known_backbone(
        certificate.model,
        checkpoint or certificate.checkpoint,
        certificate.fingerprint,
        f"certificate {path}",
        certificate.image_size,
    )
    loaded = adapters_for(certificate.schedule, adapters or {}, backbone)
    stand = make_stand(backbone, **{**certificate.stand, "device": device})
    with _threads(certificate.environment.get("threads")):
        here = environment(stand.device)
        measured = stand.measure(ReducedViT(stand.model, certificate.schedule, loaded), EFFORTS["confirmation"])
    then = certificate.environment
    changed = tuple((name, then.get(name), here.get(name)) for name in IDENTITY if then.get(name) != here.get(name))
    state = STATES[certificate.covers(measured)]
    if any(name in HARDWARE for name, _, _ in changed):
        state = "other device"
    return Verdict(state, certificate, measured, here, changed)


@dataclass(frozen=True)
class Retiming:
    """A front as it was timed before, and as it is timed here.

    Attributes:
        device: this one, in words.
        before: where the study's latencies are of.
        trials: the front, the backbone first.
        measured: latencies here, by trial number.
    """

    device: str
    before: str
    trials: tuple[Trial, ...]
    measured: Mapping[int, Mapping[str, Measurement]]


def retime(study: Study, store: Store, device: str, progress: Progress | None = None) -> Retiming:
    """Time the backbone and every schedule of a study's front on a device of this machine, and keep what comes out.

    On the device that the study was timed on, they are judged by it from then on (see `Trial.costs`).

    Raises:
        VittleError: nothing to time yet, or the weights are not those of the study.
    """
    ranking = Ranking.of(store.trials(study.name), study.goals)
    wanted = [trial for trial in (ranking.baseline, *ranking.front()) if trial is not None]
    wanted = list({trial.number: trial for trial in wanted}.values())
    if not wanted:
        raise VittleError(f"study {study.name!r} has no front to time yet; continue it with: vittle resume {study.name}")
    settings = study.inference
    backbone = known_backbone(
        settings.model, settings.checkpoint, study.backbone.fingerprint, f"study {study.name!r}", settings.image_size
    )
    measured: dict[int, Mapping[str, Measurement]] = {}
    with _threads(settings.cpus_per_worker):
        stand = make_stand(backbone, **{**settings.stand, "device": device})
        for done, trial in enumerate(wanted, start=1):
            measured[trial.number] = _timed(stand, trial.schedule, adapters_for(trial.schedule, settings.adapters, backbone))
            store.keep_again(study.name, trial.number, timed_on(stand), measured[trial.number])
            if progress is not None:
                progress(done, len(wanted))
        here = hardware(environment(stand.device))
    fronts.keep(store, study.name, Ranking.of(store.trials(study.name), study.goals).standing)
    return Retiming(here, hardware(wanted[0].judged["latency_ms"].protocol), tuple(wanted), measured)


def timed_on(stand: Stand) -> str:
    """The phase under which what is timed there again is kept."""
    return device_phase(environment(stand.device))


def _timed(stand: Stand, schedule: Schedule, adapters: Mapping[str, Any]) -> dict[str, Measurement]:
    return stand.measure(ReducedViT(stand.model, schedule, adapters), EFFORTS["confirmation"])


def known_backbone(
    model: str, checkpoint: Path | str | None, expected: str, whose: str, image_size: tuple[int, int] | None = None
) -> Backbone:
    """The backbone that something was found with.

    Args:
        model: its name.
        checkpoint: its weights, where they are not the published ones.
        expected: the fingerprint that they have to have.
        whose: what was found with it, for the error.
        image_size: height and width of its images, where they are not its own.

    Raises:
        VittleError: they are not to be had, or are others.
    """
    backbone = load_backbone(model, checkpoint, image_size)
    if backbone.fingerprint != expected:
        raise VittleError(
            f"the weights of {model} are not those of {whose} (fingerprint {backbone.fingerprint}, not {expected}); "
            f"give them with --checkpoint"
        )
    return backbone


def adapters_for(schedule: Schedule, files: Mapping[str, str], backbone: Backbone) -> dict[str, Any]:
    """The trained weights that a schedule needs, by reduction, from the given files or else those that it knows itself.

    Raises:
        VittleError: they are missing, or of another model.
    """
    there: dict[str, str | Path] = {**schedule.files, **files}
    needed = [part.name for part in schedule.reductions if part.adapter]
    for name in needed:
        if name not in there:
            raise VittleError(f"the schedule's {name} needs trained weights; give their file with --adapter {name}=FILE")
    loaded = load_adapters({name: there[name] for name in needed}, backbone)
    device = next(backbone.model.parameters()).device
    return {name: adapter.to(device) for name, adapter in loaded.items()}


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    # More threads than processors wait for one another, and say nothing of either device.
    torch.set_num_threads(min(wanted or before, os.cpu_count() or before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
