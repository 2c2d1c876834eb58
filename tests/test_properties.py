"""What must hold of every output, path, loss space, weighting, density of time steps and sampler that there is.

Nothing here has a list of what goes with what: a combination that cannot work must be refused by the check, for a
reason that is worked out here from the numbers.
"""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from helpers import (
    DIFFUSERS_PATHS,
    FILES,
    LINEAR,
    PATHS,
    ROOT,
    denoise,
    diffusers_options,
    some_images,
)
from hypothesis import assume, given
from hypothesis import strategies as some
from scipy.stats import norm

from targetwise.check.roundtrip import check
from targetwise.diffusion.effective import effective_weight
from targetwise.diffusion.loss import Objective, multiplier, named_weight, slope_of_target, weight_in_x0_space
from targetwise.diffusion.parameterization import load
from targetwise.diffusion.schedule import add_noise, at, make_schedule
from targetwise.diffusion.times import probabilities
from targetwise.errors import UserError
from targetwise.operations.matching import Way, matched

WEIGHTINGS, TIMES, SAMPLERS = (
    sorted(path.stem for path in (ROOT / "workflow" / kind).glob("*.py"))
    for kind in ("weightings", "times", "samplers")
)

#: Few time steps, so that all are tried at once, with the noise of a thousand.
SHORT = {**LINEAR, "timesteps": 40, "beta_start": 2.5e-3, "beta_end": 0.5}

outputs, weightings = some.sampled_from(FILES), some.sampled_from(["constant", *WEIGHTINGS])
paths = some.tuples(some.sampled_from(PATHS), some.booleans())
each_path = pytest.mark.parametrize("path", [(kind, zero) for kind in PATHS for zero in (False, True)], ids=str)
seeds = some.integers(0, 2**16)


def diffusion(path, times="uniform", length=SHORT):
    kind, zero = path
    return {**length, "schedule": kind, "times": times, "zero_terminal_snr": zero}


@cache
def schedule_of(path, steps=SHORT["timesteps"]):
    """Return a path in fp64, or None where it is refused."""
    length = SHORT if steps == SHORT["timesteps"] else LINEAR
    try:
        return make_schedule(diffusion(path, length=length), dtype=torch.float64)
    except UserError as refused:
        plain = schedule_of((path[0], False), steps)
        a, b = plain["sqrt_alpha"], plain["sqrt_one_minus_alpha"]
        assert path[1] and a[-1] > 0 and not torch.allclose(a**2 + b**2, torch.ones_like(a)), refused
        assert "takes a path that preserves variance" in str(refused)
        return None


@cache
def refusal(target, space, weighting, path, times):
    """Return why the check refuses a variant, or None."""
    variant = {"weighting": weighting, "parameters": {}, "diffusion": diffusion(path, times)}
    try:
        check(load(target), load(space), variant, [])
    except UserError as refused:
        assert len(str(refused).splitlines()) == 1
        return str(refused)
    return None


def is_refused(target, path):
    return refusal(target, target, "constant", path, "uniform") is not None


def images(schedule, seed, per_step=1):
    """Return x_0, ε, x_t and t, fp64, at every time step."""
    timesteps = torch.arange(len(schedule["sqrt_alpha"])).repeat_interleave(per_step)
    x_0, noise = some_images(len(timesteps), seed=seed)
    return x_0, noise, add_noise(x_0, noise, timesteps, schedule), timesteps


def numbers(schedule):
    return tuple(schedule[name].numpy() for name in ("sqrt_alpha", "sqrt_one_minus_alpha"))


# --- outputs -------------------------------------------------------------------------------------------------------


@each_path
@pytest.mark.parametrize("name", FILES)
def test_the_image_comes_back_at_every_step_or_the_check_says_why_not(name, path):
    schedule = schedule_of(path)
    if schedule is None:
        return
    target = load(name)
    x_0, noise, x_t, timesteps = images(schedule, seed=1, per_step=4)
    a, b = at(schedule, timesteps)
    assert torch.equal(x_t, a * x_0 + b * noise)
    back = target.predict_x0(
        target.compute_training_target(x_0, noise, timesteps, schedule), x_t, timesteps, schedule
    )
    # Rounding, magnified as by epsilon, b/a, or not at all where there is no image in x_t.
    off = (back - x_0).abs() * torch.where(a > 0, a / (a + b), 1)
    wrong = ~(off < 1e-13).flatten(1).all(dim=1)
    reason = refusal(name, name, "constant", path, "uniform")
    assert (reason is not None) == wrong.any()
    if reason is not None and schedule["sqrt_alpha"][timesteps[wrong]].max() == 0:
        assert f"parameterization {name}: " in reason and "at t = 39 the SNR is zero and x_0 cannot be read" in reason
    elif reason is not None:
        assert reason.endswith("; on this path a² + b² is not 1, so no inverse may rely on it")
        assert not torch.allclose(a**2 + b**2, torch.ones_like(a))


