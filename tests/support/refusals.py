"""How the command line refuses bad input, and what it says would be accepted."""

import sys

import pytest

import vittle.cli.commands
from vittle.spaces.table import REDUCTIONS

KNOWN = ", ".join(REDUCTIONS)
ADAPTED = ", ".join(name for name, entry in REDUCTIONS.items() if entry.adapter is not None)


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The one line on stderr with which `vittle` ends on these arguments, with that exit code; nothing else is said."""
    monkeypatch.setattr(sys, "argv", ["vittle", *arguments])
    with pytest.raises(SystemExit) as ended:
        vittle.cli.main()
    assert ended.value.code == code
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = [line for line in shown.err.splitlines() if line.strip()]
    assert line.startswith("error: ")
    return line
