"""Studies and trials as the rest of the project sees them: immutable values without a database session."""

import itertools
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from statistics import median
from typing import Any, Literal, get_args

from pydantic import ValidationError

from vittle.objectives.budget import Budget
from vittle.objectives.goals import Goals
from vittle.objectives.latency.provenance import device_phase
from vittle.objectives.measurement import OBJECTIVES, Measurement
from vittle.objectives.quality.image_digest import ImageDigest
from vittle.spaces.candidate import Candidate
from vittle.spaces.errors import StorageError, VittleError
from vittle.spaces.reduction import AdapterRecord, Values
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.validation import first_mistake, shortened
from vittle.storage.settings import SearchSettings, Settings

TrialState = Literal["running", "interrupted", "complete", "stopped", "infeasible", "failed"]
StudyState = Literal["running", "complete", "interrupted", "failed"]
TRIAL_STATES, STUDY_STATES = get_args(TrialState), get_args(StudyState)
UNREADABLE: Literal["unreadable"] = "unreadable"
"""What stands for the state of a study or trial whose row nobody here understands."""
STRANGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading values that nothing here has written may end in."""

UNFINISHED = ("running", "interrupted")  # states of trials that have not ended; a resumed search begins interrupted ones again
BASELINES = ("backbone", "baseline")  # origins of the baseline's own trial, by the kind of study
PACE = 20  # trials that tell how fast a search is
NAME = re.compile(r"(?!.*\.(json|yaml)$)\w[\w .+-]{0,99}")  # a study's name stands in addresses and file names


REASON = 200  # characters of why something cannot be read


class OtherKindError(VittleError):
    """Something that a study of this kind does not have."""


class UnreadableError(VittleError):
    """A study or a trial in the database that nobody here understands, by whatever it was written.

    Attributes:
        what: the word for it.
        name: of the study, or number of the trial.
        reason: what is wrong with it.
    """

    def __init__(self, what: Literal["study", "trial"], name: str | int, reason: str) -> None:
        super().__init__(f"{what} {name!r} cannot be read ({reason})")
        self.what, self.name, self.reason = what, name, reason


@contextmanager
def readable(study: str) -> Iterator[None]:
    """Turn whatever strange values lead to into one line.

    Raises:
        UnreadableError: the study of that name cannot be read, and why.
    """
    try:
        yield
    except (OtherKindError, StorageError, UnreadableError):
        raise
    except STRANGE as error:
        raise UnreadableError("study", study, strangeness(error)) from error


def strangeness(error: Exception) -> str:
    """What is wrong with values that nothing here has written, in one line."""
    if isinstance(error, ValidationError):
        return first_mistake(error)
    said = f"no {error}" if isinstance(error, KeyError) else str(error)
    return shortened(" ".join(said.split()), REASON) or type(error).__name__


def check_name(name: str) -> None:
    """Refuse what no study can be called.

    Raises:
        VittleError: another name than what is accepted.
    """
    if not NAME.fullmatch(name):
        raise VittleError(f"study name {name!r} cannot be used; accepted: up to 100 letters, digits, spaces and . _ + -")


def free_name(model: str, taken: Container[str]) -> str:
    """A name for a study that is not taken: its model and a number."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", model).strip("-")
    return next(name for number in itertools.count(1) if (name := f"{stem}-{number}") not in taken)


def file_stem(name: str) -> str:
    """What a file of a study is called by default: its name, or what is left of one that no study of today can have."""
    return re.sub(r"[^\w .+-]+", "-", name).strip("-. ")[:100] or "study"


@dataclass(frozen=True)
class BackboneRecord:
    """The backbone that a study's schedules belong to, with the trained weights that the search may use, by reduction."""

    name: str
    fingerprint: str
    classes: int
    shape: BackboneShape
    adapters: Mapping[str, AdapterRecord] = field(default_factory=dict)


@dataclass(frozen=True)
class UnreadableCandidate:
    """Stands for a candidate whose row nobody here understands; its summary says why."""

    summary: str
    id: str = UNREADABLE
    is_baseline: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class UnreadableStudy:
    """Stands for a study whose row nobody here understands."""

    name: str
    reason: str


