"""Rows as they are written and read, without the ORM where they are many: a search writes trials, a page reads thousands.

Every change of a study begins by raising its revision. That writes the study's row, so other writers of it wait, in every
database, until the change is committed: numbers are given once, and whoever sees a revision sees all that led to it.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, insert, select, update
from sqlalchemy.orm import Session

from vittle.objectives.measurement import Measurement
from vittle.spaces.errors import VittleError
from vittle.spaces.validation import read_as
from vittle.storage import kinds
from vittle.storage.records import (
    STRANGE,
    STUDY_STATES,
    TRIAL_STATES,
    BackboneRecord,
    Study,
    Trial,
    UnreadableError,
    UnreadableStudy,
    readable,
    strangeness,
    unreadable,
)
from vittle.storage.tables import MeasurementRow, StudyRow, TrialRow

TRIAL = [
    getattr(TrialRow, name)
    for name in ("id", "number", "state", "origin", "candidate", "parameters", "reason", "attempts", "started", "finished")
]
MEASUREMENT = [
    getattr(MeasurementRow, name) for name in ("trial_id", "phase", "objective", "value", "low", "high", "n", "protocol")
]
TYPES = {"number": int, "origin": str, "parameters": dict, "reason": str | None, "attempts": int}
"""Of a trial, where a database keeps whatever it is given."""


class Version(NamedTuple):
    """The number of a study's row, its revision and its kind."""

    id: int
    revision: int
    kind: str


class Changes(NamedTuple):
    """What has changed in a study: its revision, and the trials that changed, by number."""

    revision: int
    trials: list[Trial]


def touch(session: Session | Connection, study: str, **values: object) -> Version:
    """Raise the revision of a study, and write other values of its row."""
    touch_all(session, StudyRow.name == study, **values)
    return version(session, study)


def touch_all(session: Session | Connection, which: ColumnElement[bool], **values: object) -> None:
    """Raise the revisions of several studies."""
    raised = update(StudyRow).where(which).values(revision=StudyRow.revision + 1, **values)
    session.execute(raised, execution_options={"synchronize_session": False})


def touch_trial(session: Session | Connection, study: str, number: int) -> int:
    """Raise the revision of a study because of one of its trials; the trial's id."""
    study_id, revised, _ = touch(session, study)
    trial = session.scalars(select(TrialRow.id).where(TrialRow.study_id == study_id, TrialRow.number == number)).one()
    session.execute(update(TrialRow).where(TrialRow.id == trial).values(revision=revised))
    return trial


def version(session: Session | Connection, study: str) -> Version:
    """The version that a study has now.

    Raises:
        VittleError: there is none of that name.
    """
    found = session.execute(select(StudyRow.id, StudyRow.revision, StudyRow.kind).where(StudyRow.name == study)).one_or_none()
    if found is None:
        raise _missing(session, study)
    return Version(found.id, found.revision, found.kind)


def study_row(session: Session, name: str) -> StudyRow:
    """The row of a study.

    Raises:
        VittleError: there is none; the message names those there are.
    """
    row = session.scalar(select(StudyRow).where(StudyRow.name == name))
    if row is None:
        raise _missing(session, name)
    return row


def measure(session: Session | Connection, trial: int, phase: str, measurements: Mapping[str, Measurement]) -> None:
    """Write what was measured of a trial in one phase."""
    written = [
        {
            "trial_id": trial,
            "phase": phase,
            "objective": name,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "n": one.n,
            "protocol": dict(one.protocol),
        }
        for name, one in measurements.items()
    ]
    if written:
        session.execute(insert(MeasurementRow), written)


def trials(session: Session | Connection, kind: str, *which: ColumnElement[bool]) -> list[Trial]:
    """The trials of a study of that kind for which all of that is true, by number; what cannot be read stands for itself.

    Raises:
        OtherKindError: the kind is not known here.
    """
    kinds.find(kind)
    try:
        found = session.execute(select(*TRIAL).where(*which).order_by(TrialRow.number)).all()
        measured: dict[int, list[Any]] = {row.id: [] for row in found}
        for one in session.execute(select(*MEASUREMENT).join(TrialRow).where(*which).order_by(MeasurementRow.id)):
            if one.trial_id in measured:  # else the trial has come since
                measured[one.trial_id].append(one)
    except STRANGE:  # a row that is not even JSON, or without a date; the others can be read one by one
        ids = session.execute(select(TrialRow.id, TrialRow.number).where(*which).order_by(TrialRow.number)).all()
        return [_read_alone(session, kind, *one) for one in ids]
    return [_read_trial(kind, row, measured[row.id]) for row in found]


