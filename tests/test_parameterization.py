"""Every parameterization file there is, against the algebra of protocol.md section 2."""

import math
import os
import sys
from hashlib import sha256

import pytest
import torch
from helpers import (
    DIFFUSERS_PATHS,
    LINEAR,
    PATHS,
    TARGETS,
    affine,
    parameterization,
    some_images,
)

from targetwise.diffusion.parameterization import load, load_file, probe_output_channels
from targetwise.diffusion.schedule import add_noise, at, make_schedule
from targetwise.errors import UserError
from targetwise.recipe import kinds

#: p and q of y = p·ε + q·x_0, from the table of the protocol. A new file needs no entry; with one it is tested more.
ALGEBRA = {
    "epsilon": (lambda a, b: torch.ones_like(a), lambda a, b: torch.zeros_like(a)),
    "x0": (lambda a, b: torch.zeros_like(a), lambda a, b: torch.ones_like(a)),
    "v": (lambda a, b: a, lambda a, b: -b),
    "u": (lambda a, b: torch.ones_like(a), lambda a, b: -torch.ones_like(a)),
    "edm_f": (lambda a, b: -0.5 * a / (b**2 + a**2 / 4).sqrt(), lambda a, b: 2 * b / (b**2 + a**2 / 4).sqrt()),
    "residual": (lambda a, b: -a * b / (4 * b**2 + a**2), lambda a, b: 4 * b**2 / (4 * b**2 + a**2)),
    "angle": (lambda a, b: torch.ones_like(a) / math.sqrt(2), lambda a, b: -torch.ones_like(a) / math.sqrt(2)),
    # cos(θ/2) and sin(θ/2) by the half-angle formulas; cos θ = a where a² + b² = 1
    "eps_v_blend": (lambda a, b: ((1 + a) / 2).sqrt(), lambda a, b: -((1 - a) / 2).sqrt()),
    "score": (lambda a, b: -1 / b, lambda a, b: torch.zeros_like(a)),
}

each_target = pytest.mark.parametrize("name", TARGETS)
each_known_target = pytest.mark.parametrize("name", sorted(set(ALGEBRA) & set(TARGETS)))
each_schedule = pytest.mark.parametrize("kind", DIFFUSERS_PATHS)


def everything(kind="linear", dtype=torch.float64, per_step=2, **parameters):
    """Return x_0, ε, x_t, t and the schedule, with images at every time step."""
    schedule = make_schedule({**LINEAR, "schedule": kind}, parameters, dtype=dtype)
    timesteps = torch.arange(1000).repeat_interleave(per_step)
    x_0, noise = (tensor.to(dtype) for tensor in some_images(len(timesteps)))
    return x_0, noise, add_noise(x_0, noise, timesteps, schedule), timesteps, schedule


def test_the_issues_parameterizations_are_there():
    assert set(ALGEBRA) <= set(TARGETS)


