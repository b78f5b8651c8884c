"""Jobs on a real Ray head, which is started here with its job server."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.job_submission import JobSubmissionClient

from recorded import PROFILE, store_with_profile
from vittle import VittleError
from vittle.cli.ray_jobs import RayJobs
from vittle.dashboards.service.jobs import Job, UnreachableJobsError
from vittle.search.workers import ray_session
from vittle.storage.settings import Settings
from vittle.storage.store import Store
from waiting import free_port, wait_until

QUICK = f"--study=mine --model=digits --data=digits --latency-budget=500% --target={PROFILE} --trials=2 --all-trials"
pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """Address of the job server of a Ray head with two CPUs."""
    port, jobs, agent = free_port(), free_port(), free_port()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    environment.pop("VITTLE_STORAGE", None)
    options = f"--head --port={port} --num-cpus=2 --include-dashboard=true --dashboard-host=127.0.0.1 --dashboard-port={jobs}"
    options += f" --dashboard-agent-listen-port={agent}"  # another Ray here may have the usual one, and no job would start
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options.split(), "--block"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{jobs}"
        try:
            wait_until(lambda: process.poll() is not None or (answers(jobs) and takes_jobs(address)))
            assert process.poll() is None
            yield address
        finally:
            process.terminate()


def answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def takes_jobs(address: str) -> bool:
    """The job server answers before there is an agent that runs a job."""
    try:
        JobSubmissionClient(address).submit_job(entrypoint="true")
    except (ConnectionError, RuntimeError):
        return False
    return True


def ended(jobs: RayJobs) -> Job:
    """The last job, once it has ended."""

    def last() -> Job | None:
        job = jobs.all()[0]
        return None if job.state == "running" else job

    found: Job = wait_until(last)
    return found


def test_a_search_is_a_job_of_the_cluster_that_any_server_finds(head: str, url: str, tmp_path: Path) -> None:
    store = store_with_profile(url)
    begun = RayJobs(head, store).submit("mine", "launch", QUICK.split())
    assert (begun.study, begun.action, begun.state) == ("mine", "launch", "running")
    again = RayJobs(head, store)  # of a server that was started anew
    job = ended(again)
    assert (job.id, job.study, job.action, job.state, job.exit_code) == (begun.id, "mine", "launch", "complete", 0), again.log(
        job.id, 20
    )
    assert store.study("mine").state == "complete"
    assert len(store.trials("mine")) == 3
    assert any("mine" in line for line in again.log(job.id, 40))
    elsewhere = Store.open(f"sqlite:///{tmp_path / 'elsewhere.db'}", create=True)
    assert RayJobs(head, elsewhere).all() == []


def test_a_search_that_names_no_cluster_has_a_ray_of_its_own(head: str) -> None:
    with ray_session(Settings(model="digits", latency_budget="60%", workers=1, cpus_per_worker=1)):
        assert ray.cluster_resources()["CPU"] == 1  # the cluster has two


def test_a_password_stays_here_and_the_cluster_is_asked_for_its_own(head: str, store: Store, monkeypatch) -> None:
    monkeypatch.setattr(Store, "secret", True)
    jobs = RayJobs(head, store)
    jobs.submit("mine", "resume", ["--", "mine"])
    job = ended(jobs)
    assert job.state == "failed"
    assert "VITTLE_STORAGE: set it in the environment of the Ray cluster" in "\n".join(jobs.log(job.id, 5))
    assert store.url not in str(jobs._client.get_job_info(job.id))


def test_a_cluster_that_is_away_is_told_of_in_one_line(store: Store) -> None:
    jobs = RayJobs(f"http://127.0.0.1:{free_port()}", store)
    for ask in (jobs.all, lambda: jobs.submit("mine", "resume", [])):
        with pytest.raises(UnreachableJobsError, match="the Ray cluster at http://127.0.0.1:.* runs no jobs now") as refused:
            ask()
        assert "\n" not in str(refused.value)


def test_without_rays_job_server_the_command_says_what_to_install(store: Store, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    with pytest.raises(VittleError, match=r'--jobs needs ray\[default\]; pip install "vittle\[serve\]"'):
        RayJobs("http://127.0.0.1:1", store)
