"""A YAML file of a stranger is read as plain values or refused in one short line, soon."""

from pathlib import Path

import pytest

from vittle import Schedule, VittleError
from vittle.spaces.plain_yaml import MOST_BYTES, read_yaml, to_yaml
from vittle.storage.certificate import Certificate

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "an alias": "tail: &t full\nmerging: {kept: [5], metric: *t}",
    "a bomb": f"{BOMB}adapters: *i\nschedule: {{tail: full}}",
    "merged keys": "base: &b {kept: [5]}\nmerging: {<<: *b}",
    "a key twice": "tail: full\ntail: prefix",
    "a key twice below": "merging: {kept: [5], kept: [4]}",
    "an object": "!!python/object/apply:os.system [touch hacked]",
    "depth": "[" * 50_000,
    "depth that is closed": f"{'[' * 5_000}{']' * 5_000}",
    "a huge number": f"merging: {{kept: [{'9' * 5_000}]}}",
    "a number that is too large": f"merging: {{kept: [{'9' * 50}]}}",
    "infinity": "merging: {kept: [.inf]}",
    "no number": "merging: {kept: [.nan]}",
    "a date that is none": "merging: {kept: [2001-99-99]}",
    "a list as key": "? [a]\n: 1",
    "keys of all kinds": "{1: a, b: 2, 3.5: c, null: d}",
    "a long key": f"{'k' * 900}: 1",
    "a long key within": f"merging: {{kept: [5], {'k' * 900}: 1}}",
    "a long value": f"tail: {'v' * 100_000}",
    "a control character": "tail: \x1b[2J",
    "an escaped control character": 'tail: "\\e[2J"',
    "a set": "merging: {kept: !!set {5}}",
    "bytes": "tail: !!binary aGVsbG8=",
    "too much": "#" * (MOST_BYTES + 1),
    "not text": "\udcff",
    "nothing": "",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_one_short_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_bytes(text.encode(errors="surrogateescape"))
    for read in (Schedule.load, Certificate.load):
        with pytest.raises(VittleError) as refused:
            read(Path("wrong.yaml"))
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 300
    assert [path.name for path in Path().iterdir()] == ["wrong.yaml"]


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    same = [1, 2.5, True, None, "on", "1e-05", "試し\n\x1b'\"", {"a": []}]
    document = {"first": same, "again": same, "1": 1e-05}
    (tmp_path / "file.yaml").write_text(to_yaml(document), encoding="utf-8")
    assert "&" not in to_yaml(document)
    assert read_yaml(tmp_path / "file.yaml", "") == document


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(VittleError, match="/dev/zero has more than 1 MiB; give one"):
        read_yaml(Path("/dev/zero"), "give one")
