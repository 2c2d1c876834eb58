"""Power-function averages: what is tracked, kept and rebuilt, against integrals and against tracking it directly."""

import contextlib

import numpy as np
import pytest
import torch
from helpers import EXAMPLE, ROOT
from safetensors.torch import load_file, save_file
from scipy.integrate import quad
from test_training import StopAfter, run, specification

from targetwise import cells
from targetwise.data.samples import load_samples
from targetwise.diffusion.parameterization import load
from targetwise.errors import StoppedEarlyError, UserError
from targetwise.files import read_json, read_json_lines
from targetwise.operations.disk import disk
from targetwise.recipe import config as configuration
from targetwise.sampling.stage import sample
from targetwise.training.averages import PREFIX, PowerAverages
from targetwise.training.power import coefficients, exponent, overlap, snapshot_steps
from targetwise.training.trainer import Trainer
from targetwise.training.weights import read_weights

STORED = [0.05, 0.1]
STEPS = 400


def profile(gamma, time, tau):
    """Return the weight of the moment tau in the average at time."""
    return (gamma + 1) * tau**gamma / time ** (gamma + 1) if tau <= time else 0.0


def path():
    """The weights after each step of a training that drifts and jitters, (STEPS, 3) fp64."""
    random = np.random.default_rng(0)
    drift = np.linspace(0, 1, STEPS)[:, None] ** [0.5, 1.0, 2.0]
    return drift + 0.05 * random.standard_normal((STEPS, 3)).cumsum(0) / STEPS**0.5


def tracked(lengths):
    """Return the averages of the path, as a training tracks and keeps them."""
    weights = torch.zeros(3)
    averages = PowerAverages([weights], lengths, STEPS)
    for step, now in enumerate(path(), 1):
        weights.copy_(torch.from_numpy(now))
        averages.update()
        averages.keep(step)
    return averages


def directly(length):
    """Return the average of one length at the end: every step's weights times its share of the profile."""
    gamma = exponent(length)
    shares = [quad(lambda tau: profile(gamma, STEPS, tau), step - 1, step)[0] for step in range(1, STEPS + 1)]
    return np.array(shares) @ path()


# --- the mathematics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0.02, 0.05, 0.1, 0.2, 0.28])
def test_the_exponent_is_that_of_a_profile_with_this_standard_deviation(length):
    gamma = exponent(length)
    mass, mean, square = (quad(lambda tau, n=n: tau**n * profile(gamma, 1.0, tau), 0, 1)[0] for n in range(3))
    assert mass == pytest.approx(1) and gamma > 0
    assert np.sqrt(square - mean**2) == pytest.approx(length, rel=1e-6)


@pytest.mark.parametrize(("time", "other_time"), [(1.0, 1.0), (0.4, 1.0), (1.0, 0.4)])
def test_an_overlap_is_the_integral_of_the_product(time, other_time):
    gamma, other = exponent(0.05), exponent(0.2)
    expected = quad(lambda tau: profile(gamma, time, tau) * profile(other, other_time, tau), 0, min(time, other_time))
    assert overlap(*map(np.array, (time, gamma, other_time, other))) == pytest.approx(expected[0], rel=1e-9)


@pytest.mark.parametrize("length", [0.03, 0.05, 0.08, 0.15])
def test_a_tracked_average_is_the_integral_over_its_profile(length):
    (values,) = tracked([length]).values
    np.testing.assert_allclose(values[0].numpy(), directly(length), rtol=1e-5)


def test_the_first_step_replaces_what_the_training_began_with():
    weights = torch.full((3,), 1e6)
    averages = PowerAverages([weights], STORED, STEPS)
    weights.fill_(1.0)
    averages.update()
    assert all(value.eq(1).all() for values in averages.values for value in values)


@pytest.mark.parametrize("steps", [1, 2, 5, 12, 35_000])
def test_snapshots_are_taken_inside_the_training_and_at_its_end(steps):
    found = snapshot_steps(steps)
    assert found[0] >= 1 and found[-1] == steps and found == sorted(set(found))
    assert len(found) == 8 or steps < 13


