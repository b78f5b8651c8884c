"""The service for programs: `/api`, described at `/api/openapi.json`. Every refusal is one line, `{"error": ...}`."""

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Security
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from vittle.dashboards import text
from vittle.dashboards.documents import study_document
from vittle.dashboards.pages import trials as trial_pages
from vittle.dashboards.pages.common import OpenStore, Spoken, Watching, find_snapshot, find_study
from vittle.dashboards.pages.studies import list_twin, study_twin
from vittle.dashboards.service.catalog import Limits
from vittle.dashboards.service.jobs import Action, Job, JobState
from vittle.dashboards.service.service import Extension, Launch, Service
from vittle.objectives import goals
from vittle.spaces.table import unaided
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study
from vittle.storage.store import Store


class Refusal(BaseModel):
    """Why nothing was done."""

    error: str


class Offer(BaseModel):
    """What can be searched for here."""

    models: list[str]
    data: list[str]
    reductions: list[str]
    limits: Limits


class Listed(BaseModel):
    """A study in the list."""

    model_config = ConfigDict(extra="allow")

    name: str
    kind: str
    state: str
    model: str | None = Field(description="None of a study that is about no model.")
    data: str | None
    device: str | None = Field(description="None of a study that cannot be read, as the rest is.")
    budget: str | None = Field(description="None of a kind of study that this server does not know.")
    finished: int | None
    planned: int | None
    url: str
    reason: str | None = Field(description="Why it cannot be read; None of one that can.")


class Studies(BaseModel):
    """All studies, newest first."""

    studies: list[Listed]


class Recommendation(BaseModel):
    """What is recommended for the study's own budget, what it is to be weighed against, and by which rule."""

    trial: int | None = Field(description="The recommended trial; None where none holds the budget.")
    most_accurate: int | None = Field(description="The one of the best expected quality that holds the budget.")
    ranked_by: str = Field(description="The number that ranks trials; in each of them, `expected`.")
    tolerance: float | None = Field(description="Quality that speed is worth, a share of 1; None where `max_drop` decides.")
    max_drop: float | None = Field(description="The most that may be lost against the baseline, a share of 1.")
    rule: str = Field(description="The rule in words.")
    trade: str | None = Field(description="What is given for speed; None where the recommended trial is the most accurate.")


class Detailed(Listed):
    """A study with all its trials. In a trial, accuracy stands three times: `judged`, `expected` and `held_out`.

    `judged.accuracy` is on the images that the search chose by; `expected` on images not seen, from all that is known, and it
    ranks; `held_out` is on images that no search saw, and it never chooses.
    """

    settings: dict[str, Any]
    choice: Recommendation
    trials: list[dict[str, Any]]


class JobAnswer(BaseModel):
    """A command about a study that runs, or ran, by itself."""

    id: str
    study: str
    action: Action
    state: JobState
    started: datetime
    exit_code: int | None = Field(description="None while it runs, and where it was killed.")
    url: str | None = Field(description="Page of the study, once there is one.")


class LoggedJob(JobAnswer):
    """A job with the last lines of its log."""

    log: list[str]


class JobList(BaseModel):
    """All jobs, newest first."""

    jobs: list[JobAnswer]


class ActivityAnswer(BaseModel):
    """Who is at a study, and what can be done with it now."""

    state: str
    holder: str | None = Field(description="Who runs it, user@host.")
    job: JobAnswer | None = Field(description="Its last job.")
    actions: list[str] = Field(description="Those of stop, resume, extend and retime that would be accepted.")


class Asked(BaseModel):
    """A study that was asked to stop; it ends as interrupted within some seconds, and every finished trial is kept."""

    study: str


REASONS = {
    HTTPStatus.UNAUTHORIZED: "The token is missing or wrong.",
    HTTPStatus.FORBIDDEN: "Sent by a page of another site, or without its session's token.",
    HTTPStatus.NOT_FOUND: "There is nothing of that name.",
    HTTPStatus.CONFLICT: "Not in the state that it is in.",
    HTTPStatus.REQUEST_TIMEOUT: "What was sent took too long to arrive.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "More than 64 KiB were sent.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "What was sent is not what is accepted.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many; `Retry-After` says when again.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The place where jobs run does not answer, or the database.",
    HTTPStatus.BAD_REQUEST: "This server does not answer to that name, or the request is not HTTP.",
}


def _documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    return {int(status): {"model": Refusal, "description": REASONS[status]} for status in statuses}