def trial_of(kind: str, row: TrialRow) -> Trial:
    """The trial of a row of a study of that kind."""
    return _trial(kind, row, row.measurements)


def study_of(row: StudyRow) -> Study:
    """The study of a row.

    Raises:
        UnreadableError: nobody here understands it.
    """
    with readable(row.name):
        backbone = read_as(BackboneRecord, row.backbone) if row.kind in kinds.KINDS and row.backbone else None
        settings = kinds.read_settings(row.kind, row.settings)
        state: Any = row.state
        if state not in STUDY_STATES:
            raise ValueError(f"state is {state!r}")
        return Study(row.name, state, settings, backbone, in_utc(row.created), row.ended, row.owner, row.kind)


def read_studies(session: Session, *which: ColumnElement[bool]) -> list[Study | UnreadableStudy]:
    """The studies for which all of that is true, newest first; what cannot be read stands for itself."""
    found: list[Study | UnreadableStudy] = []
    newest = (StudyRow.created.desc(), StudyRow.id.desc())
    ids = session.execute(select(StudyRow.id, StudyRow.name).where(*which).order_by(*newest)).all()
    there: dict[int, StudyRow] = {}
    with contextlib.suppress(*STRANGE):  # a row that is not even JSON, or without a date; the others can be read one by one
        there = {row.id: row for row in session.scalars(select(StudyRow).where(*which))}
    for id_, name in ids:
        try:
            found.append(study_of(there.get(id_) or session.scalars(select(StudyRow).where(StudyRow.id == id_)).one()))
        except UnreadableError as error:
            found.append(UnreadableStudy(name, error.reason))
        except STRANGE as error:
            found.append(UnreadableStudy(name, strangeness(error)))
    return found


def in_utc(moment: datetime) -> datetime:
    """The time with its zone, which SQLite does not keep."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _read_alone(session: Session | Connection, kind: str, id_: int, number: int) -> Trial:
    try:
        row = session.execute(select(*TRIAL).where(TrialRow.id == id_)).one()
        measured = session.execute(select(*MEASUREMENT).where(MeasurementRow.trial_id == id_).order_by(MeasurementRow.id)).all()
    except STRANGE as error:
        return unreadable(number, strangeness(error))
    return _read_trial(kind, row, measured)


def _read_trial(kind: str, row: Any, measured: Iterable[Any]) -> Trial:
    try:
        return _trial(kind, row, measured)
    except STRANGE as error:
        return unreadable(row.number, strangeness(error))


def _trial(kind: str, row: Any, measured: Iterable[Any]) -> Trial:
    wrong = next((name for name, kind in TYPES.items() if not isinstance(getattr(row, name), kind)), None)
    if row.state not in TRIAL_STATES or wrong is not None:
        raise ValueError(f"state is {row.state!r}" if wrong is None else f"{wrong} is {getattr(row, wrong)!r}")
    measurements: dict[str, dict[str, Measurement]] = {}
    for one in measured:
        found = Measurement(one.objective, one.value, one.low, one.high, one.n, one.protocol)
        measurements.setdefault(one.phase, {})[one.objective] = found
    return Trial(
        number=row.number,
        state=row.state,
        origin=row.origin,
        candidate=kinds.find(kind).decode(row.candidate),
        parameters=row.parameters,
        measurements=measurements,
        reason=row.reason,
        attempts=row.attempts,
        started=in_utc(row.started),
        finished=None if row.finished is None else in_utc(row.finished),
    )


def _missing(session: Session | Connection, study: str) -> VittleError:
    names: Sequence[str] = session.scalars(select(StudyRow.name).order_by(StudyRow.id.desc()).limit(5)).all()
    there = f"there are: {', '.join(names)}" if names else "there are none; make one with: vittle launch"
    return VittleError(f"no study named {study!r}; {there}")
