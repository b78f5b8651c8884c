"""Which Ray a search runs on: an address that is tried before Ray takes minutes over it, and what a Ray of our own starts with.

Starts without Ray, so that a wrong address is told of before anything is loaded.
"""

import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vittle.spaces.errors import VittleError

ACCEPTED = "a cluster's address such as 10.0.0.1:6379, or auto on one of its nodes; without it a Ray is started here"
TRIED = 5.0  # seconds
AGAIN = 0.5  # seconds between two tries
MOST = 300  # characters of what Ray says
# What gRPC servers are greeted with, and the type of the frame that they answer with (RFC 9113, 3.4 and 6.5).
GREETING, SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", 4
PRIVATE = ("VITTLE_STORAGE", "VITTLE_TOKEN", "PGPASSWORD")  # of this process's environment, and of no worker's


def check_address(address: str | None) -> None:
    """See for a few seconds whether a Ray answers at an address; which one `auto` is, Ray itself finds out.

    Raises:
        VittleError: it is no address, or nobody answers there who could be Ray.
    """
    if address is None:
        return
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    if address != "auto":
        _try(address, *_parse(address))


@contextmanager
def own_environment() -> Iterator[None]:
    """The environment that a Ray of our own starts from: its servers, which listen on every interface, ask for a token.

    The token is a new one, which only the processes of that Ray have. What the workers have no use for they do not get.
    """
    before = {name: os.environ.get(name) for name in (*PRIVATE, "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    for name in PRIVATE:
        os.environ.pop(name, None)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def said(error: BaseException) -> str:
    """What Ray says of an error, in one line, with what that came of."""
    texts = dict.fromkeys(_line(str(one)) for one in (error, error.__cause__) if one is not None)
    return (": ".join(text for text in texts if text) or type(error).__name__)[:MOST]


def _line(text: str) -> str:
    raised = re.findall(r"^[\w.]+(?:Error|Exception): (.*)$", text, re.MULTILINE)  # at the end of a traceback, where it has one
    return " ".join((raised[-1] if raised else text).split())


def _parse(address: str) -> tuple[str, int]:
    scheme = re.match(r"(\w+)://", address)
    if scheme is not None:
        what = "of Ray's client, through which a search cannot run" if scheme[1] == "ray" else "none of a Ray cluster"
        raise VittleError(f"Ray address {address!r} is {what}; accepted: {ACCEPTED}")
    host, _, port = address.rpartition(":")
    if not host or not address.isprintable() or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise VittleError(f"Ray address {address!r} has no host and port; accepted: {ACCEPTED}")
    return host.strip("[]"), int(port)


def _try(address: str, host: str, port: int) -> None:
    end, why = time.monotonic() + TRIED, "it does not answer"
    while (left := end - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                if _greets(connection, left):
                    return
                raise VittleError(f"what listens at {address} is no Ray; accepted: {ACCEPTED}")
        except socket.gaierror as error:
            why = f"the host is not known: {error.strerror}"
            break
        except OSError as error:
            why = error.strerror or why
        time.sleep(min(AGAIN, max(0.0, end - time.monotonic())))
    raise VittleError(f"no Ray at {address} ({why}); accepted: {ACCEPTED}")


def _greets(connection: socket.socket, seconds: float) -> bool:
    """Whether a gRPC server is at the other end, as Ray's are; where they talk in TLS only Ray can tell."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True
    connection.settimeout(seconds)
    answer = b""
    with contextlib.suppress(OSError):
        connection.sendall(GREETING)
        while len(answer) < 4 and (more := connection.recv(64)):
            answer += more
    return len(answer) >= 4 and answer[3] == SETTINGS
