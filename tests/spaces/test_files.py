"""Files appear complete or not at all, and nothing but a regular file is ever replaced."""

import os
import socket
import stat
from pathlib import Path

import pytest

from vittle import Schedule, VittleError
from vittle.spaces.files import check_writable, write_at_once


def test_a_file_is_there_whole_and_nothing_else_is(tmp_path: Path) -> None:
    write_at_once(tmp_path / "new", b"first")
    write_at_once(tmp_path / "new", b"second")
    assert (tmp_path / "new").read_bytes() == b"second"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_a_file_that_is_replaced_passes_on_its_permissions(tmp_path: Path, mode: int) -> None:
    (tmp_path / "there").write_bytes(b"before")
    (tmp_path / "there").chmod(mode)
    write_at_once(tmp_path / "there", b"after")
    assert (tmp_path / "there").read_bytes() == b"after"
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == mode


def test_an_interrupted_write_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").write_bytes(b"before")
    for failing, error, raised in (
        ("fsync", OSError(28, "No space left on device"), VittleError),
        ("replace", OSError(16, "Device or resource busy"), VittleError),
        ("fsync", KeyboardInterrupt(), KeyboardInterrupt),
    ):

        def fail(*_: object, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(os, failing, fail)
            with pytest.raises(raised):
                write_at_once(tmp_path / "there", b"after")
        assert (tmp_path / "there").read_bytes() == b"before"
        assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_what_is_no_regular_file_stays_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    before = {path.name: path.lstat() for path in tmp_path.iterdir()}
    for path, kind in (
        (tmp_path / "link", "a link"),
        (tmp_path / "dangling", "a link"),
        (tmp_path / "folder", "a folder"),
        (tmp_path, "a folder"),
        (tmp_path / "folder" / "..", "a folder"),
        (tmp_path / "pipe", "a pipe"),
        (tmp_path / "socket", "a socket"),
        (Path("/dev/null"), "a device"),
        (Path("/dev/stdout"), "a link"),
    ):
        with pytest.raises(VittleError, match=f"^cannot write {path}: it is {kind}; give another$"):
            write_at_once(path, b"new", "give another")
    assert {path.name: path.lstat() for path in tmp_path.iterdir()} == before
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_planted_draft_is_never_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    for old in (".best.yaml.draft", ".vittle-0.draft"):  # as drafts were called, and one whose name was guessed
        (tmp_path / old).symlink_to(tmp_path / "precious")
    monkeypatch.setattr("vittle.spaces.files.secrets.token_hex", lambda _: "0")
    with pytest.raises(VittleError, match="File exists"):
        write_at_once(tmp_path / "best.yaml", b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    monkeypatch.undo()
    write_at_once(tmp_path / "best.yaml", b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "best.yaml").read_bytes() == b"new"
    assert not (tmp_path / "best.yaml").is_symlink()


@pytest.mark.parametrize("path", ["none/best.yaml", "x" * 300, "file/best.yaml", "-"])
def test_a_place_where_nothing_can_be_written_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(VittleError, match="; give another$") as refused:
        check_writable(Path(path), "give another")
    assert "\n" not in str(refused.value)
    with pytest.raises(VittleError):
        Schedule().save(path)
    assert [one.name for one in Path().iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"before")
    (tmp_path / "there").chmod(0o444)
    with pytest.raises(VittleError, match="Permission denied"):
        write_at_once(tmp_path / "there", b"after")
    assert (tmp_path / "there").read_bytes() == b"before"
