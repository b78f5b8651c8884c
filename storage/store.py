"""The store: studies and trials in any SQLAlchemy database, SQLite by default. What is written here is the truth.

A trial is committed the moment it ends; everything else, the sampler's memory included, can be rebuilt from these rows.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from platformdirs import user_data_path
from pydantic_core import from_json
from sqlalchemy import ColumnElement, Engine, create_engine, delete, event, func, insert, select, true, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from vittle.objectives.backbones.merge_start import MergeStart
from vittle.objectives.backbones.sensitivity import Sensitivity
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.measurement import Measurement
from vittle.objectives.parameter_importance import Importance
from vittle.spaces.candidate import Candidate
from vittle.spaces.errors import StorageError, VittleError
from vittle.spaces.reduction import Values
from vittle.storage import kinds, rows, schema
from vittle.storage.patience import patient, reason
from vittle.storage.records import STRANGE, BackboneRecord, Study, StudyState, Trial, TrialState, UnreadableStudy, readable
from vittle.storage.rows import Changes, study_of
from vittle.storage.settings import SearchSettings
from vittle.storage.tables import KnowledgeRow, MeasurementRow, StudyRow, TrialRow, now

ACCEPTED = "a SQLAlchemy URL such as sqlite:///vittle.db or postgresql+psycopg://user:password@host/database"
BUSY_SECONDS = 60
MERGE_START, LATENCY, SENSITIVITY = "phase", "latency", "sensitivity"  # kinds of what is known of a backbone
IMPORTANCE = "importance in study {}"
T = TypeVar("T")
LATE = "late"  # phase of what was measured of a trial that had ended already


def default_url() -> str:
    """SQLite in the user's data folder."""
    return f"sqlite:///{user_data_path('vittle') / 'vittle.db'}"


