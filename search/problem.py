"""What a study searches: its candidates, what they are worth and who evaluates them. One subclass for each kind of study.

The search loop (`vittle.search.study`), the coordinator, the sampler and the workers know no more of a kind. A problem
travels to Ray's workers, so it keeps what it needs of a store and never the store itself: no password is pickled.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from vittle.objectives.evaluation import Evaluation
from vittle.objectives.goals import Goals, Measured
from vittle.objectives.quality.image_digest import ImageDigest
from vittle.search.reporter import Reporter
from vittle.spaces.candidate import Candidate, SearchSpace
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import Start
from vittle.storage import kinds
from vittle.storage.records import BackboneRecord, Study
from vittle.storage.settings import SearchSettings
from vittle.storage.store import Store

C = TypeVar("C", bound=Candidate)
E = TypeVar("E", bound=Candidate, contravariant=True)
Progress = Callable[[int, int], None]


class Evaluator(Protocol[E]):
    """Evaluates candidates in a worker, one rung of several at a time."""

    def climb(self, candidate: E, rivals: Mapping[int, Measured], hints: Mapping[str, Any]) -> Iterator[Evaluation]:
        """What is known of a candidate, again and again: `going` until it is `complete` or `over budget`.

        Whatever it raises is the reason why the trial failed. It is no longer asked once the trial is beaten.

        Args:
            candidate: to evaluate; the baseline is never over budget.
            rivals: what the trials of the front measured, by number.
            hints: what the problem tells of the candidate.
        """
        ...

    def confirm(self, candidate: E) -> Measured:
        """Measure a candidate of the front with care, on data that the search never saw, nothing else running."""
        ...


class Problem(ABC, Generic[C]):
    """A study's problem. Whoever subclasses it gives `space`, `baseline` and `evaluator`, and what else it knows better.

    Args:
        settings: of the study.
    """

    space: SearchSpace
    """What may be proposed; asked for once `examine` is done."""
    baseline: C
    """What the others are compared with, and the first trial."""
    baseline_origin: ClassVar[str] = "baseline"
    """One of `vittle.storage.records.BASELINES`: what the baseline is called."""
    noun: ClassVar[str] = "candidate"
    """What a candidate is called."""
    subject: BackboneRecord | None = None
    """The backbone that the study is about, where it is about one; stored with the study."""
    images: ImageDigest | None = None
    """The images that it is judged on, where there are some that could be others another time; stored with the study."""
    notes: Sequence[str] = ()
    """What the user should know before the search begins."""
    work_before: float = 0
    """What `examine` has spent, as `work` counts it."""
    trial_seconds: float = 0.0
    """That a typical trial takes a worker; 0 where nobody knows, which hands out trials one by one."""

    def __init__(self, settings: SearchSettings) -> None:
        self.settings = settings

    @classmethod
    def load(cls, settings: Any, progress: Progress | None = None) -> Self:
        """Load and check all that a study works on, before anything of it is written or it is resumed.

        Raises:
            VittleError: bad input.
        """
        del progress
        return cls(settings)

    @property
    def goals(self) -> Goals:
        return self.settings.goals

    def check(self, study: Study, *, other_images: bool = False) -> None:
        """Refuse to go on with a study whose subject or whose images are not these; called before it is resumed.

        Args:
            study: to go on with.
            other_images: go on all the same where only the images are others.

        Raises:
            VittleError: they are others; the message says what is different.
        """
        change = self.images and self.images.change_from(study.images)
        if change and not other_images:
            raise VittleError(
                f"the images are not those that study {study.name!r} began with: {change}; "
                "give back those, launch a new study, or go on with --other-images"
            )

    def prepare(self, store: Store, reporter: Reporter) -> None:
        """Find out what has to be measured alone on the machine; called before Ray starts."""

    def examine(self, store: Store, reporter: Reporter) -> None:
        """Find out what helps the search; called on a running Ray, before the first trial is proposed."""

    def starts(self) -> Iterable[Start]:
        """Values to try first, most telling first; called once, when the baseline has been evaluated."""
        return ()

    def estimate(self, candidate: C) -> Measured | None:
        """What a candidate will cost, where that is over the budget for sure; called for each proposal.

        What is given is told to the sampler in place of an evaluation; it holds the charted cost and what the budget limits.
        """
        del candidate
        return None

    def hints(self, candidate: C) -> Mapping[str, Any]:
        """What the evaluator is told along with a candidate; called whenever one is handed out."""
        del candidate
        return {}

    def note(self, candidate: C, measured: Measured) -> None:
        """Learn from a finished trial; called for each, also of earlier runs, with nothing measured where it failed."""

    def work(self, measured: Measured) -> float:
        """What evaluating a trial has spent; called when it has ended."""
        del measured
        return 0

    def exhausted(self, work: float) -> str | None:
        """Why no trial is started after that much work; None where one may be. Called before each proposal."""
        del work
        return None

    def group(self, candidate: C) -> str:
        """What candidates that fail alike have in common, in the plural; called when a trial has failed."""
        del candidate
        return f"{self.noun}s"

    def advice(self, candidate: C, reason: str) -> str:
        """What to do about failures for one reason; called when several have failed alike."""
        del candidate
        if reason.startswith(OVER_TIME):
            return "a longer --trial-time-limit lets them end"
        return "fewer --workers leave more memory to each" if "died" in reason else "see what they have in common"

    @abstractmethod
    def evaluator(self) -> Evaluator[C]:
        """Who evaluates; called in a worker, once, with the first trial."""


OVER_TIME = "over its time limit"


def over_time(limit: float) -> str:
    """Why a trial failed that took longer than it may."""
    return f"{OVER_TIME}: no result within {limit:g} s"


def find_problem(kind: str) -> type[Problem[Any]]:
    """The problem of a kind of study.

    Raises:
        OtherKindError: the kind is not known here.
    """
    module, name = kinds.find(kind).problem.split(":")
    found: type[Problem[Any]] = getattr(import_module(module), name)
    return found
