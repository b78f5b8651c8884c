"""The pages of all studies and of one, their JSON twins, and the files that schedules are exported as."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from vittle.dashboards import text, twins
from vittle.dashboards.page import OpenStore, Spoken, Watching, find_seen, find_study, find_trial, kept, templates
from vittle.dashboards.words import ENGLISH, Words
from vittle.storage import export, fronts, records
from vittle.storage.records import Study, Trial
from vittle.storage.store import Store

router = APIRouter()


@router.get("/")
def list_page(request: Request, store: OpenStore) -> HTMLResponse:
    """All studies, newest first."""
    return templates.TemplateResponse(request, "studies.html", {"studies": _listed(store)})


@router.get("/studies.json")
def list_twin(store: OpenStore) -> JSONResponse:
    """The list of studies, as JSON."""
    return JSONResponse({"studies": _listed(store)})


# A name may hold anything, a slash too: hence `:path`, with the longer addresses first.
@router.get("/studies/{name:path}/trials/{number}.yaml")
def exported_schedule(name: str, number: str, watch: Watching, speak: Spoken) -> Response:
    """One schedule with its evidence, as a file that `vittle.Schedule.load` reads."""
    study, trials, _ = find_seen(watch, name, speak)
    trial = find_trial(study, trials, number, speak)
    if not twins.exportable(trial):
        reason = speak("sentences.no_export", number=number, state=speak(f"states.{trial.state}"))
        raise HTTPException(HTTPStatus.NOT_FOUND, reason)
    headers = {"Content-Disposition": f'attachment; filename="{file_name(study, trials, trial)}"'}
    return Response(exported(study, trials, trial), media_type="application/yaml", headers=headers)


@router.get("/studies/{name:path}.json")
def study_twin(request: Request, name: str, store: OpenStore, watch: Watching, speak: Spoken) -> Response:
    """One study with all its trials, as JSON."""
    return kept(request, watch, name, "study", lambda seen: twin(store, seen.study, seen.trials, speak))


@router.get("/studies/{name:path}")
def study_page(request: Request, name: str, store: OpenStore, speak: Spoken) -> HTMLResponse:
    """One study: its chart, the front as a table, and the chosen schedule."""
    return templates.TemplateResponse(request, "study.html", context(find_study(store, name, speak), speak))


def context(study: Study, speak: Words) -> dict[str, Any]:
    """What the template of a study's page names."""
    return {
        "study": study,
        "twin": f"{twins.study_url(study.name)}.json",
        "created": study.created,
        "budget": text.budget(study.budget, speak),
    }


def twin(store: Store, study: Study, trials: Sequence[Trial], speak: Words = ENGLISH) -> dict[str, Any]:
    """What the page of a study shows."""
    return twins.detailed(study, trials, store.importance(study.name), speak)


def exported(study: Study, trials: Sequence[Trial], trial: Trial) -> str:
    """The file of a trial's schedule, with its evidence."""
    return export.to_yaml(export.document(study, trial, records.reference(trials)))


def file_name(study: Study, trials: Sequence[Trial], trial: Trial) -> str:
    """What that file is called."""
    best = records.best(trials, study.budget)
    return "best.yaml" if best is not None and best.number == trial.number else f"{slug(study.name)}-trial-{trial.number}.yaml"


def _listed(store: Store) -> list[dict[str, object]]:
    return [twins.listed(study, fronts.standing(store, study.name)) for study in store.studies()]


def slug(name: str) -> str:
    """A name for files of a study, whatever its own name holds."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "study"