class Store:
    """One open database. Safe to share between threads; never pickled, so that no password travels."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, url: str | None = None, *, create: bool = False) -> Self:
        """Connect, bring an older database up to date, and with `create` make a missing one.

        Raises:
            VittleError: the URL is malformed, its driver is missing, there is no database behind it, or a newer one.
        """
        url = url or default_url()
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise VittleError(f"storage {url!r} is not a database; accepted: {ACCEPTED}") from None
        try:
            # A connection may have died since it was used; documents are most of what is read.
            engine = create_engine(parsed, pool_pre_ping=True, json_deserializer=from_json)
        except (ArgumentError, NoSuchModuleError):
            raise VittleError(f"storage {url!r} is not a database; accepted: {ACCEPTED}") from None
        except ModuleNotFoundError as error:
            raise VittleError(
                f"storage {parsed.drivername} needs the Python package {error.name}; pip install {error.name}"
            ) from None
        shown = parsed.render_as_string(hide_password=True)
        if parsed.get_backend_name() == "sqlite":
            _prepare_sqlite(engine, parsed.database, create=create)
        try:
            if not schema.update(engine, create=create):
                raise VittleError(f"no studies in {shown}; make one with: vittle launch")
        except SQLAlchemyError as error:
            raise VittleError(f"cannot open storage {shown} ({reason(error)}); accepted: {ACCEPTED}") from None
        return cls(engine)

    @property
    def url(self) -> str:
        """Where it is, password included: for the environment of another process, and for nobody's eyes."""
        return self.engine.url.render_as_string(hide_password=False)

    @property
    def password(self) -> str | None:
        """The password in it."""
        return None if self.engine.url.password is None else str(self.engine.url.password)

    @patient
    def create_study(
        self, name: str, settings: SearchSettings, backbone: BackboneRecord | None = None, owner: str | None = None
    ) -> Study:
        """Add a study, of the kind of its settings; one that was made with the same on the same backbone is returned as it is.

        Raises:
            VittleError: the name belongs to a different study; the message says what differs.
        """
        kinds.check_settings(settings)
        about = {} if backbone is None else dataclasses.asdict(backbone)
        wanted = {"kind": settings.kind, "settings": settings.model_dump(mode="json"), "backbone": about}
        try:
            with self.transaction() as session:
                session.add(StudyRow(name=name, state="running", owner=owner, **wanted))
        except IntegrityError:
            pass
        study = self.study(name)
        if study.kind != settings.kind:
            raise VittleError(f"study {name!r} exists and is of kind {study.kind!r}; give another --study")
        if study.settings != settings or study.subject != backbone:
            asked, there = settings.model_dump(), study.settings.model_dump()
            differing = [f"{key} {there[key]}, not {asked[key]}" for key in asked if asked[key] != there[key]]
            raise VittleError(f"study {name!r} exists with {'; '.join(differing) or 'another backbone'}; give another --study")
        return study

    def studies(self) -> list[Study]:
        """All studies that can be read, newest first."""
        return [study for study in self.all_studies() if isinstance(study, Study)]

    @patient
    def all_studies(self) -> list[Study | UnreadableStudy]:
        """All studies, newest first; one that nobody here understands stands for itself."""
        with self.transaction() as session:
            return rows.read_studies(session)

    @patient
    def names(self) -> list[str]:
        """The names that are taken, that of the newest study first."""
        with self.transaction() as session:
            return list(session.scalars(select(StudyRow.name).order_by(StudyRow.created.desc(), StudyRow.id.desc())))

    @patient
    def study(self, name: str) -> Study:
        """The study of that name.

        Raises:
            VittleError: there is none; the message names those there are.
            UnreadableError: nobody here understands it.
        """
        with self.transaction() as session:
            self.id(session, name)
            with readable(name):
                return study_of(self.row(session, name))

    @patient
    def set_state(self, name: str, state: StudyState, ended: str | None = None) -> None:
        """Say how far a study is, and once it is done why it ended."""
        with self.transaction() as session:
            rows.touch(session, name, state=state, ended=ended)

    @patient
    def set_trials(self, name: str, trials: int) -> Study:
        """Change how many trials the study runs in all; it is to be continued."""
        with self.transaction() as session:
            rows.touch(session, name, state="interrupted")
            row = rows.study_row(session, name)
            row.settings = {**row.settings, "trials": trials}
            return study_of(row)

    def start_trial(self, study: str, origin: str, candidate: Candidate, parameters: Values) -> int:
        """Write down a trial before it runs, and return its number."""
        what = {"candidate_id": candidate.id, "candidate": candidate.to_dict()}
        values = {"origin": origin, **what, "parameters": dict(parameters)}
        return self._start_trial(study, {"state": "running", "started": now(), **values})

    @patient
    def _start_trial(self, study: str, values: dict[str, Any]) -> int:
        with self.engine.begin() as connection:
            study_id, revision, _ = rows.touch(connection, study)
            of_study = TrialRow.study_id == study_id
            same = (TrialRow.candidate_id == values["candidate_id"], TrialRow.started == values["started"])
            written = connection.scalar(select(TrialRow.number).where(of_study, *same))
            if written is not None:  # the database went away before it could say so
                return written
            last = connection.scalar(select(func.max(TrialRow.number)).where(of_study))
            number = 0 if last is None else last + 1
            connection.execute(insert(TrialRow).values(study_id=study_id, number=number, revision=revision, **values))
            return number

    @patient
    def retry_trial(self, study: str, number: int) -> int:
        """Write down that a running trial is begun again, and return how often it has been begun with this time."""
        with self.engine.begin() as connection:
            trial = rows.touch_trial(connection, study, number)
            connection.execute(update(TrialRow).where(TrialRow.id == trial).values(attempts=TrialRow.attempts + 1))
            return connection.scalars(select(TrialRow.attempts).where(TrialRow.id == trial)).one()

    @patient
    def finish_trial(
        self,
        study: str,
        number: int,
        state: TrialState,
        measurements: Mapping[str, Measurement] | None = None,
        reason: str | None = None,
    ) -> bool:
        """Commit how a trial ended and what it measured.

        A trial that has ended stays as it is. What else was measured of it, by a worker that was given up, is kept as late.

        Returns:
            Whether this call ended it.
        """
        with self.engine.begin() as connection:
            trial = rows.touch_trial(connection, study, number)
            end = {"state": state, "reason": reason and reason[:500], "finished": now()}
            ended = connection.execute(update(TrialRow).where(TrialRow.id == trial, TrialRow.state == "running").values(end))
            if ended.rowcount == 1:
                rows.measure(connection, trial, "search", measurements or {})
                return True
            of_trial = MeasurementRow.trial_id == trial
            there = connection.execute(
                select(MeasurementRow.phase, MeasurementRow.objective, MeasurementRow.value).where(of_trial)
            ).all()
            known = {(objective, value) for phase, objective, value in there if phase == "search"}
            late = {objective for phase, objective, _ in there if phase == LATE}
            fresh = {name: one for name, one in (measurements or {}).items() if name not in late}
            rows.measure(connection, trial, LATE, {name: one for name, one in fresh.items() if (name, one.value) not in known})
            return False

    def confirm_trial(self, study: str, number: int, measurements: Mapping[str, Measurement]) -> None:
        """Keep a trial's careful measurements, in place of earlier ones."""
        self.keep_again(study, number, "confirmation", measurements)

    @patient
    def keep_again(self, study: str, number: int, phase: str, measurements: Mapping[str, Measurement]) -> None:
        """Keep what was measured of a trial in a phase after its end, in place of what was measured there before."""
        with self.engine.begin() as connection:
            trial = rows.touch_trial(connection, study, number)
            connection.execute(delete(MeasurementRow).where(MeasurementRow.trial_id == trial, MeasurementRow.phase == phase))
            rows.measure(connection, trial, phase, measurements)

    @patient
    def trials(self, study: str) -> list[Trial]:
        """All trials of a study, by number."""
        return self._changes(study, -1).trials

    @patient
    def _changes(self, study: str, since: int) -> Changes:
        with self.engine.begin() as connection:
            now = rows.version(connection, study)
            changed = rows.trials(connection, now.kind, TrialRow.study_id == now.id, TrialRow.revision > since)
            return Changes(now.revision, changed)

    def changes(self, study: str, since: int) -> Changes:
        """What has changed in a study since a revision that it had; of -1, all of it.

        A trial that changes meanwhile may be in it already, and is again the next time.
        """
        return self._changes(study, since)

    @patient
    def revision(self, study: str | None = None) -> int:
        """A number that rises whenever a study changes, or, if none is named, any of them."""
        with self.engine.begin() as connection:
            if study is not None:
                return rows.version(connection, study).revision
            return connection.scalars(select(func.count() + func.coalesce(func.sum(StudyRow.revision), 0))).one()

    def save_merge_start(self, found: MergeStart) -> None:
        """Keep where merging may start in a backbone, in place of what was known of it."""
        self._learn(found.fingerprint, MERGE_START, found.to_dict(), _of_backbone(found.fingerprint))

    def merge_start(self, fingerprint: str) -> MergeStart | None:
        """Where merging may start in the backbone with these weights; None where it was never measured."""
        return self._read(fingerprint, MERGE_START, MergeStart.from_dict)

    def save_sensitivity(self, sensitivity: Sensitivity) -> None:
        """Keep what reducing single blocks of a backbone costs it, in place of what was known of it."""
        self._learn(sensitivity.fingerprint, SENSITIVITY, sensitivity.to_dict(), _of_backbone(sensitivity.fingerprint))

    def sensitivity(self, fingerprint: str) -> Sensitivity | None:
        """What reducing single blocks of the backbone with these weights costs it; None where it was never measured."""
        return self._read(fingerprint, SENSITIVITY, Sensitivity.from_dict)

    def save_importance(self, study: str, importance: Importance) -> None:
        """Keep what the parameters of a study are worth, in place of what was known of it."""
        self._learn(*self._importance_of(study), importance.to_dict(), StudyRow.name == study)

    def importance(self, study: str) -> Importance | None:
        """What the parameters of a study are worth; None where nobody asked, or too few trials told."""
        return self._read(*self._importance_of(study), Importance.from_dict)

    def save_profile(self, profile: LatencyProfile) -> None:
        """Keep a latency profile, in place of an earlier one with the same key."""
        self._learn(profile.key, LATENCY, profile.to_dict(), true())  # which studies use it, only their trials tell

    def profile(self, key: str) -> LatencyProfile | None:
        """The latency profile with that key; None where it was never measured."""
        return self._read(key, LATENCY, LatencyProfile.from_dict)

    def profiles(self) -> list[LatencyProfile]:
        """All latency profiles, newest first."""
        return [profile for key in self._profile_keys() if (profile := self.profile(key)) is not None]

    @patient
    def _profile_keys(self) -> list[str]:
        with self.transaction() as session:
            newest = select(KnowledgeRow.fingerprint).where(KnowledgeRow.kind == LATENCY)
            return list(session.scalars(newest.order_by(KnowledgeRow.created.desc())))

    @patient
    def _importance_of(self, study: str) -> tuple[str, str]:
        """The key of what was learnt in one study about the blocks of its backbone."""
        with self.transaction() as session:
            row = self.row(session, study)
            return fingerprint_of(row), IMPORTANCE.format(row.id)

    def _learn(self, fingerprint: str, kind: str, document: dict[str, Any], studies: ColumnElement[bool]) -> None:
        try:
            self._merge(fingerprint, kind, document, studies)
        except IntegrityError:  # somebody else wrote it first; now there is a row to replace
            self._merge(fingerprint, kind, document, studies)

    @patient
    def _merge(self, fingerprint: str, kind: str, document: dict[str, Any], studies: ColumnElement[bool]) -> None:
        with self.transaction() as session:
            session.merge(KnowledgeRow(fingerprint=fingerprint, kind=kind, document=document))
            rows.touch_all(session, studies)

    def _read(self, fingerprint: str, kind: str, read: Callable[[Mapping[str, Any]], T]) -> T | None:
        """Something known, made of its document; None where nothing is known, or what is there nobody understands.

        Either way it is measured anew by whoever needs it.
        """
        try:
            document = self._known(fingerprint, kind)
            return None if document is None else read(document)
        except STRANGE as error:
            if isinstance(error, StorageError):
                raise
            return None

    @patient
    def _known(self, fingerprint: str, kind: str) -> dict[str, Any] | None:
        with self.transaction() as session:
            row = session.get(KnowledgeRow, (fingerprint, kind))
            return None if row is None else row.document

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session in which everything happens, or nothing."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @staticmethod
    def id(session: Session, name: str) -> int:
        """The number of a study; like `row`, without reading what is in it."""
        return rows.version(session, name).id

    row = staticmethod(rows.study_row)


def _prepare_sqlite(engine: Engine, database: str | None, *, create: bool) -> None:
    """Write-ahead logging, so that readers never block a search; a wait in place of `database is locked`."""
    in_file = database not in (None, "", ":memory:")
    if in_file and not create and not Path(str(database)).exists():
        raise VittleError(f"no database at {database}; make one with: vittle launch")
    if in_file and create and database is not None and not Path(database).parent.exists():
        if engine.url != make_url(default_url()):
            raise VittleError(f"cannot open storage {engine.url}: no folder {Path(database).parent}; accepted: {ACCEPTED}")
        Path(database).parent.mkdir(parents=True)

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last trials, never the file
        cursor.close()


def fingerprint_of(study: StudyRow) -> str:
    """The fingerprint of a study's backbone; nothing where it is about none."""
    return str(study.backbone.get("fingerprint", ""))


def _of_backbone(fingerprint: str) -> ColumnElement[bool]:
    same: ColumnElement[bool] = StudyRow.backbone["fingerprint"].as_string() == fingerprint
    return same
