"""Each sampler against diffusers, against the paper written out, and against data whose exact denoiser is known.

DDIM and DPM-Solver++ are compared in test_sampling.py.
"""

import re
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers import scheduling_ddpm
from helpers import DIFFUSERS_PATHS, EXAMPLE, LINEAR, PATHS, ROOT, TARGETS, denoise, diffusers_options, some_images

from targetwise.diffusion.parameterization import load
from targetwise.diffusion.randomness import step_noise
from targetwise.diffusion.schedule import at, make_schedule
from targetwise.diffusion.trajectory import Point, points, trajectory
from targetwise.errors import UserError
from targetwise.recipe import kinds
from targetwise.sampling import denoiser as sampling
from targetwise.sampling.denoiser import Sampler, draw_images, evaluations

SAMPLERS = sorted(path.stem for path in (ROOT / "workflow/samplers").glob("*.py"))
FLOW = {**LINEAR, "schedule": "flow"}


def options(**changes):
    clean = {"steps": 20, "spacing": "trailing", "clip": False, "last_alpha_is_one": True, "images": 8, "batch": 3}
    return {**EXAMPLE["sampling"], "clipped_epsilon": False, "widen_output": True, **clean, **changes}


def network(x_0, diffusion=LINEAR):
    """Stand for a trained network: x_0 from a function of (x_t, t); what it was asked is in ``asked``."""
    asked = []

    def estimate(x_t, timesteps, **_):
        asked.append((int(timesteps[0]), x_t))
        return x_0(x_t, timesteps)

    variant = {"diffusion": diffusion, "parameters": {}}
    shape = {"device": torch.device("cpu"), "image_shape": (2, 4, 4)}
    return SimpleNamespace(variant=variant, seed=0, classes=None, x_0=estimate, asked=asked, **shape)


def smooth(x_t, timesteps):
    """A function of bounded slope, for samplers that extrapolate."""
    return 0.8 * torch.sin(x_t + timesteps.view(-1, 1, 1, 1) / 400)


def epsilon_of(x_t, t, a, b):
    return (x_t - a * smooth(x_t, torch.full((len(x_t),), t))) / b


def along(theirs, x, prediction, **more):
    """Go a scheduler's way; ``prediction`` is of (x_t, t)."""
    for t in theirs.timesteps:
        x = theirs.step(prediction(x, t.expand(len(x))), t, x, **more).prev_sample
    return x


def in_sigma(theirs, diffusion, noise):
    """Go the way of a scheduler of x/a over σ, from the noise of a path that preserves variance."""
    schedule = make_schedule(diffusion, dtype=torch.float64)
    x = noise / schedule["sqrt_alpha"][int(theirs.timesteps[0])]
    for t in theirs.timesteps:
        a, b = (schedule[name][int(t)] for name in ("sqrt_alpha", "sqrt_one_minus_alpha"))
        x = theirs.step(epsilon_of(theirs.scale_model_input(x, t), int(t), a, b), t, x).prev_sample
    return x


def mine(tmp_path, monkeypatch, source):
    folder = tmp_path / "samplers"
    folder.mkdir()
    (folder / "mine.py").write_text(source)
    for name in ("paths", "parameterizations"):
        (tmp_path / name).symlink_to(ROOT / "workflow" / name)
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path)


# --- against diffusers ---------------------------------------------------------------------------------------------


def noises(steps, shape):
    """Return the noise of each step as the sampler receives it."""
    key = EXAMPLE["sampling"]["seed"], 0, 0
    return [torch.from_numpy(step_noise(*key, step, 0, shape[0], tuple(shape[1:]))) for step in range(steps)]


