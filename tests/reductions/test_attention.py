"""Attention in proportion to sizes: every form is the same function."""

import warnings
from typing import get_args

import pytest
import torch

from models import make_model
from operators import OPERATORS
from vittle.reductions import attention
from vittle.reductions.attention import Form, fastest_form, forms, weighted_attention
from vittle.reductions.vit import ReducedViT


@pytest.mark.parametrize("form", get_args(Form))
@pytest.mark.parametrize(("queries", "channels"), [(11, 32), (1, 32), (11, 20)])
def test_every_form_attends_as_softmax_with_log_sizes_does(form: Form, queries: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, channels, generator=generator) for n in (queries, 11, 11))
    sizes = torch.randint(1, 30, (2, 1, 1, 11), generator=generator).float()
    expected = ((q @ k.mT * 0.3 + sizes.log()).softmax(-1)) @ v
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this form runs unfused here
        got = weighted_attention(q, k, v, sizes.log(), scale=0.3, dropout=0.0, form=form)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_model_answers_the_same_in_every_form(images_for) -> None:
    model = make_model("qk-norm")
    for tail in ("full", "prefix"):
        schedule = OPERATORS["key"](model)
        schedule = type(schedule)(schedule.reductions, tail)
        mask, channel = (ReducedViT(model, schedule, form=form)(images_for(model)) for form in ("mask", "channel"))
        torch.testing.assert_close(channel, mask, atol=1e-5, rtol=1e-5)


def test_the_fastest_is_taken_and_what_cannot_run_is_left_out(monkeypatch) -> None:
    fastest_form.cache_clear()
    times = {"mask": 3.0, "channel": 1.0}
    tried = []

    def timed(device, call):
        form = call.__defaults__[0]
        tried.append(form)
        if form == "flex":
            raise RuntimeError("no such kernel")
        return times[form]

    monkeypatch.setattr(attention, "_seconds", timed)
    monkeypatch.setattr(attention, "forms", lambda device: get_args(Form))
    assert fastest_form(torch.device("cpu"), torch.float32, 2, 16, 9) == "channel"
    times["channel"] = 5.0
    assert fastest_form(torch.device("cpu"), torch.float32, 2, 16, 9) == "channel"  # remembered
    assert fastest_form(torch.device("cpu"), torch.float32, 2, 16, 10) == "mask"
    assert set(tried) == set(get_args(Form))
    fastest_form.cache_clear()


def test_the_kernel_that_needs_a_compiler_is_tried_on_cuda_alone() -> None:
    assert forms(torch.device("cpu")) == ("mask", "channel")
    assert forms(torch.device("cuda")) == get_args(Form)
