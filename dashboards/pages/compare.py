"""The page that puts trials of one study side by side, and its JSON twin."""

from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse

from vittle.dashboards.documents import comparison, pictures, study_document
from vittle.dashboards.documents.comparison import FEWEST, MOST
from vittle.dashboards.pages.common import INFERENCE, Spoken, Watching, find_snapshot, find_trial, templates
from vittle.dashboards.words import Words
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial

router = APIRouter(dependencies=INFERENCE)
SHOWN = 40  # characters of a query that a refusal repeats


@router.get("/studies/{name:path}/compare.json")
def compare_twin(name: str, watch: Watching, speak: Spoken, trials: str | None = None) -> JSONResponse:
    """Two to four trials side by side, as JSON: `trials` are their numbers, separated by commas."""
    study, known, _ = find_snapshot(watch, name, speak)
    chosen = _asked(study, known, trials, speak)
    return JSONResponse(comparison.compared(study, known, chosen, speak) if chosen else {"trials": []})


@router.get("/studies/{name:path}/compare")
def compare_page(request: Request, name: str, watch: Watching, speak: Spoken, trials: str | None = None) -> HTMLResponse:
    """Two to four trials side by side: the asked ones, or the best one and the backbone."""
    study, known, _ = find_snapshot(watch, name, speak)
    chosen = _asked(study, known, trials, speak)
    query = quote(",".join(f"{trial.number}" for trial in chosen))
    context = {
        "study": study,
        "twin": f"{study_document.study_url(name)}/compare.json" + (f"?trials={query}" if chosen else ""),
        "choices": study_document.offered(study, known, chosen, speak),
        "chosen": [trial.number for trial in chosen] + [None] * (MOST - len(chosen)),
        "fewest": FEWEST,
        "pictures": sorted({name for trial in chosen for name in pictures.drawn(trial.schedule)}),
        "possible": request.app.state.illustrations.possible,
    }
    return templates.TemplateResponse(request, "compare.html", context)


def _asked(study: Study, trials: Sequence[Trial], query: str | None, speak: Words) -> list[Trial]:
    """The trials with these numbers; without a query the best one and the backbone, or none where there are no two."""
    if query is None:
        return _usual(study, trials)
    numbers = list(dict.fromkeys(part.strip() for part in query.split(",") if part.strip()))
    wrong = next((number for number in numbers if not number.isdecimal()), None)
    if wrong is not None:
        raise HTTPException(HTTPStatus.BAD_REQUEST, speak("compare.no_number", given=wrong[:SHOWN]))
    if not FEWEST <= len(numbers) <= MOST:
        raise HTTPException(HTTPStatus.BAD_REQUEST, speak("compare.wrong_count", count=len(numbers)))
    found = [find_trial(study, trials, number, speak) for number in numbers]
    empty = next((trial for trial in found if not trial.judged), None)
    if empty is not None:
        state = speak(f"states.{empty.state}")
        raise HTTPException(HTTPStatus.BAD_REQUEST, speak("compare.nothing_measured", number=empty.number, state=state))
    return found


def _usual(study: Study, trials: Sequence[Trial]) -> list[Trial]:
    ranking = Ranking.of(trials, study.goals)
    first = [ranking.best(), ranking.baseline, *reversed(ranking.front())]
    found = list({trial.number: trial for trial in first if trial is not None}.values())
    return found[:FEWEST] if len(found) >= FEWEST else []
