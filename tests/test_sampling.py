"""Sampling, against DDIM written out here, against diffusers, and against data whose exact denoiser is known."""

import hashlib
import shutil
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from helpers import (
    DIFFUSERS_PATHS,
    EXAMPLE,
    LINEAR,
    ROOT,
    denoise,
    diffusers_options,
    some_images,
    whole_outcome,
)
from safetensors.torch import save_file

from targetwise import cells
from targetwise.data.samples import first_samples, load_samples
from targetwise.diffusion import network as building
from targetwise.diffusion.parameterization import load
from targetwise.diffusion.randomness import sampling_noise
from targetwise.diffusion.schedule import at, make_schedule
from targetwise.errors import UserError
from targetwise.files import read_json, sha256_of_array, sha256_of_file, write_json
from targetwise.jobs.parts import Parts
from targetwise.metric import bounds
from targetwise.recipe import kinds
from targetwise.recipe.samplings import further_arguments
from targetwise.sampling import denoiser as sampling
from targetwise.sampling.denoiser import Denoiser, Sampler, draw_images, to_uint8
from targetwise.sampling.stage import sample
from targetwise.training import loop
from targetwise.training.stopping import Stop

SHAPE = (2, 4, 4)


def options(**changes):
    clean = {"steps": 50, "spacing": "leading", "clip": False, "last_alpha_is_one": True, "images": 8, "batch": 3}
    return {**EXAMPLE["sampling"], "clipped_epsilon": False, "widen_output": True, **clean, **changes}


class Exact:
    """Stands for a trained network: x_0 from a formula of (x_t, t)."""

    def __init__(self, x_0, diffusion=LINEAR, seed=0):
        self.variant = {"diffusion": diffusion, "parameters": {}}
        self.classes = None
        self.device = torch.device("cpu")
        self.image_shape = SHAPE
        self.seed = seed
        self.asked = []
        self._x_0 = x_0

    def x_0(self, x_t, timesteps, **_):
        self.asked.append(timesteps.tolist())
        return self._x_0(x_t, timesteps)


def gaussian(mean, deviation):
    """Return the best denoiser of data N(mean, s²), E[x_0 | x_t] = mean + s²a/(s²a² + b²)·(x_t − a·mean)."""
    schedule = make_schedule(LINEAR, dtype=torch.float64)

    def x_0(x_t, timesteps):
        a, b = at(schedule, timesteps)
        return mean + deviation**2 * a / (deviation**2 * a**2 + b**2) * (x_t - a * mean)

    return Exact(x_0)


def wild(x_t, timesteps):
    """A function that is nothing like a denoiser, so that no error of the loop can hide."""
    return torch.tanh(1.7 * x_t + timesteps.view(-1, 1, 1, 1) / 300) * 1.3


def smooth(x_t, timesteps):
    """A function of bounded slope, for samplers that extrapolate."""
    return 0.8 * torch.sin(x_t + timesteps.view(-1, 1, 1, 1) / 400)


def ddim(x_0, x, *, steps, clip, last_alpha_is_one, spacing, clipped_epsilon=False):
    """Song et al. 2021, eq. 12 with η = 0, written out."""
    alpha_bar = make_schedule(LINEAR, dtype=torch.float64)["alphas_cumprod"]
    stride = 1000 // steps
    last = 1.0 if last_alpha_is_one else float(alpha_bar[0])
    first = 999 if spacing == "trailing" else (steps - 1) * stride
    for t in range(first, first - steps * stride, -stride):
        a, b = float(alpha_bar[t]) ** 0.5, float(1 - alpha_bar[t]) ** 0.5
        estimate = x_0(x, torch.full((len(x),), t))
        noise = (x - a * estimate) / b
        if clip:
            estimate = estimate.clamp(-1, 1)
        if clipped_epsilon:
            noise = (x - a * estimate) / b
        next_alpha = float(alpha_bar[t - stride]) if t >= stride else last
        x = next_alpha**0.5 * estimate + (1 - next_alpha) ** 0.5 * noise
    return x