@given(
    kind=some.sampled_from(sorted(DIFFUSERS_PATHS)),
    prediction=some.sampled_from([("epsilon", "epsilon"), ("sample", "x0"), ("v_prediction", "v")]),
    t=some.integers(0, 999),
    zero=some.booleans(),
    seed=seeds,
)
def test_conversions_are_those_of_diffusers(kind, prediction, t, zero, seed):
    theirs, name = prediction
    assume(not (zero and name == "epsilon" and t == 999))
    schedule = make_schedule({**LINEAR, "schedule": kind, "zero_terminal_snr": zero}, dtype=torch.float64)
    scheduler = DDIMScheduler(
        **diffusers_options({**LINEAR, "schedule": kind}),
        prediction_type=theirs,
        clip_sample=False,
        rescale_betas_zero_snr=zero,
    )
    scheduler.set_timesteps(1000)
    (x_0, noise), timesteps = some_images(2, seed=seed), torch.full((2,), t)
    x_t, output = add_noise(x_0, noise, timesteps, schedule), some_images(2, seed=seed + 1)[1]
    target = load(name)
    a, _ = at(schedule, timesteps)
    expected = scheduler.step(output, t, x_t).pred_original_sample
    mine = target.predict_x0(output, x_t, timesteps, schedule)
    scale = a if name == "epsilon" else 1
    torch.testing.assert_close(scale * mine, scale * expected, rtol=1e-4, atol=2e-5)
    if name == "v":
        velocity = scheduler.get_velocity(x_0, noise, timesteps)
        v = target.compute_training_target(x_0, noise, timesteps, schedule)
        torch.testing.assert_close(v, velocity, rtol=1e-4, atol=2e-5)


# --- the loss ------------------------------------------------------------------------------------------------------


@given(target=outputs, space=outputs, weighting=weightings, path=paths, times=some.sampled_from(TIMES), seed=seeds)
def test_an_estimate_of_x0_costs_its_weighted_error_whatever_the_output_and_the_space(
    target, space, weighting, path, times, seed
):
    """Loss and gradient are w·mean((x̂ − x_0)²) and its derivative: alike for all that have one weight in x0 space."""
    schedule = schedule_of(path)
    assume(schedule is not None)
    reason = refusal(target, space, weighting, path, times)
    if reason is not None:
        # Of the output itself, or of a weight that the space cannot carry where the SNR is zero.
        blind = schedule["sqrt_alpha"][-1] == 0 and slope_of_target(load(space), schedule)[-1] == 0
        carried = weighting == "constant" or named_weight(weighting, schedule)[-1] == 0
        assert is_refused(target, path) or (blind and not carried and "there the SNR is zero" in reason)
        return
    output, measured = load(target), load(space)
    x_0, noise, x_t, timesteps = images(schedule, seed)
    a, b = at(schedule, timesteps)
    estimate = (x_0 + some_images(len(x_0), seed=seed + 1)[1]).requires_grad_()
    said = output.compute_training_target(estimate, (x_t - a * estimate) / b, timesteps, schedule)
    objective = Objective(output, measured, multiplier(measured, weighting, schedule), schedule)
    loss = objective(said, x_0, noise, x_t, timesteps)
    (gradient,) = torch.autograd.grad(loss.sum(), estimate)
    if weighting == "constant":
        weight = weight_in_x0_space(measured, weighting, schedule)
    else:
        weight = named_weight(weighting, schedule)
        torch.testing.assert_close(weight_in_x0_space(measured, weighting, schedule), weight, rtol=1e-12, atol=0)
    error = (estimate - x_0).detach()
    torch.testing.assert_close(loss, weight * error.square().mean(dim=(1, 2, 3)), rtol=1e-7, atol=1e-12)
    expected = 2 * weight.view(-1, 1, 1, 1) * error / error[0].numel()
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-12 + 1e-9 * expected.abs().max().item())


