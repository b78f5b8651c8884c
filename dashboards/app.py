"""The web application: a page for the list of studies and one for each study. It reads the store and never writes.

With a `Service` it has the power to launch, too: for whoever knows its token, and as jobs of their own. Every page has a JSON
twin at the same address with `.json` at the end. Nothing comes from another host, and no script runs that is not a file of this
package: names and reasons out of the database are text wherever they are shown.
"""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from vittle.dashboards.documents.pictures import Illustrate, Illustrations
from vittle.dashboards.pages import blocks, compare, events, latency_profile, plotlyjs, studies, trials
from vittle.dashboards.pages.cache import Watch
from vittle.dashboards.pages.common import HERE, spoken, templates
from vittle.dashboards.security.head import HeadRequests
from vittle.dashboards.security.middleware import LOOPBACK, SAFE, Authorization, BodyLimit, SecurityHeaders, refused
from vittle.dashboards.service import api, pages
from vittle.dashboards.service.service import Service
from vittle.spaces.errors import StorageError
from vittle.spaces.validation import told
from vittle.storage.records import OtherKindError, UnreadableError
from vittle.storage.store import Store

# A study's name may hold anything, a slash too: `studies` comes last, since its addresses fit all others.
ROUTERS = (events.router, latency_profile.router, blocks.router, compare.router, trials.router, studies.router)


def create_app(store: Store, illustrate: Illustrate | None = None, service: Service | None = None) -> FastAPI:
    """The dashboard over an open store, for any ASGI server; without a service bind it to a loopback address.

    Args:
        store: what is shown.
        illustrate: computes what pictures draw, in a process of its own; close `app.state.illustrations` to end that.
        service: what can be launched; without one the pages are for reading.
    """
    described = None if service is None else "/api/openapi.json"
    app = FastAPI(title="Vittle", version="1", docs_url=None, redoc_url=None, openapi_url=described)
    app.state.store, app.state.watch, app.state.streams = store, Watch(store), events.Streams()
    app.state.illustrations, app.state.service = Illustrations(illustrate), service
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _not_accepted)
    app.add_exception_handler(StorageError, _away)
    app.add_exception_handler(OtherKindError, _not_of_this_kind)
    app.add_exception_handler(UnreadableError, _unreadable)
    app.get(plotlyjs.PATH, include_in_schema=False)(plotly_bundle)
    if service is not None:
        for router in (api.router, api.change):
            app.include_router(router)
        app.include_router(pages.router, include_in_schema=False)
    for router in ROUTERS:
        app.include_router(router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    if service is not None:
        app.add_middleware(Authorization, access=service.access)
    hosts = LOOPBACK if service is None else service.hosts
    app.add_middleware(BodyLimit)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(HeadRequests)
    return app


def plotly_bundle(request: Request) -> Response:
    """The chart library."""
    return plotlyjs.response(request.headers.get("accept-encoding", ""))


async def _refused(request: Request, error: Exception) -> Response:
    status = HTTPStatus(error.status_code if isinstance(error, AnyHTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR)
    reason, speak = str(getattr(error, "detail", status.phrase)), spoken(request)
    if reason == HTTPStatus.NOT_FOUND.phrase:
        reason = speak("sentences.no_page", path=request.url.path)
    path, headers = request.url.path, getattr(error, "headers", None)
    if path.endswith(".json") or path.startswith("/api/") or request.method not in SAFE:
        return refused(status, reason, headers)
    return templates.TemplateResponse(request, "error.html", {"status": status, "reason": reason}, status, headers)


async def _not_of_this_kind(request: Request, error: Exception) -> Response:
    return await _refused(request, AnyHTTPException(HTTPStatus.NOT_FOUND, str(error)))


async def _unreadable(request: Request, error: Exception) -> Response:
    if not isinstance(error, UnreadableError):
        raise error
    speak = spoken(request)
    said = speak(f"sentences.unreadable.{error.what}", name=repr(error.name), reason=error.reason)
    return await _refused(request, AnyHTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, said))


async def _not_accepted(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    place = [part for part in first["loc"] if part != "body"]
    return refused(HTTPStatus.UNPROCESSABLE_ENTITY, told(place, first["msg"]))


async def _away(_request: Request, error: Exception) -> Response:
    return refused(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
