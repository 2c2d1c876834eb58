"""The rules that the check holds each call of a parameterization's functions to, whatever the two compute."""

import itertools
import os
import random
import re

import numpy as np
import pytest
import torch
from helpers import parameterization, refusal, v_with, verdict

from targetwise.check.roundtrip import NOT_FINITE
from targetwise.diffusion.parameterization import load
from targetwise.diffusion.schedule import at

FUNCTIONS = {"compute": "compute_training_target", "predict": "predict_x0"}

each_function = pytest.mark.parametrize("which", FUNCTIONS)


@pytest.fixture
def known_state(monkeypatch):
    """Give a test's function a process as Python and torch begin it, but for seeds, and undo what it does to it."""
    cudnn, threads = torch.backends.cudnn, torch.get_num_threads()
    monkeypatch.chdir(".")
    monkeypatch.setattr(cudnn, "deterministic", False)
    monkeypatch.setattr(cudnn, "benchmark", False)
    np.random.seed(0)  # noqa: NPY002 -- here and below: what must not be used
    random.seed(0)

    def begin():
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
        torch.set_autocast_enabled("cpu", False)
        torch.set_autocast_enabled("cuda", False)

    begin()
    with torch.random.fork_rng(devices=[]):
        yield
    begin()


# --- a result of the right kind ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda x_0, *_: x_0[:, :1],
        lambda x_0, *_: x_0.flatten(1),
        lambda x_0, *_: x_0[:5],
        lambda x_0, *_: x_0.permute(0, 2, 3, 1),
        lambda x_0, *_: x_0.mean(),
    ],
)
def test_another_shape_is_refused(change):
    assert "broken: predict_x0 returned shape (" in refusal(v_with(predict=change))


@pytest.mark.parametrize("change", [lambda y, *_: y.flatten(1), lambda y, *_: y[..., :4], lambda y, *_: y.mean()])
def test_another_shape_of_the_target_is_refused(change):
    assert "broken: compute_training_target returned shape (" in refusal(v_with(compute=change))


def test_another_shape_of_the_loss_space_is_refused():
    flat = parameterization(lambda x_0, noise, t, s: x_0.flatten(1), None, "flat")
    assert "flat: compute_training_target returned shape (" in refusal(load("x0"), flat)


@pytest.mark.parametrize(
    ("result", "kind"),
    [(lambda y: None, "NoneType"), (lambda y: y.tolist(), "list"), (lambda y: (y,), "tuple"), (torch.sign, None)],
)
@each_function
def test_what_is_no_tensor_is_refused(which, result, kind):
    integers = kind is None
    broken = v_with(**{which: lambda y, *_: result(y).int() if integers else result(y)})
    message = refusal(broken)
    assert f"broken: {FUNCTIONS[which]} returned {'torch.int32' if integers else kind}; " in message
    assert "floating-point tensor" in message


@pytest.mark.parametrize(
    "error",
    [
        *(RuntimeError, ValueError, KeyError, ZeroDivisionError, NameError, AssertionError, ImportError, OSError),
        SystemExit,
    ],
)
@each_function
def test_whatever_a_function_raises_is_told_in_one_line(error, which):
    def fail(*_):
        raise error("first line\nsecond line")

    message = refusal(v_with(**{which: fail}))
    assert message.startswith(f"parameterization broken: {FUNCTIONS[which]} fails for ")
    assert re.search(rf" images \(t = 0 … \d+\): {error.__name__}: .?first line", message)


def test_a_function_that_takes_other_arguments_is_told():
    message = refusal(parameterization(lambda x_0: x_0, lambda y: y))
    assert "tried: compute_training_target fails for 2 images (t = 0 … 1): TypeError" in message


@each_function
def test_a_function_that_cannot_take_one_image_is_told(which):
    """A data set's last batch, or a sampler's, may hold one."""

    def squeeze(result, other, timesteps, s):
        return result * s["sqrt_alpha"][timesteps].squeeze()[:, None, None, None].sign()

    message = refusal(v_with(**{which: squeeze}))
    assert f"broken: {FUNCTIONS[which]} fails for 1 image (t = 0): IndexError: " in message


# --- nothing else changes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["x_0", "noise"])
def test_changing_an_argument_of_the_target_in_place_is_refused(argument):
    """It would spoil the batch for whatever uses it next, and the check itself if that compared with a zeroed x_0."""

    def zeroing(x_0, noise, t, s):
        {"x_0": x_0, "noise": noise}[argument].mul_(0)
        return x_0

    message = refusal(parameterization(zeroing, lambda y, x_t, t, s: y))
    assert f"compute_training_target changes its argument {argument} in place" in message


