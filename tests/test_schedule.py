"""The noise path, against diffusers, against closed forms and against the numbers of record."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from helpers import DIFFUSERS_PATHS, LINEAR, PATHS, diffusers_options, signal_to_noise, some_images

from targetwise.diffusion.schedule import add_noise, at, make_schedule
from targetwise.errors import UserError
from targetwise.recipe import kinds


def betas(kind, T, first, last):
    """Return β_t from the papers' formulas, fp64."""
    if kind == "linear":  # Ho et al. 2020, section 4
        return np.linspace(first, last, T)
    if kind == "scaled_linear":  # Rombach et al. 2022
        return np.linspace(first**0.5, last**0.5, T) ** 2
    f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * math.pi / 2) ** 2  # Nichol & Dhariwal 2021, eq. 17
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


@pytest.mark.parametrize("kind", DIFFUSERS_PATHS)
@pytest.mark.parametrize("T", [1000, 100])
def test_the_values_are_the_papers(kind, T):
    made = make_schedule({**LINEAR, "schedule": kind, "timesteps": T}, dtype=torch.float64)
    expected = np.cumprod(1 - betas(kind, T, 1e-4, 0.02))
    # diffusers multiplies 1,000 numbers in fp32, and where β is 0.999 the rounding of 1 − β is magnified as much.
    np.testing.assert_allclose(made["alphas_cumprod"].numpy(), expected, rtol=6e-5, atol=0)


@pytest.mark.parametrize("kind", DIFFUSERS_PATHS)
def test_every_bit_is_that_of_diffusers_training_scheduler(kind):
    diffusion = {**LINEAR, "schedule": kind}
    theirs = DDPMScheduler(**diffusers_options(diffusion))
    ours = make_schedule(diffusion)
    assert torch.equal(ours["alphas_cumprod"], theirs.alphas_cumprod)
    x_0, noise = (tensor.float() for tensor in some_images(64))
    timesteps = torch.from_numpy(np.random.default_rng(1).integers(0, 1000, 64))
    assert torch.equal(add_noise(x_0, noise, timesteps, ours), theirs.add_noise(x_0, noise, timesteps))


@pytest.mark.parametrize("kind", DIFFUSERS_PATHS)
def test_the_path_preserves_variance_and_only_loses_signal(kind):
    made = make_schedule({**LINEAR, "schedule": kind}, dtype=torch.float64)
    a, b = made["sqrt_alpha"], made["sqrt_one_minus_alpha"]
    torch.testing.assert_close(a**2 + b**2, torch.ones_like(a), rtol=0, atol=1e-15)
    torch.testing.assert_close(a**2, made["alphas_cumprod"], rtol=1e-15, atol=0)
    assert (a.diff() < 0).all()
    assert (b.diff() > 0).all()
    assert a.min() > 0
    assert a.max() < 1


@pytest.mark.parametrize("kind", DIFFUSERS_PATHS)
def test_training_sees_the_bits_of_before_the_paths_were_files(kind):
    """The formula that was, written out: ᾱ of diffusers in fp32, and a and b from it in fp32."""
    made = make_schedule({**LINEAR, "schedule": kind})
    alphas_cumprod = DDIMScheduler(**diffusers_options({**LINEAR, "schedule": kind})).alphas_cumprod
    assert torch.equal(made["alphas_cumprod"], alphas_cumprod)
    assert torch.equal(made["sqrt_alpha"], alphas_cumprod.sqrt())
    assert torch.equal(made["sqrt_one_minus_alpha"], (1 - alphas_cumprod).sqrt())


@pytest.mark.parametrize("kind", PATHS)
def test_every_path_goes_from_image_to_noise(kind):
    made = make_schedule({**LINEAR, "schedule": kind}, dtype=torch.float64)
    a, b = made["sqrt_alpha"], made["sqrt_one_minus_alpha"]
    assert a[0] / b[0] > 10
    assert a[-1] / b[-1] < 0.1
    torch.testing.assert_close(made["alphas_cumprod"], a**2, rtol=1e-15, atol=0)