# --- the loop ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 10, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("last_alpha_is_one", [True, False])
@pytest.mark.parametrize("clipped_epsilon", [True, False])
def test_the_loop_is_ddim(steps, spacing, clip, last_alpha_is_one, clipped_epsilon):
    chosen = {
        "steps": steps,
        "spacing": spacing,
        "clip": clip,
        "last_alpha_is_one": last_alpha_is_one,
        "clipped_epsilon": clipped_epsilon,
    }
    noise = 2 * some_images(4)[1]
    mine = denoise(Exact(wild), noise, options(**chosen))
    torch.testing.assert_close(mine, ddim(wild, noise, **chosen), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clip", [True, False])
def test_the_loop_is_that_of_diffusers_with_an_epsilon_network(clip):
    """diffusers' own handling of prediction_type epsilon, against ours: epsilon.py, then prediction_type sample."""
    schedule, epsilon = make_schedule(LINEAR, dtype=torch.float64), load("epsilon")
    theirs = DDIMScheduler(**diffusers_options(LINEAR), prediction_type="epsilon", clip_sample=clip)
    theirs.set_timesteps(50)
    x = noise = some_images(4)[1]
    for t in theirs.timesteps:
        x = theirs.step(wild(x, t.expand(len(x))), t, x, eta=0.0).prev_sample

    def through_epsilon(x_t, timesteps):
        return epsilon.predict_x0(wild(x_t, timesteps), x_t, timesteps, schedule)

    mine = denoise(Exact(through_epsilon), noise, options(clip=clip))
    torch.testing.assert_close(mine, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("last_alpha_is_one", [True, False])
@pytest.mark.parametrize("clipped_epsilon", [True, False])
@pytest.mark.parametrize("kind", DIFFUSERS_PATHS)
def test_ddim_is_that_of_diffusers_on_its_paths(kind, spacing, last_alpha_is_one, clipped_epsilon):
    chosen = {"spacing": spacing, "last_alpha_is_one": last_alpha_is_one, "clipped_epsilon": clipped_epsilon}
    diffusion = {**LINEAR, "schedule": kind}
    theirs = DDIMScheduler(
        **diffusers_options(diffusion),
        prediction_type="sample",
        clip_sample=True,
        set_alpha_to_one=last_alpha_is_one,
        timestep_spacing=spacing,
    )
    theirs.set_timesteps(40)
    x = noise = some_images(4)[1].float()
    for t in theirs.timesteps:
        x_0 = wild(x, t.expand(len(x)))
        x = theirs.step(x_0, t, x, eta=0.0, use_clipped_model_output=clipped_epsilon).prev_sample
    mine = denoise(Exact(wild, diffusion), noise, options(steps=40, clip=True, **chosen))
    assert mine.dtype == torch.float32
    torch.testing.assert_close(mine, x, rtol=1e-4, atol=1e-4)


def test_dpmpp_2m_is_that_of_diffusers():
    """The last step is of first order there too, where its noise level is 0."""
    theirs = DPMSolverMultistepScheduler(
        **diffusers_options(LINEAR),
        prediction_type="sample",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(20)
    x = noise = some_images(4)[1]
    asked = Exact(smooth)
    for t in theirs.timesteps:
        x = theirs.step(smooth(x, t.expand(len(x))), t, x).prev_sample
    mine = denoise(asked, noise, options(sampler="dpmpp_2m", steps=20, spacing="trailing"))
    assert [t for (t, *_) in asked.asked] == theirs.timesteps.tolist()
    torch.testing.assert_close(mine, x.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("counted", [1.0, 0.5])
def test_dpmpp_3m_is_that_of_diffusers_but_for_the_bend_that_is_counted_by_half_there(counted):
    """∫ e^(δ−h)·δ² dδ over one step is h² − 2h + 2 − 2e^(−h); theirs, as the authors' code, has half of it."""
    theirs = DPMSolverMultistepScheduler(
        **diffusers_options(LINEAR),
        prediction_type="sample",
        solver_order=3,
        solver_type="heun",  # so that the second step, which is of second order, is the same integral
        final_sigmas_type="zero",
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(20)
    x = noise = some_images(4)[1]
    for t in theirs.timesteps:
        x = theirs.step(smooth(x, t.expand(len(x))), t, x).prev_sample
    way = Sampler(Exact(smooth).variant, options(sampler="dpmpp_3m", steps=20, spacing="trailing"))
    source, functions = kinds.file_of("samplers", "dpmpp_3m").read_text(), {}
    assert source.count("- 2 * decay) * bend") == 1
    exec(source.replace("- 2 * decay) * bend", f"- 2 * decay) * {counted} * bend"), functions)
    way._source = {"step": functions["step"]}
    off = (sampling.denoise(Exact(smooth), noise.float(), way) - x).abs().max()
    assert (off < 1e-4) == (counted == 0.5)


ZERO = {**LINEAR, "zero_terminal_snr": True}


def test_from_zero_terminal_snr_ddim_is_that_of_diffusers():
    """Lin et al. 2024: the first step, at t = 999, has no image in x_t, and is told nothing but the estimate."""
    theirs = DDIMScheduler(
        **diffusers_options(LINEAR),
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    theirs.set_timesteps(20)
    schedule, v = make_schedule(ZERO, dtype=torch.float64), load("v")
    x = noise = some_images(4)[1]
    for t in theirs.timesteps:
        x = theirs.step(wild(x, t.expand(len(x))), t, x, eta=0.0).prev_sample

    def through_v(x_t, timesteps):
        return v.predict_x0(wild(x_t, timesteps), x_t, timesteps, schedule)

    asked = Exact(through_v, ZERO)
    mine = denoise(asked, noise, options(steps=20, spacing="trailing"))
    assert asked.asked[0][0] == 999
    torch.testing.assert_close(mine, x.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", sorted(path.stem for path in (ROOT / "workflow/samplers").glob("*.py")))
@pytest.mark.parametrize("steps", [1, 2, 4, 100])
def test_every_sampler_starts_at_zero_terminal_snr(sampler, steps):
    """Its first step has an infinite Δλ. For data N(m, s²) the ODE ends at m + s·noise, fresh noise at m and s."""
    schedule = make_schedule(ZERO, dtype=torch.float64)

    def best(x_t, timesteps):
        a, b = at(schedule, timesteps)
        return 0.2 + 0.25 * a / (0.25 * a**2 + b**2) * (x_t - a * 0.2)

    noise = some_images(64)[1]
    images = denoise(Exact(best, ZERO), noise, options(sampler=sampler, steps=steps, spacing="trailing"))
    assert images.isfinite().all()
    has_fresh_noise = "noise" in further_arguments(kinds.load("samplers", sampler))[0]
    if steps == 100 and has_fresh_noise:  # 3,072 numbers: their mean is sure to 0.009, their deviation to 0.0064
        assert abs(images.mean() - 0.2) < 0.03
        assert abs(images.std() - 0.5) < 0.03
        assert abs(images - 0.2 - 0.5 * noise).max() > 0.5
    elif steps == 1:  # all that the first estimate can say
        torch.testing.assert_close(images, torch.full_like(images, 0.2), rtol=1e-6, atol=0)
    elif steps == 100:
        torch.testing.assert_close(images, 0.2 + 0.5 * noise, rtol=0.05, atol=0.02)


def test_a_step_begins_nowhere_where_there_is_no_noise():
    """With b = 0 at t = 0 is x_t the image: ε would be 0/0 there."""
    diffusion = {**LINEAR, "beta_start": 0.0}
    asked = Exact(lambda x_t, t: torch.full_like(x_t, 0.25), diffusion)
    images = denoise(asked, some_images(2)[1], options())
    assert asked.asked[-1] == [20, 20]
    torch.testing.assert_close(images, torch.full_like(images, 0.25))


def test_the_network_is_asked_at_the_protocols_steps():
    asked = Exact(wild)
    denoise(asked, some_images(3)[1], options())
    assert asked.asked == [[t] * 3 for t in range(980, -1, -20)]
    asked = Exact(wild)
    denoise(asked, some_images(1)[1], options(spacing="trailing"))
    assert [t for (t,) in asked.asked] == list(range(999, 0, -20))


def test_the_reference_tasks_last_step_stands_still():
    """The reference task: leading, and the last ᾱ not 1: 49 steps act, and noise of deviation 0.01 stays."""
    seen = []

    def remember(x_t, timesteps):
        seen.append(x_t)
        return gaussian(0.0, 0.5)._x_0(x_t, timesteps)

    noise = some_images(64)[1]
    quirky = denoise(Exact(remember), noise, options(last_alpha_is_one=False))
    torch.testing.assert_close(quirky, seen[-1], rtol=1e-5, atol=1e-6)
    clean = denoise(gaussian(0.0, 0.5), noise, options())
    best = gaussian(0.0, 0.5)._x_0(seen[-1], torch.zeros(64, dtype=torch.int64))
    torch.testing.assert_close(clean, best, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", [True, False])
def test_clipping_bounds_the_last_image(clip):
    bright = denoise(Exact(lambda x_t, t: torch.full_like(x_t, 1.5)), some_images(4)[1], options(clip=clip))
    assert bright.max().item() == pytest.approx(1.0 if clip else 1.5, abs=1e-6)


def test_the_input_is_left_alone():
    noise = some_images(2)[1]
    before = noise.clone()
    denoise(Exact(wild), noise, options())
    assert torch.equal(noise, before)


# --- ground truth --------------------------------------------------------------------------------------------------


def spread(deviation, steps):
    """Return by what DDIM multiplies the noise for data N(0, deviation²): a product, for every step is linear."""
    alpha_bar = make_schedule(LINEAR, dtype=torch.float64)["alphas_cumprod"].numpy()
    stride, product = 1000 // steps, 1.0
    for t in range((steps - 1) * stride, -1, -stride):
        now, then = alpha_bar[t], alpha_bar[t - stride] if t >= stride else 1.0
        total = deviation**2 * now + 1 - now
        product *= np.sqrt(then) * deviation**2 * np.sqrt(now) / total + np.sqrt(1 - then) * np.sqrt(1 - now) / total
    return product


@pytest.mark.parametrize("steps", [10, 50])
def test_the_exact_denoiser_gives_the_spread_that_algebra_predicts(steps):
    noise = some_images(16)[1]
    images = denoise(gaussian(0.0, 0.5), noise, options(steps=steps))
    torch.testing.assert_close(images, spread(0.5, steps) * noise, rtol=1e-4, atol=1e-5)


#: By sampler and path, the order in 1/steps in which its error vanishes from the first step on (without it:
#: test_samplers.py). The first step of 3M is DDIM's, of which the error is of order 2: on the linear path there is
#: hardly any, because its estimates are alike where all is noise.
ORDERS = {
    "ddim": {"linear": 1, "flow": 1},
    "dpmpp_2m": {"linear": 2, "flow": 2},
    "dpmpp_3m": {"linear": 3, "flow": 2},
}


@pytest.mark.parametrize("sampler", ORDERS)
@pytest.mark.parametrize("kind", ["linear", "flow"])
def test_the_error_vanishes_at_the_samplers_order_on_any_path(kind, sampler):
    """For data N(0, s²) the exact flow of the ODE keeps x/sqrt(s²a² + b²), whatever the path is."""
    deviation, errors = 0.5, []
    diffusion = {**LINEAR, "schedule": kind, "timesteps": 4000, "beta_start": 2.5e-5, "beta_end": 0.005}
    schedule = make_schedule(diffusion, dtype=torch.float64)

    def size(t):
        a, b = schedule["sqrt_alpha"][t], schedule["sqrt_one_minus_alpha"][t]
        return torch.sqrt(deviation**2 * a**2 + b**2).item()

    def x_0(x_t, timesteps):
        a, b = at(schedule, timesteps)
        return deviation**2 * a / (deviation**2 * a**2 + b**2) * x_t

    noise = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for steps in (50, 100, 200):
        chosen, seen = options(sampler=sampler, steps=steps, spacing="trailing"), []
        denoise(Exact(lambda x_t, t, seen=seen: seen.append((x_t, t)) or x_0(x_t, t), diffusion), noise, chosen)
        (half_way,) = (x_t.item() for x_t, t in seen if int(t) == 1999)
        errors.append(abs(half_way / seen[0][0].item() / (size(1999) / size(3999)) - 1))
    orders = [np.log2(one / two) for one, two in pairwise(errors)]
    assert orders == pytest.approx([ORDERS[sampler][kind]] * 2, abs=0.2)


def test_with_all_steps_the_exact_denoiser_gives_the_datas_mean_and_spread():
    assert spread(0.5, 1000) == pytest.approx(0.5, rel=0.005)
    noise = some_images(400, seed=3)[1]
    images = denoise(gaussian(0.2, 0.5), noise, options(steps=1000))
    assert images.mean().item() == pytest.approx(0.2, abs=4 * 0.5 / noise.numel() ** 0.5 + 0.005)
    assert images.std().item() == pytest.approx(0.5, rel=0.03)


# --- levels --------------------------------------------------------------------------------------------------------


def test_levels_come_back_exactly():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    images = levels.float() / 127.5 - 1
    assert np.array_equal(to_uint8(images, "round")[0, :, :, 0], levels[0, 0].numpy())


def test_rounding_is_to_the_nearest_and_truncating_darkens():
    images = torch.tensor([-1.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 0.0, 1 - 0.4 / 127.5, 1.0]).view(1, 1, 2, 3)
    assert to_uint8(images, "round").ravel().tolist() == [0, 0, 1, 128, 255, 255]
    assert to_uint8(images, "truncate").ravel().tolist() == [0, 0, 0, 127, 254, 255]
    even = torch.linspace(-1, 1, 100_001).view(1, 1, 1, -1)
    darker = to_uint8(even, "round").mean() - to_uint8(even, "truncate").mean()
    assert darker == pytest.approx(0.5, abs=0.01)


def test_what_lies_outside_is_clipped_and_does_not_wrap_around():
    images = torch.tensor([-9.0, -1.001, 1.001, 9.0]).view(1, 1, 2, 2)
    for quantization in ("round", "truncate"):
        assert to_uint8(images, quantization).ravel().tolist() == [0, 0, 255, 255]


def test_axes_are_put_last():
    images = torch.zeros(2, 3, 4, 5)
    images[1, 2, 3, 4] = 1
    array = to_uint8(images, "round")
    assert array.shape == (2, 4, 5, 3)
    assert array.dtype == np.uint8
    assert array[1, 3, 4, 2] == 255
    assert (array == 255).sum() == 1


# --- draws ---------------------------------------------------------------------------------------------------------


def draw(number=0, **changes):
    return draw_images(gaussian(0.0, 0.5), options(**changes), number, "test")


@pytest.mark.parametrize("batch", [1, 5, 7, 8, 100])
def test_a_sample_does_not_depend_on_the_batch(batch):
    assert np.array_equal(draw(batch=batch), draw(batch=3))


def test_more_samples_leave_the_first_as_they_were():
    assert np.array_equal(draw(images=20)[:8], draw(images=8))


def test_draws_and_seeds_differ_and_are_not_correlated():
    images = {
        key: draw(key[0], seed=key[1], images=200, batch=200, steps=10).astype(float).ravel()
        for key in [(0, 0), (1, 0), (0, 1)]
    }
    for other in ((1, 0), (0, 1)):
        assert abs(np.corrcoef(images[0, 0], images[other])[0, 1]) < 5 / np.sqrt(images[other].size)


def test_cells_of_one_training_seed_share_their_starting_noise_and_those_of_two_do_not(specification, images):
    """Pairing holds within a seed; across seeds a common error of the latents must average out."""

    def starts(name, seed):
        cell = {**specification, "cell": {**specification["cell"], "parameterization": name, "seed": seed}}
        denoiser = Denoiser(cell, images, load(name), torch.device("cpu"))
        seen = []
        denoiser.x_0 = lambda x_t, timesteps, **_: seen.append(x_t) or x_t
        draw_images(denoiser, options(steps=1, batch=8), 0, "test")
        return seen[0]

    assert torch.equal(starts("v", 1), starts("x0", 1))
    one, two = starts("v", 1).double().ravel(), starts("v", 2).double().ravel()
    assert abs(np.corrcoef(one, two)[0, 1]) < 4.5 / len(one) ** 0.5


def test_a_sample_starts_from_the_noise_of_its_index():
    noise = torch.from_numpy(sampling_noise(0, 0, 1, 0, 8, SHAPE))
    expected = to_uint8(spread(0.5, 50) * noise, "round").astype(int)
    assert np.abs(draw(1).astype(int) - expected).max() <= 1


def test_no_global_stream_is_read():
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = draw()
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(draw(), first)


def test_values_that_are_not_finite_make_no_images():
    """As uint8 a NaN would look like a grey or black pixel."""
    broken = Exact(lambda x_t, t: torch.where(t.view(-1, 1, 1, 1) == 500, torch.nan, x_t))
    assert len(draw_images(broken, options(), 0, "test")) == 0


# --- a real network ------------------------------------------------------------------------------------------------


@pytest.fixture
def specification(study):
    study["scales"]["tiny"] = {"channels": [32], "attention": [], "layers_per_block": 1}
    study["parameterizations"]["v"] = {"target": "v"}
    return cells.specifications(study)[cells.Cell("digits", "v", "tiny", 0).folder / "cell.json"]


@pytest.fixture
def trained(specification, images, tmp_path):
    """A cell's folder after training, with weights that are only initial."""
    denoiser = Denoiser(specification, images, load("v"), torch.device("cpu"))
    weights = {name: value.contiguous() for name, value in denoiser.model.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    outcome = whole_outcome(model_sha256=sha256_of_file(tmp_path / "model.safetensors"))
    write_json(tmp_path / "training.json", outcome)
    return tmp_path


def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_nothing_else_changes(capsys):
    fits = gaussian(0.0, 0.5)
    whole = draw_images(fits, options(images=7, batch=7), 0, "test")

    class Small(type(fits)):
        def x_0(self, x_t, timesteps, **changes):
            if len(x_t) > 2:
                raise torch.OutOfMemoryError("no room")
            return super().x_0(x_t, timesteps, **changes)

    small = gaussian(0.0, 0.5)
    small.__class__ = Small
    assert np.array_equal(draw_images(small, options(images=7, batch=7), 0, "draw it"), whole)
    told = [line for line in capsys.readouterr().err.splitlines() if "memory" in line]
    assert told == [f"draw it: out of memory; going on with {batch} images at a time" for batch in (3, 1)]


def test_a_single_image_that_does_not_fit_is_an_error():
    class Full(type(gaussian(0.0, 0.5))):
        def x_0(self, x_t, timesteps, **changes):
            raise torch.OutOfMemoryError("no room")

    full = gaussian(0.0, 0.5)
    full.__class__ = Full
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        draw_images(full, options(images=4, batch=4), 0, "test")


def test_a_real_networks_samples_do_not_depend_on_the_batch(specification, images):
    """Kernels may sum in another order for another batch, so the last bit of a level may move, and no more."""
    denoiser = Denoiser(specification, images, load("v"), torch.device("cpu"))
    whole = draw_images(denoiser, options(images=6, batch=6, steps=10), 0, "test")
    single = draw_images(denoiser, options(images=6, batch=1, steps=10), 0, "test")
    assert whole.shape == (6, 8, 8, 1)
    assert np.abs(whole.astype(int) - single.astype(int)).max() <= 1
    assert len({image.tobytes() for image in whole}) == 6


def test_dropout_and_the_like_are_off_and_no_gradient_is_kept(specification, images):
    denoiser = Denoiser(specification, images, load("v"), torch.device("cpu"))
    assert not denoiser.model.training
    assert not denoise(denoiser, torch.zeros(1, 1, 8, 8), options(steps=2)).requires_grad


@pytest.mark.parametrize("widen_output", [True, False])
def test_an_estimate_outlives_the_networks_next_call(specification, images, widen_output):
    """A network that is replayed as a CUDA graph writes every output to the same place; DPM-Solver++ keeps one."""
    asked = options(images=3, batch=3, steps=6, clip=False, sampler="dpmpp_2m", widen_output=widen_output)
    denoiser = Denoiser(specification, images, load("x0"), torch.device("cpu"))
    expected = draw_images(denoiser, asked, 0, "test")
    network, place = denoiser.model, torch.empty(3, 1, 8, 8)
    denoiser.model = lambda x_t, timesteps: place.copy_(network(x_t, timesteps))
    np.testing.assert_array_equal(draw_images(denoiser, asked, 0, "test"), expected)


def switches():
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), matmul, cudnn.allow_tf32, cudnn.benchmark


@pytest.mark.parametrize("tf32", [True, False])
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("what", ["sample", "ceiling"])
def test_a_network_samples_with_the_kernels_of_its_training(
    specification, images, trained, monkeypatch, tf32, deterministic, what
):
    """Whatever the process had before; and what it computes besides, as features, keeps that."""
    specification["training"] |= {"tf32": tf32, "deterministic": deterministic}
    before, seen = switches(), []
    monkeypatch.setattr(building, "_require_shape", lambda *_, **__: None)  # the trial of a network makes no image

    def watch(network, *_):
        seen.append(switches())

    def features(*_):
        seen.append("features")
        assert switches() == before
        raise KeyboardInterrupt

    with torch.nn.modules.module.register_module_forward_pre_hook(watch):
        if what == "sample":
            sample(specification, options(steps=1), images, trained, 0, trained / "draw0.npz")
        else:
            reference = SimpleNamespace(extractor=lambda device: SimpleNamespace(features=features))
            with pytest.raises(KeyboardInterrupt):
                bounds.sampled(
                    "ceiling", specification, options(steps=1), images, reference, ["frechet"], sampler="ddim-1"
                )
            assert seen.pop() == "features"
    assert set(seen) == {(deterministic, tf32, tf32, not deterministic)}
    assert switches() == before


def test_a_draw_is_written_with_its_facts(specification, images, trained):
    output = trained / "samples" / "draw1.npz"
    sample(specification, options(steps=2), images, trained, 1, output)
    array, facts = load_samples(output), read_json(output.with_suffix(".json"))
    assert array.shape == (8, 8, 8, 1)
    assert array.dtype == np.uint8
    assert (facts["draw"], facts["images"], facts["status"], facts["reason"]) == (1, 8, "finished", None)
    assert facts["evaluations"] == 2
    assert facts["model_sha256"] == sha256_of_file(trained / "model.safetensors")
    again = trained / "again.npz"
    sample(specification, options(steps=2), images, trained, 1, again)
    assert np.array_equal(load_samples(again), array)


def test_a_diverged_cell_has_no_samples_and_a_reason(specification, images, trained):
    outcome = whole_outcome(status="diverged", reason="the loss was not finite at step 3")
    write_json(trained / "training.json", outcome)
    sample(specification, options(), images, trained, 0, trained / "draw0.npz")
    assert load_samples(trained / "draw0.npz").shape == (0, 8, 8, 1)
    facts = read_json(trained / "draw0.json")
    assert (facts["status"], facts["reason"]) == ("diverged", "the loss was not finite at step 3")


def test_weights_that_are_not_those_of_the_training_are_refused(specification, images, trained):
    (trained / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"model\.safetensors is not the file that .*training\.json records"):
        sample(specification, options(), images, trained, 0, trained / "draw0.npz")
    assert not list(trained.glob("draw0*"))


def test_a_target_that_changed_since_the_training_is_refused(specification, images, project):
    """With the file of today its output would mean something else, and nothing would look wrong."""
    (project / "workflow").unlink()
    shutil.copytree(ROOT / "workflow", project / "workflow")
    training = {**specification, "training": {**specification["training"], "steps": 1, "global_batch": 4}}
    folder = Path("results/digits/v/tiny/seed0")
    folder.mkdir(parents=True)
    outcome = loop.train(training, images, folder, save_every_seconds=1e9, stop=Stop())
    file = Path("workflow/parameterizations/v.py")
    assert outcome["sources"][str(file)] == hashlib.sha256(file.read_bytes()).hexdigest()
    sample(training, options(steps=1), images, folder, 0, folder / "draw0.npz")

    file.write_text(file.read_text() + "\n# another file\n")
    with pytest.raises(UserError) as caught:
        sample(training, options(steps=1), images, folder, 1, folder / "draw1.npz")
    assert str(caught.value) == (
        "workflow/parameterizations/v.py is not the file that results/digits/v/tiny/seed0/training.json was trained "
        "with; undo the change, or train again: `snakemake --cores all all --configfile results/digits/study.json`"
    )
    assert not (folder / "draw1.npz").exists()


@pytest.mark.parametrize("damage", ["missing", "truncated", "other network"])
def test_weights_that_do_not_load_are_named(specification, images, trained, damage):
    path = trained / "model.safetensors"
    denoiser = Denoiser(specification, images, load("v"), torch.device("cpu"))
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        save_file({"x": torch.zeros(1)}, path)
    words = "does not fit the network of v-tiny-0: it lacks" if damage == "other network" else "cannot be loaded"
    with pytest.raises(UserError, match=rf"model\.safetensors {words}") as caught:
        denoiser.load(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("damage", ["missing", "truncated", "changed", "no array"])
def test_samples_that_are_damaged_are_named(specification, images, trained, damage):
    path = trained / "draw0.npz"
    sample(specification, options(steps=2), images, trained, 0, path)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "changed":
        np.savez(path, load_samples(path) ^ 1)
    else:
        np.savez(path, other=np.zeros(1))
    with pytest.raises(UserError, match=r"draw0\.npz is (missing or damaged|not what .*draw0\.json records)"):
        load_samples(path)
    if damage != "changed":
        with pytest.raises(UserError, match=r"draw0\.npz is missing or damaged"):
            first_samples(path, 4)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_first_samples_are_those_of_the_whole(tmp_path, save, order):
    array = np.random.default_rng(0).integers(0, 256, (50, 4, 3, 3), dtype=np.uint8)
    save(tmp_path / "draw0.npz", np.asarray(array, order=order))
    write_json(tmp_path / "draw0.json", {"images": 50, "samples_sha256": sha256_of_array(array)})
    for count in (1, 7, 50, 51):
        assert np.array_equal(first_samples(tmp_path / "draw0.npz", count), array[:count])


def test_for_the_first_samples_the_others_are_not_read(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (5000, 4, 4, 1), dtype=np.uint8)
    path = tmp_path / "draw0.npz"
    np.savez(path, array)
    write_json(path.with_suffix(".json"), {"images": 5000, "samples_sha256": sha256_of_array(array)})
    content = path.read_bytes()
    last = content.index(array[-1].tobytes())
    path.write_bytes(content[:last] + bytes(16) + content[last + 16 :])
    assert np.array_equal(first_samples(path, 16), array[:16])
    with pytest.raises(UserError, match="damaged"):
        load_samples(path)
    write_json(path.with_suffix(".json"), {"images": 4999})
    with pytest.raises(UserError, match=r"draw0\.npz is not what .*draw0\.json records"):
        first_samples(path, 16)


def test_objects_are_never_unpickled(specification, images, trained):
    path = trained / "draw0.npz"
    sample(specification, options(steps=2), images, trained, 0, path)
    np.savez(path, np.array([SimpleNamespace()], dtype=object))
    for read in (load_samples, partial(first_samples, count=1)):
        with pytest.raises(UserError, match="damaged"):
            read(path)


def test_a_sampler_that_is_edited_meanwhile_is_that_of_the_beginning_for_all_batches(
    specification, images, tmp_path, monkeypatch
):
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path / "workflow")
    denoiser = Denoiser(specification, images, load("v"), torch.device("cpu"))
    asked = options(images=4, batch=2, steps=3)
    expected = draw_images(denoiser, asked, 0, "test")
    parts = Parts(tmp_path / "parts", "key")
    write = parts.write

    def write_and_edit(name, array):
        (tmp_path / "workflow/samplers/ddim.py").write_text(
            "def step(x_t, x_0, now, then, memory):\n    return 0 * x_t"
        )
        write(name, array)

    parts.write = write_and_edit
    np.testing.assert_array_equal(draw_images(denoiser, asked, 0, "test", finished=parts), expected)


def test_batches_of_other_conditions_are_sampled_again(specification, images, tmp_path, monkeypatch):
    """A draw that began on another card, or in another number format, is not finished here."""
    denoiser = Denoiser(specification, images, load("v"), torch.device("cpu"))
    asked = options(images=4, batch=2, steps=3)
    expected = draw_images(denoiser, asked, 0, "test", finished=Parts(tmp_path, "key"))
    foreign = np.zeros((2, 8, 8, 1), dtype=np.uint8)
    for differ, first in ((False, foreign), (True, expected[:2])):
        Parts(tmp_path, "key").write("images-0-2", foreign)
        if differ:
            now = {"device": "cpu", "torch": "another"}
            monkeypatch.setattr("targetwise.sampling.denoiser.conditions", lambda *_, now=now: now)
        found = draw_images(denoiser, asked, 0, "test", finished=Parts(tmp_path, "key"))
        np.testing.assert_array_equal(found[:2], first)
        np.testing.assert_array_equal(found[2:], expected[2:])


@pytest.mark.parametrize(("path", "spread"), [("linear", 1.0), ("cosine", 1.0), ("flow", 0.9005)])
def test_noise_begins_with_the_spread_of_the_path(path, spread):
    """Ten leading steps of a thousand begin at t = 900, where b is 0.9005 on flow."""
    diffusion, seen = {**LINEAR, "schedule": path}, []
    exact = Exact(lambda x_t, t: seen.append((x_t, t)) or torch.zeros_like(x_t), diffusion)
    noise = some_images(2)[1]
    denoise(exact, noise, options(steps=10, spacing="leading"))
    first, timesteps = seen[0]
    assert timesteps.tolist() == [900, 900]
    torch.testing.assert_close(first, spread * noise, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return x_0[:, :, :4]", r"step returned shape \(2, 1, 4, 8\) for images of shape \(2, 1, 8, 8\)"),
        ("return memory['gone']", "step fails: KeyError: 'gone'"),
    ],
)
def test_a_sampler_that_gives_no_images_is_one_line(tmp_path, monkeypatch, body, words):
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    (tmp_path / "workflow/samplers/mine.py").write_text(f"def step(x_t, x_0, now, then, memory):\n    {body}\n")
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path / "workflow")
    noise = torch.zeros(2, 1, 8, 8)
    with pytest.raises(UserError, match=f"workflow/samplers/mine.py: {words}"):
        denoise(Exact(lambda x_t, t: x_t), noise, options(sampler="mine"))
