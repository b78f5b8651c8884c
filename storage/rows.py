"""Rows as they are written and read, without the ORM where they are many: a search writes trials, a page reads thousands.

Every change of a study begins by raising its revision. That writes the study's row, so other writers of it wait, in every
database, until the change is committed: numbers are given once, and whoever sees a revision sees all that led to it.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, insert, select, update
from sqlalchemy.orm import Session

from vittle.objectives.measurement import Measurement
from vittle.objectives.quality.image_digest import ImageDigest
from vittle.spaces.errors import VittleError
from vittle.spaces.validation import read_as
from vittle.storage import kinds
from vittle.storage.holder import abandoned
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
from vittle.storage.tables import MeasurementRow, StudyRow, TrialRow, in_utc

TRIAL = [
    getattr(TrialRow, name)
    for name in ("id", "number", "state", "origin", "candidate", "parameters", "reason", "attempts", "started", "finished")
]
MEASUREMENT = [
    getattr(MeasurementRow, name) for name in ("trial_id", "phase", "objective", "value", "low", "high", "n", "protocol")
]
HELD: list[Any] = [StudyRow.state, StudyRow.holder, StudyRow.heartbeat, StudyRow.created]  # whether it is abandoned
TYPES = {"number": int, "origin": str, "parameters": dict, "reason": str | None, "attempts": int}
"""Of a trial, where a database keeps whatever it is given."""


class Version(NamedTuple):
    """A study as its row has it: the number of that, its revision, its kind, and what it says of itself.

    It is abandoned where it says that it is running though nobody runs it. That changes without a write, so what is told of the
    version counts it in.
    """

    id: int
    revision: int
    kind: str
    state: str
    abandoned: bool

    @property
    def told(self) -> int:
        """A number that rises with the revision, and where the study is found abandoned."""
        return 2 * self.revision + self.abandoned


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
    study_id, revised, *_ = touch(session, study)
    trial = session.scalars(select(TrialRow.id).where(TrialRow.study_id == study_id, TrialRow.number == number)).one()
    session.execute(update(TrialRow).where(TrialRow.id == trial).values(revision=revised))
    return trial


def version(session: Session | Connection, study: str) -> Version:
    """The version that a study has now.

    Raises:
        VittleError: there is none of that name.
        UnreadableError: nobody here understands who runs it.
    """
    columns = (StudyRow.id, StudyRow.revision, StudyRow.kind, *HELD)
    with readable(study):
        found: Any = session.execute(select(*columns).where(StudyRow.name == study)).one_or_none()
        if found is not None:
            left = abandoned(found.state, found.holder, found.heartbeat, found.created)
            return Version(found.id, found.revision, found.kind, found.state, left)
    raise _missing(session, study)


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


def interrupt(session: Session | Connection, study: Version) -> None:
    """Say of the trials of a study that are under way that they no longer are."""
    under_way = (TrialRow.study_id == study.id, TrialRow.state == "running")
    ended = update(TrialRow).where(*under_way).values(state="interrupted", revision=study.revision)
    session.execute(ended, execution_options={"synchronize_session": False})


def trials(session: Session | Connection, study: Version, *which: ColumnElement[bool]) -> list[Trial]:
    """The trials of a study for which all of that is true, by number; where nobody runs it, none of them is running.

    What cannot be read stands for itself.

    Raises:
        OtherKindError: the kind is not known here.
    """
    kinds.find(study.kind)
    which, left = (TrialRow.study_id == study.id, *which), study.abandoned or study.state != "running"
    try:
        found = session.execute(select(*TRIAL).where(*which).order_by(TrialRow.number)).all()
        measured: dict[int, list[Any]] = {row.id: [] for row in found}
        for one in session.execute(select(*MEASUREMENT).join(TrialRow).where(*which).order_by(MeasurementRow.id)):
            if one.trial_id in measured:  # else the trial has come since
                measured[one.trial_id].append(one)
    except STRANGE:  # a row that is not even JSON, or without a date; the others can be read one by one
        ids = session.execute(select(TrialRow.id, TrialRow.number).where(*which).order_by(TrialRow.number)).all()
        return [_read_alone(session, study.kind, *one, left=left) for one in ids]
    return [_read_trial(study.kind, row, measured[row.id], left=left) for row in found]


def trial_of(kind: str, row: TrialRow) -> Trial:
    """The trial of a row of a study of that kind."""
    return _trial(kind, row, row.measurements)


def study_of(row: StudyRow) -> Study:
    """The study of a row; one that says that it is running though nobody runs it is interrupted.

    Raises:
        UnreadableError: nobody here understands it.
    """
    with readable(row.name):
        backbone = read_as(BackboneRecord, row.backbone) if row.kind in kinds.KINDS and row.backbone else None
        settings = kinds.read_settings(row.kind, row.settings)
        images = None if row.images is None else read_as(ImageDigest, row.images)
        state: Any = "interrupted" if abandoned(row.state, row.holder, row.heartbeat, row.created) else row.state
        if state not in STUDY_STATES:
            raise ValueError(f"state is {state!r}")
        return Study(row.name, state, settings, backbone, in_utc(row.created), row.ended, row.owner, row.kind, images)


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


def count_abandoned(session: Session | Connection) -> int:
    """How many studies say that they are running though nobody runs them; none of them is one that cannot be read."""
    count = 0
    for id_ in session.scalars(select(StudyRow.id).where(StudyRow.state == "running")).all():
        with contextlib.suppress(*STRANGE):
            held = session.execute(select(*HELD).where(StudyRow.id == id_)).one_or_none()
            count += held is not None and abandoned(held.state, held.holder, held.heartbeat, held.created)
    return count


def _read_alone(session: Session | Connection, kind: str, id_: int, number: int, *, left: bool) -> Trial:
    try:
        row = session.execute(select(*TRIAL).where(TrialRow.id == id_)).one()
        measured = session.execute(select(*MEASUREMENT).where(MeasurementRow.trial_id == id_).order_by(MeasurementRow.id)).all()
    except STRANGE as error:
        return unreadable(number, strangeness(error))
    return _read_trial(kind, row, measured, left=left)


def _read_trial(kind: str, row: Any, measured: Iterable[Any], *, left: bool) -> Trial:
    try:
        return _trial(kind, row, measured, left=left)
    except STRANGE as error:
        return unreadable(row.number, strangeness(error))


def _trial(kind: str, row: Any, measured: Iterable[Any], *, left: bool = False) -> Trial:
    wrong = next((name for name, kind in TYPES.items() if not isinstance(getattr(row, name), kind)), None)
    if row.state not in TRIAL_STATES or wrong is not None:
        raise ValueError(f"state is {row.state!r}" if wrong is None else f"{wrong} is {getattr(row, wrong)!r}")
    measurements: dict[str, dict[str, Measurement]] = {}
    for one in measured:
        found = Measurement(one.objective, one.value, one.low, one.high, one.n, one.protocol)
        measurements.setdefault(one.phase, {})[one.objective] = found
    return Trial(
        number=row.number,
        state="interrupted" if left and row.state == "running" else row.state,
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
