"""The page of what is known about a backbone's blocks and its JSON twin: where merging may start, and what each can spare."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from vittle.dashboards import text
from vittle.dashboards.documents import study_document
from vittle.dashboards.pages.common import INFERENCE, OpenStore, Spoken, find_study, templates
from vittle.dashboards.words import Words
from vittle.objectives.backbones.merge_start import STATISTICS, MergeStart
from vittle.objectives.backbones.sensitivity import Sensitivity
from vittle.storage.records import Study

router = APIRouter(dependencies=INFERENCE)


@router.get("/studies/{name:path}/detector.json")
def detector_twin(name: str, store: OpenStore, speak: Spoken) -> JSONResponse:
    """What the detector saw in each block and what each block can spare, as JSON."""
    study = find_study(store, name, speak)
    fingerprint = study.backbone.fingerprint
    return JSONResponse(detected(study, store.merge_start(fingerprint), store.sensitivity(fingerprint), speak))


@router.get("/studies/{name:path}/detector")
def detector_page(request: Request, name: str, store: OpenStore, speak: Spoken) -> HTMLResponse:
    """Similarity, partners, sinks, entropy and outliers by block with the chosen start, and the loss of each block alone."""
    study = find_study(store, name, speak)
    context = {
        "study": study,
        "twin": f"{study_document.study_url(name)}/detector.json",
        "merge_start": store.merge_start(study.backbone.fingerprint),
        "sensitivity": store.sensitivity(study.backbone.fingerprint),
    }
    return templates.TemplateResponse(request, "detector.html", context)


def detected(study: Study, merge_start: MergeStart | None, sensitivity: Sensitivity | None, speak: Words) -> dict[str, Any]:
    """What is known of a backbone's blocks, None for what is not."""
    return {
        "study": study.name,
        "state": study.state,
        "merge_start": None if merge_start is None else _plain(merge_start, speak),
        "sensitivity": None if sensitivity is None else sensitivity.to_dict(),
    }


def _plain(merge_start: MergeStart, speak: Words) -> dict[str, Any]:
    meanings = {name: speak(f"detector.meanings.{name}") for name in STATISTICS}
    return {**merge_start.to_dict(), "text": text.merge_start(merge_start, speak), "meanings": meanings}
