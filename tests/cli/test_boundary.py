"""The last boundary: what nobody foresaw is one line, too, and shown whole where it is asked for."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import vittle.cli.commands
from refusals import refusal
from vittle.storage.store import Store


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Lets opening the database raise."""

    def fail(error: BaseException) -> None:
        def broken(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(Store, "open", broken)

    return fail


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("the disk\nis [bold]full[/]"), "unexpected RuntimeError: the disk is [bold]full[/]; to see where"),
        (KeyError("depth"), "unexpected KeyError: 'depth'; to see where"),
        (AssertionError(), "unexpected AssertionError; to see where"),
        (MemoryError(), "unexpected MemoryError; to see where"),
        (ValueError("x" * 5000), f"unexpected ValueError: {'x' * vittle.cli.commands.LONGEST}; to see where"),
    ],
)
def test_what_nobody_foresaw_is_one_line(error, said, failing, monkeypatch, capsys) -> None:
    monkeypatch.delenv("VITTLE_TRACEBACK", raising=False)
    failing(error)
    line = refusal(monkeypatch, capsys, "studies", code=1)
    assert said in line
    assert line.endswith("run it again with --traceback")


@pytest.mark.parametrize("arguments", [["--traceback", "studies"], ["studies", "--traceback"], ["studies"]])
def test_all_of_it_is_shown_where_it_is_asked_for(arguments, failing, monkeypatch, capsys) -> None:
    monkeypatch.setenv("VITTLE_TRACEBACK", "0" if "--traceback" in arguments else "1")
    failing(RuntimeError("the disk is full"))
    monkeypatch.setattr(sys, "argv", ["vittle", *arguments])
    with pytest.raises(SystemExit) as ended:
        vittle.cli.main()
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out) == (1, "")
    assert shown.err.startswith("Traceback (most recent call last)")
    assert shown.err.rstrip().endswith("RuntimeError: the disk is full")
    assert "in broken" in shown.err


def test_an_interrupt_is_no_error(failing, monkeypatch, capsys) -> None:
    failing(KeyboardInterrupt())
    monkeypatch.setattr(sys, "argv", ["vittle", "studies"])
    with pytest.raises(SystemExit) as ended:
        vittle.cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [["profiles", "--json"], ["profiles"], ["--help"], ["--version"]])
def test_nothing_is_said_where_nobody_reads_to_the_end(arguments: list[str], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    Store.open(url, create=True)
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "VITTLE_STORAGE": url}
    command = [sys.executable, "-m", "vittle", *arguments]
    with os.fdopen(writing, "w") as closed:
        result = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert result.stderr == ""
    assert result.returncode == 1
