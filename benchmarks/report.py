"""What every benchmark writes: where it ran, and a file that is never half written."""

import datetime
import json
from pathlib import Path
from typing import Any

import torch

from vittle.objectives import latency
from vittle.spaces.errors import VittleError


def environment(device: torch.device) -> dict[str, Any]:
    """Device, library versions and date."""
    return {**latency.environment(device), "date": datetime.datetime.now(datetime.UTC).date().isoformat()}


def write(path: Path, document: dict[str, Any]) -> None:
    """All or nothing: an interrupted run leaves the file as it was.

    Raises:
        VittleError: it cannot be written there.
    """
    draft = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise VittleError(f"cannot write {path}: {error.strerror}; give --output a file that can be written") from None