# --- another length ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A model file whose three weights are those of the path."""
    file = tmp_path_factory.mktemp("stored") / "model.safetensors"
    save_file({"weight": torch.full((3,), 7.0), **tracked(STORED).tensors(["weight"])}, file)
    return file


@pytest.mark.parametrize(
    ("length", "share"),
    [(0.03, 0.02), (0.05, 1e-4), (0.07, 2e-3), (0.1, 1e-4), (0.13, 0.01), (0.15, 0.04), (0.18, 0.08)],
)
def test_an_average_that_was_not_tracked_is_rebuilt(stored, length, share):
    """Off by a share of what the two stored ones differ by."""
    found, expected = read_weights(stored, length=length)["weight"].numpy(), directly(length)
    between = np.abs(directly(0.05) - directly(0.1)).max()
    np.testing.assert_allclose(found, expected, atol=share * between)


def test_without_a_length_the_weights_are_the_training_s_own(stored):
    assert read_weights(stored).keys() == {"weight"} and read_weights(stored)["weight"].eq(7).all()


def test_factors_add_up_to_one():
    """Else weights that stand still would not be rebuilt as they are."""
    kept = [(length, step) for length in STORED for step in snapshot_steps(STEPS)]
    assert coefficients(kept, 0.17).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("length", [0.02, 0.2, 0.28])
def test_a_length_far_from_the_stored_ones_is_refused(stored, length):
    with pytest.raises(
        UserError, match=f"^an average of length {length} cannot be rebuilt from 8 each of length 0.05, "
    ):
        read_weights(stored, length=length)


def test_a_model_without_stored_averages_is_refused(tmp_path):
    save_file({"weight": torch.ones(3)}, tmp_path / "m.safetensors")
    with pytest.raises(
        UserError, match=r"m\.safetensors holds no stored averages to rebuild one of length 0\.1 from$"
    ):
        read_weights(tmp_path / "m.safetensors", length=0.1)


# --- the configuration ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("training", "sampling", "message"),
    [
        ({}, {"ema_length": 0.1}, "sampling.ema_length is 0.1, but no averages are stored to rebuild it from"),
        (
            {"ema_power": STORED},
            {"ema_length": 0.2},
            "sampling.ema_length: an average of length 0.2 cannot be rebuilt",
        ),
        ({"ema_power": [0.05, 0.3]}, {}, "training.ema_power.1 is 0.3; it must be at most 0.28"),
        ({"ema_power": []}, {}, "training.ema_power is []; it must hold at least 1"),
    ],
)
def test_an_average_that_nothing_could_give_is_refused_before_any_training(study, training, sampling, message):
    with pytest.raises(UserError) as caught:
        configuration.validate(configuration.merge(study, {"training": training, "sampling": sampling}))
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_lengths_are_an_axis_of_sampling_and_touch_no_training(study):
    lengths = {f"ema_{round(1000 * length)}": {"ema_length": length} for length in (0.05, 0.08, 0.15)}
    study["training"]["ema_power"] = STORED
    plain = cells.specifications(configuration.validate(study))
    study["samplings"], study["grid"]["samplings"] = {"usual": {}, **lengths}, ["usual", *lengths]
    swept = cells.specifications(configuration.validate(study))
    assert {path for path in swept if path.name == "cell.json"} == {p for p in plain if p.name == "cell.json"}
    for each, content in plain.items():
        if each.name == "cell.json":
            assert swept[each] == content
    options = {path.stem: content for path, content in swept.items() if path.parent.name == "v"}
    assert options["sampling-ema_80"] == {**options["sampling-usual"], "ema_length": 0.08}


