"""The prepared run for a machine with a GPU: whatever becomes of a part is written down, and the next one starts."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

import cuda
import cuda_parity
from cuda_material import lively
from parts import Part, run_parts, write_json
from static_checks import ROOT

BENCHMARKS = ROOT / "benchmarks"
MADE_UP = """
import os, subprocess, sys, time
from pathlib import Path

sys.path.append({benchmarks!r})
from parts import Part, Task, work


def good(task):
    task.save([1])
    print("at work", flush=True)
    return {{"device": task.device, "wrong": float("nan"), "left": task.left > 0}}


def bad(task):
    task.save("so far")
    raise ValueError("no such kernel")


def crash(task):
    os._exit(5)


def hang(task):
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    task.save({{"child": left.pid}})
    time.sleep(600)


if __name__ == "__main__":
    asked = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    name = asked["--part"]
    sys.exit(work(Part(name, 60, f"__main__:{{name}}"), Task("cpu", Path(asked["--folder"]), float(asked["--limit"]))))
"""


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    script = tmp_path / "made_up.py"
    script.write_text(MADE_UP.format(benchmarks=str(BENCHMARKS)))
    return (sys.executable, str(script))


def parts(*named: tuple[str, float]) -> list[Part]:
    return [Part(name, seconds, "") for name, seconds in named]


def test_whatever_becomes_of_a_part_is_saved_and_the_next_one_starts(command, tmp_path) -> None:
    saved: list[list[str]] = []
    found = run_parts(
        parts(("bad", 30), ("crash", 30), ("good", 30)), command, tmp_path, 90, lambda results: saved.append(list(results))
    )
    assert saved == [["bad"], ["bad", "crash"], ["bad", "crash", "good"]]
    assert {name: row["status"] for name, row in found.items()} == {"bad": "failed", "crash": "failed", "good": "ok"}
    assert found["bad"]["traceback"].endswith("ValueError: no such kernel\n")
    assert found["bad"]["result"] == "so far"
    assert found["crash"]["traceback"] == "it ended with code 5"
    assert found["good"]["result"] == {"device": "cpu", "wrong": "nan", "left": True}
    assert found["good"]["printed"] == ["at work"]


def test_a_part_over_its_limit_is_killed_with_all_that_it_has_started(command, tmp_path) -> None:
    start = time.monotonic()
    found = run_parts(parts(("hang", 6)), command, tmp_path, 6, lambda _: None)
    assert time.monotonic() - start < 20
    assert found["hang"]["status"] == "timed out"
    child = found["hang"]["result"]["child"]
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_part_may_use_what_earlier_ones_leave_over_and_none_starts_without_time(command, tmp_path) -> None:
    found = run_parts(parts(("good", 40), ("bad", 40)), command, tmp_path, 80, lambda _: None)
    assert found["good"]["limit"] == 40
    assert found["bad"]["limit"] > 40
    (row,) = run_parts(parts(("good", 40)), command, tmp_path, 0.5, lambda _: None).values()
    assert (row["status"], row["reason"]) == ("not run", "no time was left")


def test_a_rehearsal_writes_the_document(tmp_path) -> None:
    output = tmp_path / "new" / "cuda.json"
    options = ["--device", "cpu", "--parts", "hardware", "--output", str(output)]
    subprocess.run([sys.executable, str(BENCHMARKS / "cuda.py"), *options], check=True, timeout=300)
    document = json.loads(output.read_text())
    assert document["environment"]["torch"] == torch.__version__
    assert document["versions"]["timm"]
    assert document["parts"]["hardware"]["status"] == "ok"
    assert {path.name for path in output.parent.iterdir()} == {"cuda.json"}


def test_every_part_is_a_function_and_all_fit_into_the_time() -> None:
    for part in cuda.PARTS.values():
        module, _, function = part.function.partition(":")
        assert f"\ndef {function}(task: Task)" in (BENCHMARKS / f"{module}.py").read_text()
    assert sum(part.seconds for part in cuda.PARTS.values()) <= cuda.SECONDS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--parts", "parity,abacus"), "error: unknown part 'abacus'; accepted: hardware, "),
        (("--device", "abacus"), "error: device is 'abacus'; accepted: cuda, cpu"),
    ],
)
def test_bad_input_is_one_line(options, message, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["cuda.py", *options])
    with pytest.raises(SystemExit) as exit_:
        cuda.start()
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


@pytest.mark.skipif(torch.version.cuda is None, reason="torch brings no packages of NVIDIA here")
def test_packages_of_nvidia_are_found_behind_the_file_of_that_name() -> None:
    looked_for = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import cuda; print(cuda.__file__); import cuda.bindings"
    done = subprocess.run([sys.executable, "-c", looked_for], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(BENCHMARKS / "cuda.py")
    assert done.returncode == 0, done.stderr


def test_reductions_compute_what_they_do_in_float64() -> None:
    model = lively(cuda_parity.MODELS["odd grid"][0], **{**cuda_parity.SMALL, **cuda_parity.MODELS["odd grid"][1]})
    identity, entries, refused = cuda_parity.compare("odd grid", model, torch.float32, small=True)
    assert identity["identity"] <= 1e-5
    assert refused == []
    assert {entry["schedule"] for entry in entries} == set(cuda_parity.SCHEDULES)
    summary = cuda_parity.summarise(entries)["float32"]
    assert summary["not_finite"] == summary["above_limit"] == []
    assert summary["compared"] == len(entries)
    assert summary["decided_alike"] > len(entries) / 2


def test_a_wrong_answer_is_told_one_by_one() -> None:
    entry = {"dtype": "float32", "finite": True, "same_places": 1.0, "error": 0.01}
    summary = cuda_parity.summarise([entry, {**entry, "error": 1e-6}, {**entry, "error": 0.1, "same_places": 0.9}])["float32"]
    assert summary["above_limit"] == [entry]
    assert summary["worst_decided_alike"] == 0.01


def test_what_json_cannot_hold_is_written_as_a_word(tmp_path) -> None:
    write_json(tmp_path / "a.json", {"a": float("inf"), 1: (torch.float32, None, True)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": "inf", "1": ["torch.float32", None, True]}
