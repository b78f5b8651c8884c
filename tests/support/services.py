"""A service whose jobs only say that they run: what is tested is who may ask for what, and what it would begin."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient
from limits import RateLimitItemPerMinute

from recorded import make_study
from vittle.dashboards.app import create_app
from vittle.dashboards.security.middleware import LOOPBACK
from vittle.dashboards.security.sessions import Access
from vittle.dashboards.service.catalog import Catalog
from vittle.dashboards.service.jobs import Action, Job
from vittle.dashboards.service.service import Service
from vittle.storage.store import Store

TOKEN = "a-token-of-some-length"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
HOST = "http://127.0.0.1"


class FakeJobs:
    """Keeps what was submitted; a job ends when a test says so."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, Action, list[str]]] = []
        self.jobs: list[Job] = []
        self.written = "ready\n"

    def submit(self, study: str, action: Action, arguments: Sequence[str]) -> Job:
        self.submitted.append((study, action, list(arguments)))
        job = Job(f"job-{len(self.submitted)}", study, action, "running", datetime.now(UTC))
        self.jobs.insert(0, job)
        return job

    def all(self) -> list[Job]:
        return list(self.jobs)

    def log(self, job: str, lines: int) -> list[str]:
        return self.written.splitlines()[-lines:]

    def stop(self, job: str) -> None:
        self.jobs = [one._replace(state="interrupted") if one.id == job else one for one in self.jobs]

    def end(self, state: str = "complete") -> None:
        self.jobs = [job._replace(state=state) for job in self.jobs]


def make_service(store: Store, catalog: Catalog | None = None, *, public: bool = False, often: int | None = None) -> Service:
    """A service with fake jobs, which may be asked `often` in a minute, or as often as it is by default."""
    limits = {} if often is None else {name: RateLimitItemPerMinute(often, namespace=name) for name in ("attempts", "changes")}
    return Service(store, FakeJobs(), catalog or Catalog(), Access(TOKEN, public=public, **limits), LOOPBACK)


def client_of(service: Service, **headers: str) -> TestClient:
    return TestClient(create_app(service.store, service=service), base_url=HOST, headers=headers, follow_redirects=False)


def signed_in(service: Service, **headers: str) -> tuple[TestClient, str]:
    """A browser with a session, and the CSRF token that its pages have."""
    browser = client_of(service, **headers)
    assert browser.post("/sign-in", json={"token": TOKEN}).status_code == 204
    (csrf,) = re.findall(r'data-csrf="(\w+)"', browser.get("/launch").text)
    return browser, csrf


@pytest.fixture
def service(store) -> Service:
    made = make_service(store, often=1000)
    make_study(store)
    made.jobs.submit("other", "launch", [])
    return made
