"""The web application: a page for the list of studies and one for each study. It reads the store and never writes.

Every page has a JSON twin at the same address with `.json` at the end. Nothing comes from another host, and no script runs
that is not a file of this package: names and reasons out of the database are text wherever they are shown.
"""

import re
from collections.abc import MutableMapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from jinja2 import StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vittle.dashboards import plotlyjs, text, twins, words
from vittle.spaces.errors import VittleError
from vittle.storage import export, fronts, records
from vittle.storage.records import Study, Trial
from vittle.storage.store import Store

HERE = Path(__file__).parent
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")  # other names are refused, or a web site could read the pages (DNS rebinding)
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Language",
}

router = APIRouter()


def _words(request: Request) -> dict[str, object]:
    return {"t": words.asked_for(request.headers.get("accept-language", ""))}


templates = Jinja2Templates(directory=HERE / "templates", context_processors=[_words])
templates.env.undefined = StrictUndefined
templates.env.globals["plotlyjs"] = plotlyjs
templates.env.filters.update(percent=text.percent)


def create_app(store: Store) -> FastAPI:
    """The dashboard over an open store, for any ASGI server; bind it to a loopback address."""
    app = FastAPI(title="Vittle", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.store = store
    app.add_exception_handler(AnyHTTPException, _refused)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK, www_redirect=False)
    app.add_middleware(SecurityHeaders)
    return app


class SecurityHeaders:
    """Adds `HEADERS` to every response that does not have its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _open_store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


OpenStore = Annotated[Store, Depends(_open_store)]


@router.get("/")
def list_page(request: Request, store: OpenStore) -> HTMLResponse:
    """All studies, newest first."""
    return templates.TemplateResponse(request, "studies.html", {"studies": _listed(store)})


@router.get("/studies.json")
def list_twin(store: OpenStore) -> JSONResponse:
    """The list of studies, as JSON."""
    return JSONResponse({"studies": _listed(store)})


@router.get(plotlyjs.PATH)
def plotly_bundle(request: Request) -> Response:
    """The chart library."""
    return plotlyjs.response(request.headers.get("accept-encoding", ""))


# A name may hold anything, a slash too: hence `:path`, with the longer addresses first.
@router.get("/studies/{name:path}/trials/{number}.yaml")
def exported_schedule(name: str, number: str, store: OpenStore) -> Response:
    """One schedule with its evidence, as a file that `vittle.Schedule.load` reads."""
    study = _study(store, name)
    trials = store.trials(name)
    trial = _trial(study, trials, number)
    document = export.to_yaml(export.document(study, trial, records.reference(trials)))
    best = records.best(trials, study.budget)
    filename = "best.yaml" if best is not None and best.number == trial.number else f"{_slug(name)}-trial-{number}.yaml"
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return Response(document, media_type="application/yaml", headers=headers)


@router.get("/studies/{name:path}.json")
def study_twin(name: str, store: OpenStore) -> JSONResponse:
    """One study with all its trials, as JSON."""
    study = _study(store, name)
    trials = store.trials(name)
    key = records.profiled(trials)
    profile = None if key is None else store.profile(key)
    fingerprint = study.backbone.fingerprint
    known = (store.phase(fingerprint), profile, store.importance(name), store.sensitivity(fingerprint))
    return JSONResponse(twins.detailed(study, trials, *known))


@router.get("/studies/{name:path}")
def study_page(request: Request, name: str, store: OpenStore) -> HTMLResponse:
    """One study: its chart, the front as a table, and the chosen schedule."""
    study = _study(store, name)
    context = {
        "study": study,
        "twin": f"{twins.study_url(name)}.json",
        "created": study.created,
        "budget": text.budget(study.budget),
    }
    return templates.TemplateResponse(request, "study.html", context)


def _listed(store: Store) -> list[dict[str, object]]:
    return [twins.listed(study, fronts.standing(store, study.name)) for study in store.studies()]


def _study(store: Store, name: str) -> Study:
    try:
        return store.study(name)
    except VittleError as error:
        raise HTTPException(HTTPStatus.NOT_FOUND, str(error)) from None


def _trial(study: Study, trials: list[Trial], number: str) -> Trial:
    trial = next((trial for trial in trials if str(trial.number) == number), None)
    if trial is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"no trial {number} in study {study.name!r}; it has {len(trials)} trials")
    if not twins.exportable(trial):
        reason = f"trial {number} is {trial.state} and has no accuracy; export one that is complete"
        raise HTTPException(HTTPStatus.NOT_FOUND, reason)
    return trial


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "study"


async def _refused(request: Request, error: Exception) -> Response:
    status = HTTPStatus(error.status_code if isinstance(error, AnyHTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR)
    reason = str(getattr(error, "detail", status.phrase))
    if reason == HTTPStatus.NOT_FOUND.phrase:
        reason = f"no page at {request.url.path}; the studies are at /"
    if request.url.path.endswith(".json"):
        return JSONResponse({"error": reason}, status)
    return templates.TemplateResponse(request, "error.html", {"status": status, "reason": reason}, status)


def _add_headers(message: MutableMapping[str, object]) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