def test_the_straight_path_is_on_midpoints():
    """T = 4: τ = 1/8, 3/8, 5/8, 7/8."""
    made = make_schedule({**LINEAR, "schedule": "flow", "timesteps": 4}, dtype=torch.float64)
    assert made["sqrt_alpha"].tolist() == [0.875, 0.625, 0.375, 0.125]
    assert made["sqrt_one_minus_alpha"].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert made["alphas_cumprod"].tolist() == [0.765625, 0.390625, 0.140625, 0.015625]


def test_the_continuous_cosine_is_a_quarter_of_a_turn_on_midpoints():
    made = make_schedule({**LINEAR, "schedule": "cosine_continuous"}, dtype=torch.float64)
    a, b = made["sqrt_alpha"], made["sqrt_one_minus_alpha"]
    torch.testing.assert_close(a, b.flip(0), rtol=1e-12, atol=1e-15)  # as much image at τ as noise at 1 − τ
    tau = (np.arange(1000) + 0.5) / 1000
    np.testing.assert_allclose(signal_to_noise(made).numpy(), np.tan(np.pi / 2 * tau) ** -2, rtol=1e-9)


# --- zero terminal SNR ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DIFFUSERS_PATHS)
@pytest.mark.parametrize("T", [1000, 100])
def test_zero_terminal_snr_is_that_of_diffusers(kind, T):
    diffusion = {**LINEAR, "schedule": kind, "timesteps": T}
    theirs = DDIMScheduler(**diffusers_options(diffusion), rescale_betas_zero_snr=True).alphas_cumprod
    ours = make_schedule({**diffusion, "zero_terminal_snr": True}, dtype=torch.float64)
    # They subtract in fp32, which magnifies rounding where little image is left, and multiply T numbers again.
    np.testing.assert_allclose(ours["alphas_cumprod"].numpy(), theirs.numpy(), rtol=3e-5, atol=0)
    assert ours["sqrt_alpha"][-1] == ours["alphas_cumprod"][-1] == 0 and ours["sqrt_one_minus_alpha"][-1] == 1


@pytest.mark.parametrize("kind", [*DIFFUSERS_PATHS, "cosine_continuous"])
def test_zero_terminal_snr_keeps_the_first_step_and_the_variance(kind):
    before, after = (
        make_schedule({**LINEAR, "schedule": kind, "zero_terminal_snr": zero}, dtype=torch.float64)
        for zero in (False, True)
    )
    a, b = after["sqrt_alpha"], after["sqrt_one_minus_alpha"]
    torch.testing.assert_close(a[0], before["sqrt_alpha"][0], rtol=1e-14, atol=0)
    torch.testing.assert_close(a**2 + b**2, torch.ones_like(a), rtol=0, atol=1e-15)
    # What is taken off grows evenly with what is gone: the path is shifted and stretched, and no more.
    stretch = a.diff() / before["sqrt_alpha"].diff()
    torch.testing.assert_close(stretch, stretch[:1].expand(999), rtol=1e-9, atol=0)


STRAIGHT = "torch.linspace(0.9, {}, 5, dtype=torch.float64)"


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (0.0, None),
        (0.1, "a is 0.1 at t = 4 and a² \\+ b² is not 1; diffusion.zero_terminal_snr takes a path that preserves"),
    ],
)
def test_on_other_paths_there_is_no_rescaling_but_their_own_end_may_be_noise(last, words, tmp_path, monkeypatch):
    (tmp_path / "paths").mkdir()
    straight = STRAIGHT.format(last)
    (tmp_path / "paths/mine.py").write_text(
        f"import torch\ndef coefficients(timesteps, options):\n    return {straight}, 1 - {straight}\n"
    )
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path)
    diffusion = {"schedule": "mine", "timesteps": 5}
    if words is None:
        plain, zero = make_schedule(diffusion), make_schedule({**diffusion, "zero_terminal_snr": True})
        assert all(torch.equal(plain[name], zero[name]) for name in plain)
        return
    with pytest.raises(UserError, match=f"paths/mine.py: {words}") as caught:
        make_schedule({**diffusion, "zero_terminal_snr": True})
    assert len(str(caught.value).splitlines()) == 1


# --- files of one's own --------------------------------------------------------------------------------------------

