"""The pages of all studies and of one, and their JSON twins."""

import shlex
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from vittle.dashboards import text
from vittle.dashboards.documents import plain_document, study_document
from vittle.dashboards.pages.cache import Watch
from vittle.dashboards.pages.common import OpenStore, Spoken, Watching, cached_json, find_study, templates
from vittle.dashboards.words import ENGLISH, Words
from vittle.storage import fronts
from vittle.storage.findings import Standing
from vittle.storage.records import Study, Trial, UnreadableStudy
from vittle.storage.settings import Settings
from vittle.storage.store import Store

router = APIRouter()


@router.get("/")
def list_page(request: Request, store: OpenStore, watch: Watching) -> HTMLResponse:
    """All studies, newest first."""
    return templates.TemplateResponse(request, "studies.html", {"studies": _listed(store, watch)})


@router.get("/studies.json")
def list_twin(store: OpenStore, watch: Watching) -> JSONResponse:
    """The list of studies, as JSON."""
    return JSONResponse({"studies": _listed(store, watch)})


# A name may hold anything, a slash too: hence `:path`, with the longer address first.
@router.get("/studies/{name:path}.json")
def study_twin(request: Request, name: str, store: OpenStore, watch: Watching, speak: Spoken) -> Response:
    """One study with all its trials, as JSON."""
    return cached_json(request, watch, name, "study", lambda seen: _document(store, seen.study, seen.trials, speak))


@router.get("/studies/{name:path}")
def study_page(request: Request, name: str, store: OpenStore, speak: Spoken) -> HTMLResponse:
    """One study: its chart, the front and the chosen schedule; a plain table where its kind has no page of its own."""
    study = find_study(store, name, speak)
    if study.kind == Settings.kind:
        return templates.TemplateResponse(request, "study.html", context(study, speak))
    document = plain_document.detailed(study, store.trials(name), speak) if study.known else None
    plain = {"study": study, "twin": document, "address": f"{study_document.study_url(name)}.json"}
    return templates.TemplateResponse(request, "plain_study.html", plain)


def context(study: Study, speak: Words) -> dict[str, Any]:
    """What the template of a study's page names."""
    return {
        "study": study,
        "twin": f"{study_document.study_url(study.name)}.json",
        "created": study.created,
        "budget": text.budget(study.budget, speak),
        "retime": f"vittle retime {shlex.quote(study.name)}",
    }


def twin(store: Store, study: Study, trials: Sequence[Trial], speak: Words = ENGLISH) -> dict[str, Any]:
    """What the page of an inference study shows."""
    return study_document.detailed(study, trials, store.importance(study.name), speak)


def _document(store: Store, study: Study, trials: Sequence[Trial], speak: Words) -> dict[str, Any]:
    if study.kind == Settings.kind:
        return twin(store, study, trials, speak)
    return plain_document.detailed(study, trials, speak)


def _listed(store: Store, watch: Watch) -> list[dict[str, object]]:
    def told(study: Study) -> Standing | None:  # each trial that is confirmed may change what is best
        return watch.snapshot(study.name).trials.standing if _confirming(study) else None

    return study_document.listing(_in_list(one, watch) for one in fronts.listed(store, told))


def _in_list(one: tuple[Study, Standing] | UnreadableStudy, watch: Watch) -> study_document.Listed:
    if isinstance(one, UnreadableStudy):
        return one
    return (*one, watch.snapshot(one[0].name).trials.confirmation if _confirming(one[0]) else None)


def _confirming(study: Study) -> bool:
    return study.confirming and study.known
