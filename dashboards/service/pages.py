"""The pages that a service has in addition: where people sign in, and where they launch a search."""

import re
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import Field

from vittle.dashboards.pages.common import OpenStore, templates
from vittle.dashboards.security.middleware import wrong_token
from vittle.dashboards.security.sessions import COOKIE, SESSION_SECONDS
from vittle.dashboards.service import api, service
from vittle.dashboards.service.api import Served
from vittle.spaces.table import unaided
from vittle.storage.records import free_name
from vittle.storage.settings import Settings

router = APIRouter()
LOCAL = re.compile(r"/(?![/\\])[^\s\\]*")  # an address of this server


class SignIn(service.Request):
    """What the sign-in page sends."""

    token: str = Field(max_length=500)


@router.get("/launch")
def launch_page(request: Request, store: OpenStore, served: Served) -> HTMLResponse:
    """A form made from the catalog, and the jobs."""
    offered = served.catalog
    name = free_name(offered.models[0].name, set(store.names()))
    defaults = {name: field.default for name, field in service.Launch.model_fields.items()}
    defaults["latency_budget"] = Settings().latency_budget  # of a launch without a largest loss
    context = {"catalog": offered, "reductions": unaided(), "name": name, "defaults": defaults}
    return templates.TemplateResponse(request, "launch.html", context)


@router.get("/launch.json")
def launch_twin(store: OpenStore, served: Served) -> JSONResponse:
    """What can be searched for, and the jobs, as JSON."""
    offer, jobs = api.catalog(served), api.jobs(store, served)
    return JSONResponse({"catalog": offer.model_dump(mode="json"), **jobs.model_dump(mode="json")})


@router.get("/sign-in")
def sign_in_page(request: Request, next: str = "/") -> HTMLResponse:  # noqa: A002 - the name in the address
    """Where to give the token; `next` is the page to go to then."""
    return templates.TemplateResponse(request, "sign_in.html", {"next": next if LOCAL.fullmatch(next) else "/"})


@router.post("/sign-in")
def sign_in(request: Request, given: SignIn, served: Served) -> Response:
    """Trade the token for a cookie."""
    if not served.access.knows(given.token.strip()):
        return wrong_token(served.access, request)
    answer = Response(status_code=HTTPStatus.NO_CONTENT)
    answer.set_cookie(COOKIE, served.access.cookie(), **_cookie(request), max_age=SESSION_SECONDS)
    return answer


@router.post("/sign-out")
def sign_out(request: Request) -> Response:
    """Forget the cookie."""
    answer = Response(status_code=HTTPStatus.NO_CONTENT)
    answer.delete_cookie(COOKIE, **_cookie(request))
    return answer


def _cookie(request: Request) -> dict[str, Any]:
    return {"httponly": True, "samesite": "strict", "secure": request.scope["scheme"] == "https"}
