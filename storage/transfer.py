"""A study as lines of JSON, from one database to another without loss: each line one study, trial or thing known.

The first line is the study, the last one counts the trials, so that a file that was cut short is noticed. What is read is
checked whole before anything is written, and written in one transaction.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from sqlalchemy import select, true
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from vittle.objectives.backbones.merge_start import MergeStart
from vittle.objectives.backbones.sensitivity import Sensitivity
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.parameter_importance import Importance
from vittle.objectives.quality import paired
from vittle.spaces.errors import VittleError
from vittle.spaces.validation import Count, told
from vittle.storage import address, kinds
from vittle.storage.ranking import Ranking
from vittle.storage.records import STRANGE, Study, StudyState, Trial, TrialState, UnreadableError, check_name, strangeness
from vittle.storage.rows import study_of, touch_all, trial_of
from vittle.storage.settings import Settings
from vittle.storage.store import IMPORTANCE, LATENCY, MERGE_START, SENSITIVITY, Store, fingerprint_of
from vittle.storage.tables import KnowledgeRow, MeasurementRow, StudyRow, TrialRow, in_utc

OF_FORMAT_1 = {"schedule": "candidate", "schedule_id": "candidate_id"}  # what a trial's values were called before
Moment = Annotated[AwareDatetime, BeforeValidator(lambda moment: in_utc(moment) if hasattr(moment, "tzinfo") else moment)]


def _plain(document: Any) -> Any:
    json.dumps(document, allow_nan=False)
    return document


Document = Annotated[dict[str, Any], AfterValidator(_plain)]
Name40 = Annotated[str, Field(max_length=40)]  # as long as their columns are
Name100 = Annotated[str, Field(max_length=100)]
Reason = Annotated[str, Field(max_length=500)]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{0,12}$")]  # nothing where a study is about no backbone


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", from_attributes=True, allow_inf_nan=False)


class StudyLine(_Line):
    """The study itself."""

    line: Literal["study"] = "study"
    format: Literal[2] = 2
    name: str
    kind: Name40
    state: StudyState
    ended: Reason | None
    owner: Name100 | None
    settings: Document
    backbone: Document
    images: Document | None = None
    created: Moment

    @model_validator(mode="before")
    @classmethod
    def _of_now(cls, given: Any) -> Any:
        # Files of format 1 are from before there was more than one kind.
        return {"kind": Settings.kind, **given, "format": 2} if isinstance(given, dict) and given.get("format") == 1 else given


class _Classes(BaseModel):
    lost: list[float]
    images: list[Count]


class _Protocol(BaseModel):
    """What is read of how something was measured; there is more, which is only shown."""

    device: str = ""
    dtype: str = ""
    against: str = ""
    source: str = ""
    noisy: str = ""
    profile: str = ""
    measured_at: AwareDatetime | None = None
    of: Count | str = ""
    rounds: Count = 0
    threads: Count = 0
    batch_size: Count = 0
    p95_ms: float = 0.0
    p95_ms_interval: tuple[float, float] = (0.0, 0.0)
    backbone_ms: float = 0.0
    backbone_p95_ms: float = 0.0
    samples: list[float] = []
    worst: list[tuple[Count, float, Count]] = []
    classes: _Classes = _Classes(lost=[], images=[])
    right: str = ""
    each: str = ""


def _understood_protocol(document: dict[str, Any]) -> dict[str, Any]:
    _Protocol.model_validate(document)
    return document


class MeasurementLine(_Line):
    """A measured value of a trial."""

    phase: Annotated[str, Field(max_length=20)]
    objective: Name40
    value: float
    low: float
    high: float
    n: Count
    protocol: Annotated[Document, AfterValidator(_understood_protocol)]


class TrialLine(_Line):
    """A trial with everything that was measured of it."""

    line: Literal["trial"] = "trial"
    number: Count
    state: TrialState
    origin: Name40
    candidate_id: Id
    candidate: Document
    parameters: dict[Name100, float | Name100]
    reason: Reason | None
    attempts: Count = 1
    started: Moment
    finished: Moment | None
    measurements: list[MeasurementLine]

    @model_validator(mode="before")
    @classmethod
    def _of_now(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {OF_FORMAT_1.get(name, name): value for name, value in given.items()}


class KnownLine(_Line):
    """Something known of the backbone, or of the study where it is about its parameters."""

    line: Literal["known"] = "known"
    fingerprint: Id
    kind: Name40
    document: Document
    created: Moment


class EndLine(_Line):
    """The end, and how many trials there were."""

    line: Literal["end"] = "end"
    trials: Count


Line = StudyLine | TrialLine | KnownLine | EndLine
LINES: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="line")])
OF_STUDY = IMPORTANCE.format("")  # the kind of what is known of a study, without its number
KNOWN: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    MERGE_START: MergeStart.from_dict,
    SENSITIVITY: Sensitivity.from_dict,
    LATENCY: LatencyProfile.from_dict,
    OF_STUDY: Importance.from_dict,
}
ACCEPTED = "what vittle export-study writes"


def write(store: Store, name: str) -> Iterator[str]:
    """The lines of a study, each with its newline.

    Raises:
        VittleError: there is no such study.
    """
    with store.transaction() as session:
        row = store.row(session, name)
        trials = session.scalars(select(TrialRow).where(TrialRow.study_id == row.id).order_by(TrialRow.number)).all()
        known = [
            KnownLine.model_validate(one).model_copy(update={"kind": kind})
            for one in session.scalars(select(KnowledgeRow))
            if (kind := _kind(one, row, trials)) is not None
        ]
        count = 0
        yield _text(StudyLine.model_validate(row))
        for trial in trials:
            count += 1
            yield _text(TrialLine.model_validate(trial))
        yield from map(_text, known)
        yield _text(EndLine(trials=count))


def read(store: Store, lines: Iterable[str], name: str | None = None) -> Study:
    """Write a study into a database, under another name where one is given. What the database knows already it keeps.

    A study that was running elsewhere is interrupted here, and so are its trials.

    Raises:
        VittleError: a line that is not one, a file that is not whole, a study that none of ours could be, or one of a name that
            is there already or that no study can have.
    """
    parsed = [_parse(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    study, trials, known = _whole(parsed)
    wanted = name or study.name
    check_name(wanted)
    with store.transaction() as session:
        if session.scalar(select(StudyRow.id).where(StudyRow.name == wanted)) is not None:
            raise VittleError(f"study {wanted!r} exists; give another --study")
        with _understood():
            return _add(session, study.model_copy(update={"name": wanted}), trials, known)


def _add(session: Session, study: StudyLine, trials: Sequence[TrialLine], known: Sequence[KnownLine]) -> Study:
    kinds.find(study.kind)
    state = "interrupted" if study.state == "running" else study.state
    row = StudyRow(**{**study.model_dump(exclude={"line", "format"}), "state": state})
    session.add(row)
    session.flush()
    made = study_of(row)
    added = [_trial_row(row.id, one) for one in trials]
    session.add_all(added)
    for one in known:
        _check_known(made, one, row, added)
        _learn(session, one, row)
    touch_all(session, true())  # of whatever backbone they are, something may be known of it now
    session.flush()
    tried = [trial_of(row.kind, trial) for trial in added]
    for line, trial in zip(trials, tried, strict=True):
        _check_trial(made, trial, line)
    _ = Ranking.of(tried, made.goals).standing  # whoever lists the studies asks for it
    return made


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except STRANGE as error:
        reason = error.reason if isinstance(error, UnreadableError) else strangeness(error)
        raise VittleError(f"the study cannot be understood ({reason}); accepted: {ACCEPTED}") from None
    except DBAPIError as error:
        raise VittleError(f"the database does not take the study ({address.reason(error)}); accepted: {ACCEPTED}") from None


def _check_trial(study: Study, trial: Trial, line: TrialLine) -> None:
    """Refuse a trial that no search can have written.

    Raises:
        ValueError: what is wrong.
    """
    if trial.candidate.id != line.candidate_id:
        raise ValueError(f"trial {trial.number} has another candidate than its id says")
    if len({(one.phase, one.objective) for one in line.measurements}) < len(line.measurements):
        raise ValueError(f"trial {trial.number} has something measured twice")
    for measured in line.measurements:
        if "right" in measured.protocol:
            paired.unpack(measured.protocol["right"], measured.n)
        if "each" in measured.protocol:
            paired.unpack_divergence(measured.protocol["each"])
    try:
        kinds.find(study.kind).check(study, trial.candidate)
    except VittleError as error:
        raise ValueError(f"trial {trial.number}: {error}") from None
    goals = study.goals
    needed = {"search": goals.objectives if trial.state == "complete" else ()}
    needed["confirmation"] = (goals.quality,) if trial.confirmed else ()
    for phase, objectives in needed.items():
        missing = [name for name in objectives if name not in trial.measurements.get(phase, {})]
        if missing:
            raise ValueError(f"trial {trial.number} is {trial.state}, and its {missing[0]} is missing")


def _check_known(study: Study, line: KnownLine, row: StudyRow, trials: Sequence[TrialRow]) -> None:
    """Refuse what is not known of this study's backbone, or is something else than it is called.

    Raises:
        ValueError: what is wrong.
    """
    if line.kind not in KNOWN:
        raise ValueError(f"unknown kind of knowledge {line.kind!r}")
    what = KNOWN[line.kind](line.document)
    shape = None if study.subject is None else study.subject.shape
    match what:
        case LatencyProfile():
            fits = (what.key, what.shape) == (line.fingerprint, shape)
        case MergeStart():
            fits = shape is not None and (what.fingerprint, what.depth) == (line.fingerprint, shape.depth)
        case Sensitivity():
            fits = what.fingerprint == line.fingerprint
        case _:
            fits = True
    stored = KnowledgeRow(fingerprint=line.fingerprint, kind=_stored_kind(line, row))
    if not fits or _kind(stored, row, trials) is None:
        raise ValueError(f"{line.kind} of {line.fingerprint} is not of this study")


def _kind(known: KnowledgeRow, study: StudyRow, trials: Iterable[TrialRow]) -> str | None:
    """Under which kind something known goes with a study; None where it does not."""
    if known.fingerprint == fingerprint_of(study):
        if not known.kind.startswith(OF_STUDY):
            return known.kind
        return OF_STUDY if known.kind == IMPORTANCE.format(study.id) else None
    used = {one.protocol.get("profile") for trial in trials for one in trial.measurements} | {study.settings.get("target")}
    return known.kind if known.fingerprint in used else None


def _text(line: Line) -> str:
    return json.dumps(line.model_dump(mode="json"), ensure_ascii=False, allow_nan=False) + "\n"


def _parse(number: int, line: str) -> Line:
    try:
        return LINES.validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        raise VittleError(
            f"line {number} cannot be understood ({told(first['loc'] or ('it',), first['msg'])}); accepted: {ACCEPTED}"
        ) from None


def _whole(lines: list[Line]) -> tuple[StudyLine, list[TrialLine], list[KnownLine]]:
    trials = [one for one in lines if isinstance(one, TrialLine)]
    first, last = (lines[0], lines[-1]) if lines else (None, None)
    numbers = [one.number for one in trials]
    if not isinstance(first, StudyLine) or not isinstance(last, EndLine) or last.trials != len(trials):
        raise VittleError(f"the file is not whole; accepted: {ACCEPTED}, from the first line to the last")
    if sum(isinstance(one, StudyLine | EndLine) for one in lines) > 2 or len(set(numbers)) < len(numbers):
        raise VittleError(f"the file holds something twice; accepted: {ACCEPTED}, one study in one file")
    return first, trials, [one for one in lines if isinstance(one, KnownLine)]


def _trial_row(study: int, line: TrialLine) -> TrialRow:
    measurements = [MeasurementRow(**one.model_dump()) for one in line.measurements]
    values = line.model_dump(exclude={"line", "measurements"})
    state = "interrupted" if line.state == "running" else line.state
    return TrialRow(study_id=study, measurements=measurements, **{**values, "state": state})


def _learn(session: Session, line: KnownLine, study: StudyRow) -> None:
    kind = _stored_kind(line, study)
    if session.get(KnowledgeRow, (line.fingerprint, kind)) is None:
        values = line.model_dump(exclude={"line", "kind"})
        session.add(KnowledgeRow(kind=kind, **values))


def _stored_kind(line: KnownLine, study: StudyRow) -> str:
    return IMPORTANCE.format(study.id) if line.kind == OF_STUDY else line.kind
