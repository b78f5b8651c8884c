"""The fronts that a study has had, so that how far it is can be told without reading all of its trials."""

from collections.abc import Callable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from vittle.storage import kinds, rows
from vittle.storage.findings import Standing
from vittle.storage.patience import patient
from vittle.storage.ranking import Ranking
from vittle.storage.records import BASELINES, UNFINISHED, Study, UnreadableError, UnreadableStudy, readable
from vittle.storage.store import Store
from vittle.storage.tables import FrontRow, StudyRow, TrialRow


def standing(store: Store, study: str) -> Standing:
    """How far a study is: by the front that was kept last, where no trial has ended since, and else from all trials.

    Each trial that is confirmed may change the front, so while that goes on nothing that was kept counts.
    Of a kind that is not known here nobody can tell what is best.
    """
    return _kept(store, study) or Ranking.of(store.trials(study), store.study(study).goals).standing


def listed(
    store: Store, told: Callable[[Study], Standing | None] = lambda study: None
) -> list[tuple[Study, Standing] | UnreadableStudy]:
    """All studies with how far they are, newest first; one that nobody here understands stands for itself and stops nobody.

    Args:
        store: whose studies.
        told: how far a study is, where that is known without asking the store.
    """
    found: list[tuple[Study, Standing] | UnreadableStudy] = []
    for study in store.all_studies():
        if isinstance(study, UnreadableStudy):
            found.append(study)
            continue
        try:
            with readable(study.name):
                found.append((study, told(study) or standing(store, study.name)))
        except UnreadableError as error:
            found.append(UnreadableStudy(study.name, error.reason))
    return found


@patient
def keep(store: Store, study: str, now: Standing) -> None:
    """Keep the front of a study and its best trial; where they are as they were, that they still are."""
    points, best = [trial.number for trial in now.points], None if now.best is None else now.best.number
    with store.transaction() as session:
        study_id = store.id(session, study)
        last = _last(session, study_id)
        if last is not None and (last.since == now.finished or (last.points, last.best) == (points, best)):
            last.until, last.points, last.best = now.finished, points, best
        else:
            session.add(FrontRow(study_id=study_id, since=now.finished, until=now.finished, points=points, best=best))


@patient
def _kept(store: Store, study: str) -> Standing | None:
    with store.transaction() as session:
        now = rows.version(session, study)
        last = _last(session, now.id)
        finished = _finished(session, now.id)
        if now.kind not in kinds.KINDS:
            return Standing(finished, [], None)
        if last is None or last.until != finished or _confirming(session, now.id):
            return None
        wanted = {*last.points, *([] if last.best is None else [last.best])}
        trials = rows.trials(session, now, TrialRow.number.in_(wanted))
        found = {trial.number: trial for trial in trials if trial.readable}
        if found.keys() != wanted:
            return None
        return Standing(finished, [found[number] for number in last.points], None if last.best is None else found[last.best])


def _confirming(session: Session, study: int) -> bool:
    """As `Study.confirming` has it."""
    mine = select(StudyRow.id).where(StudyRow.id == study, StudyRow.state == "running", StudyRow.ended.is_not(None))
    return session.scalar(mine) is not None


def _finished(session: Session, study: int) -> int:
    """How many trials have ended, without the baseline; told by indices, however many there are."""
    of_study = select(func.count()).select_from(TrialRow).where(TrialRow.study_id == study)
    last = session.scalar(select(func.max(TrialRow.number)).where(TrialRow.study_id == study))
    unfinished = session.scalar(of_study.where(TrialRow.state.in_(UNFINISHED))) or 0
    baseline = select(TrialRow.candidate_id).where(TrialRow.study_id == study, TrialRow.number == 0).scalar_subquery()
    its_own = (TrialRow.candidate_id == baseline, TrialRow.origin.in_(BASELINES), TrialRow.state.not_in(UNFINISHED))
    tried = session.scalar(of_study.where(*its_own)) or 0  # more than once where it failed
    return 0 if last is None else last + 1 - unfinished - tried


def _last(session: Session, study: int) -> FrontRow | None:
    return session.scalar(select(FrontRow).where(FrontRow.study_id == study).order_by(FrontRow.since.desc()).limit(1))
