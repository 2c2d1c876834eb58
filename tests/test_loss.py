"""The objective: three axes (output, space, weight), each against algebra and against the others."""

import math

import numpy as np
import pytest
import torch
from helpers import (
    DIFFUSERS_PATHS,
    LINEAR,
    PATHS,
    ROOT,
    TARGETS,
    affine,
    parameterization,
    signal_to_noise,
    some_images,
)
from hypothesis import given
from hypothesis import strategies as some

from targetwise.diffusion import table
from targetwise.diffusion.loss import Objective, multiplier, named_weight, slope_of_target, weight_in_x0_space
from targetwise.diffusion.parameterization import load, load_file
from targetwise.diffusion.schedule import add_noise, at, make_schedule
from targetwise.diffusion.times import draws_of
from targetwise.errors import UserError
from targetwise.recipe import kinds

each_target = pytest.mark.parametrize("name", TARGETS)
each_pair = pytest.mark.parametrize(("target", "space"), [(t, s) for t in TARGETS for s in TARGETS])

#: Every file there is; a new one is tested because it is there.
WEIGHTINGS = sorted(path.stem for path in (ROOT / "workflow/weightings").glob("*.py"))

#: Weight in x0 space of a flat loss, on a variance-preserving path.
FLAT_WEIGHTS = {
    "epsilon": lambda snr: snr,
    "x0": torch.ones_like,
    "v": lambda snr: snr + 1,
    "u": lambda snr: (snr.sqrt() + 1) ** 2,
    "edm_f": lambda snr: snr + 4,  # 1/s², s = 0.5
    "residual": torch.ones_like,
    "angle": lambda snr: (snr.sqrt() + 1) ** 2 / 2,
    "eps_v_blend": lambda snr: ((snr + 1).sqrt() + snr.sqrt()) * (snr + 1).sqrt() / 2,
    "score": lambda snr: snr * (snr + 1),
    "two_head": lambda snr: (snr + 1) / 2,  # the mean of both heads'
}


LN4, LN9 = math.log(4), math.log(9)


def angle(phi, name="angle"):
    """Return y = cos φ·ε − sin φ·x_0, which is epsilon at 0 and −x0 at π/2."""
    return affine(
        lambda a, b: math.cos(phi) * torch.ones_like(a), lambda a, b: -math.sin(phi) * torch.ones_like(a), name
    )


def batch(schedule, count=64, seed=0, last=1000):
    """Return x_0, ε, x_t, t and an error to add to an output, in the schedule's type."""
    dtype = schedule["sqrt_alpha"].dtype
    timesteps = torch.from_numpy(np.random.default_rng(seed).integers(0, last, count))
    x_0, noise = (tensor.to(dtype) for tensor in some_images(count, seed=seed))
    error = some_images(count, seed=seed + 1)[1].to(dtype)
    return x_0, noise, add_noise(x_0, noise, timesteps, schedule), timesteps, error


def mean(tensor):
    return tensor.mean(dim=(1, 2, 3))


def objective(target, space, weighting, schedule):
    """Return the objective with its factor in the schedule's type, to compare beyond fp32."""
    made = Objective.of(target, space, weighting, schedule)
    return Objective(made.target, made.loss_space, multiplier(space, weighting, schedule), schedule)


# --- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FLAT_WEIGHTS))
@pytest.mark.parametrize("kind", DIFFUSERS_PATHS)
def test_a_flat_loss_has_the_tables_weight_in_x0_space(name, kind):
    schedule = make_schedule({**LINEAR, "schedule": kind}, dtype=torch.float64)
    expected = FLAT_WEIGHTS[name](signal_to_noise(schedule))
    torch.testing.assert_close(weight_in_x0_space(load(name), "constant", schedule), expected, rtol=1e-12, atol=0)


