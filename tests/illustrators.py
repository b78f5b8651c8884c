"""What stands in for the computation of pictures where its process is tested, which has to import it."""

import os
import time
from collections.abc import Sequence
from typing import Any

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