def test_the_disk_that_they_take_is_counted(study):
    shapes = {"train": [10, 8, 8, 1], "test": [10, 8, 8, 1]}
    without = disk(study, shapes)
    study["training"]["ema_power"] = STORED
    found = disk(study, shapes)
    weights = without.states / (2 * 4)
    cell_count = len(cells.grid(study))
    assert sum(found.cells.values()) - sum(without.cells.values()) == pytest.approx(16 * cell_count * weights)
    assert found.states == pytest.approx(without.states + 2 * 2 * 9 * weights)


# --- a training ----------------------------------------------------------------------------------------------------


CELLS = {"none": {}, "two": {"ema_power": STORED}, "direct": {"ema_power": [0.15]}}


def cell(**training):
    return specification(global_batch=8, **training)


@pytest.fixture(scope="module")
def trained(pixels, tmp_path_factory):
    """Folders of one training, without averages, with the usual two, and with the one that is rebuilt from them."""
    folders = {}
    with contextlib.chdir(ROOT):
        for name, options in CELLS.items():
            folders[name] = tmp_path_factory.mktemp(name)
            run(cell(**options), pixels, folders[name])
    return folders


def test_the_usual_weights_and_the_log_are_those_of_a_training_without_them(trained):
    without, with_them = (load_file(trained[name] / "model.safetensors") for name in ("none", "two"))
    plain = {name: value for name, value in with_them.items() if not name.startswith(PREFIX)}
    assert plain.keys() == without.keys() and len(with_them) == len(without) * (1 + 2 * len(snapshot_steps(10)))
    assert all(torch.equal(value, without[name]) for name, value in plain.items())
    logs = (read_json_lines(trained[name] / "train.jsonl") for name in ("none", "two"))
    losses = [[line["loss"] for line in lines] for lines in logs]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("steps", [1, 4, 5, 9])
def test_stopped_and_resumed_gives_the_same_averages(steps, trained, pixels, tmp_path):
    with pytest.raises(StoppedEarlyError):
        run(cell(ema_power=STORED), pixels, tmp_path, StopAfter(steps))
    outcome = run(cell(ema_power=STORED), pixels, tmp_path)
    assert outcome["model_sha256"] == read_json(trained["two"] / "training.json")["model_sha256"]


def test_a_training_tracks_the_average_of_its_own_weights(pixels):
    trainer = Trainer(cell(ema_power=[0.1]), pixels, load("v"), load("v"), torch.device("cpu"))
    seen = []
    for step in range(5):
        trainer.advance(trainer.draw(step))
        seen.append(trainer.parameters[0].detach().double().clone())
    gamma = exponent(0.1)
    shares = [quad(lambda tau: profile(gamma, 5, tau), step, step + 1)[0] for step in range(5)]
    expected = sum(share * weights for share, weights in zip(shares, seen, strict=True))
    torch.testing.assert_close(trainer.averages.values[0][0].double(), expected, rtol=1e-4, atol=1e-6)


def test_samples_of_a_rebuilt_average_are_those_of_the_tracked_one(trained, pixels, tmp_path):
    options = {**EXAMPLE["sampling"], "images": 6, "steps": 5}

    def drawn(name, **changes):
        output = tmp_path / f"{name}{len(changes)}" / "draw0.npz"
        sample(cell(**CELLS[name]), {**options, **changes}, pixels, trained[name], 0, output)
        return load_samples(output).astype(float)

    rebuilt, direct, usual = drawn("two", ema_length=0.15), drawn("direct", ema_length=0.15), drawn("two")
    assert np.abs(rebuilt - direct).mean() < 0.1 * np.abs(usual - direct).mean()
    assert np.abs(rebuilt - direct).max() <= 2


def test_a_cell_that_stored_none_is_not_sampled_at_a_length(trained, pixels, tmp_path):
    options = {**EXAMPLE["sampling"], "images": 2, "steps": 2, "ema_length": 0.1}
    with pytest.raises(UserError, match="holds no stored averages"):
        sample(cell(), options, pixels, trained["none"], 0, tmp_path / "a/draw0.npz")
    assert not (tmp_path / "a").exists()