def test_the_numbers_of_record(schedule):
    """Under SNR the mean weight is 31, and 79 % of it lies at t < 10."""
    weight = weight_in_x0_space(load("epsilon"), "constant", schedule)
    assert weight.mean() == pytest.approx(31.05, abs=0.005)
    assert weight[:10].sum() / weight.sum() == pytest.approx(0.79, abs=0.005)
    assert weight_in_x0_space(load("v"), "constant", schedule).mean() == pytest.approx(32.05, abs=0.005)


def three_steps(**parameters):
    """Return a path of three steps with ᾱ = 0.9, 0.5, 0.2, whose SNR ᾱ/(1 − ᾱ) is 9, 1 and 1/4."""
    alpha = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
    constants = {name: torch.tensor(value, dtype=torch.float64) for name, value in parameters.items()}
    path = {"alphas_cumprod": alpha, "sqrt_alpha": alpha.sqrt(), "sqrt_one_minus_alpha": (1 - alpha).sqrt()}
    return {**path, **constants}


@pytest.mark.parametrize(
    ("weighting", "parameters", "worked_out"),
    [
        ("snr", {}, [9, 1, 0.25]),
        ("truncated_snr", {}, [9, 1, 1]),
        ("snr_plus_one", {}, [10, 2, 1.25]),
        ("min_snr", {}, [5, 1, 0.25]),
        ("min_snr", {"gamma": 0.5}, [0.5, 0.5, 0.25]),
        ("p2", {}, [0.9, 0.5, 0.2]),
        ("p2", {"k": 7.0, "gamma": 0.5}, [9 / 4, 1 / 8**0.5, 0.25 / 7.25**0.5]),
        ("soft_min_snr", {}, [36 / 13, 4 / 5, 4 / 17]),
        ("soft_min_snr", {"gamma": 1.0}, [0.9, 0.5, 0.2]),
        # λ = ln 9, 0 and −ln 4, a third apart; SNR·sigmoid(β − λ) = SNR/(1 + SNR/e^β)
        ("sigmoid", {"beta": 0.0}, [0.9 * 3 * LN9, 0.5 * 1.5 * (LN9 + LN4), 0.2 * 3 * LN4]),
        ("sigmoid", {"beta": LN4}, [9 / 3.25 * 3 * LN9, 0.8 * 1.5 * (LN9 + LN4), 0.25 / 1.0625 * 3 * LN4]),
    ],
)
@each_target
def test_a_named_weight_is_that_of_the_paper_in_every_space(name, weighting, parameters, worked_out):
    schedule, expected = three_steps(**parameters), torch.tensor(worked_out, dtype=torch.float64)
    torch.testing.assert_close(named_weight(weighting, schedule), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(weight_in_x0_space(load(name), weighting, schedule), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("beta", [-3.0, 1.0])
@pytest.mark.parametrize("path", PATHS)
def test_the_sigmoid_weighs_noise_alike_on_every_path(path, beta):
    """A sum over time steps is the paper's integral of sigmoid(β − λ) times the epsilon error over λ = ln SNR."""
    schedule = make_schedule({**LINEAR, "schedule": path}, {"beta": beta}, dtype=torch.float64)
    lam = signal_to_noise(schedule).log()
    weight = named_weight("sigmoid", schedule)
    bump = torch.exp(-(lam**2))  # an epsilon error that lies within every path's range
    found = (weight / lam.exp() * bump).sum() / 1000
    grid = torch.linspace(-8, 8, 100_001, dtype=torch.float64)
    expected = torch.trapezoid(torch.sigmoid(beta - grid) * torch.exp(-(grid**2)), grid)
    assert found.item() == pytest.approx(expected.item(), rel=2e-3)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_every_file_gives_a_weight_at_every_step(weighting):
    for zero in (False, True):
        weight = named_weight(weighting, make_schedule({**LINEAR, "zero_terminal_snr": zero}))
        assert weight.shape == (1000,)
        assert weight.dtype == torch.float64
        assert (weight[:-1] > 0).all() and (weight[-1] >= 0 if zero else weight[-1] > 0)
        assert weight.isfinite().all()


def test_at_zero_terminal_snr_a_weight_is_its_limit():
    schedule = make_schedule({**LINEAR, "zero_terminal_snr": True}, dtype=torch.float64)
    limits = {"truncated_snr": 1.0, "snr_plus_one": 1.0}
    assert {name: named_weight(name, schedule)[-1].item() for name in WEIGHTINGS} == {
        name: limits.get(name, 0.0) for name in WEIGHTINGS
    }


def test_snr_plus_one_is_a_flat_loss_of_v_and_snr_one_of_epsilon(schedule):
    for weighting, space in (("snr_plus_one", "v"), ("snr", "epsilon")):
        flat = torch.ones(1000, dtype=torch.float64)
        torch.testing.assert_close(multiplier(load(space), weighting, schedule), flat, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("1 / 0", "weight fails: ZeroDivisionError"),
        ("schedule['gama']", "weight fails: KeyError: 'gama'"),
        ("1.0", r"weight returned float; it must return a tensor of shape \(3,\)"),
        ("schedule['sqrt_alpha'][:2]", r"weight returned \(2,\); it must return a tensor of shape \(3,\)"),
        ("schedule['sqrt_alpha'] - 0.5", "weight is negative at t = 2"),
    ],
)
def test_a_file_that_gives_no_weights_is_one_line(body, words, tmp_path, monkeypatch):
    (tmp_path / "weightings").mkdir()
    (tmp_path / "weightings/mine.py").write_text(f"def weight(schedule):\n    return {body}\n")
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path)
    with pytest.raises(UserError, match=f"weightings/mine.py: {words}") as caught:
        multiplier(load_file(ROOT / "workflow/parameterizations/v.py"), "mine", three_steps())
    assert len(str(caught.value).splitlines()) == 1


