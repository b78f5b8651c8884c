"""Serve the dashboard, by default to this machine alone; with a `Service` it has the power to launch."""

import gc
import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any

import psutil
import uvicorn
from fastapi import FastAPI

from vittle.dashboards.app import create_app
from vittle.dashboards.documents.pictures import Illustrate
from vittle.dashboards.pages import plotlyjs
from vittle.dashboards.security.connections import PunctualProtocol
from vittle.dashboards.security.middleware import LOOPBACK
from vittle.dashboards.service.service import Service
from vittle.spaces.errors import VittleError
from vittle.storage.store import Store

HOST = "127.0.0.1"
FAMILIES = (socket.AF_INET, socket.AF_INET6)
COLLECT_AFTER = 100_000  # objects: thousands of trials are read at once and kept, and there is nothing to collect in them


class Server(uvicorn.Server):
    """Cuts off requests that never end, and ends streams of events when it shuts down, which waits for all that is open.

    Args:
        app: what is served.
        proxies: whose word is taken for who asks and by which scheme (`X-Forwarded-For`, `X-Forwarded-Proto`); see `networks`.
        options: of uvicorn.
    """

    def __init__(self, app: FastAPI, proxies: Sequence[str] = (), **options: Any) -> None:
        self.app = app
        # uvicorn would trust whatever comes from this machine.
        trusted: dict[str, Any] = {"proxy_headers": bool(proxies), "forwarded_allow_ips": list(proxies)}
        super().__init__(uvicorn.Config(app, log_level="warning", http=PunctualProtocol, **trusted, **options))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.app.state.streams.ending = True
        await super().shutdown(sockets)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def networks(proxies: Iterable[str]) -> list[str]:
    """The addresses of proxies as a server sees them.

    Raises:
        VittleError: something else than an address or a network.
    """
    found: list[str] = []
    for proxy in proxies:
        try:
            network = ipaddress.ip_network(proxy.strip())
        except ValueError:
            raise VittleError(
                f"proxy {proxy!r} is no address; accepted: 10.0.0.2, ::1, or a network such as 10.0.0.0/24"
            ) from None
        found.append(str(network))
        if network.version == 4:  # as it is seen where one socket listens to both versions
            found.append(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
    return found


def names(host: str) -> list[str]:
    """What a browser may call the server that listens there: not any name, or a web site could be in between."""
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        everywhere = False
    if not everywhere:
        return [*LOOPBACK, _bracketed(host)]
    cards = psutil.net_if_addrs().values()
    addresses = [one.address.partition("%")[0] for card in cards for one in card if one.family in FAMILIES]
    return [*LOOPBACK, socket.gethostname(), *map(_bracketed, addresses)]


def serve(
    store: Store,
    port: int,
    illustrate: Illustrate | None = None,
    host: str = HOST,
    service: Service | None = None,
    proxies: Sequence[str] = (),
    started: Callable[[str], None] = lambda address: print(f"Vittle dashboard on {address} (Ctrl-C ends it)", flush=True),
) -> None:
    """Serve until Ctrl-C; port 0 takes a free one.

    Args:
        store: what is shown.
        port: to listen on.
        illustrate: computes what pictures draw.
        host: name or address of this machine to listen at.
        service: what can be launched; without one the pages are for reading.
        proxies: whose word is taken for who asks; see `networks`.
        started: told the address before the first request.

    Raises:
        VittleError: the port is taken, or the host is none of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise VittleError(f"cannot serve on {host!r} ({error.strerror}); accepted: an address of this machine") from None
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise VittleError(
                f"cannot serve on port {port} ({error.strerror}); give another --port, 0 for any free one"
            ) from None
        listening.listen()  # so that nobody who reads the address comes too early
        plotlyjs.prepare()
        started(f"http://{_bracketed(host)}:{listening.getsockname()[1]}")
        gc.set_threshold(COLLECT_AFTER)
        app = create_app(store, illustrate, service)
        with closing(app.state.illustrations):
            Server(app, proxies).run(sockets=[listening])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
