"""Requests as such: `HEAD` wherever there is a `GET`, and whatever never ends is cut off."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.routing import APIRoute

from browsing import serving
from dashboard_study import Synthetic, open_store
from services import BEARER, client_of, make_service
from vittle.dashboards.app import ROUTERS
from vittle.dashboards.pages import events, plotlyjs
from vittle.dashboards.security import connections, middleware
from vittle.dashboards.service import api, pages
from vittle.storage.store import Store

NAME = "digits-60"
STREAMS = ("/events", f"/studies/{NAME}/events")


@pytest.fixture
def store(tmp_path) -> Store:
    opened = open_store(tmp_path)
    Synthetic(opened, NAME).fill(6)
    return opened


@pytest.fixture
def service(store: Store) -> Any:
    made = make_service(store, often=1000)
    made.jobs.submit(NAME, "launch", [])
    return made


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    at = urlsplit(address)
    with socket.create_connection((at.hostname, at.port), timeout=60) as connection:
        yield connection


def answered(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


def trickle(connection: socket.socket) -> None:
    """One header after the other, for longer than any request may take."""
    for _ in range(1000):
        connection.sendall(b"X-A: b\r\n")
        time.sleep(0.05)


class TestHead:
    def test_every_address_answers_it_as_get_without_a_body(self, service: Any) -> None:
        client = client_of(service, **BEARER)
        routes = [one for router in (*ROUTERS, api.router, pages.router) for one in router.routes if isinstance(one, APIRoute)]
        paths = {one.path.replace("{name:path}", NAME).format(number=0, id="job-1") for one in routes if "GET" in one.methods}
        paths |= {"/static/core.js", plotlyjs.PATH, "/api/openapi.json", "/static/none", "/nothing", "/nothing.json"}
        assert {"/", f"/studies/{NAME}.json", f"/studies/{NAME}/trials/0.yaml", "/api/jobs/job-1", "/sign-in"} <= paths
        answers = 0
        for path in sorted(paths - set(STREAMS)):
            full, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (full.status_code, b""), path
            assert {**head.headers, "date": ""} == {**full.headers, "date": ""}, path
            answers += full.status_code == 200
        assert answers > 20

    def test_what_takes_the_token_takes_it_for_this_too(self, store: Store) -> None:
        client = client_of(make_service(store, public=True))
        assert client.head("/studies.json").status_code == client.get("/studies.json").status_code == 401

    def test_of_a_stream_it_ends(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(events, "POLL", 0.05)
        served = serving(store)
        with served as address:
            for path in STREAMS:
                with connected(address) as connection:
                    connection.sendall(b"HEAD %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % path.encode())
                    head, _, body = answered(connection).partition(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 200")
                    assert b"text/event-stream" in head
                    assert body == b""
            while served.app.state.streams.open:
                time.sleep(0.01)

    def test_what_cannot_be_got_is_refused_as_before(self, service: Any) -> None:
        assert client_of(service, **BEARER).head("/sign-out").status_code == 405


class TestThatNeverEnd:
    @pytest.mark.parametrize(
        "begun",
        [
            b"",
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A:",
            b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n1",
        ],
        ids=["nothing is sent", "half a head", "half a body"],
    )
    def test_a_request_that_does_not_arrive_is_cut_off(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, begun: bytes
    ) -> None:
        monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
        with serving(store) as address, connected(address) as connection:
            connection.sendall(begun)
            assert answered(connection).startswith(b"HTTP/1.1 408 ") or b"Content-Length" in begun

    def test_pieces_that_come_now_and_then_do_not_keep_it(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.5)
        with serving(store) as address, connected(address) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            with pytest.raises(ConnectionError):
                trickle(connection)

    def test_a_second_request_of_a_connection_is_watched_as_the_first(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
        with serving(store) as address, connected(address) as connection:
            connection.sendall(b"GET /studies.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            connection.sendall(b"GET / HTTP/1.1\r\n")
            assert b"HTTP/1.1 408 " in answered(connection)

    def test_whole_requests_and_streams_stay(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)
        monkeypatch.setattr(events, "POLL", 0.05)
        monkeypatch.setattr(events, "HEARTBEAT", 0.3)
        with serving(store) as address, connected(address) as connection:
            connection.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            heard = b""
            while heard.count(b": still here") < 3:  # long after the time of a request
                heard += connection.recv(65536)

    def test_an_answer_that_nobody_reads_is_cut_off(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.3)
        served = serving(store)
        with served as address, connected(address) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            largest = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % plotlyjs.PATH.encode()
            connection.sendall(largest * 8)
            seen = served.server.server_state.connections
            while not seen:
                time.sleep(0.01)
            while seen:
                time.sleep(0.05)

    def test_a_body_that_comes_too_slowly_is_one_line_under_any_server(
        self, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(middleware, "BODY_SECONDS", 0.1)
        sent: list[Any] = []

        async def trickle() -> dict[str, Any]:
            await asyncio.sleep(0.02)
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def keep(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/sign-in", "headers": [(b"host", b"127.0.0.1")], "query_string": b"",
            "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "root_path": "", "http_version": "1.1",
        }  # fmt: skip
        with ThreadPoolExecutor(1) as thread:  # a browser of this process may have a loop in this one
            thread.submit(asyncio.run, client_of(service).app(scope, trickle, keep)).result()
        assert sent[0]["status"] == 408
        assert (b"connection", b"close") in sent[0]["headers"]
        assert json.loads(sent[1]["body"]) == {"error": "the request was not complete after 0.1 s"}
