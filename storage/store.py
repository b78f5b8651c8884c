"""The store: studies and trials in any SQLAlchemy database, SQLite by default. What is written here is the truth.

A trial is committed the moment it ends; everything else, the sampler's memory included, can be rebuilt from these rows.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from sqlalchemy import ColumnElement, Engine, delete, func, insert, or_, select, true, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from vittle.objectives.backbones.merge_start import MergeStart
from vittle.objectives.backbones.sensitivity import Sensitivity
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.measurement import Measurement
from vittle.objectives.parameter_importance import Importance
from vittle.objectives.quality.image_digest import ImageDigest
from vittle.spaces.candidate import Candidate
from vittle.spaces.errors import StorageError, VittleError
from vittle.spaces.reduction import Values
from vittle.storage import address, kinds, rows, schema, sqlite
from vittle.storage.patience import patient
from vittle.storage.records import (
    STRANGE,
    UNFINISHED,
    BackboneRecord,
    Study,
    StudyState,
    Trial,
    TrialState,
    UnreadableStudy,
    readable,
)
from vittle.storage.rows import Changes, study_of
from vittle.storage.settings import SearchSettings
from vittle.storage.tables import KnowledgeRow, MeasurementRow, StudyRow, TrialRow, now

MERGE_START, LATENCY, SENSITIVITY = "phase", "latency", "sensitivity"  # kinds of what is known of a backbone
IMPORTANCE = "importance in study {}"
T = TypeVar("T")
LATE = "late"  # phase of what was measured of a trial that had ended already


class Store:
    """One open database. Safe to share between threads; never pickled, so that no password travels."""

    def __init__(self, engine: Engine, file: sqlite.OpenedFile | None = None) -> None:
        self.engine = engine
        self.file = file
        """Where it is in one."""

    @classmethod
    def open(cls, url: str | None = None, *, create: bool = False) -> Self:
        """Connect, bring an older database up to date, and with `create` make a missing one.

        Raises:
            VittleError: the URL is malformed, its driver is missing, there is no database behind it, or a newer one. No message
                shows a password.
        """
        parsed = address.parse(url or address.default_url())
        engine, shown = address.make_engine(parsed), address.shown(parsed)
        file = None
        if parsed.get_backend_name() == "sqlite":
            path = address.file_of(parsed)
            if path is not None:
                sqlite.check_folder(path, parsed, create=create)
            file = sqlite.prepare(engine, path)
        try:
            if not schema.update(engine, create=create):
                raise VittleError(f"no studies in {shown}; make one with: vittle launch")
        except VittleError:
            raise
        except (SQLAlchemyError, TypeError, ValueError, OSError) as error:  # drivers raise what they like for a wrong option
            why = address.reason(error, parsed)
            raise VittleError(f"cannot open storage {shown} ({why}); accepted: {address.ACCEPTED}") from None
        return cls(engine, file)

    @property
    def url(self) -> str:
        """Where it is, password included: for the environment of another process, and for nobody's eyes."""
        return self.engine.url.render_as_string(hide_password=False)

    @property
    def secret(self) -> bool:
        """Whether its URL is for nobody's eyes, as there is a password in it."""
        return bool(address.secrets(self.engine.url))

    def hidden(self, text: str) -> str:
        """A text without the password, should anything have written it there."""
        return address.hidden(text, self.engine.url)

    @patient
    def create_study(
        self,
        name: str,
        settings: SearchSettings,
        backbone: BackboneRecord | None = None,
        owner: str | None = None,
        images: ImageDigest | None = None,
    ) -> Study:
        """Add a study, of the kind of its settings; one that was made with the same on the same backbone is returned as it is.

        The images that it is judged on are written down with it; of one that is there already they are not compared.

        Raises:
            VittleError: the name belongs to a different study; the message says what differs.
        """
        kinds.check_settings(settings)
        about = {} if backbone is None else dataclasses.asdict(backbone)
        judged = None if images is None else dataclasses.asdict(images)
        asked = {"kind": settings.kind, "settings": settings.model_dump(mode="json")}
        try:
            with self.transaction() as session:
                session.add(StudyRow(name=name, state="running", owner=owner, backbone=about, images=judged, **asked))
        except IntegrityError:
            pass
        study = self.study(name)
        if study.kind != settings.kind:
            raise VittleError(f"study {name!r} exists and is of kind {study.kind!r}; give another --study")
        if study.settings != settings or study.subject != backbone:
            given, there = settings.model_dump(), study.settings.model_dump()
            differing = [f"{key} {there[key]}, not {given[key]}" for key in given if given[key] != there[key]]
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
        """Say how far a study is, and once it is done why it ended; what is under way while it stops running is interrupted."""
        with self.transaction() as session:
            now = rows.touch(session, name, state=state, ended=ended)
            if state != "running":
                rows.interrupt(session, now)

    @patient
    def set_trials(self, name: str, trials: int) -> Study:
        """Change how many trials the study runs in all; it is to be continued."""
        with self.transaction() as session:
            rows.touch(session, name, state="interrupted")
            row = rows.study_row(session, name)
            row.settings = {**row.settings, "trials": trials}
            return study_of(row)

    @patient
    def set_images(self, name: str, images: ImageDigest) -> Study:
        """Write down which images a study goes on with."""
        with self.transaction() as session:
            rows.touch(session, name, images=dataclasses.asdict(images))
            return study_of(rows.study_row(session, name))

    def start_trial(self, study: str, origin: str, candidate: Candidate, parameters: Values) -> int:
        """Write down a trial before it runs, and return its number."""
        what = {"candidate_id": candidate.id, "candidate": candidate.to_dict()}
        values = {"origin": origin, **what, "parameters": dict(parameters)}
        return self._start_trial(study, {"state": "running", "started": now(), **values})

    @patient
    def _start_trial(self, study: str, values: dict[str, Any]) -> int:
        with self.engine.begin() as connection:
            study_id, revision, *_ = rows.touch(connection, study)
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
    def retry_trial(self, study: str, number: int, *, counted: bool = True) -> int:
        """Write down that a trial that has not ended is begun again, and return how many attempts count with this one.

        Args:
            study: the trial's.
            number: its own.
            counted: whether the attempt before counts, as where the trial may be what ended it.
        """
        with self.engine.begin() as connection:
            trial = rows.touch_trial(connection, study, number)
            begun = {"state": "running", "attempts": TrialRow.attempts + int(counted)}
            connection.execute(update(TrialRow).where(TrialRow.id == trial).values(begun))
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
            ended = connection.execute(update(TrialRow).where(TrialRow.id == trial, TrialRow.state.in_(UNFINISHED)).values(end))
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
            changed = TrialRow.revision > since // 2
            if since % 2 != now.abandoned:  # nothing was written, and yet what is under way is another thing now
                changed = or_(changed, TrialRow.state == "running")
            return Changes(now.told, rows.trials(connection, now, changed))

    def changes(self, study: str, since: int) -> Changes:
        """What has changed in a study since a revision that it had; of -1, all of it.

        A trial that changes meanwhile may be in it already, and is again the next time.
        """
        return self._changes(study, since)

    @patient
    def revision(self, study: str | None = None) -> int:
        """A number that rises whenever a study changes or is found abandoned, or, if none is named, any of them."""
        with self.engine.begin() as connection:
            if study is not None:
                return rows.version(connection, study).told
            changes = connection.scalars(select(func.count() + 2 * func.coalesce(func.sum(StudyRow.revision), 0))).one()
            return changes + rows.count_abandoned(connection)

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
        """All latency profiles that can be read, newest first."""
        return [profile for profile in self.all_profiles() if profile is not None]

    def all_profiles(self) -> list[LatencyProfile | None]:
        """All latency profiles, newest first; None for one that nobody here understands."""
        return [self.profile(key) for key in self._profile_keys()]

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


def fingerprint_of(study: StudyRow) -> str:
    """The fingerprint of a study's backbone; nothing where it is about none."""
    return str(study.backbone.get("fingerprint", ""))


def _of_backbone(fingerprint: str) -> ColumnElement[bool]:
    same: ColumnElement[bool] = StudyRow.backbone["fingerprint"].as_string() == fingerprint
    return same
