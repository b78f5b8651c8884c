"""Timing in turns, on a scripted clock whose times are known and on real processors that others use too."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from vittle import presets
from vittle.objectives.evaluator import make_stand
from vittle.objectives.latency import turns
from vittle.objectives.latency.clock import Clock, Sample
from vittle.objectives.latency.stand import EFFORTS
from vittle.objectives.latency.turns import LAUNCH_BOUND, PATIENCE, WARMUPS, Turns, take_turns
from vittle.reductions.backbone import load_backbone
from vittle.reductions.vit import ReducedViT

CPU = torch.device("cpu")
Law = Callable[[str, int, int], Sample | float]


class Scripted:
    """A clock that reads off a law: of what is timed, how often that was timed before, and how often anything was."""

    name = "scripted"

    def __init__(self, law: Law) -> None:
        self.law = law
        self.log: list[tuple[str, int]] = []
        self.held = False

    def __call__(self, call: str, runs: int = 1) -> Sample:
        assert self.held, "timed without the lease"
        found = self.law(call, sum(name == call for name, _ in self.log), len(self.log))
        self.log.append((call, runs))
        return found if isinstance(found, Sample) else Sample(found, found, 1.0)

    @contextlib.contextmanager
    def lease(self, device: torch.device) -> Iterator[None]:
        assert device == CPU
        self.held = True
        yield
        self.held = False


@pytest.fixture
def take(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Turns, Scripted]]:
    def run(law: Law, *calls: str, rounds: int = 5, precision: float | None = None) -> tuple[Turns, Scripted]:
        clock = Scripted(law)
        monkeypatch.setattr("vittle.objectives.latency.turns.Clock", lambda _device: clock)
        monkeypatch.setattr(turns.device_lock, "exclusive", clock.lease)
        return take_turns("a", calls or ("b",), CPU, rounds=rounds, precision=precision), clock

    return run


WARM = 2  # runs of a call whose time does not change
MS = {"a": 8.0, "b": 4.0, "c": 24.0}


def steady(call: str, _nth: int, _any: int) -> float:
    return MS[call]


def test_calm_rounds_are_a_reference_between_every_two(take) -> None:
    found, clock = take(steady, "b", "c")
    np.testing.assert_array_equal(found.ratios, [[0.5, 3.0]] * 5)
    assert (found.repeated, found.noise, found.warmup, found.clock) == (0, None, WARM, "scripted")
    assert [name for name, _ in clock.log] == [*"aabbcc", *"abc" * 5, "a"]


def test_drift_cancels(take) -> None:
    found, _ = take(lambda call, _, position: MS[call] * (1 + 0.02 * position), rounds=20)
    assert found.noise is None
    assert found.times.max() > 1.5 * found.times.min()
    np.testing.assert_allclose(found.ratios, 0.5)


@pytest.mark.parametrize(("where", "rounds"), [("b", 1), ("a", 2)])
def test_a_round_in_which_somebody_else_had_the_processor_is_run_again(take, where: str, rounds: int) -> None:
    def law(call: str, nth: int, _: int) -> Sample:
        away = call == where and nth == WARM + 2
        return Sample(MS[call] * (1.1 if away else 1), MS[call], 0.89 if away else 0.91)

    found, clock = take(law)
    np.testing.assert_array_equal(found.ratios, [[0.5]] * 5)
    assert (found.repeated, found.noise) == (rounds, None)  # a reference belongs to the rounds before and after it
    assert len(clock.log) == 2 * WARM + 1 + 2 * (5 + rounds)


@pytest.mark.parametrize(("by", "repeated"), [(1.24, 0), (1.26, 1), (1 / 1.26, 1)])
def test_a_round_whose_references_are_far_apart_is_run_again(take, by: float, repeated: int) -> None:
    found, _ = take(lambda call, nth, _: MS[call] * (by if call == "a" and nth > WARM + 2 else 1))
    assert (found.repeated, found.noise) == (repeated, None)
    assert len(found.times) == 5
    assert found.reference.shape == (5, 2)
    assert set(found.reference[:, 0]) <= {8.0, 8.0 * by}
    apart = found.reference.max(1) / found.reference.min(1)
    assert apart.max() <= 1.25


def test_what_stays_disturbed_is_kept_and_says_why(take) -> None:
    found, clock = take(lambda call, _nth, _any: Sample(MS[call], MS[call], 0.7))
    assert len(found.times) == PATIENCE * 5
    assert found.noise == "something else had the processor for 30% of the time"
    assert found.repeated == 0  # none was replaced
    assert len(clock.log) == 2 * WARM + 1 + 2 * PATIENCE * 5
    swinging, _ = take(lambda call, nth, _: MS[call] * (1.5 if call == "a" and nth % 2 else 1), rounds=2)
    assert swinging.noise == "the backbone's own time changed by 50% within one round"
    assert len(swinging.times) == 2 * PATIENCE


@pytest.mark.parametrize("calm", [4, 5])
def test_noise_is_decided_by_the_last_round_that_patience_allows(take, calm: int) -> None:
    first = PATIENCE * 5 - calm

    def law(call: str, nth: int, _: int) -> Sample:
        return Sample(MS[call], MS[call], 0.5 if call == "b" and WARM <= nth < WARM + first else 1.0)

    found, _ = take(law)
    assert (found.noise is None, len(found.times)) == ((True, 5) if calm == 5 else (False, PATIENCE * 5))
    assert found.repeated == (first if calm == 5 else 0)


def test_it_stops_once_the_ratio_is_known(take) -> None:
    rng = np.random.default_rng(0)
    ratios = 1 + 0.1 * rng.standard_normal(60)

    def law(call: str, nth: int, _: int) -> float:
        if call == "a":
            return 8.0 * (1 + 0.08 * (nth % 2))  # what a ratio is taken of is always the mean of both
        return 8.0 if nth < WARM else 8.0 * ratios[nth - WARM]

    def known(n: int) -> float:
        return 2 * np.std(ratios[:n], ddof=1) / n**0.5 / np.mean(ratios[:n])

    for rounds, precision in ((15, 0.2), (60, 0.04), (60, 0.03), (60, 0.001)):
        expected = next((n for n in range(rounds // 3, rounds) if known(n) <= precision), rounds)
        found, clock = take(law, rounds=rounds, precision=precision)
        assert (len(found.times), found.noise) == (expected, None)
        assert sum(name == "b" for name, _ in clock.log) == WARM + expected
    assert 20 < next(n for n in range(20, 60) if known(n) <= 0.03) < 60  # the cases above differ
    assert len(take(steady, rounds=15, precision=0.01)[0].times) == 5
    assert len(take(steady, rounds=15)[0].times) == 15
    assert len(take(steady, rounds=3, precision=0.01)[0].times) == 3  # from fewer no spread is known


def test_a_ratio_known_early_is_not_noisy_for_what_was_repeated(take) -> None:
    def law(call: str, nth: int, _: int) -> Sample:
        return Sample(MS[call], MS[call], 0.5 if call == "b" and nth in (WARM, WARM + 1) else 1.0)

    found, _ = take(law, rounds=15, precision=0.01)
    assert (len(found.times), found.repeated, found.noise) == (5, 2, None)


@pytest.mark.parametrize(
    ("times", "warmup"),
    [
        ([8, 8], 2),
        ([80, 40, 20, 10, 9.2], 5),
        ([80, 40, 20, 10, 8.9, 8.1], 6),  # 11 % apart once more
        ([90 * 0.8**n for n in range(40)], WARMUPS),
        ([10, 20] * 20, WARMUPS),
        ([101], 1),
    ],
)
def test_warming_up_goes_on_until_times_settle(take, times: list[float], warmup: int) -> None:
    found, clock = take(lambda call, nth, _: times[min(nth, len(times) - 1)] if call == "b" else 9.0)
    assert found.warmup == max(warmup, WARM)
    assert [name for name, _ in clock.log].index("a", WARM) == WARM + warmup


@pytest.mark.parametrize(("ms", "runs"), [(0.1, 50), (1.0, 5), (3.0, 2), (8.0, 1), (50.0, 1)])
def test_short_calls_are_timed_over_several_runs(take, ms: float, runs: int) -> None:
    found, clock = take(lambda call, _nth, _any: ms if call == "b" else 2.0, "b", "c")
    assert found.runs == runs
    assert {name: taken for name, taken in clock.log[-4:]} == {"a": 2, "b": runs, "c": 2}  # noqa: C416
    assert found.times[0, 0] == ms


@pytest.mark.parametrize(
    ("shares", "bound"), [([0.95] * 3 + [0.1] * 2, True), ([0.95] * 2 + [0.1] * 3, False), ([0.89] * 5, False)]
)
def test_launch_bound_where_the_device_waits_for_the_host(take, shares: list[float], bound: bool) -> None:
    assert LAUNCH_BOUND == 0.9

    def law(call: str, nth: int, _: int) -> Sample:
        share = shares[nth - WARM] if call == "b" and nth >= WARM else 0.99 if call == "c" else 0.2
        return Sample(MS[call], MS[call] * share, 1.0)

    found, _ = take(law, "b", "c")
    assert found.launch_bound == bound
    np.testing.assert_allclose(found.host[:, 1], 0.99 * MS["c"])


def test_the_clock_sees_the_whole_call_and_who_had_the_processor() -> None:
    calls: list[bool] = []

    def idle() -> None:
        calls.append(torch.is_inference_mode_enabled())
        time.sleep(0.02)

    sample = Clock(CPU)(idle, runs=3)
    assert calls == [False] * 3
    assert sample.ms == sample.host_ms >= 20
    assert sample.presence < 0.5  # it slept
    take_turns(idle, [idle], CPU, rounds=1)
    assert all(calls[3:])
    assert len(calls) > 3 + 2 * 2


def test_what_burns_the_processors_is_seen_or_does_no_harm() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two of them wait for one another under load, and the test would take minutes
    burners: list[subprocess.Popen[bytes]] = []
    try:
        backbone = load_backbone()
        stand = make_stand(backbone, device="cpu", batch_size=16)
        model = ReducedViT(backbone.model, presets.constant(backbone.model, 5))
        for _ in range(3):
            idle = stand.measure(model, EFFORTS["confirmation"])["latency_ratio"]
            if "noisy" not in idle.protocol:
                break
        burners += [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
        time.sleep(1)
        found = [stand.measure(model, EFFORTS["search"])["latency_ratio"] for _ in range(5)]
        assert [burner.poll() for burner in burners] == [None] * len(burners)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
        torch.set_num_threads(threads)
    wrong = [one for one in found if "noisy" not in one.protocol and abs(one.value / idle.value - 1) > 0.1]
    assert wrong == []
    assert any(one.protocol["repeated"] or "noisy" in one.protocol for one in found)
