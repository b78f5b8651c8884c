"""How the command line refuses bad input."""

import sys

import pytest

import vittle.cli


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr with which `vittle` ends on these arguments; its exit code is 2 and nothing else is said."""
    monkeypatch.setattr(sys, "argv", ["vittle", *arguments])
    with pytest.raises(SystemExit) as ended:
        vittle.cli.main()
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = [line for line in shown.err.splitlines() if line.strip()]
    assert line.startswith("error: ")
    return line
