"""One variant or any file, examined: `targetwise check NAME|FILE`."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import FILES, LINEAR, PATHS, ROOT, VARIANT, link_workflow
from PIL import Image

from targetwise import cli, errors
from targetwise.check import probing
from targetwise.diffusion.loss import Objective
from targetwise.diffusion.parameterization import load, load_file
from targetwise.diffusion.schedule import make_schedule
from targetwise.errors import UserError
from targetwise.operations.examination import candidate
from targetwise.recipe import config

SCHEDULE = make_schedule(LINEAR, dtype=torch.float64)
A, B = SCHEDULE["sqrt_alpha"].numpy(), SCHEDULE["sqrt_one_minus_alpha"].numpy()
ONE, ZERO = np.ones(1000), np.zeros(1000)

#: p and q of y = p·ε + q·x_0 by block of channels, from the definitions (docs/library.md), with s = 0.5, φ = 45°.
Q = B**2 + 0.25 * A**2
TURNED = 0.5 * np.arctan2(B, A)
COEFFICIENTS = {
    "epsilon": [(ONE, ZERO)],
    "x0": [(ZERO, ONE)],
    "v": [(A, -B)],
    "u": [(ONE, -ONE)],
    "edm_f": [(-0.5 * A / np.sqrt(Q), B / (0.5 * np.sqrt(Q)))],
    "residual": [(-0.25 * A / Q * B, 1 - 0.25 * A / Q * A)],
    "angle": [(ONE * math.sqrt(0.5), -ONE * math.sqrt(0.5))],
    "eps_v_blend": [(np.cos(TURNED), -np.sin(TURNED))],
    "score": [(-1 / B, ZERO)],
    "two_head": [(ZERO, ONE), (ONE, ZERO)],
}

BODY = """
import torch

def compute_training_target(x_0, noise, timesteps, schedule):
    return {target}