# --- a weighting that is a table -----------------------------------------------------------------------------------


@pytest.fixture
def weightings(tmp_path, monkeypatch):
    """A workflow/ of its own with no weightings."""
    (tmp_path / "weightings").mkdir()
    for kind in ("times", "parameterizations", "paths"):
        (tmp_path / kind).symlink_to(ROOT / "workflow" / kind)
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path)
    return tmp_path / "weightings"


def test_a_table_is_a_weight_in_x0_space_by_time_step(weightings):
    (weightings / "mine.csv").write_text("t,weight\n0,9\n1,0.5\n2,0\n")
    schedule, expected = three_steps(), torch.tensor([9, 0.5, 0], dtype=torch.float64)
    assert torch.equal(named_weight("mine", schedule), expected)
    for space in TARGETS:
        torch.testing.assert_close(weight_in_x0_space(load(space), "mine", schedule), expected, rtol=1e-12, atol=0)
    numbers = np.random.default_rng(0).lognormal(sigma=9, size=3)
    (weightings / "mine.csv").write_text(table.written(numbers))
    assert np.array_equal(named_weight("mine", schedule).numpy(), numbers), "bit by bit"


WANTED = "a table of weights has the line 't,weight' and a row for each of 3 time steps, from t = 0 up"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", f" has the line '' and 0 rows after it; {WANTED}"),
        ("0,1\n1,1\n2,1\n", f" has the line '0,1' and 2 rows after it; {WANTED}"),
        ("t,weight\n0,1\n1,1\n", f" has the line 't,weight' and 2 rows after it; {WANTED}"),
        ("t,weight\n1,1\n2,1\n3,1\n", f" has the line 't,weight' and 3 rows after it; {WANTED}"),
        ("t,weight\n0,1\n1,x\n2,1\n", f": ValueError: could not convert string to float: 'x'; {WANTED}"),
        ("t,weight\n0,1\n1,-1\n2,1\n", ": weight is negative at t = 1"),
    ],
)
def test_a_table_that_is_none_is_one_line(content, words, weightings):
    (weightings / "mine.csv").write_text(content)
    with pytest.raises(UserError) as caught:
        named_weight("mine", three_steps())
    assert str(caught.value) == f"{weightings}/mine.csv{words}"


