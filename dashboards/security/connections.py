"""Connections that are cut off where their client keeps them open for nothing: one slow request, or unread answer, each.

uvicorn itself ends only connections that are idle between two requests.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 30.0  # from the first byte of a request, or from connecting, to the last one of its body
UNREAD_SECONDS = 60.0  # that an answer, a stream of events too, may wait to be read
SLOW = b"HTTP/1.1 %d %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_TIMEOUT.phrase.encode(),
)


class PunctualProtocol(H11Protocol):
    """HTTP/1.1 in which a whole request arrives within `REQUEST_SECONDS`, and an answer is read within `UNREAD_SECONDS`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._slow: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._slow = self.loop.call_later(REQUEST_SECONDS, self._cut_off_request)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):  # a part of a request
            self._slow = self._slow or self.loop.call_later(REQUEST_SECONDS, self._cut_off_request)
        else:
            self._slow = _cancelled(self._slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._slow, self._unread = _cancelled(self._slow), _cancelled(self._unread)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._unread = _cancelled(self._unread)
        super().resume_writing()

    def _cut_off_request(self) -> None:
        if self.conn.our_state is h11.IDLE and not self.transport.is_closing():  # nothing was answered yet
            self.transport.write(SLOW)
        self.transport.close()


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None
