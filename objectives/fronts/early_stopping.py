"""Whether a trial is beaten for good before it has seen all images: a rival costs no more and is better beyond doubt.

The one rule that stops trials, which `judged` keeps. Of the rivals that cost no more in anything, the one closest to the
baseline is compared with the trial on the images that both have seen, after every rung: is it closer on more of them beyond
doubt (`paired.closer`), and right on no fewer? Where nobody has written down how close answers are, the most accurate rival has
to be right on more of them beyond doubt (`paired.better`). The tests may be looked at as often as wanted: a trial that is no
worse than a given rival is stopped with a chance of at most `LEVEL`, and with the few looks of rungs of about a fifth of that.
The best rival was chosen by the same images, which flatters it: the best of 40 that are all as good as the trial stops it with
a chance of 7.5 %, as simulated. Where an evaluator writes down neither, nobody is beaten.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vittle.objectives.evaluation import Evaluation
from vittle.objectives.goals import Goals, Measured, oriented
from vittle.objectives.measurement import Measurement
from vittle.objectives.quality import paired
from vittle.spaces.candidate import Candidate

LEVEL = 0.05


def judged(candidate: Candidate, seen: Evaluation, rivals: Mapping[int, Measured], goals: Goals) -> Evaluation:
    """What was seen of a candidate, as `beaten` where it need not go on; what has ended, and the baseline, stay as they are."""
    if seen.ended or candidate.is_baseline:
        return seen
    rival = beaten_by(seen.measurements, rivals, goals)
    return seen if rival is None else Evaluation(seen.measurements, "beaten", rival=rival)


def right(accuracy: Measurement) -> NDArray[np.bool_] | None:
    """Which images were answered rightly, (n,) in their fixed order; None where nobody wrote it down."""
    packed: Any = accuracy.protocol.get("right")
    return None if packed is None else paired.unpack(packed, accuracy.n)


def same_images(*accuracies: Measurement) -> bool:
    """Whether these are about the same images, as far as anybody wrote down which: a study may go on with others."""
    return len({one.protocol["images"] for one in accuracies if "images" in one.protocol}) <= 1


def beaten_by(trial: Measured, rivals: Mapping[int, Measured], goals: Goals) -> int | None:
    """The number of the rival that beats a trial beyond doubt; None where none does, or its quality is not known yet."""
    seen = right(trial[goals.quality]) if goals.quality in trial else None
    if seen is None:
        return None
    cheaper = {
        number: rival
        for number, rival in rivals.items()
        if all(rival[cost].value <= trial[cost].value for cost in goals.costs)
        and "right" in rival[goals.quality].protocol
        and same_images(rival[goals.quality], trial[goals.quality])
    }
    if not cheaper:
        return None
    apart = _apart(trial, goals)
    known = {number: codes for number, rival in cheaper.items() if (codes := _apart(rival, goals)) is not None}
    if apart is None or not known:
        number = max(cheaper, key=lambda one: (goals.upward(cheaper[one][goals.quality].value), -one))
        return number if paired.better(_first(cheaper[number], len(seen), goals), seen, LEVEL) else None
    number = min(known, key=lambda one: (oriented(cheaper[one][goals.learned_from]), one))
    no_fewer = _first(cheaper[number], len(seen), goals).sum() >= seen.sum()
    return number if no_fewer and paired.closer(known[number], apart, LEVEL) else None


def _apart(measured: Measured, goals: Goals) -> NDArray[np.uint8] | None:
    """Codes of how far each answer is from the baseline's; None where nobody wrote it down."""
    each: Any = measured[goals.learned_from].protocol.get("each") if goals.learned_from in measured else None
    return None if each is None else paired.unpack_divergence(each)


def _first(rival: Measured, images: int, goals: Goals) -> NDArray[np.bool_]:
    """Which of the first images a rival answers rightly."""
    answers = right(rival[goals.quality])
    assert answers is not None  # only those that wrote it down are compared with
    return answers[:images]
