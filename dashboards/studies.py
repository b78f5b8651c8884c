"""The pages of all studies and of one, their JSON twins, and the files that schedules are exported as."""

import re
from http import HTTPStatus

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from vittle.dashboards import text, twins
from vittle.dashboards.page import OpenStore, Spoken, find_study, find_trial, templates
from vittle.storage import export, fronts, records
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
def exported_schedule(name: str, number: str, store: OpenStore, speak: Spoken) -> Response:
    """One schedule with its evidence, as a file that `vittle.Schedule.load` reads."""
    study = find_study(store, name, speak)
    trials = store.trials(name)
    trial = find_trial(study, trials, number, speak)
    if not twins.exportable(trial):
        reason = speak("sentences.no_export", number=number, state=speak(f"states.{trial.state}"))
        raise HTTPException(HTTPStatus.NOT_FOUND, reason)
    document = export.to_yaml(export.document(study, trial, records.reference(trials)))
    best = records.best(trials, study.budget)
    filename = "best.yaml" if best is not None and best.number == trial.number else f"{_slug(name)}-trial-{number}.yaml"
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return Response(document, media_type="application/yaml", headers=headers)


@router.get("/studies/{name:path}.json")
def study_twin(name: str, store: OpenStore, speak: Spoken) -> JSONResponse:
    """One study with all its trials, as JSON."""
    return JSONResponse(twins.detailed(find_study(store, name, speak), store.trials(name), store.importance(name), speak))


@router.get("/studies/{name:path}")
def study_page(request: Request, name: str, store: OpenStore, speak: Spoken) -> HTMLResponse:
    """One study: its chart, the front as a table, and the chosen schedule."""
    study = find_study(store, name, speak)
    context = {
        "study": study,
        "twin": f"{twins.study_url(name)}.json",
        "created": study.created,
        "budget": text.budget(study.budget, speak),
    }
    return templates.TemplateResponse(request, "study.html", context)


def _listed(store: Store) -> list[dict[str, object]]:
    return [twins.listed(study, fronts.standing(store, study.name)) for study in store.studies()]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "study"
