"""The web application: a page for the list of studies and one for each study. It reads the store and never writes.

Every page has a JSON twin at the same address with `.json` at the end. Nothing comes from another host, and no script runs
that is not a file of this package: names and reasons out of the database are text wherever they are shown.
"""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from vittle.dashboards import compare, detector, events, plotlyjs, profile, studies, trials
from vittle.dashboards.guard import LOOPBACK, SecurityHeaders
from vittle.dashboards.page import HERE, spoken, templates
from vittle.dashboards.pictures import Illustrate, Illustrations
from vittle.dashboards.watching import Watch
from vittle.storage.store import Store

# A study's name may hold anything, a slash too: `studies` comes last, since its addresses fit all others.
ROUTERS = (events.router, profile.router, detector.router, compare.router, trials.router, studies.router)


def create_app(store: Store, illustrate: Illustrate | None = None) -> FastAPI:
    """The dashboard over an open store, for any ASGI server; bind it to a loopback address.

    Args:
        store: what is shown.
        illustrate: computes what pictures draw, in a process of its own; close `app.state.illustrations` to end that.
    """
    app = FastAPI(title="Vittle", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.store, app.state.watch, app.state.streams = store, Watch(store), events.Streams()
    app.state.illustrations = Illustrations(illustrate)
    app.add_exception_handler(AnyHTTPException, _refused)
    app.get(plotlyjs.PATH)(plotly_bundle)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK, www_redirect=False)
    app.add_middleware(SecurityHeaders)
    return app


def plotly_bundle(request: Request) -> Response:
    """The chart library."""
    return plotlyjs.response(request.headers.get("accept-encoding", ""))


async def _refused(request: Request, error: Exception) -> Response:
    status = HTTPStatus(error.status_code if isinstance(error, AnyHTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR)
    reason, speak = str(getattr(error, "detail", status.phrase)), spoken(request)
    if reason == HTTPStatus.NOT_FOUND.phrase:
        reason = speak("sentences.no_page", path=request.url.path)
    headers = getattr(error, "headers", None)
    if request.url.path.endswith(".json"):
        return JSONResponse({"error": reason}, status, headers)
    return templates.TemplateResponse(request, "error.html", {"status": status, "reason": reason}, status, headers)