@dataclass(frozen=True)
class Trial:
    """One attempt to evaluate one candidate.

    Attributes:
        number: 0, 1, 2, ... within its study; 0 is the baseline itself.
        origin: where the candidate came from: one of `BASELINES`, the heuristic that was tried first (`constant`, ...) or
            `sampler`.
        parameters: the searched values that the candidate stands for; empty for the baseline.
        measurements: by phase, then by objective; a front that was timed on another device has phases of its own.
        reason: why it failed, is infeasible or cannot be read.
        attempts: how often it was begun; more than once where a worker or the whole search died with it.
        started: when it was written down, in UTC.
        finished: when it ended; None until then.
    """

    number: int
    state: TrialState | Literal["unreadable"]
    origin: str
    candidate: Candidate
    parameters: Values
    measurements: Mapping[str, Mapping[str, Measurement]] = field(default_factory=dict)
    reason: str | None = None
    attempts: int = 1
    started: datetime | None = None
    finished: datetime | None = None

    @property
    def schedule(self) -> Schedule:
        """What was evaluated, in an inference study.

        Raises:
            OtherKindError: in another one.
            UnreadableError: nobody here understands it.
        """
        if isinstance(self.candidate, UnreadableCandidate):
            raise UnreadableError("trial", self.number, self.candidate.summary)
        if not isinstance(self.candidate, Schedule):
            raise OtherKindError(f"trial {self.number} is no schedule of a backbone: {self.candidate.summary}")
        return self.candidate

    @property
    def readable(self) -> bool:
        """Whether its row is understood here."""
        return self.state != UNREADABLE

    @property
    def is_baseline(self) -> bool:
        """Whether it is the baseline's own trial."""
        return self.origin in BASELINES

    @cached_property
    def judged(self) -> Mapping[str, Measurement]:
        """What the trial is compared by: the quality that the search saw, and the most careful costs there are.

        The confirmed quality reports and never selects, or it would be flattered by the selection.
        """
        return {**self.measurements.get("search", {}), **self.costs}

    @cached_property
    def costs(self) -> Mapping[str, Measurement]:
        """The most careful costs there are: confirmed ones, and where they were timed again on the same device, those.

        What disturbance left its mark on takes the place of nothing that was measured in calm.
        """
        searched, confirmed = self.measurements.get("search", {}), self.measurements.get("confirmation", {})
        found = {name: one for name, one in confirmed.items() if not OBJECTIVES[name].chosen_by}
        timed = {**searched, **found}.get("latency_ms")
        if timed is None or timed.protocol.get("source") == "predicted":
            return found
        again = self.measurements.get(device_phase(timed.protocol), {})
        worse = "latency_ms" in again and "noisy" in again["latency_ms"].protocol and "noisy" not in timed.protocol
        return found if worse else {**found, **again}

    @property
    def profile(self) -> str | None:
        """The key of the latency profile that the search knew; None where there was none."""
        ratio = self.measurements.get("search", {}).get("latency_ratio")
        return None if ratio is None else ratio.protocol.get("profile")

    @property
    def seconds(self) -> float | None:
        """How long it took; None where it has not ended."""
        return (self.finished - self.started).total_seconds() if self.started and self.finished else None

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come of it; one that was interrupted is begun again when its study goes on."""
        return self.state not in UNFINISHED

    @property
    def confirmed(self) -> bool:
        return "confirmation" in self.measurements


@dataclass(frozen=True)
class Study:
    """One search.

    Attributes:
        subject: the backbone that it is about; None of a kind that is about none.
        ended: why nothing more was tried; None of one whose search is not done, or of which nobody wrote it down.
        owner: who made it.
        kind: what is searched, see `vittle.storage.kinds`.
        images: those that it is judged on; None of a kind that has none, or where nobody wrote them down.
    """

    name: str
    state: StudyState
    settings: SearchSettings
    subject: BackboneRecord | None
    created: datetime
    ended: str | None = None
    owner: str | None = None
    kind: str = Settings.kind
    images: ImageDigest | None = None

    @property
    def confirming(self) -> bool:
        """Whether its search is done, and its front is being measured again."""
        return self.state == "running" and self.ended is not None

    @property
    def phase(self) -> str:
        """Its state in a word: what it is at, too, while it confirms."""
        return "confirming" if self.confirming else self.state

    @property
    def known(self) -> bool:
        """Whether its kind is known here."""
        return self.settings.kind == self.kind

    @cached_property
    def goals(self) -> Goals:
        """What it is after.

        Raises:
            OtherKindError: it is of a kind that is not known here.
        """
        if not self.known:
            raise OtherKindError(
                f"study {self.name!r} is of kind {self.kind!r}, which this vittle does not know; "
                "update it with: pip install --upgrade vittle"
            )
        return self.settings.goals

    @property
    def budget(self) -> Budget:
        """As `goals` has it."""
        return self.goals.budget

    @property
    def inference(self) -> Settings:
        """Its settings, where it is an inference study.

        Raises:
            OtherKindError: it is another one.
        """
        if not isinstance(self.settings, Settings):
            raise OtherKindError(f"study {self.name!r} is of kind {self.kind!r}; accepted: {Settings.kind}")
        return self.settings

    @property
    def backbone(self) -> BackboneRecord:
        """The backbone that it is about.

        Raises:
            OtherKindError: it is about none.
        """
        if self.subject is None:
            raise OtherKindError(f"study {self.name!r} is of kind {self.kind!r} and has no backbone; accepted: {Settings.kind}")
        return self.subject


def seconds_left(trials: Sequence[Trial], planned: int) -> float | None:
    """How long a running study will take for the rest of its trials, as fast as the last ones ended; None where none tells."""
    ended = sorted(trial.finished for trial in trials if trial.finished is not None)[-PACE:]
    done = sum(trial.finished is not None and not trial.is_baseline for trial in trials)
    if len(ended) < 3 or done >= planned:
        return None
    return (ended[-1] - ended[0]).total_seconds() / (len(ended) - 1) * (planned - done)


def confirmation_gap(trials: Sequence[Trial]) -> float | None:
    """Seconds from one confirmed trial to the next, as of the last ones; None where no two of them say when they were timed."""
    times = (trial.measurements.get("confirmation", {}).get("latency_ms") for trial in trials)
    taken = sorted(
        datetime.fromisoformat(one.protocol["measured_at"]) for one in times if one and "measured_at" in one.protocol
    )
    gaps = [(after - before).total_seconds() for before, after in itertools.pairwise(taken)][-PACE:]
    return median(gaps) if gaps else None  # a mean would count the pause before a study was extended


def unreadable(number: int, reason: str) -> Trial:
    """Stands for a trial whose row nobody here understands."""
    return Trial(number, UNREADABLE, "", UnreadableCandidate(reason), {}, reason=reason)


def profiled(trials: Sequence[Trial]) -> str | None:
    """The key of the latency profile that a study knows; None where it measures everything."""
    return next((trial.profile for trial in trials if trial.profile is not None), None)


def baseline_trial(trials: Sequence[Trial]) -> Trial | None:
    """The trial of the baseline itself, once it is complete."""
    return next((trial for trial in trials if trial.is_baseline and trial.state == "complete"), None)
