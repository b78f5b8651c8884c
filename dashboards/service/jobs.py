"""Searches as jobs of their own, so that the server can be restarted under them: on this machine, in sessions of their own."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import psutil
from platformdirs import user_data_path

from vittle.dashboards.plain import plain
from vittle.spaces.errors import VittleError
from vittle.spaces.files import write_at_once

Action = Literal["launch", "resume", "extend", "retime"]
JobState = Literal["running", "complete", "interrupted", "failed"]

INTERRUPTED = (130, 143)  # how `vittle` ends where it was told to stop, and where that came before it could listen
KEPT = 100  # jobs, with their logs
LOG_BYTES = 64 * 1024  # that are looked at, from the end
RUN = '"$@"; echo $? >"$0.draft" && mv "$0.draft" "$0"'  # writes the exit code though nobody may be there to ask for it


class UnreachableJobsError(VittleError):
    """The place where jobs run does not answer."""


class Job(NamedTuple):
    """A `vittle` command about a study; `exit_code` is None while it runs, and where it was killed with its machine."""

    id: str
    study: str
    action: Action
    state: JobState
    started: datetime
    exit_code: int | None = None


class Jobs(Protocol):
    """Where jobs run. They find the database by `VITTLE_STORAGE` in their environment, so that no process list shows it."""

    def submit(self, study: str, action: Action, arguments: Sequence[str]) -> Job:
        """Begin `vittle ACTION ARGUMENTS`.

        Raises:
            VittleError: it cannot be begun; the message says why.
        """
        ...

    def all(self) -> list[Job]:
        """Those that are known, newest first."""
        ...

    def log(self, job: str, lines: int) -> list[str]:
        """The last lines that a job has written."""
        ...

    def stop(self, job: str) -> None:
        """Ask a job to end, whatever it is at: it is `interrupted` soon. Of one that has ended nothing happens."""
        ...


def state_of(exit_code: int | None) -> JobState:
    """How a job has ended."""
    return "complete" if exit_code == 0 else "interrupted" if exit_code in INTERRUPTED else "failed"


def last_lines(written: str, lines: int) -> list[str]:
    """The end of a log, as plain text."""
    kept = [plain(line.rsplit("\r", 1)[-1].expandtabs()) for line in written.split("\n") if line.strip()]
    return kept[-lines:] if lines else []


class LocalJobs:
    """Processes of this machine that outlive the server.

    A job is a folder: what it is, its log, its process and its exit code once there are any, and a lock that the process holds
    while it lives.

    Args:
        storage: URL of the database.
        folder: of all jobs; by default one in the user's data folder, for this database.
    """

    def __init__(self, storage: str, folder: Path | None = None) -> None:
        database = hashlib.sha256(storage.encode()).hexdigest()[:12]
        self._storage, self._folder = storage, folder or user_data_path("vittle") / "jobs" / database
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def submit(self, study: str, action: Action, arguments: Sequence[str]) -> Job:
        self._clear_up()
        started = datetime.now(UTC)
        name = f"{started:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(4)}"
        folder = self._folder / name
        folder.mkdir(mode=0o700)
        command = [sys.executable, "-m", "vittle", action, *arguments]
        document = {"study": study, "action": action, "started": started.isoformat(), "command": command}
        environment = {key: value for key, value in os.environ.items() if key != "VITTLE_TOKEN"}
        with (folder / "log").open("wb") as log, _locked(folder) as lock:
            write_at_once(folder / "job.json", json.dumps(document).encode())
            process = subprocess.Popen(
                ["/bin/sh", "-c", RUN, str(folder / "exit"), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "VITTLE_STORAGE": self._storage, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                pass_fds=(lock,),
            )
            write_at_once(folder / "process", json.dumps([process.pid, psutil.Process(process.pid).create_time()]).encode())
        threading.Thread(target=process.wait, daemon=True).start()  # so that no zombie stays
        return Job(name, study, action, "running", started)

    def all(self) -> list[Job]:
        names = sorted((path.parent.name for path in self._folder.glob("*/job.json")), reverse=True)
        return [job for name in names if (job := self._read(name)) is not None]

    def log(self, job: str, lines: int) -> list[str]:
        with (self._folder / Path(job).name / "log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
            return last_lines(file.read().decode(errors="replace"), lines)

    def stop(self, job: str) -> None:
        folder = self._folder / Path(job).name
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            number, started = json.loads((folder / "process").read_text())
            shell = psutil.Process(number)
            if shell.create_time() == started:  # not a later one with the same number
                for process in shell.children(recursive=True):  # the shell stays, and writes the exit code
                    process.terminate()

    def _read(self, name: str) -> Job | None:
        folder = self._folder / name
        try:
            document = json.loads((folder / "job.json").read_text())
            alive = _is_locked(folder)
        except OSError:  # cleared up meanwhile
            return None
        code = None
        with contextlib.suppress(OSError, ValueError):
            code = int((folder / "exit").read_text())
        state = "running" if alive and code is None else state_of(code)
        return Job(name, document["study"], document["action"], state, datetime.fromisoformat(document["started"]), code)

    def _clear_up(self) -> None:
        for job in [job for job in self.all() if job.state != "running"][KEPT:]:
            shutil.rmtree(self._folder / job.id, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """A locked file; whoever inherits it holds the lock, too, and the last one to end lets go."""
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _is_locked(folder: Path) -> bool:
    lock = os.open(folder / "lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
