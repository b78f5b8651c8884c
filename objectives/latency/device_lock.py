"""Who may use a device: many that evaluate images at once, or one that measures time, and then nobody else.

The lease is a readers-writer lock on a file of this machine, so it holds between the workers of a study and between studies
of one user, and ends with the process that holds it, however that ends. Whoever waits to measure goes before those who come
later.
"""

import getpass
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from filelock import ReadWriteLock

from vittle.objectives.latency.environment import physical


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


def _held(device: torch.device, mode: str) -> AbstractContextManager[None]:
    # A folder of this machine: the user's own may be shared with others over a network.
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(tempfile.gettempdir()) / f"vittle-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = ReadWriteLock(folder / f"{physical(device)}.lock")
    return lock.write_lock() if mode == "write" else lock.read_lock()
