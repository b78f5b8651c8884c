"""A study's latency profile, page and JSON twin: what tokens cost, with the blocks of one schedule on that staircase."""

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from vittle.dashboards import text
from vittle.dashboards.documents import study_document
from vittle.dashboards.pages.common import INFERENCE, OpenStore, Spoken, find_study, find_trial, templates
from vittle.dashboards.words import Words
from vittle.objectives.latency.profile import LatencyProfile
from vittle.spaces import costs
from vittle.spaces.work import Visit
from vittle.storage import records
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial
from vittle.storage.store import Store

router = APIRouter(dependencies=INFERENCE)


@router.get("/studies/{name:path}/profile.json")
def profile_twin(name: str, store: OpenStore, speak: Spoken, trial: str | None = None) -> JSONResponse:
    """The latency profile that a study predicts with, as JSON; `trial` is the number of the schedule on it, else the best."""
    study, trials = find_study(store, name, speak), store.trials(name)
    return JSONResponse(profiled(study, trials, _known(store, trials), _chosen(study, trials, trial, speak), speak))


@router.get("/studies/{name:path}/profile")
def profile_page(request: Request, name: str, store: OpenStore, speak: Spoken, trial: str | None = None) -> HTMLResponse:
    """The staircase with the chosen schedule on it, free tokens, predicted against measured, and the backbone's forms."""
    study, trials = find_study(store, name, speak), store.trials(name)
    known, chosen = _known(store, trials), _chosen(study, trials, trial, speak)
    context = {
        "study": study,
        "twin": f"{study_document.study_url(name)}/profile.json"
        + (f"?trial={chosen.number}" if trial is not None and chosen else ""),
        "choices": study_document.offered(study, trials, [chosen] if chosen else [], speak),
        "chosen": None if chosen is None else chosen.number,
        "profile": known,
    }
    return templates.TemplateResponse(request, "profile.html", context)


def profiled(
    study: Study, trials: Sequence[Trial], profile: LatencyProfile | None, chosen: Trial | None, speak: Words
) -> dict[str, Any]:
    """What a study's latencies were predicted with, None where that is not known, and where the blocks of a trial stand."""
    return {
        "study": study.name,
        "state": study.state,
        "trial": None if chosen is None else _standing(study, chosen, profile, speak),
        "profile": None if profile is None else _plain(profile, speak),
    }


def _known(store: Store, trials: Sequence[Trial]) -> LatencyProfile | None:
    key = records.profiled(trials)
    return None if key is None else store.profile(key)


def _chosen(study: Study, trials: list[Trial], number: str | None, speak: Words) -> Trial | None:
    if number is not None:
        return find_trial(study, trials, number, speak)
    ranking = Ranking.of(trials, study.goals)
    return ranking.best() or ranking.baseline


def _standing(study: Study, trial: Trial, profile: LatencyProfile | None, speak: Words) -> dict[str, Any]:
    """A trial, and which of its blocks start with how many tokens, the most first; times in ms of the whole batch."""
    rows = costs.work(study.backbone.shape, trial.schedule)
    recurring = {row.visit.block for row in rows if row.visit.step}
    by_tokens: dict[int, list[Visit]] = {}
    for row in rows:
        by_tokens.setdefault(row.keys, []).append(row.visit)
    steps = [
        {
            "tokens": tokens,
            "blocks": _named(visits, recurring, speak),
            "count": len(visits),
            "ms": None if profile is None else profile.backbone_ms * profile.block.at(tokens),
        }
        for tokens, visits in by_tokens.items()
    ]
    expected = {}
    if profile is not None and profile.checks and profile.knows(trial.schedule):
        expected = profile.predict(trial.schedule)
    latency = trial.judged.get("latency_ratio")
    taken = None if latency is None or text.predicted(latency) else latency
    return {
        "number": trial.number,
        "summary": text.summary(trial.schedule, speak),
        "steps": steps,
        "predicted": study_document.measured(expected.get("latency_ratio")),
        "measured": study_document.measured(taken),
    }


def _named(visits: Sequence[Visit], recurring: Collection[int], speak: Words) -> str:
    """1–3, 7 of visits to blocks; 1, 12, 2 (steps 1–3) where block 2 is `recurring`."""
    steps = {block: [visit.step + 1 for visit in visits if visit.block == block] for block in recurring}
    said = [
        speak("visits.steps", count=len(taken), block=block + 1, steps=_ranges(taken))
        for block, taken in steps.items()
        if taken
    ]
    others = [visit.block + 1 for visit in visits if visit.block not in recurring]
    return ", ".join([*([_ranges(others)] if others else []), *said])


def _ranges(numbers: Sequence[int]) -> str:
    """1–3, 7 of the rising numbers 1, 2, 3 and 7."""
    runs = itertools.groupby(enumerate(numbers), lambda one: one[1] - one[0])
    ends = [[number for _, number in run] for _, run in runs]
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in ends)


def _plain(profile: LatencyProfile, speak: Words) -> dict[str, Any]:
    """A latency profile; times of a dense block in ms of the whole batch, checks as shares of the backbone's time."""
    block, checked = profile.block, bool(profile.checks)
    times = {"low": block.low, "high": block.high, "fitted": block.fitted}
    return {
        "key": profile.key,
        "model": profile.model,
        "device": text.device(profile.environment),
        **{name: profile.protocol[name] for name in ("batch_size", "dtype", "compiled")},
        "backbone_ms": profile.backbone_ms,
        "forms_ms": dict(profile.forms_ms),
        "mape": profile.mape if checked else None,
        "spearman": profile.spearman if checked else None,
        "margin": profile.margin if checked else None,
        "trusted": profile.trusted,
        "noisy": profile.noisy,
        "measured_at": profile.measured_at,
        "block": {
            "counts": list(block.counts),
            **{name: [profile.backbone_ms * one for one in shares] for name, shares in times.items()},
        },
        "flats": [list(flat) for flat in profile.flats],
        "checks": [dataclasses.asdict(check) for check in profile.checks],
        "text": text.latency(profile, speak),
    }
