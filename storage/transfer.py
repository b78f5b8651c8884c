"""A study as lines of JSON, from one database to another without loss: each line one study, trial or thing known.

The first line is the study, the last one counts the trials, so that a file that was cut short is noticed. What is read is
checked whole before anything is written, and written in one transaction.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from sqlalchemy import select, true
from sqlalchemy.orm import Session

from vittle.spaces.errors import VittleError
from vittle.storage.records import Study
from vittle.storage.rows import study_of, touch_all, trial_of
from vittle.storage.settings import Settings
from vittle.storage.store import IMPORTANCE, Store, fingerprint_of
from vittle.storage.tables import KnowledgeRow, MeasurementRow, StudyRow, TrialRow, in_utc

OF_FORMAT_1 = {"schedule": "candidate", "schedule_id": "candidate_id"}  # what a trial's values were called before
Moment = Annotated[AwareDatetime, BeforeValidator(lambda moment: in_utc(moment) if hasattr(moment, "tzinfo") else moment)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", from_attributes=True)


class StudyLine(_Line):
    """The study itself."""

    line: Literal["study"] = "study"
    format: Literal[2] = 2
    name: str
    kind: str
    state: str
    ended: str | None
    owner: str | None
    settings: dict[str, Any]
    backbone: dict[str, Any]
    created: Moment

    @model_validator(mode="before")
    @classmethod
    def _of_now(cls, given: Any) -> Any:
        # Files of format 1 are from before there was more than one kind.
        return {"kind": Settings.kind, **given, "format": 2} if isinstance(given, dict) and given.get("format") == 1 else given


class MeasurementLine(_Line):
    """A measured value of a trial."""

    phase: str
    objective: str
    value: float
    low: float
    high: float
    n: int
    protocol: dict[str, Any]


class TrialLine(_Line):
    """A trial with everything that was measured of it."""

    line: Literal["trial"] = "trial"
    number: int
    state: str
    origin: str
    candidate_id: str
    candidate: dict[str, Any]
    parameters: dict[str, Any]
    reason: str | None
    attempts: int = 1
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
    fingerprint: str
    kind: str
    document: dict[str, Any]
    created: Moment


class EndLine(_Line):
    """The end, and how many trials there were."""

    line: Literal["end"] = "end"
    trials: int


Line = StudyLine | TrialLine | KnownLine | EndLine
LINES: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="line")])
OF_STUDY = IMPORTANCE.format("")  # the kind of what is known of a study, without its number


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
        VittleError: a line that is not one, a file that is not whole, or a study of that name that is there already.
    """
    parsed = [_parse(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    study, trials, known = _whole(parsed)
    wanted = name or study.name
    with store.transaction() as session:
        if session.scalar(select(StudyRow.id).where(StudyRow.name == wanted)) is not None:
            raise VittleError(f"study {wanted!r} exists; give another --study")
        state = "interrupted" if study.state == "running" else study.state
        row = StudyRow(**{**study.model_dump(exclude={"line", "format"}), "name": wanted, "state": state})
        session.add(row)
        session.flush()
        added = [_trial_row(row.id, one) for one in trials]
        session.add_all(added)
        for one in known:
            _learn(session, one, row)
        touch_all(session, true())  # of whatever backbone they are, something may be known of it now
        session.flush()
        try:
            for trial in added:
                if trial_of(row.kind, trial).candidate.id != trial.candidate_id:
                    raise ValueError(f"trial {trial.number} has another candidate than its id says")
            return study_of(row)
        except (ValueError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise VittleError(f"the study cannot be understood ({reason}); accepted: what vittle export-study writes") from None


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
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise VittleError(
            f"line {number} cannot be understood ({where}: {first['msg']}); accepted: what vittle export-study writes"
        ) from None


def _whole(lines: list[Line]) -> tuple[StudyLine, list[TrialLine], list[KnownLine]]:
    trials = [one for one in lines if isinstance(one, TrialLine)]
    first, last = (lines[0], lines[-1]) if lines else (None, None)
    numbers = [one.number for one in trials]
    if not isinstance(first, StudyLine) or not isinstance(last, EndLine) or last.trials != len(trials):
        raise VittleError("the file is not whole; accepted: what vittle export-study writes, from the first line to the last")
    if sum(isinstance(one, StudyLine | EndLine) for one in lines) > 2 or len(set(numbers)) < len(numbers):
        raise VittleError("the file holds something twice; accepted: what vittle export-study writes, one study in one file")
    return first, trials, [one for one in lines if isinstance(one, KnownLine)]


def _trial_row(study: int, line: TrialLine) -> TrialRow:
    measurements = [MeasurementRow(**one.model_dump()) for one in line.measurements]
    values = line.model_dump(exclude={"line", "measurements"})
    state = "interrupted" if line.state == "running" else line.state
    return TrialRow(study_id=study, measurements=measurements, **{**values, "state": state})


def _learn(session: Session, line: KnownLine, study: StudyRow) -> None:
    kind = IMPORTANCE.format(study.id) if line.kind == OF_STUDY else line.kind
    if session.get(KnowledgeRow, (line.fingerprint, kind)) is None:
        values = line.model_dump(exclude={"line", "kind"})
        session.add(KnowledgeRow(kind=kind, **values))
