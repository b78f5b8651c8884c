"""Jobs as processes of this machine, and what stops them."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from recorded import make_study
from services import BEARER, client_of, make_service
from vittle.dashboards.service.jobs import Job, LocalJobs, state_of
from vittle.storage.claim import claimed
from vittle.storage.store import Store
from waiting import wait_until

QUICK = ["--study=mine", "--model=digits", "--data=digits", "--latency-budget=60%", "--trials=2"]


@pytest.fixture
def jobs(url: str, tmp_path: Path) -> LocalJobs:
    return LocalJobs(url, tmp_path / "jobs")


def ended(jobs: LocalJobs) -> Job:
    return wait_until(lambda: next((job for job in jobs.all() if job.state != "running"), None))


def test_a_job_is_stopped_before_its_study_exists(jobs: LocalJobs, store: Store, tmp_path: Path) -> None:
    begun = jobs.submit("mine", "launch", QUICK)
    (shell,) = [process for process in psutil.Process().children() if process.cmdline()[:2] == ["/bin/sh", "-c"]]
    jobs.stop(begun.id)
    job = ended(jobs)
    assert (job.id, job.state, job.exit_code) == (begun.id, "interrupted", 128 + signal.SIGTERM)
    assert store.studies() == []
    psutil.wait_procs([shell], timeout=60)
    assert not shell.is_running()
    jobs.stop(begun.id)  # nothing happens
    jobs.stop("none")


def test_another_process_that_has_got_its_number_is_left_alone(jobs: LocalJobs, tmp_path: Path) -> None:
    begun = jobs.submit("mine", "launch", ["--help"])
    assert ended(jobs).exit_code == 0
    (tmp_path / "jobs" / begun.id / "process").write_text(f"[{os.getppid()}, 1.0]")
    jobs.stop(begun.id)  # or it would end this very test


@pytest.mark.parametrize(
    ("code", "state"),
    [(0, "complete"), (130, "interrupted"), (143, "interrupted"), (1, "failed"), (2, "failed"), (None, "failed")],
)
def test_how_a_job_ended_is_told_by_its_exit_code(code: int | None, state: str) -> None:
    assert state_of(code) == state


class TestTheService:
    def test_a_job_is_stopped_by_its_id_while_there_is_no_study(self, store: Store) -> None:
        program = client_of(service := make_service(store, often=1000), **BEARER)
        job = program.post("/api/studies", json={"name": "mine", "model": "digits", "data": "digits"}).json()
        assert program.post("/api/studies/mine/stop").status_code == 404
        answer = program.post(f"/api/jobs/{job['id']}/stop")
        assert (answer.status_code, answer.json()["id"]) == (202, job["id"])
        assert [one.state for one in service.jobs.jobs] == ["interrupted"]
        again = program.post(f"/api/jobs/{job['id']}/stop")
        assert (again.status_code, again.json()["error"]) == (409, f"job '{job['id']}' has ended: interrupted")
        assert program.post("/api/jobs/none/stop").status_code == 404

    def test_one_whose_study_runs_is_asked_through_the_database(self, store: Store) -> None:
        program = client_of(service := make_service(store, often=1000), **BEARER)
        make_study(store)
        job = service.jobs.submit("study", "resume", [])
        with claimed(store, "study"):
            assert program.post(f"/api/jobs/{job.id}/stop").status_code == 202
            assert service.jobs.jobs[0].state == "running"  # until its search has ended in good order
            with store.transaction() as session:
                assert store.row(session, "study").stop is not None

    def test_a_page_without_its_sessions_token_stops_nothing(self, store: Store) -> None:
        service = make_service(store)
        job = service.jobs.submit("mine", "launch", [])
        assert client_of(service).post(f"/api/jobs/{job.id}/stop").status_code == 401
        assert service.jobs.jobs[0].state == "running"