@pytest.mark.parametrize("argument", ["model_output", "x_t", "timesteps"])
def test_changing_an_argument_of_the_inverse_in_place_is_refused(argument):
    def drifting(model_output, x_t, timesteps, s):
        {"model_output": model_output, "x_t": x_t, "timesteps": timesteps}[argument].add_(1)
        return model_output

    message = refusal(parameterization(lambda x_0, noise, t, s: x_0, drifting))
    assert f"predict_x0 changes its argument {argument} in place" in message


@pytest.mark.parametrize(
    ("change", "entry"),
    [
        (lambda s: s["sqrt_alpha"].mul_(2), "sqrt_alpha"),
        (lambda s: s.update(own=s["sqrt_alpha"]), "own"),
        (lambda s: s.pop("alphas_cumprod"), "alphas_cumprod"),
    ],
)
def test_changing_the_schedule_is_refused(change, entry):
    message = refusal(v_with(predict=lambda x_0, x_t, t, s: (change(s), x_0)[1]))
    assert f'predict_x0 changes its argument schedule["{entry}"] in place' in message


@each_function
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: torch.set_default_dtype(torch.float64), "default type from torch.float32 to torch.float64"),
        (lambda: torch.set_default_device("meta"), "default device from cpu to meta"),
        (lambda: torch.set_grad_enabled(False), "grad mode from True to False"),
        (lambda: torch.set_num_threads(torch.get_num_threads() + 1), "number of threads from "),
        (lambda: torch.use_deterministic_algorithms(True), "deterministic algorithms from False to True"),
        (lambda: torch.set_float32_matmul_precision("high"), "matmul precision from highest to high"),
        (lambda: torch.set_autocast_enabled("cpu", True), "autocast on the CPU from False to True"),
        (lambda: torch.set_autocast_enabled("cuda", True), "autocast on CUDA from False to True"),
        (lambda: setattr(torch.backends.cudnn, "deterministic", True), "cuDNN's deterministic from False to True"),
        (lambda: setattr(torch.backends.cudnn, "benchmark", True), "cuDNN's benchmark from False to True"),
        (lambda: os.chdir("tests"), "working directory from "),
        (lambda: torch.rand(()), "torch's global random state"),
        (lambda: torch.manual_seed(3), "torch's global random state"),
        (lambda: np.random.rand(), "NumPy's global random state"),  # noqa: NPY002
        (lambda: np.random.seed(3), "NumPy's global random state"),  # noqa: NPY002
        (lambda: random.random(), "Python's global random state"),
        (lambda: random.seed(3), "Python's global random state"),
    ],
)
def test_a_changed_process_is_refused(known_state, which, change, named):
    message = refusal(v_with(**{which: lambda result, *_: (change(), result)[1]}))
    assert f"broken: {FUNCTIONS[which]} changes " in message and named in message
    assert "leave the process as it found it" in message


def test_a_change_that_is_taken_back_is_sound():
    v = load("v")

    def predict(*arguments):
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            torch.rand(3)
            return v.predict_x0(*arguments)

    assert verdict(parameterization(v.compute_training_target, predict))["gain_to_x0"]["largest"] < 1.0001


# --- the same answer again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        lambda: np.random.default_rng().random(),
        np.random.default_rng(0).random,
        itertools.count().__next__,
    ],
    ids=["entropy", "own generator", "counter"],
)
@each_function
def test_another_answer_the_second_time_is_refused(which, source):
    """Below what the round trip would notice: its rounding excuses the last bits, not that they differ."""
    message = refusal(v_with(**{which: lambda result, *_: result * (1 + 2.0**-52 * round(64 * source()))}))
    assert f"broken: {FUNCTIONS[which]} returns another result when it is called again with the same" in message


def test_a_nan_in_a_reported_precision_is_the_same_answer_again():
    """fp16 overflows at late steps; the report says from which on, as it would of one call."""

    def compute(x_0, noise, timesteps, s):
        return 10 * x_0 / at(s, timesteps)[0] ** 2

    def predict(y, x_t, timesteps, s):
        return (y + (y - y)) * at(s, timesteps)[0] ** 2 / 10  # NaN where y is infinite

    found = verdict(parameterization(compute, predict), precisions=["fp16"])["round_trip"]["fp16"]
    assert found["largest_error"] == NOT_FINITE
    assert found["at_t"] > 500
