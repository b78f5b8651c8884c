"""What stands in for the computation of pictures where its process is tested, which has to import it."""

import base64
import io
import os
import time
from collections.abc import Sequence
from typing import Any

from PIL import Image

from vittle.spaces import costs
from vittle.spaces.errors import VittleError
from vittle.spaces.schedule import Schedule
from vittle.storage.records import Study


def told(study: Study, schedule: Schedule, indices: Sequence[int]) -> dict[str, Any]:
    """Which process it ran in, and when."""
    return {"process": os.getpid(), "at": time.time(), "study": study.name, "id": schedule.id, "indices": list(indices)}


def dying(study: Study, schedule: Schedule, indices: Sequence[int]) -> dict[str, Any]:
    """Ends its process where image 1 is asked for, as the system does when memory is out."""
    if 1 in indices:
        os._exit(9)
    return told(study, schedule, indices)


def refusing(study: Study, schedule: Schedule, indices: Sequence[int]) -> dict[str, Any]:
    """Bad input for image 0, and an error of its own for others."""
    del study, schedule
    if 0 in indices:
        raise VittleError("no images at <b>/nowhere</b>; accepted: a folder")
    raise MemoryError("not enough\nof it")


def drawn(study: Study, schedule: Schedule, indices: Sequence[int]) -> dict[str, Any]:
    """Grey images of which nothing is merged, on which backbone and schedule do not agree."""
    shape = study.backbone.shape
    rows, columns = shape.grid
    file = io.BytesIO()
    Image.new("RGB", (4 * columns, 4 * rows), "grey").save(file, "PNG")
    picture = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    blocks = [{"groups": list(range(shape.patches)), "sizes": [1] * shape.patches}] * shape.depth
    about = {"label": 1, "picture": picture, "backbone": 1, "schedule": 2, "agree": False, "blocks": blocks}
    return {
        "id": schedule.id,
        "grid": [rows, columns],
        "patch": [4, 4],
        "whole": shape.tokens,
        "prefix": shape.prefix,
        "tokens": list(costs.tokens(shape, schedule)),
        "blocks": shape.depth,
        "available": 512,
        "images": [{"index": index, **about} for index in indices],
    }
