"""Who may use a device: many that evaluate images at once, or one that measures time, and then nobody else.

The lease is a readers-writer lock on a file of this machine, so it holds between the workers of a study and between studies
of one user, and ends with the process that holds it, however that ends. Whoever waits to measure goes before those who come
later: it keeps a turnstile shut meanwhile, through which everybody must.
"""

import contextlib
import getpass
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock, ReadWriteLock, Timeout

from vittle.objectives.latency.environment import physical
from vittle.objectives.latency.interrupts import Interrupts
from vittle.spaces.errors import VittleError

TRY = 0.2  # seconds between two looks at whether the wait was interrupted
LOOK = 0.02  # seconds between two looks at the turnstile


@contextmanager
def exclusive(device: torch.device) -> Iterator[None]:
    """Have the device alone, to measure time on it."""
    with _held(device, "write"):
        yield


@contextmanager
def shared(device: torch.device) -> Iterator[None]:
    """Use the device beside others that do not measure time."""
    with _held(device, "read"):
        yield


@contextmanager
def _held(device: torch.device, mode: Literal["read", "write"]) -> Iterator[None]:
    with Interrupts() as interrupts:
        lock = _acquired(device, mode, interrupts)
        try:
            interrupts.let_through = True
            interrupts.handle()
            yield
        finally:
            interrupts.let_through = False
            lock.release()


def _acquired(device: torch.device, mode: Literal["read", "write"], interrupts: Interrupts) -> ReadWriteLock:
    # A folder of this machine: the user's own may be shared with others over a network.
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(tempfile.gettempdir()) / f"vittle-{user}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    there = folder.lstat()  # anybody may have put something there before, a link too
    if not stat.S_ISDIR(there.st_mode) or (hasattr(os, "getuid") and there.st_uid != user):
        raise VittleError(
            f"{folder} is no folder of yours, so locks in it are not; remove it, or set TMPDIR to a folder of yours"
        )
    lock, turnstile = ReadWriteLock(folder / f"{physical(device)}.lock"), FileLock(folder / f"{physical(device)}.turnstile")
    _wait(lambda: turnstile.acquire(TRY, LOOK), interrupts)
    try:
        if mode == "read":
            turnstile.release()
        _wait(lambda: (lock.acquire_write if mode == "write" else lock.acquire_read)(TRY), interrupts)
    finally:
        turnstile.release(force=True)
    return lock


def _wait(acquire: Callable[[], object], interrupts: Interrupts) -> None:
    """Try until it is there or an interrupt is heard; SQLite would wait on whatever it hears."""
    while True:
        try:
            acquire()
        except Timeout:
            interrupts.handle()
        else:
            return
