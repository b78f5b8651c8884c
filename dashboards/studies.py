"""The pages of all studies and of one, their JSON twins, and the files that schedules are exported as."""

import re
from http import HTTPStatus

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from vittle.dashboards import text, twins
from vittle.dashboards.page import OpenStore, find_study, find_trial, templates
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
def exported_schedule(name: str, number: str, store: OpenStore) -> Response:
    """One schedule with its evidence, as a file that `vittle.Schedule.load` reads."""
    study = find_study(store, name)
    trials = store.trials(name)
    trial = find_trial(study, trials, number)
    if not twins.exportable(trial):
        reason = f"trial {number} is {trial.state} and has no accuracy; export one that is complete"
        raise HTTPException(HTTPStatus.NOT_FOUND, reason)
    document = export.to_yaml(export.document(study, trial, records.reference(trials)))
    best = records.best(trials, study.budget)
    filename = "best.yaml" if best is not None and best.number == trial.number else f"{_slug(name)}-trial-{number}.yaml"
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return Response(document, media_type="application/yaml", headers=headers)


@router.get("/studies/{name:path}.json")
def study_twin(name: str, store: OpenStore) -> JSONResponse:
    """One study with all its trials, as JSON."""
    study = find_study(store, name)
    trials = store.trials(name)
    key = records.profiled(trials)
    profile = None if key is None else store.profile(key)
    fingerprint = study.backbone.fingerprint
    known = (store.phase(fingerprint), profile, store.importance(name), store.sensitivity(fingerprint))
    return JSONResponse(twins.detailed(study, trials, *known))


@router.get("/studies/{name:path}")
def study_page(request: Request, name: str, store: OpenStore) -> HTMLResponse:
    """One study: its chart, the front as a table, and the chosen schedule."""
    study = find_study(store, name)
    context = {
        "study": study,
        "twin": f"{twins.study_url(name)}.json",
        "created": study.created,
        "budget": text.budget(study.budget),
    }
    return templates.TemplateResponse(request, "study.html", context)


def _listed(store: Store) -> list[dict[str, object]]:
    return [twins.listed(study, fronts.standing(store, study.name)) for study in store.studies()]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "study"
