"""Probes of a trained network: against networks whose numbers are known, and what a file or a record must hold."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, TARGETS, whole_outcome
from safetensors.torch import save_file
from torch import nn

from targetwise import cells
from targetwise.cells import probes
from targetwise.cells.agreement import Agreement
from targetwise.data import datasets, store
from targetwise.data.store import Images
from targetwise.diffusion.exact import ExactDenoiser
from targetwise.diffusion.parameterization import load
from targetwise.errors import UserError
from targetwise.files import read_json, sha256_of_array, sha256_of_file, write_json
from targetwise.probing.model import Model
from targetwise.probing.stage import probe, values
from targetwise.recipe import config as configuration
from targetwise.recipe import kinds

CPU = torch.device("cpu")
MIDDLES = {"6": 6, "4": 4, "2": 2, "0": 0, "m2": -2, "m4": -4}
DIGITS = datasets.digits()


def of(levels, labels=None):
    labels = np.arange(len(levels)) % 10 if labels is None else labels
    return Images(levels, labels, sha256_of_array(levels))


def digits(split, count):
    return of(DIGITS[split][:count], DIGITS[f"{split}_labels"][:count])


def model_of(study, variant=None, *, train=None, test=None, seed=0, **changes):
    """Return the model of a cell of the demo with these changes; few images, so that everything is quick."""
    laid = {
        **study,
        "parameterizations": {**study["parameterizations"], "mine": variant or {"target": "v"}},
        **changes,
    }
    laid["grid"] = {**laid["grid"], "parameterizations": ["mine"], "seeds": [seed]}
    laid = configuration.validate(laid)
    (cell,) = cells.grid(laid)
    specification = cells.specifications(laid)[cell.folder / "cell.json"]
    return Model(specification, train or digits("train", 60), test or digits("test", 32), CPU)


def told(model, function):
    """Let the model's network be ``function(x_t, t)``."""
    model.denoiser.model = nn.Module()
    model.denoiser.model.forward = function
    return model


def saying(model, x_0_of):
    """Let the network say, in the terms of its variant, that x_0 is ``x_0_of(x_t, t)``."""

    def output(x_t, t):
        x_0 = x_0_of(x_t.double(), t)
        noise = (x_t - at(model.a, t) * x_0) / at(model.b, t)
        return model.target(x_0.float(), noise.float(), t)

    return told(model, output)


def at(values, t):
    return values[t].view(-1, 1, 1, 1)


def rms(values):
    return values.double().square().mean().sqrt().item()


# --- networks whose numbers are known ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [*TARGETS, "two_head"])
def test_of_the_exact_denoiser_the_excess_is_0_whatever_the_output(study, target):
    model = model_of(study, {"target": target})
    exact = ExactDenoiser(model.training)
    saying(model, lambda x_t, t: exact.x0(x_t, model.a[t], model.b[t]))
    assert max(values(model, ["excess"]).values()) < 1e-9


def test_who_always_says_one_image_has_its_distance_as_error_everywhere(study):
    """The exact denoiser of a single training image says it always, so its excess is 0 as well."""
    model = model_of(study, {"target": "x0"}, train=digits("train", 1))
    (image,) = model.training
    saying(model, lambda x_t, t: image.double().expand_as(x_t))
    distance = rms(torch.from_numpy(DIGITS["test"][:32]).permute(0, 3, 1, 2) / 127.5 - 1 - image)
    errors = values(model, ["x0_error"])
    assert len(errors) == 12 and errors == pytest.approx(dict.fromkeys(errors, distance), rel=1e-5)
    assert max(values(model, ["excess"]).values()) < 1e-12


def test_an_error_of_epsilon_reaches_x0_b_over_a_fold(study):
    """ε̂ = ε_D + δ moves x̂_0 by δ·b/a: by δ²·exp(−λ) when squared, whose mean over a bin is δ²·exp(−m)·sinh(1)."""
    model, delta = model_of(study, {"target": "epsilon"}, train=digits("train", 1)), 0.01
    image = model.training.double()
    told(model, lambda x_t, t: ((x_t - at(model.a, t) * image) / at(model.b, t) + delta).float())
    found = values(model, ["excess"])
    expected = {f"excess_{name}": delta**2 * math.exp(-middle) * math.sinh(1) for name, middle in MIDDLES.items()}
    expected["excess"] = sum(expected.values()) / len(expected)
    assert found == pytest.approx(expected, rel=0.02)


