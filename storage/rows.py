"""Rows as they are written and read, without the ORM where they are many: a search writes trials, a page reads thousands.

Every change of a study begins by raising its revision. That writes the study's row, so other writers of it wait, in every
database, until the change is committed: numbers are given once, and whoever sees a revision sees all that led to it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, insert, select, update
from sqlalchemy.orm import Session

from vittle.objectives.measurement import Measurement
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import AdapterRecord
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.storage.records import BackboneRecord, Settings, Study, Trial
from vittle.storage.tables import MeasurementRow, StudyRow, TrialRow

TRIAL = [
    getattr(TrialRow, name)
    for name in ("id", "number", "state", "origin", "schedule", "parameters", "reason", "attempts", "started", "finished")
]
MEASUREMENT = [
    getattr(MeasurementRow, name) for name in ("trial_id", "phase", "objective", "value", "low", "high", "n", "protocol")
]


class Changes(NamedTuple):
    """What has changed in a study: its revision, and the trials that changed, by number."""

    revision: int
    trials: list[Trial]


def touch(session: Session | Connection, study: str, **values: object) -> tuple[int, int]:
    """Raise the revision of a study, and write other values of its row; its id and the revision."""
    touch_all(session, StudyRow.name == study, **values)
    return revision(session, study)


def touch_all(session: Session | Connection, which: ColumnElement[bool], **values: object) -> None:
    """Raise the revisions of several studies."""
    raised = update(StudyRow).where(which).values(revision=StudyRow.revision + 1, **values)
    session.execute(raised, execution_options={"synchronize_session": False})


def touch_trial(session: Session | Connection, study: str, number: int) -> int:
    """Raise the revision of a study because of one of its trials; the trial's id."""
    study_id, revised = touch(session, study)
    trial = session.scalars(select(TrialRow.id).where(TrialRow.study_id == study_id, TrialRow.number == number)).one()
    session.execute(update(TrialRow).where(TrialRow.id == trial).values(revision=revised))
    return trial


def revision(session: Session | Connection, study: str) -> tuple[int, int]:
    """The id and the revision of a study.

    Raises:
        VittleError: there is none of that name.
    """
    found = session.execute(select(StudyRow.id, StudyRow.revision).where(StudyRow.name == study)).one_or_none()
    if found is None:
        raise _missing(session, study)
    return found.id, found.revision


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


def trials(session: Session | Connection, *which: ColumnElement[bool]) -> list[Trial]:
    """The trials for which all of that is true, by number."""
    found = session.execute(select(*TRIAL).where(*which).order_by(TrialRow.number)).all()
    measured: dict[int, list[Any]] = {row.id: [] for row in found}
    for one in session.execute(select(*MEASUREMENT).join(TrialRow).where(*which).order_by(MeasurementRow.id)):
        if one.trial_id in measured:  # else the trial has come since
            measured[one.trial_id].append(one)
    return [_trial(row, measured[row.id]) for row in found]


def trial_of(row: TrialRow) -> Trial:
    """The trial of a row."""
    return _trial(row, row.measurements)


def study_of(row: StudyRow) -> Study:
    """The study of a row."""
    shape = {**row.backbone["shape"], "grid": tuple(row.backbone["shape"]["grid"])}
    adapters = {name: AdapterRecord(*record) for name, record in row.backbone.get("adapters", {}).items()}
    backbone = BackboneRecord(**{**row.backbone, "shape": BackboneShape(**shape), "adapters": adapters})
    state: Any = row.state
    return Study(row.name, state, Settings.model_validate(row.settings), backbone, in_utc(row.created), row.ended, row.owner)


def in_utc(moment: datetime) -> datetime:
    """The time with its zone, which SQLite does not keep."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _trial(row: Any, measured: Iterable[Any]) -> Trial:
    measurements: dict[str, dict[str, Measurement]] = {}
    for one in measured:
        found = Measurement(one.objective, one.value, one.low, one.high, one.n, one.protocol)
        measurements.setdefault(one.phase, {})[one.objective] = found
    return Trial(
        number=row.number,
        state=row.state,
        origin=row.origin,
        schedule=Schedule.from_dict(row.schedule),
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
