"""Real searches on a device: workers that share it, a search that is killed and goes on, memory that runs out."""

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cuda_material import Material, material
from parts import Row, Task, end, marked
from vittle.objectives.evaluation import Evaluation
from vittle.search import workers
from vittle.search.coordinator import Assignment
from vittle.search.inference import InferenceProblem, ScheduleEvaluator
from vittle.search.reporter import Reporter
from vittle.search.study import run
from vittle.spaces.errors import VittleError
from vittle.storage.records import Trial
from vittle.storage.settings import Settings
from vittle.storage.store import Store

VITTLE = (sys.executable, "-m", "vittle")
STUDY = "cuda"
TRIALS, SMALL_TRIALS = 24, 6
KILLED_AFTER = 4  # trials
MARK = "VITTLE_BENCHMARK_SEARCH"
LINES = 15  # of what a command says, from its end
LEFT_FREE = 900e6  # bytes of a full device: room for a process to start in, and not for a batch
CROWDED = 3  # the trial without memory


class Command:
    """A `vittle` in a session of its own, with everything that it starts."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        self.said = folder / f"{self.mark}.log"
        self.begun = time.monotonic()
        with self.said.open("w") as file:
            self.process = subprocess.Popen(
                [*VITTLE, *arguments],
                cwd=folder,
                env={**os.environ, MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> Row:
        """Until it ends by itself, or is killed after some seconds: how it ended and what it said."""
        hung = False
        try:
            self.process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            hung = True
        return {"hung": hung, **self.kill(patience=5)}

    def kill(self, patience: float) -> Row:
        """SIGKILL to its whole process group; what it has started besides has some seconds to end by itself."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
        self.process.wait()
        outlived = end(marked(MARK, self.mark), patience)
        lines = self.said.read_text(errors="replace").splitlines()
        return {
            "code": self.process.returncode,
            "seconds": round(time.monotonic() - self.begun, 1),
            "outlived": dict(Counter(outlived)),
            "traceback": any(line.startswith("Traceback") for line in lines),
            "said": [line[:300] for line in lines[-LINES:]],
        }


