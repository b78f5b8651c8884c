"""Interrupts that meet a lock leave nothing half done, and none is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vittle.objectives.latency.interrupts import Interrupts

HEARD: list[int] = []


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Both signals are noted, and raise nothing unless a test has it so."""
    HEARD.clear()
    before = {
        number: signal.signal(number, lambda number, _: HEARD.append(number)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def handlers() -> list[object]:
    return [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]


def test_an_interrupt_is_kept_until_the_end_and_handled_once() -> None:
    before = handlers()
    with Interrupts():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert HEARD == []
    assert HEARD == [signal.SIGTERM, signal.SIGINT]
    assert handlers() == before


def test_it_is_handled_at_once_where_it_may_be_and_where_somebody_waits() -> None:
    with Interrupts() as interrupts:
        interrupts.let_through = True
        signal.raise_signal(signal.SIGINT)
        assert HEARD == [signal.SIGINT]
        interrupts.let_through = False
        signal.raise_signal(signal.SIGINT)
        assert HEARD == [signal.SIGINT]
        interrupts.handle()
        assert HEARD == [signal.SIGINT] * 2
    assert HEARD == [signal.SIGINT] * 2


def test_every_one_is_handled_though_the_first_raises_and_what_was_raised_inside_is_not_hidden() -> None:
    before = handlers()
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def fail() -> None:
        with Interrupts():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(KeyboardInterrupt) as raised:
        fail()
    assert isinstance(raised.value.__context__, ZeroDivisionError)
    assert HEARD == [signal.SIGTERM]
    assert handlers() == [signal.default_int_handler, before[1]]


def test_one_that_comes_while_handlers_are_given_back_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    before, given_back = handlers(), signal.signal

    def interrupted(number: int, handler: object) -> object:
        found = given_back(number, handler)
        if handler is signal.default_int_handler:
            signal.raise_signal(signal.SIGTERM)  # before the other one is given back
        return found

    def leave() -> None:
        with Interrupts():
            signal.raise_signal(signal.SIGINT)
            monkeypatch.setattr(signal, "signal", interrupted)

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert handlers() == before
    assert HEARD == [signal.SIGINT]


def test_what_is_ignored_or_ends_the_process_goes_on_doing_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with Interrupts():
        signal.raise_signal(signal.SIGINT)
        assert handlers() == [signal.SIG_IGN, signal.SIG_DFL]
    assert handlers() == [signal.SIG_IGN, signal.SIG_DFL]


def test_a_handler_that_is_set_inside_stays() -> None:
    with Interrupts():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_in_another_thread_nothing_changes() -> None:
    before, seen = handlers(), []

    def work() -> None:
        with Interrupts() as interrupts:
            interrupts.handle()
            seen.extend(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before


STORM = """
import os, random, signal, sys, threading, time
import torch
from vittle.objectives.latency import device_lock

device_lock.physical = lambda device: "cpu"
device, randomly = torch.device("cpu"), random.Random(int(sys.argv[1]))
rounds, heard, inside = 300, 0, 0
signal.alarm(200)  # where an interrupt is lost, this would go on for ever
go = threading.Semaphore(0)

def interrupt():
    for _ in range(rounds):
        go.acquire()
        time.sleep(randomly.uniform(0, 0.012))
        os.kill(os.getpid(), randomly.choice((signal.SIGINT, signal.SIGTERM)))

threading.Thread(target=interrupt, daemon=True).start()
signal.signal(signal.SIGTERM, signal.default_int_handler)
before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
for _ in range(rounds):
    try:
        go.release()
        while True:
            with device_lock.exclusive(device):
                inside += 1
            with device_lock.shared(device):
                inside += 1
    except KeyboardInterrupt:
        heard += 1
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
print(heard, inside > rounds, flush=True)
sys.stdin.readline()  # another process takes the lock meanwhile
"""
WAIT = """
import signal, sys, torch
from vittle.objectives.latency import device_lock
signal.signal(signal.SIGTERM, signal.default_int_handler)
device_lock.physical = lambda device: "cpu"
print("asks", flush=True)
with getattr(device_lock, sys.argv[1])(torch.device("cpu")):
    print("in", flush=True)
    sys.stdin.readline()
"""


def start(code: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, text=True, env={**os.environ, "TMPDIR": str(folder)}, **pipes)


def test_interrupts_at_any_moment_leave_neither_a_lock_nor_a_word(tmp_path: Path) -> None:
    stormed = start(STORM, tmp_path, "0")
    assert stormed.stdout.readline() == "300 True\n", stormed.communicate()
    with start(WAIT, tmp_path, "exclusive") as other:
        assert [other.stdout.readline(), other.stdout.readline()] == ["asks\n", "in\n"]
        other.communicate("\n")
    _, errors = stormed.communicate("\n", timeout=60)
    assert (stormed.returncode, errors) == (0, "")


def test_who_waits_hears_an_interrupt_soon_and_keeps_nobody_out(tmp_path: Path) -> None:
    holder = start(WAIT, tmp_path, "shared")
    assert [holder.stdout.readline(), holder.stdout.readline()] == ["asks\n", "in\n"]
    waiting = [start(WAIT, tmp_path, "exclusive") for _ in range(2)]
    for one, number in zip(waiting, (signal.SIGINT, signal.SIGTERM), strict=True):
        assert one.stdout.readline() == "asks\n"
        time.sleep(0.5)  # it waits by now, one at the turnstile and one for the lock
        one.send_signal(number)
        begun = time.monotonic()
        _, errors = one.communicate()
        assert time.monotonic() - begun < 20
        assert "KeyboardInterrupt" in errors
        assert "ignored" not in errors
    with start(WAIT, tmp_path, "shared") as other:
        assert [other.stdout.readline(), other.stdout.readline()] == ["asks\n", "in\n"]
        other.communicate("\n")
    holder.communicate("\n")