def test_the_ranges_of_x0_error_are_those_of_the_claims(study):
    """A network that says x_0 = t/1000 for images of zeros shows which steps count: √mean t²."""
    black = of(np.full((32, 8, 8, 1), 127.5).round().astype(np.uint8))
    model = model_of(study, {"target": "x0"}, test=black)
    off = 128 / 127.5 - 1
    saying(model, lambda x_t, t: (t / 1000).view(-1, 1, 1, 1).expand_as(x_t) + off)
    errors = values(model, ["x0_error"])

    def over(first, last):
        return rms(torch.arange(first, last + 1) / 1000)

    assert errors["x0_error_initial"] == pytest.approx(over(0, 99), rel=0.01)
    assert errors["x0_error_7"] == pytest.approx(over(600, 699), rel=0.01)
    assert errors["x0_error_early"] == pytest.approx(over(0, 258), rel=0.01)
    assert errors["x0_error_terminal"] == pytest.approx(over(980, 999), rel=1e-3)
    assert errors["x0_error_terminal"] != pytest.approx(over(979, 999), rel=2e-4)


def test_excess_is_the_difference_of_the_two_errors(study):
    """E‖x̂_0 − x_0‖² − E‖D − x_0‖² by Monte Carlo, for an untrained network where D is not one image."""
    white = of(np.full((32, 8, 8, 1), 255, dtype=np.uint8))  # on these held-out images it would be another number
    model = model_of(study, train=digits("train", 12), test=white)
    found, exact = values(model, ["excess"])["excess_m4"], ExactDenoiser(model.training)
    differences = []
    for number in range(30):
        draw = model.draw("training", "here", number, 1000)
        t = model.steps_at(torch.linspace(-4.999, -3.001, 1000))
        x_t = model.add_noise(draw.x_0, draw.noise, t)
        least = exact.x0(x_t, model.a[t], model.b[t])
        assert (least - draw.x_0).square().mean() > 0.02, "D must not be sure"
        squares = (model.x0(x_t, t) - draw.x_0).square() - (least - draw.x_0).square()
        differences.append(squares.mean().item())
    error = np.std(differences, ddof=1) / 30**0.5
    assert error < 0.1 * found
    assert np.mean(differences) == pytest.approx(found, abs=4 * error + 0.02 * found)


class Linear(nn.Module):
    """y = w·x_t + c, two weights."""

    def __init__(self, w=0.0, c=0.0):
        super().__init__()
        self.w, self.c = nn.Parameter(torch.tensor(w)), nn.Parameter(torch.tensor(c))

    def forward(self, x_t, t):
        return self.w * x_t + self.c


@pytest.mark.parametrize(
    ("variant", "factor"),
    [
        ({"target": "x0"}, lambda a, b: 1),
        ({"target": "x0", "weighting": "snr"}, lambda a, b: a**2 / b**2),
        ({"target": "x0", "loss_space": "v"}, lambda a, b: 1 + a**2 / b**2),
    ],
)
def test_the_gradient_is_that_of_the_loss_as_it_is_trained(study, variant, factor):
    """By hand: ∂l/∂w = 2·E f·(y − x_0)·x_t, ∂l/∂c = 2·E f·(y − x_0), in batches that are not of one size."""
    model = model_of(study, variant)
    model.denoiser.model = Linear(0.3, -0.2)
    draw, t = model.draw("training", "here", 0, 700), model.steps(0.2, 0.7, 700)
    a, b = at(model.a, t), at(model.b, t)
    x_t = a * draw.x_0 + b * draw.noise
    error = 2 * factor(a, b) * (0.3 * x_t - 0.2 - draw.x_0)
    by_hand = torch.stack([(error * x_t).mean(), error.mean()]).float()
    torch.testing.assert_close(model.gradient(draw, t), by_hand, rtol=1e-4, atol=1e-6)
    assert model.denoiser.model.w.grad is None, "the model is not to be changed"