T5 = "torch.linspace(0.9, 0.1, 5, dtype=torch.float64)"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (f"{T5}, {T5}.flip(0)", None),
        (f"options['scale'] * {T5}, {T5}.flip(0)", None),
        ("1 / 0", "coefficients fails: ZeroDivisionError"),
        ("None", r"coefficients must return a and b, two fp64 tensors of shape \(5,\)"),
        (f"{T5}, {T5}[:4]", r"coefficients must return a and b, two fp64 tensors of shape \(5,\)"),
        (f"{T5}.float(), {T5}", "coefficients must return a and b, two fp64"),
        (f"{T5} - 0.5, {T5}.flip(0)", "a is -0.2 at t = 3; it must be a number of at least 0"),
        (f"{T5}, {T5}.flip(0).log().sqrt()", "b is nan at t = 0; it must be"),
        (f"{T5}.flip(0), {T5}", "a/b does not fall from t = 0 to t = 1; noise must grow with t"),
    ],
)
def test_a_file_that_gives_no_path_is_one_line(body, words, tmp_path, monkeypatch):
    (tmp_path / "paths").mkdir()
    (tmp_path / "paths/mine.py").write_text(
        f"import torch\ndef coefficients(timesteps, options):\n    return {body}\n"
    )
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path)
    diffusion = {"schedule": "mine", "timesteps": 5}
    if words is None:
        made = make_schedule(diffusion, {"scale": 0.5})
        assert made["sqrt_alpha"][0] == pytest.approx(0.45 if "scale" in body else 0.9)
        return
    with pytest.raises(UserError, match=f"paths/mine.py: {words}") as caught:
        make_schedule(diffusion)
    assert len(str(caught.value).splitlines()) == 1


def test_the_numbers_of_record(schedule):
    """The linear schedule from 1e-4 to 0.02 over 1,000 steps: SNR is 1 at t = 258."""
    snr = signal_to_noise(schedule)
    assert len(snr) == 1000
    assert int((snr.log().abs()).argmin()) == 258
    assert snr[258] == pytest.approx(1, abs=0.01)
    assert schedule["alphas_cumprod"][999] == pytest.approx(4.04e-5, abs=0.005e-5)
    assert schedule["alphas_cumprod"][0] == pytest.approx(1 - 1e-4, abs=1e-7)


def test_each_image_gets_its_own_step(schedule):
    x_0, noise = some_images(3)
    timesteps = torch.tensor([999, 0, 258])
    x_t = add_noise(x_0, noise, timesteps, schedule)
    for i, t in enumerate(timesteps.tolist()):
        a, b = schedule["sqrt_alpha"][t], schedule["sqrt_one_minus_alpha"][t]
        assert torch.equal(x_t[i], a * x_0[i] + b * noise[i])
    a, b = at(schedule, timesteps)
    assert a.shape == b.shape == (3, 1, 1, 1)


def test_a_variants_constants_come_along_in_the_right_type():
    made = make_schedule(LINEAR, {"sigma_data": 0.5, "gamma": 5}, dtype=torch.float64)
    assert made["sigma_data"] == 0.5
    assert made["gamma"].shape == ()
    assert {value.dtype for value in made.values()} == {torch.float64}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_type_is_as_asked(dtype):
    assert {value.dtype for value in make_schedule(LINEAR, {"k": 1.0}, dtype=dtype).values()} == {dtype}


def test_small_noise_of_a_path_of_ones_own_survives_fp32(tmp_path, monkeypatch):
    """log SNR from 20 to −20 (Hoogeboom et al. 2023): b begins at 4.5e-5, which 1 − a² in fp32 would call 0."""
    (tmp_path / "paths").mkdir()
    (tmp_path / "paths/steep.py").write_text(
        "import torch\ndef coefficients(timesteps, options):\n"
        "    snr = torch.linspace(20, -20, timesteps, dtype=torch.float64)\n"
        "    return torch.sigmoid(snr).sqrt(), torch.sigmoid(-snr).sqrt()\n"
    )
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path)
    found = make_schedule({"schedule": "steep", "timesteps": 1000})
    snr = np.linspace(20, -20, 1000)
    np.testing.assert_allclose(found["sqrt_one_minus_alpha"].numpy(), 1 / np.sqrt(1 + np.exp(snr)), rtol=1e-6)
    np.testing.assert_allclose(found["sqrt_alpha"].numpy(), 1 / np.sqrt(1 + np.exp(-snr)), rtol=1e-6)