@pytest.mark.parametrize(
    ("name", "parameters", "like", "sign"),
    [
        ("angle", {"angle": 0.0}, "epsilon", 1),
        ("angle", {"angle": 90.0}, "x0", -1),
        ("eps_v_blend", {"blend": 0.0}, "epsilon", 1),
        ("eps_v_blend", {"blend": 1.0}, "v", 1),
        ("edm_f", {"sigma_data": 1.0}, "v", -1),
    ],
)
@each_schedule
def test_a_constant_leads_to_a_plain_output(name, parameters, like, sign, kind):
    target, plain = load(name), load(like)
    x_0, noise, x_t, timesteps, schedule = everything(kind, **parameters)
    y = target.compute_training_target(x_0, noise, timesteps, schedule)
    expected = sign * plain.compute_training_target(x_0, noise, timesteps, schedule)
    torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)
    output = some_images(len(y), seed=1)[1]
    mine = target.predict_x0(output, x_t, timesteps, schedule)
    a, _ = at(schedule, timesteps)
    torch.testing.assert_close(
        a * mine, a * plain.predict_x0(sign * output, x_t, timesteps, schedule), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("s", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("kind", PATHS)
def test_edms_output_has_the_variance_of_one_and_residuals_skip_is_the_best_linear_one(s, kind):
    """What EDM asks of F; and no other multiple of x_t is nearer to x_0 (variances of x_0 and ε are s² and 1)."""
    schedule = make_schedule({**LINEAR, "schedule": kind}, {"sigma_data": s}, dtype=torch.float64)
    timesteps = torch.arange(1000)
    one, zero = torch.ones(1000, 1, 1, 1, dtype=torch.float64), torch.zeros(1000, 1, 1, 1, dtype=torch.float64)

    def parts(name):
        compute = load(name).compute_training_target
        return compute(one, zero, timesteps, schedule), compute(zero, one, timesteps, schedule)

    q, p = parts("edm_f")
    torch.testing.assert_close((q * s) ** 2 + p**2, one, rtol=1e-12, atol=0)
    q, p = parts("residual")
    a, b = at(schedule, timesteps)
    covariance = q * s**2 * a + p * b  # of the residual and x_t
    assert covariance.abs().max() < 1e-14


@pytest.mark.parametrize("kind", PATHS)
def test_two_heads_mix_what_both_say(kind):
    """Salimans & Ho 2022, section 4, where a² + b² = 1; elsewhere the weights are divided by that sum."""
    target = load("two_head")
    x_0, noise, x_t, timesteps, schedule = everything(kind)
    a, b = at(schedule, timesteps)
    first, second = some_images(len(x_0), seed=1)
    y = target.compute_training_target(x_0, noise, timesteps, schedule)
    assert torch.equal(y[:, :3], x_0) and torch.equal(y[:, 3:], noise)
    off = target.predict_x0(y + torch.cat([first, second], dim=1), x_t, timesteps, schedule) - x_0
    expected = (b**2 * first - a * b * second) / (a**2 + b**2)
    torch.testing.assert_close(off, expected, rtol=1e-9, atol=1e-11)


@each_known_target
@each_schedule
def test_target_and_inverse_are_those_of_the_table(name, kind):
    target, reference = load(name), affine(*ALGEBRA[name])
    x_0, noise, x_t, timesteps, schedule = everything(kind)
    y = target.compute_training_target(x_0, noise, timesteps, schedule)
    torch.testing.assert_close(
        y, reference.compute_training_target(x_0, noise, timesteps, schedule), rtol=1e-14, atol=1e-14
    )
    output = y + some_images(len(y), seed=1)[1]  # what a network says is not the target
    mine = target.predict_x0(output, x_t, timesteps, schedule)
    theirs = reference.predict_x0(output, x_t, timesteps, schedule)
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@each_known_target
@each_schedule
def test_an_error_of_the_output_reaches_x0_by_b_over_d_and_noise_by_a_over_d(name, kind):
    target = load(name)
    p, q = ALGEBRA[name]
    x_0, noise, x_t, timesteps, schedule = everything(kind)
    a, b = at(schedule, timesteps)
    D = p(a, b) * a - q(a, b) * b
    y, error = target.compute_training_target(x_0, noise, timesteps, schedule), some_images(len(x_0), seed=1)[1]
    off = target.predict_x0(y + error, x_t, timesteps, schedule) - x_0
    torch.testing.assert_close(off, -b / D * error, rtol=1e-9, atol=1e-9)
    noise_off = (x_t - a * (x_0 + off)) / b - noise
    torch.testing.assert_close(noise_off, a / D * error, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("t", "gain"), [(980, 130), (999, 157)])
def test_epsilons_gain_is_the_protocols(schedule, t, gain):
    a, b = schedule["sqrt_alpha"][t], schedule["sqrt_one_minus_alpha"][t]
    assert round((b / a).item()) == gain
    zero, step = torch.zeros(1, 3, 4, 4, dtype=torch.float64), torch.tensor([t])
    off = load("epsilon").predict_x0(zero + 1, zero, step, schedule)
    assert torch.equal(off.round(), torch.full_like(off, -gain))


def test_v_is_a_rotation(schedule):
    """(x_t, v) is (x_0, ε) turned by the angle whose cosine is a: lengths stay (Salimans & Ho 2022, appendix D)."""
    x_0, noise, x_t, timesteps, schedule = everything()
    v = load("v").compute_training_target(x_0, noise, timesteps, schedule)
    torch.testing.assert_close(x_t**2 + v**2, x_0**2 + noise**2, rtol=1e-13, atol=1e-13)


@each_target
def test_an_image_is_treated_by_itself(name):
    """Neither the others in a batch nor its place in it matters."""
    target = load(name)
    x_0, noise, x_t, timesteps, schedule = everything(per_step=1)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    whole = target.compute_training_target(x_0, noise, timesteps, schedule)
    part = target.compute_training_target(x_0[order[:7]], noise[order[:7]], timesteps[order[:7]], schedule)
    assert torch.equal(part, whole[order[:7]])
    estimate = target.predict_x0(whole, x_t, timesteps, schedule)
    alone = target.predict_x0(whole[order[:7]], x_t[order[:7]], timesteps[order[:7]], schedule)
    assert torch.equal(alone, estimate[order[:7]])


@each_target
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_type_is_kept_and_arguments_are_left_alone(name, dtype):
    target = load(name)
    x_0, noise, x_t, timesteps, schedule = everything(dtype=dtype, per_step=1)
    arguments = [x_0, noise, x_t, timesteps, *schedule.values()]
    before = [argument.clone() for argument in arguments]
    y = target.compute_training_target(x_0, noise, timesteps, schedule)
    estimate = target.predict_x0(y, x_t, timesteps, schedule)
    assert y.dtype == estimate.dtype == dtype
    assert all(map(torch.equal, before, arguments))


@each_target
def test_the_gradient_reaches_the_output(name):
    """A loss in another space goes through predict_x0."""
    target = load(name)
    x_0, noise, x_t, timesteps, schedule = everything(per_step=1)
    output = target.compute_training_target(x_0, noise, timesteps, schedule).clone().requires_grad_()
    target.predict_x0(output, x_t, timesteps, schedule).sum().backward()
    assert output.grad is not None
    assert (output.grad != 0).all()


# --- loading -------------------------------------------------------------------------------------------------------

GOOD = "def compute_training_target(x_0, noise, timesteps, schedule):\n    return noise\n"
GOOD_TOO = "def predict_x0(model_output, x_t, timesteps, schedule):\n    return model_output\n"


@each_target
def test_a_file_is_known_by_its_name_and_digest(name):
    first, second = load(name), load(name)
    assert first.name == name
    assert first.digest == second.digest
    assert len(first.digest) == 64
    assert len({load(other).digest for other in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD, "must define compute_training_target and predict_x0; predict_x0 is missing"),
        (GOOD_TOO, "compute_training_target is missing"),
        (GOOD + "predict_x0 = 3\n", "predict_x0 is missing"),
        ("", "is missing"),
        ("def f(:\n", "does not run: SyntaxError"),
        ("import not_a_package\n", "does not run: ModuleNotFoundError: No module named 'not_a_package'"),
        ("1 / 0\n", "does not run: ZeroDivisionError"),
        ("import sys; sys.exit(3)\n", "does not run: SystemExit"),
    ],
)
def test_a_file_that_does_not_load_is_named(tmp_path, content, message):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_file(path)
    assert "mine.py" in str(caught.value)


@pytest.mark.parametrize("name", ["none.py", "folder.py", "mine.txt"])
def test_what_is_no_python_file_is_refused(tmp_path, name):
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "mine.txt").write_text(GOOD + GOOD_TOO)
    with pytest.raises(UserError, match="is not a Python file"):
        load_file(tmp_path / name)


