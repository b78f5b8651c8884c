"""Waiting for what another process or thread does, and ports for it."""

import socket
import time
from collections.abc import Callable
from typing import TypeVar

SECONDS = 600  # that a test may wait for anything
T = TypeVar("T")


def wait_until(there: Callable[[], T], seconds: float = SECONDS, pause: float = 0.1) -> T:
    """What it gives, once that is something."""
    end = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < end
        time.sleep(pause)
    return found


def free_port() -> int:
    """A port of this machine that nobody listens at now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
