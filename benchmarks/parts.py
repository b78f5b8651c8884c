"""A benchmark of several parts, each in a process of its own and within a time of its own.

Whatever becomes of a part, an error, a crash, a device that fails from then on, a hang, is written down as its result, and the
next part starts. The file is complete after each of them. A part tells what it has so far, so one that is ended at its limit
leaves that behind.
"""

import contextlib
import importlib
import json
import math
import os
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

import vittle
from vittle.spaces.files import write_at_once

Row = dict[str, Any]
LINES = 40  # of what a part printed, that are kept where it fails
MARK = "VITTLE_BENCHMARK_PART"  # in the environment of a part and of all that it starts
RUNNING, DONE = "running.json", "done.json"


class Part(NamedTuple):
    """One part of a benchmark.

    Attributes:
        name: of its result.
        seconds: that it may take at least, from its start to its end.
        function: `module:function`, which is given a `Task` and returns a result that JSON can hold.
    """

    name: str
    seconds: float
    function: str


@dataclass
class Task:
    """What a part is told.

    Attributes:
        device: `cuda`; or `cpu`, where everything is rehearsed at the smallest sizes.
        folder: of the whole benchmark, for files that parts share.
        seconds: that the part may take.
        result: where it leaves what it has so far.
    """

    device: str
    folder: Path
    seconds: float
    result: Path | None = None
    begun: float = field(default_factory=time.monotonic)

    @property
    def small(self) -> bool:
        return self.device == "cpu"

    @property
    def left(self) -> float:
        """Seconds until the part is ended."""
        return self.begun + self.seconds - time.monotonic()

    def save(self, result: Any) -> None:
        """Leave what there is so far."""
        if self.result is not None:
            write_json(self.result, result)


def run_parts(
    parts: Sequence[Part], command: Sequence[str], folder: Path, seconds: float, save: Callable[[dict[str, Row]], None]
) -> dict[str, Row]:
    """Run parts one after another.

    Args:
        parts: in their order.
        command: starts a process that calls `work`, with `--part NAME --folder FOLDER --limit SECONDS` after it.
        folder: for what they share.
        seconds: that all of them may take together.
        save: told all results after each part, and those that a part has left when it is ended.

    Returns:
        For each part its `status` (`ok`, `failed`, `timed out`, `not run`), `seconds`, `limit`, its `result` as far as it came,
        `traceback` where it failed, and the last lines that it `printed`.
    """
    begun, results = time.monotonic(), {}
    for index, part in enumerate(parts):
        left = begun + seconds - time.monotonic()
        spare = left - sum(later.seconds for later in parts[index + 1 :])  # what earlier parts have left over is there to use
        limit = max(min(part.seconds, left), spare)
        if limit < 1:
            results[part.name] = {"status": "not run", "seconds": 0.0, "limit": part.seconds, "reason": "no time was left"}
        else:
            print(f"{part.name}: at most {limit:.0f} s", flush=True)
            results[part.name] = run_part(part, command, folder, limit)
        row = results[part.name]
        print(f"{part.name}: {row['status']} after {row['seconds']} s", flush=True)
        save(results)
    return results


def run_part(part: Part, command: Sequence[str], folder: Path, limit: float) -> Row:
    """Run one part, and end it and all that it has started at its limit."""
    place = folder / part.name
    place.mkdir(parents=True, exist_ok=True)
    # Where its processes, and theirs, find the package, however this one has.
    path = [str(Path(vittle.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    mark = uuid.uuid4().hex
    # Without byte code every process compiles torch anew, which takes it a minute.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.monotonic()
    process = subprocess.Popen(
        [*command, "--part", part.name, "--folder", str(folder), "--limit", f"{limit:.1f}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**inherited, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", MARK: mark},
        start_new_session=True,
    )
    printed: deque[str] = deque(maxlen=LINES)
    reader = threading.Thread(target=_pass_on, args=(part.name, process.stdout, printed), daemon=True)
    reader.start()
    timed_out = False
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        process.kill()
        process.wait()
        end(marked(MARK, mark), patience=1)
    reader.join(2)  # no longer: what the part has left behind may hold its output open
    found = _read(place / DONE)
    row = {"status": "failed", "seconds": round(time.monotonic() - start, 1), "limit": round(limit, 1)}
    partial = _read(place / RUNNING)
    if found is None:
        found = {} if partial is None else {"result": partial}
        found |= {"status": "timed out"} if timed_out else {"traceback": f"it ended with code {process.returncode}"}
    return {**row, **found, "printed": list(printed)}


def work(part: Part, task: Task) -> int:
    """Be the process of a part; its exit code."""
    place = task.folder / part.name
    place.mkdir(parents=True, exist_ok=True)
    task.result = place / RUNNING
    module, _, function = part.function.partition(":")
    try:
        done = {"status": "ok", "result": getattr(importlib.import_module(module), function)(task)}
    except Exception:  # whatever a device can raise
        traceback.print_exc()
        so_far = {} if (partial := _read(task.result)) is None else {"result": partial}
        done = {"status": "failed", "traceback": traceback.format_exc(), **so_far}
    write_json(place / DONE, done)
    return 0 if done["status"] == "ok" else 1


def marked(name: str, value: str) -> list[psutil.Process]:
    """Every process with a variable in its environment: whom a process has started, whatever has become of it since."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.environ().get(name) == value:
                found.append(one)
    return [one for one in found if one.pid != os.getpid()]


def end(processes: Sequence[psutil.Process], patience: float) -> list[str]:
    """Kill those processes that do not end by themselves within some seconds; their names."""
    _, alive = psutil.wait_procs(processes, patience)
    names = [_name(one) for one in alive]
    for one in alive:
        with contextlib.suppress(psutil.Error):
            one.kill()
    psutil.wait_procs(alive, 5)
    return names


def write_json(path: Path, document: Any) -> None:
    """All or nothing. What is not finite is written as a word, which JSON can hold."""
    write_at_once(
        path, f"{json.dumps(_plain(document), indent=1, allow_nan=False)}\n".encode(), "give --output a writable file"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _pass_on(name: str, stream: Any, printed: deque[str]) -> None:
    with contextlib.suppress(ValueError):  # closed while it is read
        for line in stream:
            printed.append(line.rstrip())
            print(f"{name}: {line.rstrip()}", flush=True)


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "gone"


def script(path: str) -> tuple[str, ...]:
    """The command that runs a benchmark again, by its file."""
    return (sys.executable, path)
