"""Serve the dashboard on this machine."""

import gc
import socket
from contextlib import closing
from typing import Any

import uvicorn
from fastapi import FastAPI

from vittle.dashboards.app import create_app
from vittle.dashboards.pictures import Illustrate
from vittle.spaces.errors import VittleError
from vittle.storage.store import Store

HOST = "127.0.0.1"
COLLECT_AFTER = 100_000  # objects: thousands of trials are read at once and kept, and there is nothing to collect in them


class Server(uvicorn.Server):
    """Ends streams of events when it shuts down, which waits for all that is open."""

    def __init__(self, app: FastAPI, **options: Any) -> None:
        self.app = app
        super().__init__(uvicorn.Config(app, log_level="warning", **options))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.app.state.streams.ending = True
        await super().shutdown(sockets)


def serve(store: Store, port: int, illustrate: Illustrate | None = None) -> None:
    """Serve until Ctrl-C; port 0 takes a free one.

    Args:
        store: what is shown.
        port: to listen on.
        illustrate: computes what pictures draw.

    Raises:
        VittleError: the port is taken.
    """
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            raise VittleError(
                f"cannot serve on port {port} ({error.strerror}); give another --port, 0 for any free one"
            ) from None
        print(f"Vittle dashboard on http://{HOST}:{listening.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        gc.set_threshold(COLLECT_AFTER)
        app = create_app(store, illustrate)
        with closing(app.state.illustrations):
            Server(app).run(sockets=[listening])