def test_a_name_is_that_of_a_formula_or_of_a_table(weightings):
    (weightings / "both.csv").touch()
    assert kinds.known("weightings") == ["both"]
    kinds.require_known("weightings", "both", "weighting")
    (weightings / "both.py").touch()
    with pytest.raises(UserError, match=r"weighting is 'both', but there are .*/both\.py and .*/both\.csv"):
        kinds.require_known("weightings", "both", "weighting")


# --- a mean of 1 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", ["uniform", "logit_normal"])
@pytest.mark.parametrize("space", ["x0", "v"])
def test_a_factor_is_scaled_to_a_mean_of_one_over_the_steps_that_are_drawn(times, space, schedule):
    """Of many steps drawn as a training draws them, the mean is 1; the shape stays."""
    scaled = Objective.of(load(space), load(space), "min_snr", schedule, times).factor
    plain = multiplier(load(space), "min_snr", schedule)
    ratio = scaled.double() / plain
    torch.testing.assert_close(ratio, ratio[:1].expand(1000), rtol=1e-6, atol=0)
    drawn = draws_of(times, schedule)(np.random.default_rng(0), 200_000)
    assert scaled[drawn].double().mean().item() == pytest.approx(1, rel=0.01)
    assert plain[drawn].mean().item() != pytest.approx(1, rel=0.03)


def test_by_hand_a_mean_of_one():
    """SNR = 9, 1, 1/4: as an x0 loss their mean is 41/12; on ε, SNR/SNR = 1 already."""
    expected = torch.tensor([9, 1, 0.25], dtype=torch.float64) * 12 / 41
    torch.testing.assert_close(multiplier(load("x0"), "snr", three_steps(), "uniform"), expected)
    torch.testing.assert_close(weight_in_x0_space(load("x0"), "snr", three_steps(), "uniform"), expected)
    flat = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(multiplier(load("epsilon"), "snr", three_steps(), "uniform"), flat)
    assert torch.equal(multiplier(load("v"), "constant", three_steps(), "uniform"), flat)


def test_what_is_zero_wherever_it_is_drawn_has_no_scale(weightings):
    (weightings / "mine.csv").write_text("t,weight\n0,0\n1,0\n2,0\n")
    with pytest.raises(UserError, match="weighting mine is 0 wherever times uniform draws; nothing can scale it"):
        multiplier(load("v"), "mine", three_steps(), "uniform")


@each_target
def test_a_constant_weight_leaves_the_loss_alone(name, schedule):
    assert torch.equal(multiplier(load(name), "constant", schedule), torch.ones(1000, dtype=torch.float64))


def test_the_slope_is_d_over_b_whatever_the_sign(schedule):
    a, b = schedule["sqrt_alpha"], schedule["sqrt_one_minus_alpha"]
    for phi in (0.0, 0.3, 1.0, math.pi / 2, 2.0):
        D = a * math.cos(phi) + b * math.sin(phi)
        torch.testing.assert_close(slope_of_target(angle(phi), schedule), (D / b).abs(), rtol=1e-12, atol=1e-15)


def test_factors_are_computed_in_fp64_whatever_the_schedule():
    coarse = make_schedule(LINEAR)
    for name in TARGETS:
        assert multiplier(load(name), "snr", coarse).dtype == torch.float64
        assert Objective.of(load(name), load(name), "snr", coarse).factor.dtype == torch.float32


# --- the loss on real tensors --------------------------------------------------------------------------------------


@each_target
def test_a_flat_loss_in_its_own_space_is_the_mean_squared_error(name, schedule):
    target = load(name)
    x_0, noise, x_t, timesteps, error = batch(schedule)
    y = target.compute_training_target(x_0, noise, timesteps, schedule)
    loss = objective(target, target, "constant", schedule)(y + error, x_0, noise, x_t, timesteps)
    assert loss.shape == (64,)
    torch.testing.assert_close(loss, mean(error**2), rtol=1e-12, atol=1e-12)


