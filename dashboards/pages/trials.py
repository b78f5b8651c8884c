"""The page of one trial, its JSON twin, what its pictures draw, and the file that its schedule is exported as."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from vittle.dashboards.documents import pictures, study_document, trial_document
from vittle.dashboards.documents.pictures import Illustrations
from vittle.dashboards.pages.common import INFERENCE, Spoken, Watching, find_snapshot, find_trial, templates
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import Asked, parse_quality
from vittle.spaces.errors import VittleError
from vittle.storage import kinds
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial
from vittle.storage.settings import Settings

router = APIRouter()

MOST = 12  # images of one answer


def _illustrations(request: Request) -> Illustrations:
    found: Illustrations = request.app.state.illustrations
    return found


Drawn = Annotated[Illustrations, Depends(_illustrations)]


# A name may hold anything, a slash too: hence `:path`, with the longer addresses first.
@router.get("/studies/{name:path}/trials/{number}/images.json", dependencies=INFERENCE)
def images(
    name: str, number: str, watch: Watching, speak: Spoken, illustrations: Drawn, indices: str | None = None
) -> JSONResponse:
    """What a trial does to images of the search split, for its pictures; without images there is a `reason` why.

    `indices` are up to 12 numbers with commas between them, 0 the first image that the search sees; the first six if not given.
    """
    wanted = _indices(indices)
    study, trials, _ = find_snapshot(watch, name, speak)
    trial = find_trial(study, trials, number, speak)
    try:
        return JSONResponse(illustrations(study, trial.schedule, wanted))
    except VittleError as error:
        return JSONResponse({"images": [], "reason": str(error)})


@router.get("/studies/{name:path}/trials/{number}.yaml")
def exported_schedule(
    name: str, number: str, watch: Watching, speak: Spoken, budget: str | None = None, max_accuracy_drop: str | None = None
) -> Response:
    """One schedule with its evidence, as a file that `vittle.Schedule.load` reads, for what the study asks or else."""
    study, trials, _ = find_snapshot(watch, name, speak)
    trial = find_trial(study, trials, number, speak)
    if not study_document.exportable(study, trial):
        reason = speak("sentences.no_export", number=number, state=speak(f"states.{trial.state}"))
        raise HTTPException(HTTPStatus.NOT_FOUND, reason)
    return download(study, trials, trial, wanted(study, budget, max_drop=max_accuracy_drop))


@router.get("/studies/{name:path}/trials/{number}.json", dependencies=INFERENCE)
def trial_json(name: str, number: str, watch: Watching, speak: Spoken) -> JSONResponse:
    """One trial with everything that is known of it, as JSON."""
    study, trials, _ = find_snapshot(watch, name, speak)
    return JSONResponse(trial_document.detailed(study, trials, find_trial(study, trials, number, speak), speak))


@router.get("/studies/{name:path}/trials/{number}", dependencies=INFERENCE)
def trial_page(request: Request, name: str, number: str, watch: Watching, speak: Spoken, illustrations: Drawn) -> HTMLResponse:
    """One trial: what was measured, what it does to tokens and images, and how it went."""
    study, trials, _ = find_snapshot(watch, name, speak)
    trial = find_trial(study, trials, number, speak)
    context = {
        "study": study,
        "study_url": study_document.study_url(name),
        "trial": trial,
        "url": study_document.trial_url(name, trial.number),
        "pictures": list(pictures.drawn(trial.schedule)),
        "possible": illustrations.possible,
    }
    return templates.TemplateResponse(request, "trial.html", context)


def _indices(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MOST or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        reason = f"indices is {text!r}; accepted: 1 to {MOST} numbers of images with commas between them, such as 0,1,2"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, reason)
    return tuple(dict.fromkeys(map(int, parts)))


def wanted(study: Study, budget: str | None, tolerance: str | None = None, max_drop: str | None = None) -> Asked:
    """What was asked for, or else what the study was launched for; what cannot be read is a 422."""
    batch_size = study.inference.batch_size if budget is not None else None
    try:
        read = None if budget is None else LatencyBudget.parse(budget, batch_size)
        quality = study.goals.quality
        return study.goals.asking(
            read, *(None if one is None else parse_quality(one, quality) for one in (tolerance, max_drop))
        )
    except VittleError as error:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None


def download(study: Study, trials: Sequence[Trial], trial: Trial, asked: Asked) -> Response:
    """The file of a trial's candidate, to be kept."""
    headers = {"Content-Disposition": f'attachment; filename="{file_name(study, trials, trial)}"'}
    return Response(exported(study, trials, trial, asked), media_type="application/yaml", headers=headers)


def exported(study: Study, trials: Sequence[Trial], trial: Trial, asked: Asked | None = None) -> str:
    """The file of a trial's candidate, with its evidence, for what the study asks or for another thing.

    Copies of the adapters that it names do not come along; it says which ones to put beside it.
    """
    found = kinds.document(study, trial, Ranking.of(trials, study.goals), asked, file_name(study, trials, trial))
    adapters = study.settings.adapters if isinstance(study.settings, Settings) else {}
    return kinds.to_yaml(study, found, missing=adapters)


def file_name(study: Study, trials: Sequence[Trial], trial: Trial) -> str:
    """What that file is called."""
    best = Ranking.of(trials, study.goals).best()
    return "best.yaml" if best is not None and best.number == trial.number else f"{slug(study.name)}-trial-{trial.number}.yaml"


def slug(name: str) -> str:
    """A name for files of a study, whatever its own name holds."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "study"
