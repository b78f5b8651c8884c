"""Whom a search tells of its progress."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from vittle.storage.records import Trial


@dataclass(frozen=True)
class Reporter:
    """Whom to tell of progress.

    Attributes:
        finished: each finished trial.
        confirming: how many trials are to be confirmed next, which may not be the last ones.
        confirmed: each confirmed trial, with how many are to come.
        prepared: what is being made ready before the first trial, how much of it is done, and of how much.
        warned: what went wrong without ending the search.
        ended: why the search ended.
    """

    finished: Callable[[Trial], None] = lambda _: None
    confirmed: Callable[[Trial, int], None] = lambda _trial, _left: None
    prepared: Callable[[str, int, int], None] = lambda _what, _done, _total: None
    warned: Callable[[str], None] = warnings.warn
    ended: Callable[[str], None] = lambda _: None
    confirming: Callable[[int], None] = lambda _: None


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