# --- the effective weight ------------------------------------------------------------------------------------------


@given(space=outputs, weighting=weightings, path=paths, times=some.sampled_from(TIMES))
def test_the_effective_weight_is_a_density_over_noise_levels(space, weighting, path, times):
    schedule = schedule_of(path)
    assume(schedule is not None)
    weight = weight_in_x0_space(load(space), weighting, schedule).numpy()
    assume(np.isfinite(weight).all())
    lam, found = effective_weight(weight, probabilities(times, schedule), *numbers(schedule))
    half_ends = (
        found[0] * (lam[0] - lam[1]) + found[-1] * (lam[-2] - lam[-1])
    ) / 2  # beyond the first and last level
    assert -np.trapezoid(found, lam) + half_ends == pytest.approx(1, rel=1e-9)


@given(space=outputs, weighting=weightings, path=paths)
def test_where_noise_levels_are_drawn_alike_on_every_path_only_the_weight_counts(space, weighting, path):
    """Under log_snr_normal λ is normal, whatever the path: what is asked for is that density times the weight."""
    schedule = schedule_of(path)
    assume(schedule is not None)
    weight = weight_in_x0_space(load(space), weighting, schedule).numpy()
    assume(np.isfinite(weight).all())
    lam, found = effective_weight(weight, probabilities("log_snr_normal", schedule), *numbers(schedule))
    expected = norm.pdf(lam, 2.4, 2.4) * weight[: len(lam)]
    np.testing.assert_allclose(found / found.max(), expected / expected.max(), rtol=1e-9, atol=0)


@given(
    space=outputs,
    weighting=weightings,
    ways=some.tuples(*2 * [some.tuples(paths, some.sampled_from(TIMES))]),
    middle=some.floats(-4, 4),
)
def test_a_change_of_path_and_density_leaves_what_errors_cost(space, weighting, ways, middle):
    """Σ p·w·(error at λ), with the weight carried over, for an error at noise levels that both have."""
    (schedule, times), (other, other_times) = ((schedule_of(path, 1000), times) for path, times in ways)
    assume(schedule is not None and other is not None)
    weight = weight_in_x0_space(load(space), weighting, schedule).numpy()
    assume(np.isfinite(weight).all())
    way, another = Way.of(times, schedule), Way.of(other_times, other)
    carried = matched(weight, way, another).weight

    def cost(way, weight):
        with np.errstate(divide="ignore"):
            error = np.exp(-((2 * np.log(way.a / way.b) - middle) ** 2) / 4)
        return (way.probability * weight * error).sum()

    assert cost(another, carried) == pytest.approx(cost(way, weight), rel=0.01)


# --- sampling ------------------------------------------------------------------------------------------------------


def denoiser(target, path):
    """Return the best denoiser of data N(0.1, 0.4²), which speaks through a parameterization's two functions."""
    schedule, output = schedule_of(path), load(target)

    def x_0(x_t, timesteps, **_):
        a, b = at(schedule, timesteps)
        best = 0.1 + 0.16 * a / (0.16 * a**2 + b**2) * (x_t.double() - a * 0.1)
        said = output.compute_training_target(best, (x_t - a * best) / b, timesteps, schedule)
        return output.predict_x0(said, x_t, timesteps, schedule)

    return SimpleNamespace(variant={"diffusion": diffusion(path), "parameters": {}}, seed=0, x_0=x_0)


@given(
    target=outputs,
    path=paths,
    sampler=some.sampled_from(SAMPLERS),
    spacing=some.sampled_from(["leading", "trailing"]),
    clip=some.booleans(),
    seed=seeds,
)
def test_one_denoiser_gives_the_same_samples_in_every_parameterization(target, path, sampler, spacing, clip, seed):
    """What is compared is what networks learn, never how their output is read."""
    assume(schedule_of(path) is not None and not is_refused(target, path))
    noise = some_images(2, seed=seed)[1]
    options = {"sampler": sampler, "steps": 10, "spacing": spacing, "clip": clip, "seed": 0}
    options |= {"clipped_epsilon": False, "widen_output": True, "last_alpha_is_one": True}
    expected, found = (denoise(denoiser(each, path), noise, options) for each in ("x0", target))
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
