"""Who may use a device, between real processes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import pytest
import torch

from vittle.objectives.latency import device_lock
from vittle.spaces.errors import VittleError

LONG = 120.0  # seconds after which something that should happen has not
MOMENT = 0.7  # seconds in which something that should not happen would

WORKER = """
import os, sys, time
import torch
from vittle.objectives.latency import device_lock

say = lambda word: print(word, flush=True)
say("ready")
for line in sys.stdin:
    place, log, mode, times, seconds = line.split()
    device_lock.physical = lambda device: place
    written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for _ in range(int(times)):
        with getattr(device_lock, mode)(torch.device("cpu")):
            os.write(written, f"{mode} {os.getpid()} in\\n".encode())
            say("in")
            time.sleep(float(seconds)) if float(seconds) >= 0 else sys.stdin.readline()
            os.write(written, f"{mode} {os.getpid()} out\\n".encode())
        say("out")
"""


class Holder:
    """A process that asks for the lease of a device when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(folder)},
        )  # fmt: skip
        self.said: Queue[str] = Queue()
        Thread(target=self._listen, daemon=True).start()
        self.expected = 0  # times that it has still to leave
        self.about = ""

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.put(line.strip())

    def at(self, place: str, log: Path) -> None:
        self.about = f"{place} {log}"

    def ask(self, mode: str, times: int = 1, seconds: float = -1) -> None:
        """To have it some times for so long, or until `leave`."""
        self.expected += times
        self._write(f"{self.about} {mode} {times} {seconds}")

    def says(self, word: str) -> bool:
        said = self.said.get(timeout=LONG)
        self.expected -= said == "out"
        return said == word

    def is_quiet(self) -> bool:
        try:
            self.said.get(timeout=MOMENT)
        except Empty:
            return True
        return False

    def enter(self, mode: str) -> None:
        self.ask(mode)
        assert self.says("in")

    def leave(self) -> None:
        self._write("")
        assert self.says("out")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], list[Holder]]]:
    """Processes to use again, because each takes seconds to import torch; one that is dead or still holds something is not."""
    idle: list[Holder] = []
    folder = tmp_path_factory.mktemp("locks")

    def take(number: int) -> list[Holder]:
        for holder in [holder for holder in idle if holder.expected or holder.process.poll() is not None]:
            holder.end()
            idle.remove(holder)
        fresh = [Holder(folder) for _ in range(number - len(idle))]
        assert all(holder.says("ready") for holder in fresh)
        idle.extend(fresh)
        return idle[:number]

    yield take
    for holder in idle:
        holder.end()


@pytest.fixture
def holders(pool, tmp_path: Path) -> Callable[..., list[Holder]]:
    """One process for each name of a device, which only this test uses."""

    def make(*places: str) -> list[Holder]:
        made = pool(len(places))
        for holder, place in zip(made, places, strict=True):
            holder.at(f"{tmp_path.name}-{place}", tmp_path / "log")
        return list(made)

    return make


@pytest.mark.parametrize(("first", "second"), [("exclusive", "exclusive"), ("exclusive", "shared"), ("shared", "exclusive")])
def test_one_waits_for_the_other(holders, first: str, second: str) -> None:
    one, other = holders("cpu", "cpu")
    one.enter(first)
    other.ask(second)
    assert other.is_quiet()
    one.leave()
    assert other.says("in")
    one.ask(first)
    assert one.is_quiet()
    other.leave()
    assert one.says("in")
    one.leave()


def test_who_shares_does_not_wait_for_who_shares(holders) -> None:
    one, other = holders("cpu", "cpu")
    one.enter("shared")
    other.enter("shared")
    one.leave()
    one.enter("shared")
    other.leave()
    one.leave()


def test_devices_do_not_wait_for_one_another(holders) -> None:
    one, other = holders("GPU-0", "GPU-1")
    one.enter("exclusive")
    other.enter("exclusive")
    one.leave()
    other.leave()


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_a_killed_process_holds_nothing(holders, mode: str) -> None:
    killed, other = holders("cpu", "cpu")
    killed.enter(mode)
    other.ask("exclusive")
    assert other.is_quiet()
    killed.process.kill()
    assert other.says("in")
    other.leave()


def test_an_exception_leaves_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for held in (
        device_lock.exclusive,
        device_lock.shared,
        device_lock.exclusive,
    ):  # the next would fail: a process cannot wait for itself
        with pytest.raises(KeyError), held(torch.device("cpu")):
            raise KeyError
    (folder,) = tmp_path.iterdir()
    assert {file.name for file in folder.iterdir()} == {"cpu.lock", "cpu.turnstile"}
    assert folder.stat().st_mode & 0o077 == 0  # nobody else's


def test_measuring_never_overlaps_with_anything(holders, tmp_path: Path) -> None:
    workers = holders("cpu", "cpu", "cpu", "cpu")
    for index, worker in enumerate(workers):
        worker.ask("shared" if index % 2 else "exclusive", 20, 0.005)
    for worker in workers:
        assert all(worker.says("in") and worker.says("out") for _ in range(20))
    inside: dict[str, str] = {}
    together = set()
    for line in (tmp_path / "log").read_text().splitlines():
        mode, process, what = line.split()
        if what == "in":
            inside[process] = mode
            together.add(tuple(sorted(inside.values())))
        else:
            del inside[process]
    assert together <= {("exclusive",), ("shared",), ("shared", "shared")}
    assert together >= {("exclusive",), ("shared",)}


def test_who_waits_to_measure_is_not_overtaken(holders) -> None:
    reader, measuring, late = holders("cpu", "cpu", "cpu")
    reader.enter("shared")
    measuring.ask("exclusive")
    assert measuring.is_quiet()  # it waits by now
    late.ask("shared")
    assert late.is_quiet()
    reader.leave()
    assert measuring.says("in")
    assert late.is_quiet()
    measuring.leave()
    assert late.says("in")
    late.leave()


def test_a_stream_of_readers_does_not_keep_the_device_from_who_measures(holders, tmp_path: Path) -> None:
    *readers, measuring = holders("cpu", "cpu", "cpu", "cpu")
    for reader in readers:
        reader.ask("shared", 2000, 0.05)  # more than the test waits
    for reader in readers:
        assert reader.says("in")
    measuring.ask("exclusive", 3, 0.01)
    assert [measuring.said.get(timeout=LONG) for _ in range(6)] == ["in", "out"] * 3
    log = (tmp_path / "log").read_text().splitlines()
    first = next(index for index, line in enumerate(log) if line.startswith("exclusive"))
    before = [line.split()[1] for line in log[:first] if line.endswith("in")]
    assert len(set(before)) == 3
    assert all(reader.process.poll() is None for reader in readers)


def test_a_folder_that_somebody_else_has_put_there_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    planted = tmp_path / f"vittle-{os.getuid()}"
    (tmp_path / "precious").mkdir()
    planted.symlink_to(tmp_path / "precious")
    with pytest.raises(VittleError, match="is no folder of yours"), device_lock.exclusive(torch.device("cpu")):
        pass
    assert list((tmp_path / "precious").iterdir()) == []
    planted.unlink()
    with device_lock.exclusive(torch.device("cpu")):
        assert planted.is_dir()
