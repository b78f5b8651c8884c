"""Whether a trial is beaten for good before it has seen all images: a rival costs no more and is better beyond doubt.

The one rule that stops trials. Of the rivals that cost no more in anything, the most accurate is compared with the trial on
the images that both have seen (`paired.better`), after every rung. The test may be looked at as often as wanted: a trial that
is no worse than a given rival is stopped with a chance of at most `LEVEL`, and with the few looks of rungs of about a fifth of
that. The most accurate rival was chosen by the same images, which flatters it: the best of 40 that are all as good as the trial
stops it with a chance of 7.5 %, as simulated.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vittle.objectives import paired
from vittle.objectives.measurement import SEARCHED, Measurement

LEVEL = 0.05
COSTS = tuple(name for name in SEARCHED if name != "accuracy")

Measured = Mapping[str, Measurement]


def right(accuracy: Measurement) -> NDArray[np.bool_] | None:
    """Which images were answered rightly, (n,) in their fixed order; None where nobody wrote it down."""
    packed: Any = accuracy.protocol.get("right")
    return None if packed is None else paired.unpack(packed, accuracy.n)


def beaten_by(trial: Measured, rivals: Mapping[int, Measured]) -> int | None:
    """The number of the rival that beats a trial beyond doubt; None where none does."""
    seen = right(trial["accuracy"])
    if seen is None:
        return None
    cheaper = [
        (rival["accuracy"].value, -number)
        for number, rival in rivals.items()
        if all(rival[cost].value <= trial[cost].value for cost in COSTS) and "right" in rival["accuracy"].protocol
    ]
    if not cheaper:
        return None
    number = -max(cheaper)[1]
    answers = right(rivals[number]["accuracy"])
    return number if answers is not None and paired.better(answers, seen, LEVEL) else None
