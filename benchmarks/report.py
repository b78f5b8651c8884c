"""What every benchmark does: say where it ran, write a file that is never half written, and answer bad input in one line."""

import contextlib
import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vittle.objectives.latency import environment as measured
from vittle.spaces.errors import VittleError
from vittle.spaces.files import write_at_once


def environment(device: torch.device) -> dict[str, Any]:
    """Device, library versions and date."""
    return {**measured.environment(device), "date": datetime.datetime.now(datetime.UTC).date().isoformat()}


def write(path: Path, document: dict[str, Any]) -> None:
    """All or nothing: an interrupted run leaves the file as it was.

    Raises:
        VittleError: it cannot be written there.
    """
    with contextlib.suppress(OSError):  # where the folder cannot be made, nor can the file, and that is said
        path.parent.mkdir(parents=True, exist_ok=True)
    write_at_once(path, f"{json.dumps(document, indent=1)}\n".encode(), "give --output a file that can be written")


def keep(path: Path, part: str, rows: list[dict[str, Any]]) -> None:
    """Write one part of a document, measured on the CPU just now; its other parts stay as they are.

    Raises:
        VittleError: it cannot be written there.
    """
    document = json.loads(path.read_text()) if path.exists() else {}
    write(path, {**document, part: {"environment": environment(torch.device("cpu")), "rows": rows}})


def run_command(command: Callable[[], object]) -> None:
    """Run a benchmark's command line; bad input is one line on stderr and exit code 2."""
    try:
        command()
    except VittleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