@pytest.mark.parametrize("kind", DIFFUSERS_PATHS)
def test_ancestral_is_ddpm(kind, monkeypatch):
    diffusion = {**LINEAR, "schedule": kind}
    theirs = DDPMScheduler(
        **diffusers_options(diffusion), prediction_type="sample", variance_type="fixed_small", clip_sample=False
    )
    theirs.set_timesteps(20)
    x = noise = some_images(4)[1]
    fresh = iter(noises(20, noise.shape))
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(fresh))
    expected = along(theirs, x, smooth)
    mine = denoise(network(smooth, diffusion), noise, options(sampler="ancestral", spacing="leading"))
    torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ancestral_is_ddim_with_any_eta(eta):
    theirs = DDIMScheduler(
        **diffusers_options(LINEAR), prediction_type="sample", clip_sample=False, timestep_spacing="trailing"
    )
    theirs.set_timesteps(20)
    x = noise = some_images(4)[1]
    for t, fresh in zip(theirs.timesteps, noises(20, noise.shape), strict=True):
        x = theirs.step(smooth(x, t.expand(len(x))), t, x, eta=eta, variance_noise=fresh).prev_sample
    mine = denoise(network(smooth), noise, options(sampler="ancestral", parameters={"eta": eta}))
    torch.testing.assert_close(mine, x, rtol=1e-4, atol=1e-4)


def test_ddim_is_eulers_method_over_sigma():
    theirs = EulerDiscreteScheduler(**diffusers_options(LINEAR), timestep_spacing="trailing")
    theirs.set_timesteps(20)
    noise = some_images(4)[1]
    mine = denoise(network(smooth), noise, options())
    torch.testing.assert_close(mine, in_sigma(theirs, LINEAR, noise), rtol=1e-3, atol=1e-3)