def test_the_numbers_of_the_gradient_of_a_linear_model(study):
    """ε from w = c = 0: E g = (−2b, 0), and deviations² = 4·(a²·E x_0² + 2b² + 1)/n with n pixels in a batch."""
    model = model_of(study, {"target": "epsilon"})
    model.denoiser.model = Linear()
    source, batches, n = kinds.load("probes", "gradient"), 150, 64 * 64
    source["measure"].__globals__["BATCHES"] = batches
    found = source["measure"](model)
    power = model.training.double().square().mean()
    a2, b, b2 = (each.view(10, 100).mean(1) for each in (model.a**2, model.b, model.b**2))
    deviation = 2 * ((a2 * power + 2 * b2 + 1) / n).sqrt()
    norm = ((2 * b) ** 2 + deviation**2).sqrt()
    signal = ((2 * b) ** 2 + deviation**2 / batches).sqrt() / deviation
    expected = {
        "gradient_lowest": norm[0] / norm.quantile(0.5),
        "gradient_highest": norm[-1] / norm.quantile(0.5),
        "gradient_evenness": norm.max() / norm.min(),
        "gradient_snr_lowest": signal[0] / signal.quantile(0.5),
        "gradient_snr_highest": signal[-1] / signal.quantile(0.5),
    }
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value.item(), rel=0.12 if "snr" in name else 0.02), name


@pytest.mark.parametrize(
    ("target", "power"),
    [
        ("epsilon", lambda a, b, m: torch.ones_like(a)),
        ("x0", lambda a, b, m: torch.full_like(a, m)),
        ("v", lambda a, b, m: a**2 + b**2 * m),
        ("u", lambda a, b, m: torch.full_like(a, 1 + m)),
        ("two_head", lambda a, b, m: torch.full_like(a, (1 + m) / 2)),
        ("score", lambda a, b, m: 1 / b**2),
    ],
)
def test_the_power_of_the_target(study, target, power):
    model = model_of(study, {"target": target})
    m = (torch.from_numpy(DIGITS["train"][:60]) / 127.5 - 1).double().square().mean().item()
    expected = power(model.a, model.b, m)
    tenths = expected.view(10, 100).mean(1)
    assert values(model, ["target_power"]) == pytest.approx(
        {
            "target_power": expected.mean().item(),
            "target_power_lowest": tenths[0].item(),
            "target_power_highest": tenths[-1].item(),
            "target_evenness": (tenths.max() / tenths.min()).item(),
        },
        rel=1e-5,
    )


def test_of_a_target_that_is_no_sum_there_is_no_power(study):
    model = model_of(study)
    model._target = replace(load("v"), compute_training_target=lambda x_0, noise, t, schedule: x_0 * noise)
    with pytest.raises(UserError, match=r"^workflow/probes/target_power.py: measure fails: .*not a sum"):
        values(model, ["target_power"])


# --- what a probe is given -----------------------------------------------------------------------------------------


def test_all_variants_of_a_seed_are_measured_at_the_same_images_and_noise(study):
    one, other = model_of(study, {"target": "epsilon"}), model_of(study, {"target": "x0", "schedule": "cosine"})
    for split in ("training", "held-out"):
        mine, yours = one.draw(split, "here", 3, 100), other.draw(split, "here", 3, 100)
        assert torch.equal(mine.x_0, yours.x_0) and torch.equal(mine.noise, yours.noise)
    for different in (
        model_of(study, seed=1).draw("training", "here", 3, 100),
        one.draw("training", "there", 3, 100),
        one.draw("training", "here", 4, 100),
    ):
        assert not torch.equal(different.noise, one.draw("training", "here", 3, 100).noise)


def test_a_draw_takes_every_image_as_often(study):
    drawn = model_of(study).draw("held-out", "here", 0, 96)
    _, counts = torch.unique(drawn.x_0.flatten(1), dim=0, return_counts=True)
    assert counts.tolist() == [3] * 32 and drawn.labels is None