def predict_x0(model_output, x_t, timesteps, schedule):
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    return {estimate}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of its own, in which the test runs."""
    link_workflow(tmp_path)
    for name in ("config.yaml", "config"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(tmp_path):
    def write(target, estimate, name="mine"):
        path = tmp_path / "elsewhere" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(BODY.format(target=target, estimate=estimate))
        return path

    return write


# --- probing -------------------------------------------------------------------------------------------------------


def test_every_output_of_the_library_has_its_coefficients_here():
    assert set(COEFFICIENTS) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_coefficients_are_found_by_probing(name):
    found = probing.coefficients(load(name), SCHEDULE)
    assert len(found) == len(COEFFICIENTS[name])
    for block, (p, q) in zip(found, COEFFICIENTS[name], strict=True):
        np.testing.assert_allclose(block["epsilon"], p, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(block["x_0"], q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("noise + x_0**3", "it is not linear in x_0"),
        ("noise + x_0.flip(-1)", "it mixes pixels"),
        ("torch.sinh(noise)", "it is not linear in ε"),
        ("torch.cat([noise, x_0[:, :1]], 1)", "its channels are not whole images"),
        ("noise + x_0 + 1", "it has a constant term"),
        ("noise * (1 + 0.001 * torch.arange(8, device=noise.device))", "it weighs columns"),
    ],
)
def test_what_is_no_combination_of_noise_and_image_has_no_coefficients(write, target, why):
    assert probing.coefficients(load_file(write(target, "x_t")), SCHEDULE) is None, why


def test_a_known_output_is_recognized_whatever_its_file_is_called(write):
    v = write("A * noise - B * x_0".replace("A", AT.format("sqrt_alpha")).replace("B", AT.format(NOISE)), "x_t")
    for path, expected in (
        (v, ["v"]),
        (write("noise - x_0", "x_t", "u2"), ["u"]),
        (write("2 * x_0", "x_t", "d"), []),
    ):
        own = probing.coefficients(load_file(path), SCHEDULE)
        assert probing.known_outputs(own, [load(name) for name in FILES], SCHEDULE) == expected


AT, NOISE = 'schedule["{}"][timesteps].view(-1, 1, 1, 1)', "sqrt_one_minus_alpha"


def gradient(target, space, weighting):
    return probing.gradient_at_start(Objective.of(load(target), load(space), weighting, SCHEDULE)).numpy()


@pytest.mark.parametrize(
    ("target", "space", "weighting", "size"),
    [
        ("epsilon", "epsilon", "constant", 2 * ONE),
        ("x0", "x0", "constant", 2 * ONE / math.sqrt(3)),
        ("x0", "x0", "snr", 2 * (A / B) ** 2 / math.sqrt(3)),
        ("x0", "epsilon", "constant", 2 * (A / B) ** 2 / math.sqrt(3)),
        ("v", "v", "constant", 2 * np.sqrt(A**2 + B**2 / 3)),
        # x_0 is read as (x_t − b·y)/a, so at y = 0 it is off by b·ε/a, and its derivative by y is −b/a.
        ("epsilon", "x0", "constant", 2 * (B / A) ** 2),
        # x̂_0 = b²·y₁ + a·(x_t − b·y₂) is off by a·b·ε − b²·x_0, and its derivatives are b² and −a·b.
        ("two_head", "x0", "constant", 2 * np.sqrt(A**2 * B**2 + B**4 / 3) * B / math.sqrt(2)),
        ("epsilon", "x0", "snr_plus_one", 2 * (B / A) ** 2 * (1 + (A / B) ** 2)),
    ],
)
def test_the_gradient_at_the_start_is_that_of_the_closed_form(target, space, weighting, size):
    """For images of uniform noise in [-1, 1], whose variance is 1/3."""
    found = gradient(target, space, weighting)
    ratio = found / size
    assert abs(ratio.mean() - 1) < 0.01  # 768 numbers at each of 1,000 steps
    assert np.abs(ratio - 1).max() < 0.15


def test_the_gradient_is_of_a_mean_over_all_blocks_of_channels():
    """So an output of two images has as large a gradient as one, each number of it."""
    found = gradient("two_head", "two_head", "constant")
    np.testing.assert_allclose(found, 2 * math.sqrt((1 + 1 / 3) / 2), rtol=0.12)


def test_known_objectives_are_those_of_flat_losses():
    """A flat loss on x0 asks for p·|dt/dλ|, and one on ε for SNR times that."""
    found = probing.known_objectives([load(name) for name in FILES], LINEAR)
    assert set(found) == set(FILES)
    lam = np.array(found["x0"]["log_snr"])
    ratio = np.array(found["epsilon"]["effective_weight"]) / np.array(found["x0"]["effective_weight"]) / np.exp(lam)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)


def test_paths_are_tried_and_a_refusal_is_told():
    found = probing.describe(load("v"), load("v"), VARIANT)["paths"]
    assert set(found) == set(PATHS)
    assert [name for name in PATHS if "refused" in found[name]] == ["flow"]
    assert "a² + b² is not 1" in found["flow"]["refused"]
    # What an error of v reaches x_0 by is b, on every path.
    assert found["cosine"]["gain_to_x0"]["largest"] == pytest.approx(1, abs=1e-3)


# --- what is asked for ---------------------------------------------------------------------------------------------


def study():
    return config.load([Path("config/digits.yaml")])


def test_a_name_means_what_the_configuration_says(project):
    found = candidate(study(), "x0_in_v")
    assert (found.name, found.file) == ("x0_in_v", Path("workflow/parameterizations/x0.py"))
    assert (found.specification["target"], found.specification["loss_space"]) == ("x0", "v")


def test_a_change_is_laid_over_it_and_is_in_the_name(project):
    found = candidate(study(), "edm_f", ["parameters.sigma_data=0.3", "diffusion.schedule=flow"])
    assert found.name == "edm_f_0p3_flow"
    assert found.specification["parameters"] == {"sigma_data": 0.3}
    assert found.specification["diffusion"]["schedule"] == "flow"
    assert found.definition == {
        "target": "edm_f", "parameters": {"sigma_data": 0.3}, "diffusion": {"schedule": "flow"},
    }  # fmt: skip


def test_a_file_elsewhere_is_itself_also_where_the_library_has_its_name(project, write):
    path = write("x_0 - noise", "(x_t + b * model_output) / (a + b)", name="v")
    found = candidate(study(), str(path))
    assert (found.name, found.file, found.definition) == ("v", path, {"target": "v"})
    assert found.specification["files"] == {"v": str(path)}


@pytest.mark.parametrize(
    ("what", "changes", "said"),
    [
        ("vv", [], "there is no parameterization 'vv'; did you mean 'v'?"),
        ("nowhere/mine.py", [], "nowhere/mine.py does not exist; name a parameterization's file, or a variant"),
        ("v", ["weighting"], "--set takes KEY=VALUE, e.g. weighting=snr or diffusion.schedule=flow; not 'weighting'"),
        ("v", ["weighting=snrr"], "there is no workflow/weightings/snrr.py; did you mean 'snr'?"),
        ("v", ["wighting=snr"], "unknown key 'wighting' in parameterizations.v_snr; did you mean 'weighting'?"),
        ("v", ["parameters.k=[1"], "--set parameters.k=[1: the value is not valid YAML"),
        ("v", ["loss_space=w"], "there is no workflow/parameterizations/w.py"),
        ("v", ["weighting=snr", "weighting=p2"], "--set sets weighting twice; leave one out"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(project, what, changes, said):
    with pytest.raises(UserError) as caught:
        candidate(study(), what, changes)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_files_name_must_be_one_that_a_variant_can_have(project, write):
    path = write("noise", "(x_t - b * model_output) / a", name="My-Idea")
    with pytest.raises(UserError, match="holds the name 'My-Idea'; a name is at most 64 lower-case letters"):
        candidate(study(), str(path))


# --- as one types it -----------------------------------------------------------------------------------------------


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["targetwise", *map(str, arguments)])
    cli.main()


def test_a_file_is_told_what_it_is_and_nothing_is_left_behind(project, write, monkeypatch, capsys):
    path = write("(noise - x_0) / 2**0.5", "(x_t - b * 2**0.5 * model_output) / (a + b)")
    before = sorted(project.rglob("*"))
    call(monkeypatch, "check", path, "--figure", "mine.png", "--configfile", "config/digits.yaml")
    lines = capsys.readouterr().out.splitlines()
    told = {line.split("  ")[0]: line.split() for line in lines}
    assert told["p"][1:] == ["0.7071"] * 5 and told["q"][1:] == ["-0.7071"] * 5
    assert [line.split("  ")[0] for line in lines if line.endswith(")") and "e-1" in line] == [
        "linear", *(name for name in PATHS if name != "linear"),
    ]  # fmt: skip
    assert "mine may be trained: its two functions are pure and inverses of each other." in lines
    # (ε − x_0)/√2 is `angle` with its 45°, and u over √2: the same share of the whole at every noise level.
    assert "What the network outputs is that of angle, and so is its objective with a flat loss." in lines
    assert any(line.startswith("It is the objective of a flat loss of u: ") for line in lines)
    assert sorted(project.rglob("*")) == sorted([*before, project / "mine.png"])
    picture = np.asarray(Image.open("mine.png").convert("L"), dtype=float)
    assert picture.shape == (630, 1440) and (picture < 128).sum() > 5000


@pytest.mark.parametrize(("changes", "too"), [([], "and so is"), (["--set", "weighting=p2"], "but not")])
def test_a_file_that_is_a_known_output_is_told_so(project, write, monkeypatch, capsys, changes, too):
    path = write("noise", "(x_t - b * model_output) / a")
    call(monkeypatch, "check", path, *changes, "--configfile", "config/digits.yaml")
    expected = f"What the network outputs is that of epsilon, {too} its objective with a flat loss."
    assert expected in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("target", "estimate", "said"),
    [
        ("noise", "x_t", "parameterization mine: predict_x0 does not depend on model_output at any time step"),
        ("x_0.add_(1)", "model_output", "compute_training_target changes its argument x_0 in place"),
        ("noise[:, :, :4]", "model_output", "compute_training_target returned shape (2, 3, 4, 8) for images of"),
        ("x_0 / (timesteps != 500).view(-1, 1, 1, 1)", "model_output", "compute_training_target is not finite at t"),
        ("x_0 + torch.randn_like(x_0)", "model_output", "changes torch's global random state by drawing"),
        ("x_0", "1 / 0", "predict_x0 fails for 4000 images (t = 0 … 999): ZeroDivisionError: division by zero"),
        ("x_0", "model_output * 1.01", "predict_x0 does not invert compute_training_target: at t ="),
    ],
)
def test_a_broken_file_is_refused_by_function_and_rule_with_an_exit_code(
    project, write, monkeypatch, capsys, target, estimate, said
):
    path = write(target, estimate)
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, "check", path, "--figure", "mine.svg", "--configfile", "config/digits.yaml")
    assert left.value.code == errors.EXIT_ERROR
    printed = capsys.readouterr()
    assert said in printed.err.splitlines()[-1]
    assert printed.out == "" and not Path("mine.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["v", "--figure", "mine.jpeg"], "--figure is mine.jpeg; its name must end in .svg, .png or .pdf"),
        (["--figure", "no/mine.svg"], "--figure is no/mine.svg, but there is no folder no"),
        (["--set", "weighting=snr"], "--set changes one variant; name it before"),
    ],
)
def test_what_is_asked_for_wrongly_is_said_before_anything_is_computed(project, monkeypatch, capsys, arguments, said):
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, "check", *arguments)
    assert left.value.code == errors.EXIT_ERROR
    assert capsys.readouterr().err == f"error: {said}\n"


@pytest.mark.deep
def test_the_figure_of_a_grid_has_every_variant_and_is_the_same_each_time(project, monkeypatch):
    for _ in range(2):
        call(monkeypatch, "check", "--figure", "grid.svg", "--configfile", "config/digits.yaml")
        text = Path("grid.svg").read_text()
        Path("grid.svg").rename("before.svg") if not Path("before.svg").exists() else None
    assert text == Path("before.svg").read_text()
    assert "<svg" in text and text.count("<path") > 20