def flow_way(theirs, steps, noise, *, twice=False):
    """Go the way of a scheduler of flow matching over the points of our path, in place of its own."""
    way = [(t + 0.5) / 1000 for t in range(999, -1, -1000 // steps)]
    theirs.set_timesteps(steps)
    asked = [way[0], *np.repeat(way[1:], 2)] if twice else way
    theirs.timesteps = torch.tensor(asked, dtype=torch.float64) * 1000
    theirs.sigmas = torch.tensor([*asked, 0.0, *[0.0] * twice], dtype=torch.float64)
    x = way[0] * noise
    for number, tau in enumerate(asked):
        theirs._step_index = number
        x_0 = smooth(x, torch.full((len(x),), round(tau * 1000 - 0.5)))
        x = theirs.step((x - x_0) / tau, theirs.timesteps[number], x).prev_sample  # x − x_0 = τ·(ε − x_0)
    return x


def test_ddim_is_eulers_method_over_the_time_of_flow_matching():
    noise = some_images(4)[1]
    expected = flow_way(FlowMatchEulerDiscreteScheduler(), 20, noise)
    torch.testing.assert_close(denoise(network(smooth, FLOW), noise, options()), expected, rtol=1e-5, atol=1e-5)


def test_heun_is_that_of_flow_matching():
    noise = some_images(4)[1]
    expected = flow_way(FlowMatchHeunDiscreteScheduler(), 20, noise, twice=True)
    mine = denoise(network(smooth, FLOW), noise, options(sampler="heun"))
    torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


def test_heun_with_c_0_is_that_of_diffusers_over_sigma():
    theirs = HeunDiscreteScheduler(**diffusers_options(LINEAR), timestep_spacing="trailing")
    theirs.set_timesteps(20)
    noise = some_images(4)[1]
    asked = network(smooth)
    mine = denoise(asked, noise, options(sampler="heun", parameters={"c": 0.0}))
    assert [t for t, _ in asked.asked] == theirs.timesteps.tolist()
    torch.testing.assert_close(mine, in_sigma(theirs, LINEAR, noise), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("beta_end", [0.02, 0.004])
def test_unipc_is_that_of_diffusers(beta_end):
    """With little noise at its end, a path shows what the first steps do."""
    diffusion = {**LINEAR, "beta_end": beta_end}
    theirs = UniPCMultistepScheduler(
        **diffusers_options(diffusion),
        prediction_type="sample",
        solver_order=2,
        solver_type="bh2",
        final_sigmas_type="zero",
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(20)
    noise = some_images(4)[1]
    mine = denoise(network(smooth, diffusion), noise, options(sampler="unipc"))
    torch.testing.assert_close(mine, along(theirs, noise, smooth).double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_is_that_of_diffusers(order):
    """Its last step is to t = 0, and from 15 steps on not of lower order."""
    theirs = DEISMultistepScheduler(
        **diffusers_options(LINEAR), prediction_type="sample", solver_order=order, timestep_spacing="trailing"
    )
    theirs.set_timesteps(20)
    noise = some_images(4)[1]
    chosen = options(sampler="deis", parameters={"order": order}, last_alpha_is_one=False)
    mine = denoise(network(smooth), noise, chosen)
    torch.testing.assert_close(mine, along(theirs, noise, smooth).double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("last_alpha_is_one", [True, False])
def test_pndm_is_that_of_diffusers(last_alpha_is_one):
    theirs = PNDMScheduler(
        **diffusers_options(LINEAR), skip_prk_steps=True, set_alpha_to_one=last_alpha_is_one, steps_offset=0
    )
    theirs.set_timesteps(20)
    schedule, noise = make_schedule(LINEAR, dtype=torch.float64), some_images(4)[1]
    x, asked = noise, network(smooth)
    for t in theirs.timesteps:
        a, b = schedule["sqrt_alpha"][t], schedule["sqrt_one_minus_alpha"][t]
        x = theirs.step(epsilon_of(x, int(t), a, b), t, x).prev_sample
    chosen = options(sampler="pndm", spacing="leading", last_alpha_is_one=last_alpha_is_one)
    mine = denoise(asked, noise, chosen)
    assert [t for t, _ in asked.asked] == theirs.timesteps.tolist()
    torch.testing.assert_close(mine, x, rtol=1e-4, atol=1e-4)


# --- against the paper ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "flow"])
def test_edm_stochastic_is_algorithm_2(kind):
    """In its own order: noise first, then Heun's step over σ. Each σ̂ is one of our points, each σ a time step."""
    diffusion, steps = {**LINEAR, "schedule": kind}, 20
    s_churn, s_tmin, s_tmax, s_noise = 6.0, 0.05, 3.0, 1.01
    path = points(diffusion, {})
    sigmas = np.array([point.sigma for point in path])
    noise = some_images(4)[1]
    ends, fresh = list(range(999, -1, -50)), noises(steps, noise.shape)

    def d(x, t):
        estimate = smooth(path[t].a * x, torch.full((len(x),), t))
        return (x - estimate) / sigmas[t]

    x, hats, noisy = noise / path[999].a * (path[999].b if kind == "flow" else 1.0), [], 0
    for i, hat in enumerate(ends):
        t = np.abs(sigmas - sigmas[hat] / (1 + s_churn / steps)).argmin()  # t_i, of which t̂_i is one of our points
        if i and s_tmin <= sigmas[t] <= s_tmax:
            x = x + np.sqrt(sigmas[hat] ** 2 - sigmas[t] ** 2) * s_noise * fresh[i - 1]
            noisy += 1
        hats.append(hat)
        if hat == ends[-1]:
            x = x - sigmas[hat] * d(x, hat)
            break
        after = ends[i + 1]
        low = np.abs(sigmas - sigmas[after] / (1 + s_churn / steps)).argmin()
        low = low if s_tmin <= sigmas[low] <= s_tmax else after
        slope, length = d(x, hat), sigmas[low] - sigmas[hat]
        euler = x + length * slope
        x = x + length * (slope + d(euler, low)) / 2
    assert 5 < noisy < steps - 3
    parameters = {"s_churn": s_churn, "s_tmin": s_tmin, "s_tmax": s_tmax, "s_noise": s_noise, "c": 0}
    chosen = options(sampler="edm_stochastic", parameters=parameters)
    torch.testing.assert_close(denoise(network(smooth, diffusion), noise, chosen), x, rtol=1e-9, atol=1e-9)


# --- against the truth ---------------------------------------------------------------------------------------------

#: By sampler and its constants, the order in 1/steps in which its error vanishes on every path.
ORDERS = [
    ("ddim", {}, 1),
    ("ancestral", {"eta": 0.0}, 1),
    ("dpmpp_2m", {}, 2),
    ("dpmpp_3m", {}, 3),
    ("heun", {}, 2),
    ("heun", {"c": 0.0}, 2),
    ("edm_stochastic", {"s_churn": 0.0}, 2),
    ("unipc", {}, 3),
    ("deis", {}, 3),
    ("deis", {"order": 2}, 2),
    ("pndm", {}, 2),
]
VARIANCE_ORDERS = [("ancestral", {}, 1), ("edm_stochastic", {"s_churn": 12, "s_noise": 1}, 2)]

DEVIATIONS = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64).view(-1, 1, 1, 1)
T = 3840


def test_every_sampler_has_its_order_here():
    assert {name for name, *_ in ORDERS} == set(SAMPLERS)


def gaussian(kind, deviations, T=T):
    """Return the best denoiser of data N(0, s²) on a path, and the deviation of its x_t as a function of t."""
    diffusion = {**LINEAR, "schedule": kind, "timesteps": T, "beta_start": 0.1 / T, "beta_end": 20 / T}
    schedule = make_schedule(diffusion, dtype=torch.float64)

    def size(t):
        a, b = at(schedule, torch.tensor([t]))
        return torch.sqrt(deviations**2 * a**2 + b**2)

    def x_0(x_t, timesteps):
        a, b = at(schedule, timesteps)
        return deviations**2 * a / (deviations**2 * a**2 + b**2) * x_t

    return network(x_0, diffusion), size


@pytest.mark.parametrize(("sampler", "parameters", "order"), ORDERS)
@pytest.mark.parametrize("kind", PATHS)
def test_the_error_vanishes_at_the_samplers_order_on_every_path(kind, sampler, parameters, order):
    """For data N(0, s²) the exact flow of the ODE keeps x/sqrt(s²a² + b²); here over the middle half of the steps.

    So a first step of lower order does not count, which is the DDIM step that a multistep method begins with.
    """
    errors, first, last = [], 3 * T // 4 - 1, T // 4 - 1
    for steps in (96, 192):
        exact, size = gaussian(kind, DEVIATIONS)
        noise = torch.ones(3, 1, 1, 1, dtype=torch.float64)
        denoise(exact, noise, options(sampler=sampler, steps=steps, parameters=parameters))
        x = dict(exact.asked)  # of a second estimate at the same point, the last one's
        errors.append((x[last] / x[first] / (size(last) / size(first)) - 1).abs().max())
    assert torch.log2(errors[0] / errors[1]).item() == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(("sampler", "parameters", "order"), VARIANCE_ORDERS)
@pytest.mark.parametrize("kind", PATHS)
def test_the_variance_of_what_is_drawn_comes_to_that_of_the_data(kind, sampler, parameters, order, monkeypatch):
    """A step is linear in x and in its noise, so the variance is a sum of squares; image i has step i's."""

    def only_one(_, __, ___, step, first, count, shape):
        return np.eye(count, dtype=np.float32)[step].reshape(count, *shape)

    monkeypatch.setattr(sampling, "step_noise", only_one)
    errors = []
    for steps in (48, 96):
        worst = 0.0
        for deviation in DEVIATIONS:
            exact, size = gaussian(kind, deviation)
            way = Sampler(exact.variant, options(sampler=sampler, steps=steps, parameters=parameters))
            start = torch.zeros(steps + 1, 1, 1, 1, dtype=torch.float64)
            start[-1] = size(T - 1) / way.spread
            sampling.denoise(exact, start, way)
            x = dict(exact.asked)[T // 4 - 1]
            worst = max(worst, abs((x**2).sum() / size(T // 4 - 1).item() ** 2 - 1))
        errors.append(worst)
    assert torch.log2(errors[0] / errors[1]).item() == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(("c", "least", "most"), [(0.0, 1.0, np.inf), (1.0, 0.0, 1e-3)])
def test_heun_over_sigma_fails_where_a_path_ends_in_almost_pure_noise_and_ours_does_not(c, least, most):
    """What docs/library.md says of c = 0."""
    exact, size = gaussian("cosine", DEVIATIONS, 1000)
    denoise(exact, torch.ones(3, 1, 1, 1, dtype=torch.float64), options(sampler="heun", parameters={"c": c}))
    x = dict(exact.asked)
    assert least < (x[499] / x[999] / (size(499) / size(999)) - 1).abs().max() < most


def test_the_example_of_the_documentation_is_of_second_order(tmp_path, monkeypatch):
    page = (ROOT / "docs/extending.md").read_text()
    mine(tmp_path, monkeypatch, re.search(r'```python\n("""midpoint:.*?)```', page, re.DOTALL)[1])
    test_the_error_vanishes_at_the_samplers_order_on_every_path("flow", "mine", {}, 2)
    test_the_error_vanishes_at_the_samplers_order_on_every_path("flow", "mine", {"share": 0.0}, 1)


WHOLE = """import torch


def coefficients(timesteps, options):
    tau = torch.linspace(0, 1, timesteps, dtype=torch.float64)
    return 1 - tau, tau
"""


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_path_may_begin_without_noise_and_end_without_an_image(sampler, spacing, tmp_path, monkeypatch):
    """There λ is not finite. The best denoiser of one image gives that image."""
    (tmp_path / "paths").mkdir()
    (tmp_path / "paths/whole.py").write_text(WHOLE)
    (tmp_path / "samplers").symlink_to(ROOT / "workflow/samplers")
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path)
    parameters = {"s_tmin": 0.0, "s_tmax": 1e9} if sampler == "edm_stochastic" else {}
    image = some_images(1)[0]
    exact = network(lambda x_t, t: image.expand_as(x_t), {**LINEAR, "schedule": "whole"})
    chosen = options(sampler=sampler, spacing=spacing, parameters=parameters)
    found = denoise(exact, some_images(2)[1], chosen)
    torch.testing.assert_close(found, image.expand_as(found), rtol=1e-9, atol=1e-9)
    assert exact.asked[0][0] == (950 if spacing == "leading" else 999)


# --- for all parameterizations alike -------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_denoiser_gives_the_same_images_in_every_parameterization(sampler, clip):
    schedule, noise = make_schedule(LINEAR, dtype=torch.float64), some_images(4)[1]

    def through(target):
        def x_0(x_t, timesteps):
            a, b = at(schedule, timesteps)
            best = 1.2 * smooth(x_t, timesteps)
            output = target.compute_training_target(best, (x_t - a * best) / b, timesteps, schedule)
            return target.predict_x0(output, x_t, timesteps, schedule)

        return denoise(network(x_0), noise, options(sampler=sampler, clip=clip))

    expected = through(load("x0"))
    for name in TARGETS:
        torch.testing.assert_close(through(load(name)), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_estimate_is_clipped(sampler):
    """A second one too: with ε from what was clipped, nothing is left of what was not."""
    noise, chosen = some_images(2)[1], options(sampler=sampler, clipped_epsilon=True)
    outside, within = (
        network(lambda x_t, t: 2 * smooth(x_t, t)),
        network(lambda x_t, t: (2 * smooth(x_t, t)).clamp(-1, 1)),
    )
    assert torch.equal(denoise(outside, noise, {**chosen, "clip": True}), denoise(within, noise, chosen))
    for (_, one), (_, other) in zip(outside.asked, within.asked, strict=True):
        assert torch.equal(one, other)


def test_a_second_estimate_that_is_clipped_keeps_its_noise():
    """Heun's method of flow matching, written out; ε is that of the estimate before it was clipped."""
    noise, seen = some_images(2)[1], []
    taus = [*[(t + 0.5) / 1000 for t in range(999, -1, -50)], 0.0]

    def parts(x, tau):
        seen.append(x)
        estimate = 2 * smooth(x, torch.full((len(x),), round(tau * 1000 - 0.5)))
        return estimate.clamp(-1, 1), (x - (1 - tau) * estimate) / tau

    x = taus[0] * noise
    for now, then in pairwise(taus):
        estimate, epsilon = parts(x, now)
        change = epsilon - estimate
        if then:
            two, second = parts((1 - then) * estimate + then * epsilon, then)
            change = (change + second - two) / 2
        x = (1 - now) * estimate + now * epsilon + (then - now) * change
    exact = network(lambda x_t, t: 2 * smooth(x_t, t), FLOW)
    torch.testing.assert_close(denoise(exact, noise, options(sampler="heun", clip=True)), x, rtol=1e-9, atol=1e-9)
    for (_, mine), expected in zip(exact.asked, seen, strict=True):  # the last images may all be at their bounds
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)


# --- spacings ------------------------------------------------------------------------------------------------------


def time_steps(spacing, steps, diffusion=LINEAR):
    way = trajectory(diffusion, {}, options(spacing=spacing, steps=steps))
    assert way[-1] == Point(1.0, 0.0, -1)
    return [point.t for point in way[:-1]]


@pytest.mark.parametrize("steps", [2, 3, 7, 30, 50, 999, 1000])
def test_linspace_is_that_of_diffusers(steps):
    theirs = DDIMScheduler(**diffusers_options(LINEAR), timestep_spacing="linspace")
    theirs.set_timesteps(steps)
    assert time_steps("linspace", steps) == theirs.timesteps.tolist()
    assert len(set(theirs.timesteps.tolist())) == steps


@pytest.mark.parametrize("steps", [5, 10])
@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_lambda_uniform_is_that_of_diffusers_up_to_the_nearest_time_step(kind, steps):
    """diffusers looks for it between time steps, and in fp32."""
    diffusion = {**LINEAR, "schedule": kind}
    theirs = DPMSolverMultistepScheduler(
        **diffusers_options(diffusion), use_lu_lambdas=True, final_sigmas_type="zero", timestep_spacing="linspace"
    )
    theirs.set_timesteps(steps)
    np.testing.assert_allclose(time_steps("lambda_uniform", steps, diffusion), theirs.timesteps, atol=1)


@pytest.mark.parametrize("kind", PATHS)
def test_lambda_uniform_is_even_in_lambda_but_for_where_time_steps_are_sparser(kind):
    diffusion = {**LINEAR, "schedule": kind}
    path = points(diffusion, {})
    lam = np.array([2 * np.log(point.a / point.b) for point in path])
    gap = np.abs(np.diff(lam))
    for steps in (2, 10, 30, 60):
        t = np.array(time_steps("lambda_uniform", steps, diffusion))
        assert (t[0], t[-1]) == (999, 0) and (np.diff(t) < 0).all() and len(t) == steps
        even = np.linspace(lam[-1], lam[0], steps)
        near = (np.diff(t) < -1).nonzero()[0][1:]  # a step that went down by more than it had to
        wide = np.maximum(gap[np.maximum(t[near] - 1, 0)], gap[np.minimum(t[near], 998)])
        assert len(near) >= min(steps - 4, 5)
        assert (np.abs(lam[t[near]] - even[near]) <= wide / 2 + 1e-9).all()


@pytest.mark.parametrize("kind", PATHS)
def test_lambda_uniform_takes_as_many_steps_as_there_are_time_steps(kind):
    diffusion = {**LINEAR, "schedule": kind, "timesteps": 40}
    for steps in range(1, 41):
        t = time_steps("lambda_uniform", steps, diffusion)
        assert len(t) == steps and t[0] == 39 and all(now > then for now, then in pairwise(t))
    assert t == list(range(39, -1, -1))


def test_lambda_uniform_needs_a_path_with_noise_and_image_everywhere():
    with pytest.raises(UserError, match="path 'linear' has none at t = 0; take another spacing"):
        time_steps("lambda_uniform", 10, {**LINEAR, "beta_start": 0.0})


@pytest.mark.parametrize("spacing", ["linspace", "lambda_uniform"])
@pytest.mark.parametrize("kind", PATHS)
def test_a_step_goes_to_where_the_next_one_begins(kind, spacing):
    """30 steps divide no path of 1,000; diffusers' DDIM goes T // 30 down, whatever the next time step is."""
    diffusion = {**LINEAR, "schedule": kind}
    schedule, clean = make_schedule(diffusion, dtype=torch.float64), some_images(1)[0]
    exact = network(lambda x_t, t: clean.expand_as(x_t), diffusion)
    noise = some_images(4)[1]
    denoise(exact, noise, options(spacing=spacing, steps=30))
    (first, x_first), *others = exact.asked
    epsilon = (x_first - schedule["sqrt_alpha"][first] * clean) / schedule["sqrt_one_minus_alpha"][first]
    for t, x in others:
        expected = schedule["sqrt_alpha"][t] * clean + schedule["sqrt_one_minus_alpha"][t] * epsilon
        torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)


# --- what a step asks for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_evaluations_are_counted(sampler):
    asked = network(smooth)
    denoise(asked, some_images(2)[1], options(sampler=sampler))
    assert evaluations(asked.variant, options(sampler=sampler)) == len(asked.asked)
    assert len(asked.asked) == {"heun": 39, "edm_stochastic": 39, "pndm": 21}.get(sampler, 20)


@pytest.mark.parametrize("batch", [1, 5, 8])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sample_does_not_depend_on_the_batch(sampler, batch):
    def draw(batch, number=1):
        return draw_images(network(smooth), options(sampler=sampler, images=40, batch=batch), number, "test")

    whole = draw(40)
    np.testing.assert_allclose(draw(batch).astype(int), whole, atol=1)  # in fp32, a sum of another length
    assert len({image.tobytes() for image in whole}) == 40
    assert not np.array_equal(draw(40, 2), whole)


def test_a_draw_asks_for_the_noise_of_its_own_number(monkeypatch):
    seen = []
    monkeypatch.setattr(sampling, "step_noise", lambda *key: seen.append(key) or step_noise(*key))
    draw_images(network(smooth), options(sampler="ancestral", steps=2, seed=7, images=5, batch=3), 4, "test")
    assert seen == [(7, 0, 4, step, *of, (2, 4, 4)) for of in [(0, 3), (3, 2)] for step in (0, 1)]


@pytest.mark.parametrize("changed", [{"seed": 1}, {"training": 1}, {"draw": 1}])
def test_the_noise_of_a_step_is_that_of_its_draw_and_of_no_other_step(changed):
    def seen(seed=0, training=0, draw=0):
        found = []

        def step(x_t, x_0, now, then, memory, noise):
            found.append(noise)
            return x_0

        net = network(smooth)
        net.seed = training
        way = Sampler(net.variant, options(sampler="ancestral", steps=4, seed=seed))
        way._source = {"step": step}
        sampling.denoise(net, torch.zeros(8, 2, 16, 16), way, draw=draw, first=30)
        return torch.stack(found)

    one, other = seen(), seen(**changed)
    both = torch.cat([one, other]).flatten(1)
    correlations = torch.corrcoef(both) - torch.eye(8)
    assert correlations.abs().max() < 5 / both.shape[1] ** 0.5
    assert torch.equal(seen(), one)


def test_a_step_that_asks_for_what_there_is_not_is_one_line(tmp_path, monkeypatch):
    mine(tmp_path, monkeypatch, "def step(x_t, x_0, now, then, memory, nois):\n    return x_0\n")
    with pytest.raises(
        UserError, match=r"mine\.py: step asks for 'nois', which has no default; did you mean 'noise'"
    ):
        denoise(network(smooth), some_images(1)[1], options(sampler="mine"))


def test_the_network_is_not_asked_where_there_is_no_noise(tmp_path, monkeypatch):
    mine(tmp_path, monkeypatch, "def step(x_t, x_0, now, then, memory, denoise):\n    return denoise(x_t, then)[1]\n")
    with pytest.raises(UserError, match=r"step fails: ValueError: where there is no noise, the network cannot be as"):
        denoise(network(smooth), some_images(1)[1], options(sampler="mine"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"sampler": "deis", "parameters": {"order": 4}},
            "deis.py: step fails: ValueError: order is 4; it must be 1",
        ),
        (
            {"sampler": "pndm", "spacing": "lambda_uniform"},
            "pndm.py: step fails: ValueError: PNDM's steps are of one",
        ),
    ],
)
def test_what_a_sampler_cannot_take_is_one_line(changes, words):
    with pytest.raises(UserError, match=words):
        denoise(network(smooth), some_images(1)[1], options(**changes))