def test_what_is_mirrored_in_training_is_mirrored_here_and_only_there(study):
    plain, mirrored = (model_of(study, data={**study["data"], "horizontal_flip": flip}) for flip in (False, True))
    assert torch.equal(mirrored.training, torch.cat([plain.training, plain.training.flip(-1)]))
    before, after = (each.draw("training", "here", 0, 60) for each in (plain, mirrored))
    as_they_are = (before.x_0 == after.x_0).flatten(1).all(1)
    assert 15 < as_they_are.sum() < 45
    assert torch.equal(after.x_0, torch.where(as_they_are.view(-1, 1, 1, 1), before.x_0, before.x_0.flip(-1)))
    held_out = (each.draw("held-out", "here", 0, 32).x_0 for each in (plain, mirrored))
    assert torch.equal(*held_out)


def conditional(study, dropout):
    scales = {"tiny": {"network": "conditional_mlp", "width": 16, "layers": 1}}
    return model_of(study, scales=scales, training={**study["training"], "label_dropout": dropout})


def test_a_gradient_is_told_labels_as_in_training_and_an_estimate_none(study):
    model, seen = conditional(study, 0.25), []
    draw = model.draw("training", "here", 0, 600)
    dropped = draw.labels == 10
    assert 100 < dropped.sum() < 200
    images = {
        image.numpy().tobytes(): label for image, label in zip(model.training, DIGITS["train_labels"], strict=False)
    }
    wanted = torch.tensor([images[image.numpy().tobytes()] for image in draw.x_0])
    assert torch.equal(draw.labels[~dropped], wanted[~dropped])
    network = model.denoiser.model
    network.register_forward_pre_hook(lambda module, given: seen.append(given[2]))
    t = model.steps(0, 1, 600)
    model.gradient(draw, t)
    assert torch.equal(torch.cat(seen), draw.labels)
    seen.clear()
    model.x0(draw.x_0, t)
    assert (torch.cat(seen) == 10).all()


def test_who_never_lacked_a_label_has_no_estimate_without_one(study):
    with pytest.raises(UserError, match="mine-tiny-0 was told every label in training"):
        values(conditional(study, 0), ["x0_error"])


def test_of_a_learned_weight_no_gradient_is_made_up(study):
    with pytest.raises(UserError, match="the loss of mine-tiny-0 has a learned weight, which is not kept"):
        values(model_of(study, {"target": "v", "uncertainty": True}), ["gradient"])


def test_time_steps(study):
    model = model_of(study)
    assert model.steps(0.98, 1, 40).tolist() == [t for t in range(980, 1000) for _ in range(2)]
    assert model.steps(0.1, 0.2, 10).tolist() == list(range(100, 200, 10))
    nearest = model.steps_at(torch.tensor([6.0, 0.0, -4.0]))
    assert (2 * (model.a / model.b).log())[nearest].tolist() == pytest.approx([6, 0, -4], abs=0.05)
    few = {**study["sampling"], "steps": 5}
    short = model_of(study, diffusion={**study["diffusion"], "timesteps": 10}, sampling=few)
    assert short.steps(0.98, 1, 3).tolist() == [9, 9, 9]
    with pytest.raises(UserError, match=r"^the path has no time step of log-SNR -4; it goes from 9.21 to 2"):
        short.steps_at(torch.tensor([3.0, -4.0]))


# --- files and configuration ---------------------------------------------------------------------------------------


@pytest.fixture
def own(project):
    """A project whose probes are one's own."""
    (project / "workflow").unlink()
    shutil.copytree(ROOT / "workflow", project / "workflow")

    def write(text, name="mine"):
        (project / f"workflow/probes/{name}.py").write_text(text)

    return write


def refused(study, names):
    with pytest.raises(UserError) as caught:
        configuration.validate({**study, "probes": names})
    (line,) = str(caught.value).splitlines()
    return line


GOOD = 'GIVES = ("mine",)\n\n\ndef measure(model):\n    return {"mine": 1.5}\n'


def test_ones_own_probe(own, study):
    own(GOOD)
    assert configuration.validate({**study, "probes": ["mine"]})["probes"] == ["mine"]
    assert values(model_of(study), ["mine", "target_power"])["mine"] == 1.5


@pytest.mark.parametrize("gives", ["", "GIVES = ()", "GIVES = 'mine'", "GIVES = ('Mine',)", "GIVES = (1,)"])
def test_a_probe_must_say_what_it_gives(own, study, gives):
    own(GOOD.replace('GIVES = ("mine",)', gives))
    assert refused(study, ["mine"]).startswith("workflow/probes/mine.py: GIVES must hold the names of the numbers")