def kill_and_resume(task: Task) -> Row:
    """Two workers on halves of the device, killed in the middle of a search that is then resumed."""
    found = material(task)
    trials = SMALL_TRIALS if task.small else TRIALS
    share = "0" if task.small else "0.5"
    options = ["--workers", "2", "--gpus-per-worker", share, "--trials", str(trials), "--all-trials"]
    if task.small:
        options += ["--measure-all"]
    result: Row = {"trials": trials, "workers": 2, "gpus_per_worker": float(share), "memory_mb": {"before": used(task)}}
    command = Command(
        task.folder, *launch_arguments(found, task.device, STUDY, budget="500%" if task.small else "60%"), *options
    )
    wanted = min(KILLED_AFTER, trials // 2)
    finished = wait_for(command, found.url, wanted, task.left - 0.45 * task.seconds)
    result["memory_mb"]["searching"] = used(task)
    before = ended(found.url)
    result["killed"] = {"wanted": wanted, "ended_by_itself": not finished and command.process.poll() is not None}
    result["killed"] |= {**command.kill(patience=8), "states": states(found.url), "finished": len(before)}
    result["memory_mb"]["killed"] = used(task)
    task.save(result)
    print(f"killed with {len(before)} trials finished, {task.left:.0f} s left", flush=True)
    before = ended(found.url)  # one more may have been written between the look and the end
    again = Command(task.folder, "resume", STUDY, "--storage", found.url)
    result["resumed"] = again.wait(task.left - 8)
    result["memory_mb"]["resumed"] = used(task)
    result["resumed"] |= {"states": states(found.url), **compare(before, found.url, trials)}
    killed, resumed = result["killed"], result["resumed"]
    result["verdict"] = {
        "killed in mid-search": not killed["ended_by_itself"] and 0 < len(before) <= trials,
        "resumed to the end": not resumed["hung"] and resumed["study"] == "complete" and resumed["numbers_whole"],
        "no finished trial lost": resumed["kept"] == len(before) and not resumed["lost_or_changed"],
        "no schedule tried twice": not resumed["repeated"],
        "no traceback": not killed["traceback"] and not resumed["traceback"],
    }
    print(result["verdict"], flush=True)
    return result


def launch_arguments(found: Material, device: str, study: str, *, budget: str, batch: int | None = None) -> list[str]:
    """Of `vittle launch` for the shared model and images."""
    return [
        "launch", "--model", found.model, "--checkpoint", str(found.checkpoint), "--data", str(found.images),
        "--batch-size", str(batch or found.batch), "--dtype", found.dtype, "--device", device, "--latency-budget", budget,
        "--study", study, "--storage", found.url,
    ]  # fmt: skip


def wait_for(command: Command, url: str, trials: int, seconds: float) -> bool:
    """Whether so many trials ended in time, while the command runs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and command.process.poll() is None:
        if len(ended(url)) >= trials:
            return True
        time.sleep(0.1)
    return False


def trials_of(url: str) -> list[Trial]:
    """All trials so far; none where there is no study yet."""
    try:
        return Store.open(url).trials(STUDY)
    except VittleError:
        return []


def ended(url: str) -> dict[int, Trial]:
    """Trials that do not run any more, by number."""
    return {trial.number: trial for trial in trials_of(url) if trial.ended}


def states(url: str) -> dict[str, int]:
    """How many trials are in each state."""
    return dict(Counter(trial.state for trial in trials_of(url)))


def compare(before: dict[int, Trial], url: str, trials: int) -> Row:
    """What has become of trials that had ended before, and whether the study is whole."""
    after = {trial.number: trial for trial in trials_of(url)}
    same = [after[number].measurements.get("search") == one.measurements.get("search") for number, one in before.items()]
    measured = [one for trial in after.values() for phase in trial.measurements.values() for one in phase.values()]
    return {
        "study": Store.open(url).study(STUDY).state if after else None,
        "finished_before": len(before),
        "kept": sum(same),
        "lost_or_changed": len(same) - sum(same),
        "numbers_whole": sorted(after) == list(range(trials + 1)),
        "repeated": repeated(list(after.values()), set(before)),
        "attempts": dict(Counter(trial.attempts for trial in after.values())),
        "confirmed": sum(trial.confirmed for trial in after.values()),
        "reasons": sorted({trial.reason[:200] for trial in after.values() if trial.state == "failed" and trial.reason}),
        "devices": dict(Counter(str(one.protocol["device"]) for one in measured if "device" in one.protocol)),
        "launch_bound": dict(Counter(str(one.protocol["launch_bound"]) for one in measured if "launch_bound" in one.protocol)),
    }


def repeated(trials: list[Trial], before: set[int]) -> list[Row]:
    """Schedules that more than one trial has, with those trials and whether they had ended before."""
    numbers: dict[str, list[int]] = {}
    for trial in trials:
        numbers.setdefault(trial.schedule.id, []).append(trial.number)
    return [
        {"schedule": schedule, "trials": [{"number": one, "ended_before": one in before} for one in sharing]}
        for schedule, sharing in numbers.items()
        if len(sharing) > 1
    ]


def used(task: Task) -> float | None:
    """Megabytes of the device that all processes use, as the driver counts them; None where it does not tell."""
    if task.device != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        return round(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used / 1e6, 1)
    except pynvml.NVMLError:
        return None


def exhaust(task: Task) -> Row:
    """Memory that runs out: in one trial of a search, on a device that is full before it begins, and for the backbone."""
    found = material(task)
    result: Row = {"in_a_trial": search_without_memory(found, task, "one", CROWDED, 1 if task.small else 2)}
    task.save(result)
    one = result["in_a_trial"]
    result["verdict"] = {
        "the trial failed with a reason": "OutOfMemoryError" in str(one["failed"].get(CROWDED)),
        "no other trial failed": set(one["failed"]) <= {CROWDED},
        "the search went on to its end": one["study"] == "complete",
    }
    print(f"in a trial: {one['states']}, {task.left:.0f} s left", flush=True)
    if task.device == "cuda":
        full = result["full_device"] = launch_on_a_full_device(found, task)
        result["verdict"] |= {
            "a full device ends a launch by itself": not full["hung"] and full["code"] != 0,
            "and without a traceback": not full["traceback"],
        }
    else:
        result["full_device"] = {"skipped": "it needs CUDA"}
    task.save(result)
    if task.left > 0.35 * task.seconds and not task.small:
        backbone = result["in_the_backbone"] = search_without_memory(found, task, "backbone", 0, 1)
        result["verdict"]["a backbone without memory ends the search with the reason"] = backbone[
            "study"
        ] == "failed" and "OutOfMemoryError" in str(backbone["failed"].get(0))
    else:
        result["in_the_backbone"] = {"skipped": "it is rehearsed once" if task.small else "no time was left"}
    return result


def search_without_memory(found: Material, task: Task, study: str, crowded: int, count: int) -> Row:
    """Search with some workers, one trial of which has no memory."""
    settings = Settings(
        model=found.model, checkpoint=str(found.checkpoint), data=str(found.images), latency_budget="500%", trials=5,
        batch_size=found.batch if task.small else 256, device=task.device, predict=False, until_flat=False, workers=count,
        gpus_per_worker=0.0 if task.small else 1 / count,
    )  # fmt: skip
    start = time.monotonic()
    problem = InferenceProblem.load(settings)
    store = Store.open(f"sqlite:///{task.folder / 'memory.db'}", create=True)
    warned: list[str] = []
    with replaced(crowd(task.device, crowded)):
        reporter = Reporter(warned=warned.append)
        made = run(store.create_study(study, settings, problem.subject), problem, store, reporter)
    trials = store.trials(study)
    return {
        "crowded": crowded,
        "rehearsed": task.small,
        "study": made.state,
        "ended": made.ended,
        "states": dict(Counter(trial.state for trial in trials)),
        "failed": {trial.number: trial.reason for trial in trials if trial.state == "failed"},
        "attempts": {trial.number: trial.attempts for trial in trials},
        "warned": warned,
        "seconds": round(time.monotonic() - start, 1),
    }


def crowd(device: str, crowded: int) -> type[workers.Worker]:
    """A worker whose process may take no more of the device's memory once it is handed one trial."""

    class Crowded(workers.Worker):
        def _begin(self, one: Assignment, evaluator: ScheduleEvaluator) -> Iterator[Evaluation]:
            if one.number == crowded and device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.set_per_process_memory_fraction(1e-4)
            elif one.number == crowded:
                raise torch.OutOfMemoryError("CUDA out of memory (rehearsed)")
            return super()._begin(one, evaluator)

    return Crowded


@contextmanager
def replaced(worker: type[workers.Worker]) -> Iterator[None]:
    """Searches have another kind of worker."""
    before = workers.Worker
    workers.Worker = worker  # type: ignore[misc]
    try:
        yield
    finally:
        workers.Worker = before  # type: ignore[misc]


def launch_on_a_full_device(found: Material, task: Task) -> Row:
    """A launch where somebody else has nearly all of the device's memory."""
    taken = fill(lambda: torch.cuda.mem_get_info()[0], LEFT_FREE)
    free = torch.cuda.mem_get_info()[0] / 1e6
    try:
        command = Command(task.folder, *launch_arguments(found, task.device, "full", budget="60%", batch=1024))
        how = command.wait(min(40.0, task.left - 5))
    finally:
        taken.clear()
        torch.cuda.empty_cache()
    return {"free_mb": round(free, 1), **how}


def fill(free: Callable[[], float], left: float) -> list[torch.Tensor]:
    """Take memory of the device in large pieces until little is free."""
    taken: list[torch.Tensor] = []
    while (room := free() - left) > 32e6:
        taken.append(torch.empty(int(min(room, 4e9)), dtype=torch.uint8, device="cuda"))
    return taken
