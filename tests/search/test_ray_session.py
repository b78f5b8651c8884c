"""Which Ray a search runs on: addresses are tried before anything waits for them, and a Ray of our own is for us alone."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import ray

from refusals import refusal
from vittle import VittleError
from vittle.search import ray_cluster
from vittle.search.ray_cluster import check_address, own_environment
from vittle.search.workers import ray_session
from vittle.storage.settings import Settings
from waiting import free_port

ONE = Settings(model="digits", latency_budget="60%", workers=1, cpus_per_worker=1)


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "TRIED", 0.5)
    monkeypatch.setattr(ray_cluster, "AGAIN", 0.1)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def silent() -> Iterator[str]:
    """Something that listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


class Web(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("ray://head:10001", "is of Ray's client, through which a search cannot run"),
        ("http://head:8265", "is none of a Ray cluster"),
        ("10.0.0.1", "has no host and port"),
        ("10.0.0.1:port", "has no host and port"),
        ("10.0.0.1:66666", "has no host and port"),
        (":6379", "has no host and port"),
        ("local", "has no host and port"),
        ("a\nb:6379", "has no host and port"),
        ("no host.invalid:6379", "the host is not known"),
    ],
)
def test_what_is_no_address_is_refused_at_once(address: str, why: str) -> None:
    with pytest.raises(VittleError, match=why) as refused:
        check_address(address)
    assert "; accepted: a cluster's address such as 10.0.0.1:6379, or auto" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_where_nobody_listens_or_somebody_else_does_ray_is_not_asked(silent: str, web: str) -> None:
    with pytest.raises(VittleError, match=r"no Ray at 127.0.0.1:\d+ \(Connection refused\); accepted: "):
        check_address(f"127.0.0.1:{free_port()}")
    for address in (silent, web):
        with pytest.raises(VittleError, match=f"what listens at {address} is no Ray; accepted: "):
            check_address(address)


def test_auto_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    check_address("auto")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(VittleError, match="no Ray at 127.0.0.1"):
        check_address("auto")


@pytest.mark.parametrize("command", ["launch", "resume", "extend"])
def test_a_search_asks_before_it_reads_or_writes_anything(command: str, tmp_path, monkeypatch, capsys) -> None:
    storage = f"sqlite:///{tmp_path / 'vittle.db'}"
    line = refusal(monkeypatch, capsys, command, "--storage", storage, "--ray-address", f"127.0.0.1:{free_port()}")
    assert line.startswith("error: no Ray at 127.0.0.1")
    assert list(tmp_path.iterdir()) == []


def test_the_environment_of_a_ray_of_our_own_has_a_new_token_and_no_secret_and_is_put_back(monkeypatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    for name in ray_cluster.PRIVATE:
        monkeypatch.setenv(name, "postgresql://me:secret@host/db")
    before, tokens = dict(os.environ), set()
    for _ in range(2):
        with own_environment():
            assert os.environ["RAY_AUTH_MODE"] == "token"
            assert not set(ray_cluster.PRIVATE) & os.environ.keys()
            assert "me:secret" not in str(dict(os.environ))
            tokens.add(os.environ["RAY_AUTH_TOKEN"])
        assert dict(os.environ) == before
    assert len(tokens) == 2
    assert min(map(len, tokens)) == 64


def test_what_ray_says_while_it_starts_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'x' * 120}")  # too long for a socket
    why = "Ray does not start on this machine .*path length cannot exceed"
    with pytest.raises(VittleError, match=why) as refused, ray_session(ONE):
        raise AssertionError
    assert "\n" not in str(refused.value)
    assert not ray.is_initialized()


@pytest.mark.ray
def test_a_ray_of_our_own_lets_in_who_has_its_token_and_its_workers_know_no_database(monkeypatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # as somebody may have it for another Ray
    monkeypatch.setenv("VITTLE_STORAGE", "postgresql://me:secret@host/db")

    @ray.remote
    def environment() -> dict[str, str]:
        return dict(os.environ)

    with ray_session(ONE):
        assert os.environ["VITTLE_STORAGE"]
        there = ray.get(environment.remote())
        address = ray.get_runtime_context().gcs_address
        stranger = [sys.executable, "-c", JOINING, address]
        told = subprocess.run(stranger, capture_output=True, text=True, check=True, timeout=300).stdout.splitlines()
    assert "me:secret" not in str(there)
    assert there["RAY_AUTH_MODE"] == "token"
    assert len(told) == 1
    assert told[0].startswith(f"refused: no Ray at {address} (")
    assert "InvalidAuthToken" in told[0], told[0]


JOINING = """
import sys
from vittle import VittleError
from vittle.search.workers import ray_session
from vittle.storage.settings import Settings
try:
    with ray_session(Settings(model="digits", latency_budget="60%", workers=1, cpus_per_worker=1), sys.argv[1]):
        print("let in")
except VittleError as error:
    print("refused:", error)
"""