def test_names_of_probes_are_checked_before_anything_runs(own, study):
    assert refused(study, ["excess", "exces"]) == (
        "configuration: probes.1 is 'exces', but there is no workflow/probes/exces.py; did you mean 'excess'? "
        "(choices: excess, gradient, target_power, x0_error)"
    )
    assert "probes" in refused(study, ["../metrics/kid"])
    own(GOOD.replace('("mine",)', '("mine", "excess_4")'))
    assert refused(study, ["excess", "mine"]) == (
        "workflow/probes/mine.py: GIVES names excess_4, which probe excess gives"
    )
    own(GOOD.replace('("mine",)', '("frechet",)'))
    assert refused(study, ["mine"]) == "workflow/probes/mine.py: GIVES names frechet, which metric frechet gives"


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("{'mine': float('nan')}", "measure returned nan as mine; it must return finite numbers"),
        ("{'mine': float('inf')}", "measure returned inf as mine; it must return finite numbers"),
        ("{}", "measure did not return mine; GIVES names mine"),
        ("{'mine': 1, 'more': 2}", "measure returned more; GIVES names mine"),
        ("{'mine': 'high'}", "measure must return numbers by name, not {'mine': 'high'}"),
        ("None", "measure must return numbers by name, not None"),
        ("1 / 0", "measure fails: ZeroDivisionError"),
    ],
)
def test_a_probe_that_breaks_its_contract_is_refused_in_one_line(own, study, returned, said):
    own(GOOD.replace('{"mine": 1.5}', returned))
    with pytest.raises(UserError) as caught:
        values(model_of(study), ["mine"])
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"workflow/probes/mine.py: {said}")


# --- the stage, and its record -------------------------------------------------------------------------------------


@pytest.fixture
def trained(own):
    """A cell with a network as it is drawn, in a project of its own, and its study."""
    study = configuration.load([Path("config/digits.yaml")])
    study = configuration.validate({**study, "probes": ["target_power", "x0_error"]})
    cells.write_specifications(study)
    store.prepare("digits", study["datasets"]["digits"], Path("data/digits"))
    cell = cells.find(study, "v-tiny-1")
    images = (store.load(Path("data/digits"), split) for split in store.SPLITS)
    model = Model(read_json(cell.folder / "cell.json"), *images, CPU)
    weights = cell.folder / "model.safetensors"
    save_file({name: each.contiguous() for name, each in model.denoiser.model.state_dict().items()}, weights)
    write_json(cell.folder / "training.json", whole_outcome(model_sha256=sha256_of_file(weights)))
    return study, cell, values(model, study["probes"])


def probed(study, cell):
    specification, options = cell.folder / "cell.json", cells.RESULTS / study["study"] / "probes.json"
    probe(read_json(specification), read_json(options), cell.folder, cell.folder / "probe.json")
    return probes.read_record(cell.folder / "probe.json")


def test_a_cell_is_probed_and_read(trained):
    study, cell, expected = trained
    assert probes.read(cell) == ({}, "v-tiny-1 is not probed")
    record = probed(study, cell)
    assert probes.read(cell) == (expected, None)
    assert {"workflow/probes/x0_error.py", "workflow/times/uniform.py"} <= record["sources"].keys()
    training = read_json(cell.folder / "training.json")
    assert Agreement(study).is_probed(cell, record, training)
    assert not Agreement(study).is_probed(cell, record, {**training, "model_sha256": "1" * 64})
    more = configuration.validate({**study, "probes": ["x0_error", "target_power"]})
    assert not Agreement(more).is_probed(cell, record, training)
    assert not Agreement({**study, "probes": []}).is_probed(cell, record, training)