def test_two_files_of_one_name_stay_apart(tmp_path):
    for folder, constant in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(GOOD.replace("return noise", f"return {constant}") + GOOD_TOO)
    a, b = load_file(tmp_path / "a/same.py"), load_file(tmp_path / "b/same.py")
    assert (a.compute_training_target(0, 0, 0, 0), b.compute_training_target(0, 0, 0, 0)) == (1, 2)
    assert a.digest != b.digest


# --- the number of output channels ---------------------------------------------------------------------------------


@each_target
@pytest.mark.parametrize("channels", [1, 3])
def test_targets_have_the_images_channels(name, channels, schedule):
    assert probe_output_channels(load(name), channels, 8, schedule) == channels


def test_two_heads_need_twice_the_channels(schedule):
    both = parameterization(lambda x_0, noise, t, s: torch.cat([x_0, noise], dim=1), lambda y, x_t, t, s: y[:, :3])
    assert probe_output_channels(both, 3, 8, schedule) == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.flatten(1),
        lambda y: y[:1],
        lambda y: y[..., :4],
        lambda y: y.mean(),
        lambda y: y.permute(0, 2, 3, 1),
    ],
)
def test_another_shape_is_refused(schedule, change):
    broken = parameterization(lambda x_0, noise, t, s: change(noise), lambda y, x_t, t, s: y, "broken")
    with pytest.raises(UserError, match="broken: compute_training_target returned shape"):
        probe_output_channels(broken, 3, 8, schedule)


def test_an_edit_within_a_second_runs(tmp_path, monkeypatch):
    """Python's own cache goes by a file's date and size: it would run what another digest belongs to."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "mine.py"
    ran = []
    for number in (3, 4):
        path.write_text(f"def weight(schedule):\n    return {number}\n")
        os.utime(path, (1_790_000_000, 1_790_000_000))
        source = kinds.load_file("weightings", path)
        ran.append((source["weight"](None), source.digest))
    assert ran == [(3, ran[0][1]), (4, sha256(path.read_bytes()).hexdigest())]
    assert ran[0][1] != ran[1][1]
