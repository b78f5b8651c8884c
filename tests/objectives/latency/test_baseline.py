"""The backbone's fastest form: what schedules are compared with."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import make_model
from vittle.objectives.latency import baseline as baseline_module
from vittle.objectives.latency.baseline import Baseline, compile_model, find_baseline
from vittle.objectives.latency.turns import Turns
from vittle.spaces.errors import VittleError

MIXED = [True, False, True, False]  # a model of which somebody has switched some blocks


@pytest.fixture
def mixed() -> nn.Module:
    model = make_model("plain")
    switch(model, MIXED)
    return model


def switch(model: nn.Module, fused: list[bool]) -> None:
    for block, one in zip(model.blocks, fused, strict=True):
        block.attn.fused_attn = one


def switches(model: nn.Module) -> list[bool]:
    return [block.attn.fused_attn for block in model.blocks]


def timed(*shares: list[float]) -> Callable[..., Turns]:
    """`take_turns` in which the reference takes 10 ms and each call these shares of it, round by round."""

    def take_turns(reference: Callable[[], object], calls: list[Callable[[], object]], *_: object, rounds: int) -> Turns:
        assert len(calls) == len(shares)
        reference()
        for call in calls:
            call()
        taken = 10 * np.array(shares).T
        return Turns(np.full((len(taken), 2), 10.0), taken, taken, 2, 1, 0, None, "scripted")

    return take_turns


def spy(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[list[bool]]:
    """The switches of each run of the model from here on."""
    found: list[list[bool]] = []
    forward = model.forward

    def watched(images: Tensor) -> Tensor:
        found.append(switches(model))
        return forward(images)

    monkeypatch.setattr(model, "forward", watched)
    return found


def test_every_form_answers_as_the_model_does_and_leaves_it_alone(mixed, images_for) -> None:
    images = images_for(mixed)
    with torch.inference_mode():
        expected = mixed(images)
        for fused in (True, False):
            torch.testing.assert_close(baseline_module._with_fused(mixed, images, fused=fused), expected, rtol=1e-4, atol=1e-5)
            assert switches(mixed) == MIXED


@pytest.mark.parametrize("fused", [True, False])
def test_a_form_switches_every_block_while_it_runs(mixed, images_for, monkeypatch, fused: bool) -> None:
    runs = spy(mixed, monkeypatch)
    baseline_module._with_fused(mixed, images_for(mixed), fused=fused)
    assert runs == [[fused] * 4]


@pytest.mark.parametrize("fused", [True, False])
def test_a_failure_leaves_the_switches_too(mixed, fused: bool) -> None:
    with pytest.raises(AssertionError, match="height"):
        baseline_module._with_fused(mixed, torch.zeros(1, 3, 8, 8), fused=fused)
    assert switches(mixed) == MIXED


@pytest.mark.parametrize(
    ("eager", "form"),
    [
        ([0.9, 0.8, 0.95, 0.9, 0.99], "eager"),
        ([0.5, 0.5, 0.5, 0.5, 1.5], "eager"),  # a single round says little
        ([1.1, 1.1, 1.1, 0.5, 0.5], "fused"),
        ([1.1] * 5, "fused"),
        ([1.0] * 5, "fused"),
    ],
)
def test_the_fastest_is_the_form_of_the_least_time_that_is_reported(
    mixed, images_for, monkeypatch, eager: list[float], form: str
) -> None:
    monkeypatch.setattr(baseline_module, "take_turns", timed(eager))
    runs = spy(mixed, monkeypatch)
    found = find_baseline(mixed, images_for(mixed))
    assert found.form == form
    assert found.times_ms[found.form] == min(found.times_ms.values())
    assert found.times_ms == pytest.approx({"fused": 10.0, "eager": 10 * np.median(eager)})
    assert runs == [[True] * 4, [False] * 4]  # each was timed as what it is called
    found.call(images_for(mixed))
    assert runs[-1] == [form == "fused"] * 4
    assert switches(mixed) == MIXED


@pytest.mark.parametrize(
    ("eager", "compiled", "form"),
    [(0.9, 0.8, "compiled"), (0.8, 0.9, "eager"), (1.2, 1.1, "fused"), (0.9, 1.1, "eager"), (1.1, 0.9, "compiled")],
)
def test_the_fastest_of_three(mixed, images_for, monkeypatch, eager: float, compiled: float, form: str) -> None:
    runs: list[tuple[int, ...]] = []
    monkeypatch.setattr(baseline_module, "compile_model", lambda model, images: lambda batch: runs.append(tuple(batch.shape)))
    monkeypatch.setattr(baseline_module, "take_turns", timed([eager] * 5, [compiled] * 5))
    images = images_for(mixed)
    found = find_baseline(mixed, images, compiled=True)
    assert found.form == form
    assert found.times_ms == pytest.approx({"fused": 10.0, "eager": 10 * eager, "compiled": 10 * compiled})
    assert runs == [tuple(images.shape)]
    found.call(images)
    assert len(runs) == (2 if form == "compiled" else 1)


def test_it_is_measured_for_real(tiny, images_for) -> None:
    before = switches(tiny)
    found = find_baseline(tiny, images_for(tiny, 2))
    assert isinstance(found, Baseline)
    assert set(found.times_ms) == {"fused", "eager"}
    assert min(found.times_ms.values()) > 0
    assert switches(tiny) == before


class Broken(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Broken("no C++ compiler\nset CXX\n" + "trace\n" * 50), "no C++ compiler"),
        (Broken(), "Broken"),
        (Broken("\n"), "Broken"),
    ],
)
def test_what_cannot_be_compiled_is_one_line_that_names_the_option(
    tiny, images_for, monkeypatch, error: Exception, said: str
) -> None:
    def compiled(_model: nn.Module, **_options: object) -> Callable[[Tensor], Tensor]:
        def run(_images: Tensor) -> Tensor:
            raise error

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    for attempt in (compile_model, lambda model, images: find_baseline(model, images, compiled=True)):
        with pytest.raises(VittleError) as caught:
            attempt(tiny, images_for(tiny))
        assert str(caught.value) == f"torch.compile fails here ({said}); leave --compile out, or install a C++ compiler"
        assert caught.value.__suppress_context__


def test_compiling_refused_at_once_is_the_same_line(tiny, images_for, monkeypatch) -> None:
    def refuses(_model: nn.Module, **_options: object) -> None:
        raise RuntimeError("torch.compile is not supported on Python 3.99")

    monkeypatch.setattr(torch, "compile", refuses)
    with pytest.raises(VittleError, match="--compile"):
        compile_model(tiny, images_for(tiny))