def test_an_edited_probe_or_another_held_out_image_makes_its_record_out_of_date(trained):
    study, cell, _ = trained
    record, training = probed(study, cell), read_json(cell.folder / "training.json")
    file, manifest = Path("workflow/probes/x0_error.py"), Path("data/digits/manifest.json")
    before = file.read_text()
    file.write_text(before + "# edited\n")
    assert not Agreement(study).is_probed(cell, record, training)
    file.write_text(before)
    assert Agreement(study).is_probed(cell, record, training)
    digests = read_json(manifest)
    digests["splits"]["test"]["sha256"] = "1" * 64
    write_json(manifest, digests)
    assert not Agreement(study).is_probed(cell, record, training)
    manifest.unlink()
    assert Agreement(study).is_probed(cell, record, training), "what is not here contradicts nothing"


def test_of_a_diverged_cell_the_record_says_why_there_are_no_numbers(trained):
    study, cell, _ = trained
    facts = cell.folder / "training.json"
    write_json(facts, {**read_json(facts), "status": "diverged", "reason": "the loss is not finite"})
    assert probed(study, cell)["values"] is None
    assert probes.read(cell) == ({}, "the loss is not finite")


def test_other_weights_or_another_file_than_trained_with_are_refused(trained):
    study, cell, _ = trained
    facts, model = cell.folder / "training.json", cell.folder / "model.safetensors"
    outcome = read_json(facts)
    write_json(facts, {**outcome, "sources": {"workflow/times/uniform.py": "1" * 64}})
    with pytest.raises(UserError, match=r"^workflow/times/uniform.py is not the file that .* was trained with"):
        probed(study, cell)
    write_json(facts, outcome)
    model.write_bytes(model.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"model.safetensors is not the file that .*training.json records"):
        probed(study, cell)
    assert not (cell.folder / "probe.json").exists()


def test_snapshots_are_probed_with_their_own_weights(own):
    study = configuration.load([Path("config/digits.yaml")])
    study = configuration.merge(study, {"training": {"snapshots": [7, 100]}, "probes": ["x0_error"]})
    study = configuration.validate(study)
    cells.write_specifications(study)
    store.prepare("digits", study["datasets"]["digits"], Path("data/digits"))
    images = [store.load(Path("data/digits"), split) for split in store.SPLITS]
    expected, tensors = {}, {}
    for place, seed in (("", 0), ("snapshot/7/", 1), ("snapshot/100/", 2)):
        other = read_json(cells.find(study, f"v-tiny-{seed}").folder / "cell.json")  # another seed's first weights
        for name, value in Model(other, *images, CPU).denoiser.model.state_dict().items():
            tensors[place + name] = value.contiguous()
    cell = cells.find(study, "v-tiny-0")
    for place in ("", "snapshot/7/", "snapshot/100/"):
        model = Model(read_json(cell.folder / "cell.json"), *images, CPU)
        names = model.denoiser.model.state_dict()
        model.denoiser.model.load_state_dict({name: tensors[place + name] for name in names})
        expected[place] = values(model, ["x0_error"])
    save_file(tensors, cell.folder / "model.safetensors")
    digest = sha256_of_file(cell.folder / "model.safetensors")
    write_json(cell.folder / "training.json", whole_outcome(model_sha256=digest))
    record = probed(study, cell)
    assert record["values"] == expected[""]
    assert record["snapshots"] == {"7": expected["snapshot/7/"], "100": expected["snapshot/100/"]}
    assert len({each["x0_error_5"] for each in expected.values()}) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"values": None},
        {"values": {}},
        {"snapshots": {"0": {"a": 1.0}}},
        {"snapshots": {"7": {}}},
        {"reason": "none"},
        {"key": None},
        {"more": 1},
    ],
)
def test_a_damaged_record_is_refused_in_one_line(trained, change):
    study, cell, _ = trained
    path = cell.folder / "probe.json"
    path.write_text(json.dumps({**probed(study, cell), **change}))
    with pytest.raises(UserError, match=rf"^{path} is damaged: .*; delete it; "):
        probes.read(cell)


def test_a_study_without_probes_is_what_it_was(study):
    """No key and no file of a study that asks for none has anything of them."""
    with_probes = cells.specifications({**study, "probes": ["excess"]})
    without = cells.specifications(study)
    file = Path("results/digits/probes.json")
    assert with_probes[file] == {"protocol": 1, "names": ["excess"]}
    changed = {path for path in with_probes if with_probes[path] != without.get(path)}
    assert study["probes"] == [] and changed == {file, Path("results/digits/study.json")}
