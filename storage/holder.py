"""The process that runs a study, and whether it is still there."""

import getpass
import os
import socket
from datetime import datetime, timedelta
from typing import NamedTuple, Self

import psutil

from vittle.storage.tables import in_utc, now

LEASE = 60.0  # seconds without a word, after which a holder counts as gone


class Holder(NamedTuple):
    """A process that runs a study; `started` tells it from a later one with the same number."""

    user: str
    host: str
    process: int
    started: float

    @classmethod
    def here(cls) -> Self:
        """This process."""
        process = os.getpid()
        return cls(user(), socket.gethostname(), process, round(psutil.Process(process).create_time(), 2))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From what `str` gives."""
        named, process, started = text.rsplit(" ", 2)
        who, host = named.rsplit("@", 1)
        return cls(who, host, int(process), float(started))

    def __str__(self) -> str:
        return f"{self.user}@{self.host} {self.process} {self.started}"

    @property
    def gone(self) -> bool:
        """Whether it is a process of this machine that is no more; one of another machine may still be there."""
        if self.host != socket.gethostname():
            return False
        try:
            return abs(psutil.Process(self.process).create_time() - self.started) > 1
        except psutil.NoSuchProcess:
            return True


def user() -> str:
    """The name of whoever runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without such a user
        return str(os.getuid())


def silent(heard: datetime) -> bool:
    """Whether nothing has been heard for so long that a holder counts as gone."""
    return in_utc(heard) < now() - timedelta(seconds=LEASE)


def abandoned(state: str, holder: str | None, heartbeat: datetime | None, created: datetime) -> bool:
    """Whether a study says that it is running, and nobody runs it: its process was killed, or could not say how it ended."""
    if state != "running":
        return False
    return silent(heartbeat or created) or (holder is not None and Holder.parse(holder).gone)
