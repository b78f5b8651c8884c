"""Streams that say when something has changed: a number for each change, and what it is about is read at its own address.

They are server-sent events, so that a browser connects again by itself; one that is told nothing hears a comment now and then.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from vittle.dashboards.pages.common import OpenStore, find_study
from vittle.spaces.errors import VittleError

POLL = 0.5  # seconds between two looks at the database
HEARTBEAT = 15.0  # seconds without an event, after which a comment shows that the connection is there
RETRY = 2000  # milliseconds until a browser that was cut off comes back
MOST = 64  # streams at a time

router = APIRouter()


@dataclass
class Streams:
    """The streams of one application: how many are open, and whether they are to end."""

    open: int = 0
    ending: bool = False


@router.get("/events")
async def all_events(request: Request, store: OpenStore) -> StreamingResponse:
    """A number whenever any study changes."""
    return _stream(request, store.revision)


@router.get("/studies/{name:path}/events")
async def study_events(request: Request, name: str, store: OpenStore) -> StreamingResponse:
    """The revision of a study, now and whenever it rises."""
    await run_in_threadpool(find_study, store, name)
    return _stream(request, lambda: store.revision(name))


def _stream(request: Request, revision: Callable[[], int]) -> StreamingResponse:
    streams: Streams = request.app.state.streams
    if streams.open >= MOST:
        reason = f"{MOST} pages are told of changes already; read the page again in a while"
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, reason, {"Retry-After": "10"})
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # a proxy must not wait for more
    return StreamingResponse(_changes(request, streams, revision), media_type="text/event-stream", headers=headers)


async def _changes(request: Request, streams: Streams, revision: Callable[[], int]) -> AsyncIterator[str]:
    told, spoke = request.headers.get("last-event-id"), time.monotonic()
    streams.open += 1
    try:
        yield f"retry: {RETRY}\n\n"
        while not streams.ending and not await request.is_disconnected():
            try:
                now = str(await run_in_threadpool(revision))
            except VittleError:  # the study or the database is gone; whoever comes back is told so
                return
            if now != told:
                told, spoke = now, time.monotonic()
                yield f"id: {now}\ndata: {now}\n\n"
            elif time.monotonic() - spoke >= HEARTBEAT:
                spoke = time.monotonic()
                yield ": still here\n\n"
            await asyncio.sleep(POLL)
    finally:
        streams.open -= 1
