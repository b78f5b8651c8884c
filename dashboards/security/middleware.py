"""Who may ask for what: security headers on every answer, the names that this machine answers to, and how much may be sent.

Where searches can be launched, `Authorization` also asks who wants to change something, and where other machines can reach
it, who wants to read.
"""

import asyncio
import hmac
from collections.abc import MutableMapping
from http import HTTPStatus
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vittle.dashboards.security.sessions import COOKIE, CSRF_HEADER, Access

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")  # other names are refused, or a web site could read the pages (DNS rebinding)
MOST_BYTES = 64 * 1024  # of a request
BODY_SECONDS = 20.0  # until all of them are there
SAFE = ("GET", "HEAD", "OPTIONS")
SIGN_IN = "/sign-in"
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


class BodyLimit:
    """Reads what is sent before anybody else does; refuses more than `MOST_BYTES`, announced or not, and what is too slow."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = HTTPConnection(scope).headers.get("content-length", "0")
        too_large = not announced.isdecimal() or int(announced) > MOST_BYTES
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = b"" if too_large else await _body(receive)
        except TimeoutError:
            reason = f"the request was not complete after {BODY_SECONDS:g} s"
            await refused(HTTPStatus.REQUEST_TIMEOUT, reason, {"Connection": "close"})(scope, receive, send)
            return
        if body is None:  # the client is gone
            return
        if too_large or len(body) > MOST_BYTES:
            refusal = refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request may have {MOST_BYTES} bytes")
            await refusal(scope, receive, send)
            return
        left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return left.pop() if left else await receive()

        await self.app(scope, receive_again, send)


async def _body(receive: Receive) -> bytes | None:
    """All that is sent, or a little more than `MOST_BYTES` of it; None where the client is gone before."""
    body, more = b"", True
    while more and len(body) <= MOST_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


class Authorization:
    """Lets through whoever may do what they ask for, and tells the pages by `request.state.session` who signed in."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        asked.state.session = self.access.session(asked.cookies.get(COOKIE, ""))
        refusal = self._refusal(asked, changes=scope["method"] not in SAFE)
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, asked: HTTPConnection, *, changes: bool) -> Response | None:
        path = asked.scope["path"]  # not the URL's, which the Host header has a part in
        if changes and not _from_here(asked):
            return refused(HTTPStatus.FORBIDDEN, "this was sent by a page of another site")
        if path == SIGN_IN or path.startswith("/static/"):
            return None
        bearer = _bearer(asked)
        if bearer is not None:
            refusal = None if self.access.knows(bearer) else wrong_token(self.access, asked)
        elif not changes and not self.access.public:
            return None
        elif asked.state.session is None:
            refusal = _unknown(asked, changes=changes)
        else:
            refusal = self._check_session(asked) if changes else None
        if refusal is None and changes:
            seconds = self.access.count(self.access.changes, client(asked))
            refusal = None if seconds is None else too_many(seconds)
        return refusal

    def _check_session(self, asked: HTTPConnection) -> Response | None:
        given = asked.headers.get(CSRF_HEADER, "").encode()
        if hmac.compare_digest(given, asked.state.session.csrf.encode()):
            return None
        return refused(HTTPStatus.FORBIDDEN, f"{CSRF_HEADER} is missing or not this session's; load the page again")


def refused(status: HTTPStatus, reason: str, headers: dict[str, str] | None = None) -> Response:
    """A refusal in one line."""
    if status == HTTPStatus.UNAUTHORIZED:
        headers = {"WWW-Authenticate": "Bearer", **(headers or {})}
    return JSONResponse({"error": reason}, status, headers)


def too_many(seconds: int) -> Response:
    """The refusal of whoever asks too often."""
    return refused(HTTPStatus.TOO_MANY_REQUESTS, f"too many; again in {seconds} s", {"Retry-After": str(seconds)})


def wrong_token(access: Access, asked: HTTPConnection) -> Response:
    """The refusal of a wrong token, which is counted. A right one is never counted, so nobody is locked out by the others.

    A token of 16 characters or more is not guessed, at whatever rate; whoever tries is slowed down and seen to be.
    """
    seconds = access.count(access.attempts, client(asked))
    if seconds is not None:
        return too_many(seconds)
    return refused(HTTPStatus.UNAUTHORIZED, "this is not the token that the server was started with")


def client(asked: HTTPConnection) -> str:
    """Who is counted: an address."""
    return asked.client.host if asked.client else ""


def _unknown(asked: HTTPConnection, *, changes: bool) -> Response:
    """A page sends its reader to sign in; anything else is told what is missing."""
    page = not changes and "text/html" in asked.headers.get("accept", "")
    if page:
        return RedirectResponse(f"{SIGN_IN}?next={quote(asked.scope['path'], safe='/')}", HTTPStatus.SEE_OTHER)
    return refused(HTTPStatus.UNAUTHORIZED, "this takes the server's token: Authorization: Bearer TOKEN")


def _bearer(asked: HTTPConnection) -> str | None:
    """The token that a client sends; None where it sends none."""
    given = asked.headers.get("authorization")
    if given is None:
        return None
    scheme, _, token = given.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _from_here(asked: HTTPConnection) -> bool:
    """Whether a browser says that a page of ours sends this; other clients say nothing."""
    origin = asked.headers.get("origin")
    site = asked.headers.get("sec-fetch-site", "same-origin")
    here = f"{asked.scope['scheme']}://{asked.headers.get('host', '')}"
    return site in ("same-origin", "none") and origin in (None, here)


def _add_headers(message: MutableMapping[str, object]) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
