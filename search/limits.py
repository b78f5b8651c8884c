"""When a search ends: all its trials are done, its time or its work is spent, or its front grows no more."""

import time

from vittle.objectives.fronts import hypervolume
from vittle.search.results import Results
from vittle.storage.settings import SearchSettings

LOOK_EVERY = 5  # trials between two looks at whether the front still grows


class Limits:
    """The limits of one search, whose time runs from now on.

    Args:
        settings: of the study.
        before: how many trials told of quality when the search began.
    """

    def __init__(self, settings: SearchSettings, before: int) -> None:
        self._settings = settings
        self._before = before
        limit = settings.time_limit
        self._deadline = None if limit is None else time.monotonic() + limit

    def reached(self, started: int, exhausted: str | None, results: Results) -> str | None:
        """The limit that the search has reached; None where it has reached none.

        Args:
            started: how many trials have begun.
            exhausted: what the problem says of the work that was done, where that is enough.
            results: of the trials so far.
        """
        settings = self._settings
        if started >= settings.trials:
            return f"all {settings.trials} trials are done"
        if self._deadline and time.monotonic() > self._deadline:
            return "the time is over"
        if exhausted is not None:
            return exhausted
        fresh = results.judged - self._before
        if settings.until_flat and fresh and fresh % LOOK_EVERY == 0 and self._flat(fresh, results):
            return "the front grows no more"
        return None

    def _flat(self, fresh: int, results: Results) -> bool:
        patience = max(hypervolume.PATIENCE, results.judged // 4)
        ranking = results.ranking
        if ranking is None or fresh < patience:  # a study that is extended is not flat for what it did before
            return False
        grown = ranking.growth()
        return grown is not None and hypervolume.flat(grown.volumes, grown.spread, patience)
