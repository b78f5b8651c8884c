"""Searches as jobs of a Ray cluster: `vittle serve --jobs http://head:8265`."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from vittle.dashboards.service.jobs import Action, Job, JobState, UnreachableJobsError, last_lines, state_of
from vittle.spaces.errors import VittleError
from vittle.storage.store import Store

WHOSE = "vittle_database"  # in a job's metadata: which database it is about
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
NEEDS_STORAGE = ': "${VITTLE_STORAGE:?set it in the environment of the Ray cluster}" && exec '


class RayJobs:
    """Jobs on the head of a Ray cluster; they use its other nodes as `vittle launch --ray-address auto` does.

    Ray shows what it is given: the URL of a database with a password is not among it, and the cluster must have it in its
    own environment as VITTLE_STORAGE.

    Args:
        address: of the cluster's job server.
        store: the database.

    Raises:
        VittleError: ray[default] is not installed.
    """

    def __init__(self, address: str, store: Store) -> None:
        self._address = address
        self._shown = {} if store.secret else {"VITTLE_STORAGE": store.url}
        self._database = sha256(store.url.encode()).hexdigest()[:12]
        self._known: Any = None
        try:
            from ray.exceptions import RayError
            from ray.job_submission import JobSubmissionClient
        except ImportError:
            raise VittleError('--jobs needs ray[default]; pip install "vittle[serve]"') from None
        self._connect, self._errors = JobSubmissionClient, (ConnectionError, RuntimeError, OSError, RayError)

    def submit(self, study: str, action: Action, arguments: Sequence[str]) -> Job:
        joined = arguments if action == "retime" else ["--ray-address=auto", *arguments]
        command = NEEDS_STORAGE + shlex.join(["python", "-m", "vittle", action, *joined])
        metadata = {WHOSE: self._database, "study": study, "action": action}
        with self._answering():
            name = self._client.submit_job(entrypoint=command, runtime_env={"env_vars": self._shown}, metadata=metadata)
        return Job(name, study, action, "running", datetime.now(UTC))

    def all(self) -> list[Job]:
        with self._answering():
            found = [one for one in self._client.list_jobs() if (one.metadata or {}).get(WHOSE) == self._database]
        return sorted((_job(one) for one in found), key=lambda job: job.started, reverse=True)

    def log(self, job: str, lines: int) -> list[str]:
        with self._answering():
            return last_lines(self._client.get_job_logs(job), lines)

    @property
    def _client(self) -> Any:
        """Made when it is first needed: a server outlives its cluster's absence."""
        if self._known is None:
            self._known = self._connect(self._address)
        return self._known

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            reason = (str(error).splitlines() or ["no answer"])[0]
            raise UnreachableJobsError(f"the Ray cluster at {self._address} runs no jobs now ({reason})") from None


def _job(details: Any) -> Job:
    about = details.metadata
    ended = details.status.value in ENDED
    code = details.driver_exit_code if ended else None
    state: JobState = "running" if not ended else "complete" if details.status.value == "SUCCEEDED" else state_of(code or 1)
    started = datetime.fromtimestamp((details.start_time or 0) / 1000, UTC)
    return Job(details.submission_id, about["study"], about["action"], state, started, code)
