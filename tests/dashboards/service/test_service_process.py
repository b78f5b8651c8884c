"""The service as a real process: it launches, is killed, is started again, stops and extends, while searches go on."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from vittle.storage.claim import holder
from vittle.storage.store import Store
from waiting import wait_until

TOKEN = "a-token-of-some-length"
QUICK = {"model": "digits", "data": "digits", "latency_budget": "500%", "batch_size": 4, "predict": False, "until_flat": False}
pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]


class Served:
    """A `vittle serve` in a process of its own."""

    def __init__(self, url: str, home: Path, *options: str) -> None:
        self.environment = {**os.environ, "XDG_DATA_HOME": str(home), "VITTLE_TOKEN": TOKEN, "VITTLE_STORAGE": url}
        self.options = options
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "vittle", "serve", "--port", "0", *self.options]
        self.process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert TOKEN not in said
        self.address = said.split()[2]

    def kill(self) -> None:
        """At once, as the kernel does it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ask(self, path: str, body: Any = None) -> Any:
        """What it answers: a GET, or a POST where there is a body."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.address + path, data, headers)) as answer:
            return json.load(answer)

    def wait_for_job(self, study: str, *states: str) -> dict[str, Any]:
        """Until the last job of a study is in one of these states."""

        def last() -> dict[str, Any] | None:
            found = next(job for job in self.ask("/api/jobs")["jobs"] if job["study"] == study)
            return found if found["state"] in states else None

        return wait_until(last)


@pytest.fixture
def served(url: str, tmp_path: Path) -> Iterator[Served]:
    started = Served(url, tmp_path / "data")
    yield started
    started.kill()


def test_a_search_goes_on_while_the_server_is_killed_and_another_is_stopped_and_extended(served: Served, url: str) -> None:
    store = Store.open(url)
    launched = served.ask("/api/studies", {**QUICK, "name": "first", "trials": 3})
    assert launched["state"] == "running"
    wait_until(lambda: any(study.name == "first" for study in store.studies()) and holder(store, "first"))
    served.kill()
    runner = holder(store, "first")
    assert runner is not None
    assert not runner.gone
    assert all(url not in " ".join(process.cmdline()) for process in psutil.Process(runner.process).parents())
    served.start()
    (job,) = served.ask("/api/jobs")["jobs"]
    assert (job["id"], job["study"], job["action"]) == (launched["id"], "first", "launch")
    assert served.wait_for_job("first", "complete", "failed", "interrupted")["exit_code"] == 0
    assert store.study("first").state == "complete"
    assert len(store.trials("first")) == 4
    assert any("first" in line for line in served.ask(f"/api/jobs/{job['id']}")["log"])

    served.ask("/api/studies", {**QUICK, "name": "second", "trials": 500})
    wait_until(lambda: any(study.name == "second" for study in store.studies()) and holder(store, "second"))
    assert served.ask("/api/studies/second/activity")["actions"] == ["stop"]
    served.ask("/api/studies/second/stop", {})
    assert served.wait_for_job("second", "complete", "failed", "interrupted")["state"] == "interrupted"
    assert store.study("second").state == "interrupted"
    assert len(store.trials("second")) < 501
    assert served.ask("/api/studies/second/activity")["actions"] == ["resume", "extend", "retime"]

    served.ask("/api/studies/first/extend", {"trials": 2})
    assert served.wait_for_job("first", "complete", "failed", "interrupted")["state"] == "complete"
    assert len(store.trials("first")) == 6
