"""The database tables. One row per study, per trial, per measured value, and per thing known of a backbone.

A change here is a step in `migrations/versions` too, and a new number in `schema`.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


def now() -> datetime:
    """The time of a row, in UTC."""
    return datetime.now(UTC)


def in_utc(moment: datetime) -> datetime:
    """The time with its zone, which SQLite does not keep."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """All tables of this schema."""


class StudyRow(Base):
    """A search: what was asked, of which backbone, and how far it is; `revision` counts its changes and those of its trials.

    The backbone of a study that is about none is an empty document.
    """

    __tablename__ = "vittle_studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    kind: Mapped[str] = mapped_column(String(40), default="inference")
    state: Mapped[str] = mapped_column(String(20))
    ended: Mapped[str | None] = mapped_column(String(500))
    owner: Mapped[str | None] = mapped_column(String(100))
    holder: Mapped[str | None] = mapped_column(String(400))
    heartbeat: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revision: Mapped[int] = mapped_column(default=0)
    stop: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    backbone: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)


class TrialRow(Base):
    """An attempt to evaluate a candidate; `revision` is that of its study when it last changed."""

    __tablename__ = "vittle_trials"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        Index("ix_vittle_trials_candidate", "study_id", "candidate_id"),
        Index("ix_vittle_trials_state", "study_id", "state"),
        Index("ix_vittle_trials_revision", "study_id", "revision"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("vittle_studies.id", ondelete="CASCADE"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(20))
    origin: Mapped[str] = mapped_column(String(40))
    candidate_id: Mapped[str] = mapped_column(String(12))
    candidate: Mapped[dict[str, Any]] = mapped_column(JSON)
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    reason: Mapped[str | None] = mapped_column(String(500))
    attempts: Mapped[int] = mapped_column(default=1)
    revision: Mapped[int] = mapped_column(default=0)
    started: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    finished: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    measurements: Mapped[list["MeasurementRow"]] = relationship(cascade="all, delete-orphan", lazy="selectin")


class MeasurementRow(Base):
    """A value with its interval and protocol, of one trial in one phase."""

    __tablename__ = "vittle_measurements"
    __table_args__ = (UniqueConstraint("trial_id", "phase", "objective"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("vittle_trials.id", ondelete="CASCADE"))
    phase: Mapped[str] = mapped_column(String(20))
    objective: Mapped[str] = mapped_column(String(40))
    value: Mapped[float]
    low: Mapped[float]
    high: Mapped[float]
    n: Mapped[int]
    protocol: Mapped[dict[str, Any]] = mapped_column(JSON)


class FrontRow(Base):
    """The front of a study and its best trial, from one number of finished trials to another."""

    __tablename__ = "vittle_fronts"
    __table_args__ = (UniqueConstraint("study_id", "since"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("vittle_studies.id", ondelete="CASCADE"))
    since: Mapped[int]
    until: Mapped[int]
    points: Mapped[list[int]] = mapped_column(JSON)
    best: Mapped[int | None]


class KnowledgeRow(Base):
    """Something that was measured of a backbone itself and holds for every study of it."""

    __tablename__ = "vittle_knowledge"

    fingerprint: Mapped[str] = mapped_column(String(12), primary_key=True)
    kind: Mapped[str] = mapped_column(String(40), primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now, onupdate=now)
