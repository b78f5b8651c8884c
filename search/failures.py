"""Failures that are alike: told of once, with what to do about them."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from vittle.search.problem import Problem
from vittle.storage.records import Trial

REPEATED = 3  # failures alike that are worth a word


class Failures:
    """The failures of one search.

    Args:
        problem: of the study.
        warn: whom to tell.
    """

    def __init__(self, problem: Problem[Any], warn: Callable[[str], None]) -> None:
        self._problem = problem
        self._warn = warn
        self._alike: Counter[tuple[str, str]] = Counter()

    def add(self, trial: Trial, reason: str) -> None:
        """Count a failed trial, and say so where it is one of several."""
        group = self._problem.group(trial.candidate)
        alike = (group, reason.split(":")[0])
        self._alike[alike] += 1
        if self._alike[alike] == REPEATED:
            advice = self._problem.advice(trial.candidate, reason)
            self._warn(f"{REPEATED} {group} have failed alike ({reason}); {advice}")