READS = _documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
FINDS = _documented(HTTPStatus.NOT_FOUND)
CHANGES = _documented(HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
ACCEPTED = HTTPStatus.ACCEPTED
EXPORTED = {
    "description": "A file that `vittle.Schedule.load` reads.",
    "content": {"application/yaml": {"schema": {"type": "object"}}},
}

router = APIRouter(prefix="/api", responses=READS)
change = APIRouter(
    prefix="/api",
    responses={**READS, **CHANGES},
    dependencies=[Security(HTTPBearer(auto_error=False, description="The token that the server was started with."))],
)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


AskedBudget = Annotated[str | None, Query(description="`4ms` or `p95 4ms` for a batch, `60%` or `1000 images/s`.")]
AskedTolerance = Annotated[
    str | None, Query(description="Points of expected accuracy, such as `0.3%`: the fastest within them; `0` for the best.")
]
AskedDrop = Annotated[
    str | None, Query(description="In its place: the fastest that loses at most so many points, such as `0.5%`.")
]
Served = Annotated[Service, Depends(_service)]


@router.get("/catalog", summary="What can be searched for here")
def catalog(service: Served) -> Offer:
    """Models and data by the names that a launch takes, and the most that it may ask for."""
    offered = service.catalog
    return Offer(
        models=[one.name for one in offered.models],
        data=[one.name for one in offered.data],
        reductions=unaided(),
        limits=offered.limits,
    )


@router.get("/studies", summary="All studies, newest first", response_model=Studies)
def studies(store: OpenStore, watch: Watching) -> Any:
    """The same as `/studies.json`."""
    return list_twin(store, watch)


# A name may hold anything, a slash too: hence `:path`, with the longer addresses first.
@router.get("/studies/{name:path}/activity", summary="Who is at a study, and what can be done with it now", responses=FINDS)
def activity(name: str, store: OpenStore, service: Served) -> ActivityAnswer:
    """Cheap enough to ask again every second."""
    study = find_study(store, name)
    found = service.activity(study)
    job = None if found.job is None else _answers([found.job], store)[0]
    return ActivityAnswer(state=study.state, holder=found.holder, job=job, actions=found.actions)


@router.get(
    "/studies/{name:path}/export",
    summary="The recommended schedule for a budget",
    response_class=Response,
    responses={**FINDS, int(HTTPStatus.OK): EXPORTED},
)
def export(
    name: str,
    watch: Watching,
    speak: Spoken,
    latency_budget: AskedBudget = None,
    tolerance: AskedTolerance = None,
    max_accuracy_drop: AskedDrop = None,
) -> Response:
    """As `vittle export` writes it: the fastest schedule that holds the budget and is about as accurate as the best of those.

    Whatever is not given is as the study was launched. Where nothing fits, the nearest that something does is told.
    """
    found, trials, _ = find_snapshot(watch, name, speak)
    asked = trial_pages.wanted(found, latency_budget, tolerance, max_accuracy_drop)
    choice = trials.choice(asked)
    if choice is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, _unmet(found, trials, asked))
    return trial_pages.download(found, trials, choice.recommended, asked)


@router.get("/studies/{name:path}", summary="A study with all its trials", response_model=Detailed, responses=FINDS)
def study(request: Request, name: str, store: OpenStore, watch: Watching, speak: Spoken) -> Any:
    """The same as `/studies/NAME.json`."""
    return study_twin(request, name, store, watch, speak)


@change.post("/studies", summary="Launch a search", status_code=ACCEPTED)
def launch(asked: Launch, store: OpenStore, service: Served) -> JobAnswer:
    """As `vittle launch` does; follow the job until its study is there."""
    return _answers([service.launch(asked)], store)[0]


@change.post("/studies/{name:path}/stop", summary="Stop a search", status_code=ACCEPTED)
def stop(name: str, store: OpenStore, service: Served) -> Asked:
    """As `vittle stop` does, without waiting."""
    service.stop(find_study(store, name))
    return Asked(study=name)


@change.post("/studies/{name:path}/resume", summary="Go on with a search", status_code=ACCEPTED)
def resume(name: str, store: OpenStore, service: Served) -> JobAnswer:
    """As `vittle resume` does."""
    return _answers([service.resume(find_study(store, name))], store)[0]


@change.post("/studies/{name:path}/extend", summary="Add trials to a search and run them", status_code=ACCEPTED)
def extend(name: str, asked: Extension, store: OpenStore, service: Served) -> JobAnswer:
    """As `vittle extend` does."""
    return _answers([service.extend(find_study(store, name), asked.trials)], store)[0]


@change.post("/studies/{name:path}/retime", summary="Time the front again", status_code=ACCEPTED)
def retime(name: str, store: OpenStore, service: Served) -> JobAnswer:
    """As `vittle retime` does, on the study's own kind of device."""
    return _answers([service.retime(find_study(store, name))], store)[0]


@router.get("/jobs", summary="All jobs, newest first")
def jobs(store: OpenStore, service: Served) -> JobList:
    """Those that are running, and the last ones that have ended."""
    return JobList(jobs=_answers(service.all(), store))


@router.get("/jobs/{id}", summary="A job with the last lines of its log", responses=FINDS)
def job(id: str, store: OpenStore, service: Served) -> LoggedJob:  # noqa: A002 - the name in the address
    """What it says, and how it ended."""
    found = service.job(id)
    return LoggedJob(**_answers([found], store)[0].model_dump(), log=service.log(found))


@change.post("/jobs/{id}/stop", summary="Stop a job", status_code=ACCEPTED)
def stop_job(id: str, store: OpenStore, service: Served) -> JobAnswer:  # noqa: A002 - the name in the address
    """Whatever it is at, before its study exists, too; a search that has begun keeps every finished trial."""
    found = service.job(id)
    service.stop_job(found)
    return _answers([found], store)[0]


def _unmet(study: Study, trials: Ranking, asked: goals.Asked) -> str:
    cheapest = Ranking.of((trial for trial in trials if trial.state == "complete"), study.goals).nearest()
    if cheapest is None:
        return f"study {study.name!r} has no complete trial yet"
    return text.unmet(repr(study.name), trials, asked, cheapest)


def _answers(jobs: Sequence[Job], store: Store) -> list[JobAnswer]:
    there = set(store.names())
    return [JobAnswer(**job._asdict(), url=study_document.study_url(job.study) if job.study in there else None) for job in jobs]
