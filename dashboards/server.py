"""Serve the dashboard on this machine."""

import socket

import uvicorn

from vittle.dashboards.app import create_app
from vittle.spaces.errors import VittleError
from vittle.storage.store import Store

HOST = "127.0.0.1"


def serve(store: Store, port: int) -> None:
    """Serve until Ctrl-C; port 0 takes a free one.

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
        uvicorn.Server(uvicorn.Config(create_app(store), log_level="warning")).run(sockets=[listening])