@each_pair
def test_in_training_precision_the_weighted_loss_is_still_that_of_epsilon(target, space):
    """The same in fp32, as training computes it, where no step magnifies rounding too far."""
    schedule = make_schedule(LINEAR)
    target, space = load(target), load(space)
    x_0, noise, x_t, timesteps, error = batch(schedule, last=900)
    output = target.compute_training_target(x_0, noise, timesteps, schedule) + error
    loss = Objective.of(target, space, "snr", schedule)(output, x_0, noise, x_t, timesteps)
    a, b = at(schedule, timesteps)
    noise_estimate = (x_t - a * target.predict_x0(output, x_t, timesteps, schedule)) / b
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, mean((noise_estimate - noise) ** 2), rtol=2e-3, atol=1e-5)


angles = some.floats(0, math.pi / 2)


@given(phi=angles, psi=angles, seed=some.integers(0, 2**16), scale=some.floats(0.01, 10))
def test_a_loss_in_space_s_is_d_over_b_squared_times_the_x0_error(phi, psi, seed, scale):
    """For any target T and any space S on the path: loss = (D_S/b)² · |x0 error of T's output|²."""
    schedule = make_schedule(LINEAR, dtype=torch.float64)
    target, space = angle(phi, "target"), angle(psi, "space")
    x_0, noise, x_t, timesteps, error = batch(schedule, count=8, seed=seed)
    output = target.compute_training_target(x_0, noise, timesteps, schedule) + scale * error
    loss = objective(target, space, "constant", schedule)(output, x_0, noise, x_t, timesteps)
    a, b = schedule["sqrt_alpha"][timesteps], schedule["sqrt_one_minus_alpha"][timesteps]
    D_space = a * math.cos(psi) + b * math.sin(psi)
    D_target = a * math.cos(phi) + b * math.sin(phi)
    x_0_error = mean((scale * error) ** 2) * (b / D_target) ** 2
    torch.testing.assert_close(loss, (D_space / b) ** 2 * x_0_error, rtol=1e-8, atol=1e-12)


def test_each_image_has_its_own_weight(schedule):
    """The factor goes with the image's time step, not with its place in the batch."""
    target = load("x0")
    x_0, noise = some_images(1000)
    timesteps = torch.arange(999, -1, -1)
    x_t = add_noise(x_0, noise, timesteps, schedule)
    loss = objective(target, target, "snr", schedule)(x_0 + 0.5, x_0, noise, x_t, timesteps)
    torch.testing.assert_close(loss, 0.25 * signal_to_noise(schedule).flip(0), rtol=1e-12, atol=0)


# --- outputs of two heads ------------------------------------------------------------------------------------------


def test_doubling_the_channels_changes_no_weight(schedule):
    """A mean is taken over all channels of the output, so a target that says x_0 twice weighs like x0, not double."""
    twice = parameterization(
        lambda x_0, noise, t, s: torch.cat([x_0, x_0], dim=1),
        lambda y, x_t, t, s: (y[:, : y.shape[1] // 2] + y[:, y.shape[1] // 2 :]) / 2,
        "twice",
    )
    x_0, noise, x_t, timesteps, error = batch(schedule)
    output = torch.cat([x_0 + error, x_0 + error], dim=1)
    for weighting in ("constant", "snr"):
        expected = weight_in_x0_space(load("x0"), weighting, schedule)
        torch.testing.assert_close(weight_in_x0_space(twice, weighting, schedule), expected, rtol=1e-12, atol=0)
        loss = objective(twice, twice, weighting, schedule)(output, x_0, noise, x_t, timesteps)
        torch.testing.assert_close(loss, expected[timesteps] * mean(error**2), rtol=1e-10, atol=1e-12)
