"""Labels and guidance: who is told which label, and the guided estimate against formulas that are known exactly."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import recording
import torch
from helpers import DIFFUSERS_UNET, EXAMPLE, FILES, LINEAR, ROOT, some_images
from scipy.stats import norm
from sklearn.datasets import load_digits
from test_randomness import BATCH, IMAGES, same, streams
from test_training import StopAfter, curve

from targetwise import cells
from targetwise.data import datasets, store
from targetwise.data.samples import load_samples
from targetwise.data.store import Images
from targetwise.diffusion.network import build
from targetwise.diffusion.parameterization import load
from targetwise.diffusion.schedule import at, make_schedule
from targetwise.diffusion.trajectory import Point
from targetwise.errors import StoppedEarlyError, UserError
from targetwise.files import read_json, sha256_of_array
from targetwise.recipe import config as configuration
from targetwise.recipe import kinds, labels
from targetwise.sampling.denoiser import Denoiser, Sampler, denoise, draw_images
from targetwise.sampling.guidance import guided, labels_of
from targetwise.sampling.stage import sample
from targetwise.training import loop
from targetwise.training import trainer as trainer_module
from targetwise.training.replay import WARM_UP, replayed
from targetwise.training.stopping import Stop
from targetwise.training.trainer import Trainer

CPU = torch.device("cpu")
MLP = {"network": "conditional_mlp", "width": 16, "layers": 1}
UNET = {"network": "conditional_unet", "channels": [32, 64], "attention": [1], "layers_per_block": 1}


def conditional(network=MLP, samplings=None, **training):
    """Return the configuration of one class-conditional cell of v."""
    study = copy.deepcopy(EXAMPLE)
    study["grid"] = {"parameterizations": ["v"], "scales": ["tiny"], "seeds": [0]}
    if samplings:
        study["grid"]["samplings"] = list(samplings)
        study["samplings"] = samplings
    study["scales"]["tiny"] = network
    plain = {"steps": 12, "global_batch": 16, "log_every": 4, "label_dropout": 0.1}
    study["training"] = {**study["training"], **plain, **training}
    return configuration.validate(study)


def specification(**changes):
    study = conditional(**changes)
    (cell,) = cells.grid(study)
    return cells.specifications(study)[cell.folder / "cell.json"]


@pytest.fixture(scope="module")
def digits():
    arrays = datasets.digits()
    return Images(arrays["train"], arrays["train_labels"], sha256_of_array(arrays["train"]))


# --- the configuration ---------------------------------------------------------------------------------------------


def changed(**changes):
    """Return an unconditional study of v with changes of its sections, not yet validated."""
    study = copy.deepcopy(EXAMPLE)
    study["grid"]["parameterizations"] = ["v"]
    return configuration.merge(study, changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"training": {"label_dropout": 0.1}},
            "training.label_dropout (parameterization v): build of workflow/networks/mlp.py (scale tiny) takes no "
            "classes, so this network sees no labels; take conditional_mlp",
        ),
        (
            {"training": {"label_dropout": 0.1}, "scales": {"tiny": {"network": "mine"}}},
            "build of workflow/networks/mine.py (scale tiny) takes no classes, so this network sees no labels",
        ),
        (
            {
                "datasets": {"own": {"kind": "images", "folder": "photos", "size": 8, "held_out": 4}},
                "data": {"dataset": "own"},
                "metric": {"extractor": "inception"},
                "training": {"label_dropout": 0.1},
            },
            "training.label_dropout (parameterization v) needs labels, but datasets.own of kind images has none; "
            "kinds with labels: cifar10, digits",
        ),
        (
            {"sampling": {"guidance": 2}},
            "sampling.guidance (parameterization v, sampling ddim-50) guides by labels, which its network does not "
            "see; set training.label_dropout",
        ),
        (
            {"grid": {"samplings": ["few"]}, "samplings": {"few": {"guidance_rescale": 0.7}}},
            "sampling.guidance_rescale (parameterization v, sampling few) guides by labels, which",
        ),
        (
            {"training": {"label_dropout": 0.1}, "scales": {"tiny": MLP}, "sampling": {"guidance_interval": [-1, 1]}},
            "sampling.guidance_interval (parameterization v, sampling ddim-50) shapes a guidance that is not there",
        ),
        (
            {"training": {"label_dropout": 0.0}, "scales": {"tiny": MLP}, "sampling": {"guidance": 2}},
            "sampling.guidance (parameterization v, sampling ddim-50) needs an estimate without label, which is "
            "learned from dropped labels; training.label_dropout is 0",
        ),
        (
            {
                "training": {"label_dropout": 0.1},
                "scales": {"tiny": MLP},
                "sampling": {"guidance": 2, "guidance_interval": [1, 1]},
            },
            "guidance_interval is [1, 1]; it must rise",
        ),
        ({"training": {"label_dropout": 1}}, "training.label_dropout is 1; it must be less than 1"),
        ({"sampling": {"guidance": -1}}, "sampling.guidance is -1; it must be at least 0"),
        ({"sampling": {"guidance_rescale": 1.5}}, "sampling.guidance_rescale is 1.5; it must be at most 1"),
        ({"sampling": {"guidance_interval": [1]}}, "sampling.guidance_interval is [1]; it must hold at least 2"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(project, changes, words):
    (project / "workflow").unlink()
    (project / "workflow/networks").mkdir(parents=True)
    for path in (ROOT / "workflow").iterdir():
        if path.name != "networks":
            (project / "workflow" / path.name).symlink_to(path)
        else:
            for file in path.glob("*.py"):
                (project / "workflow/networks" / file.name).symlink_to(file)
    (project / "workflow/networks/mine.py").write_text(
        "def build(options, *, in_channels, out_channels, image_size):\n    return None  # without classes\n"
    )
    study = changed(**changes)
    if "own" in study["datasets"]:
        study["datasets"]["own"]["channels"] = 3
    with pytest.raises(UserError) as caught:
        configuration.validate(study)
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_labels_are_of_the_cells_that_ask_for_them_and_move_no_other(study):
    """An unconditional cell beside a conditional one is what it is alone; nothing of labels is in its files."""
    alone = cells.specifications(changed())
    told = {"target": "v", "network": {"network": "conditional_mlp", "width": 16, "layers": 1}}
    both = changed(grid={"parameterizations": ["v", "told"]})
    both["parameterizations"]["told"] = {**told, "training": {"label_dropout": 0.1}, "sampling": {"guidance": 2.0}}
    found = cells.specifications(configuration.validate(both))
    cell, other = (cells.Cell("digits", name, "tiny", 0).folder / "cell.json" for name in ("v", "told"))
    assert found[cell] == alone[cell] and set(found[cell]["data"]) == {"dataset", "horizontal_flip", "train_sha256"}
    assert found[other]["training"]["label_dropout"] == 0.1 and found[other]["data"]["classes"] == 10
    options = {name: found[cells.sampling_file(cell.parents[3], name, "ddim-50")] for name in ("v", "told")}
    assert options["told"] == {**options["v"], "guidance": 2.0}


def test_the_labels_are_part_of_what_is_trained_on(tmp_path):
    store.prepare("digits", {"kind": "digits"}, tmp_path / "digits")
    spec = specification()
    assert store.training_images(spec, tmp_path).labels[:3].tolist() == datasets.digits()["train_labels"][:3].tolist()
    spec["data"]["labels_sha256"] = "0" * 64
    with pytest.raises(UserError, match=r"digits holds other labels: .* but 0{64} is declared for digits"):
        store.training_images(spec, tmp_path)


# --- the networks --------------------------------------------------------------------------------------------------


def made(scale, seed=0, **changes):
    return build(scale, **{"in_channels": 1, "out_channels": 1, "image_size": 8, **changes}, seed=seed)


def test_the_conditional_unet_is_diffusers_own():
    """The output of UNet2DModel with num_class_embeds and the same weights."""
    from diffusers import UNet2DModel

    found = made(UNET, out_channels=2, classes=3)
    theirs = UNet2DModel(**DIFFUSERS_UNET, num_class_embeds=4)
    theirs.load_state_dict(found.state_dict())
    x, t, y = torch.randn(4, 1, 8, 8), torch.tensor([0, 500, 999, 3]), torch.tensor([3, 0, 1, 2])
    assert torch.equal(found(x, t, y), theirs(x, t, class_labels=y).sample)


@pytest.mark.parametrize("scale", [MLP, UNET])
def test_but_for_the_labels_a_network_starts_as_its_unconditional_one(scale):
    plain = made({**scale, "network": scale["network"].removeprefix("conditional_")}).state_dict()
    for classes, added in ((None, 0), (3, 1)):
        found = made(scale, classes=classes).state_dict()
        assert len(found) == len(plain) + added
        assert all(torch.equal(found[name], plain[name]) for name in plain)


@pytest.mark.parametrize("scale", [MLP, UNET])
def test_an_image_hears_its_own_label_and_no_other(scale):
    network = made(scale, classes=3).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():  # what depends on time and label starts at 0
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    x, t = torch.randn(1, 1, 8, 8, generator=generator), torch.tensor([300])
    alone = torch.cat([network(x, t, torch.tensor([label])) for label in range(4)])
    assert min((alone[i] - alone[j]).abs().max() for i in range(4) for j in range(i)) > 1e-3
    mixed = network(x.expand(4, -1, -1, -1), t.expand(4), torch.tensor([2, 0, 3, 1]))
    torch.testing.assert_close(mixed, alone[[2, 0, 3, 1]], rtol=1e-4, atol=1e-4)


# --- the training --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.1, 0.4])
def test_labels_are_dropped_as_often_as_was_asked_for(dropout):
    """Within four standard deviations of a binomial count."""
    dropped = np.concatenate([streams(label_dropout=dropout).draw(step).unlabelled for step in range(400)])
    assert dropped.dtype == bool and len(dropped) == 400 * BATCH
    assert abs(dropped.mean() - dropout) < 4 * (dropout * (1 - dropout) / len(dropped)) ** 0.5
    assert not streams(label_dropout=0.0).draw(0).unlabelled.any()


def test_dropped_labels_move_nothing_else_and_are_of_their_seed_and_step():
    told, plain = streams(label_dropout=0.5), streams()
    assert same(told.draw(3), plain.draw(3)) and plain.draw(3).unlabelled is None
    drawn = [told.draw(3), told.draw(4), streams(1, label_dropout=0.5).draw(3)]
    assert len({draw.unlabelled.tobytes() for draw in drawn}) == 3
    assert np.array_equal(told.draw(3).unlabelled, drawn[0].unlabelled)
    assert not np.array_equal(told.draw(3).unlabelled, told.draw(3).flips)
    assert IMAGES > BATCH


@pytest.mark.parametrize("processes", [2, 5])
def test_processes_together_drop_what_one_drops(processes):
    whole, share = streams(label_dropout=0.3).draw(7).unlabelled, BATCH // processes
    parts = [streams(label_dropout=0.3).draw(7, rank * share, share).unlabelled for rank in range(processes)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("micro_batch", [None, 5])
def test_the_network_is_told_the_label_of_each_image_or_that_there_is_none(digits, micro_batch):
    trainer = Trainer(specification(label_dropout=0.4, micro_batch=micro_batch), digits, load("v"), load("v"), CPU)
    seen = []
    trainer.model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    draw = trainer.draw(0)
    trainer.advance(draw)
    assert [len(each[0]) for each in seen] == ([16] if micro_batch is None else [5, 5, 5, 1])
    told = torch.cat([each[2] for each in seen]).numpy()
    assert draw.unlabelled.any() and not draw.unlabelled.all()
    np.testing.assert_array_equal(told, np.where(draw.unlabelled, 10, digits.labels[draw.indices]))


def test_a_replayed_step_is_told_its_own_labels(digits, monkeypatch):
    """As on a GPU, where the whole step is recorded once."""

    def trained(steps=WARM_UP + 4):
        trainer = Trainer(specification(label_dropout=0.4), digits, load("v"), load("v"), CPU)
        for step in range(steps):
            trainer.advance(trainer.draw(step))
        return trainer

    with monkeypatch.context() as patched:
        patched.setattr(trainer_module, "replayed", lambda step, device: step)
        expected = trained()
    recording.patch(monkeypatch)
    monkeypatch.setattr(trainer_module, "replayed", lambda step, device: replayed(step, torch.device("cuda")))
    found = trained()
    assert len(found.take.graph.operations) > 100, "nothing was replayed"
    for mine, theirs in zip(found.parameters, expected.parameters, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("steps", [1, 7])
def test_a_conditional_training_that_was_stopped_ends_with_the_same_bits(digits, tmp_path, steps):
    spec = specification(label_dropout=0.4)

    def run(folder, stop):
        folder.mkdir(exist_ok=True)
        return loop.train(spec, digits, folder, save_every_seconds=1e9, stop=stop)

    whole = run(tmp_path / "whole", Stop())
    with pytest.raises(StoppedEarlyError):
        run(tmp_path / "stopped", StopAfter(steps))
    assert run(tmp_path / "stopped", Stop())["model_sha256"] == whole["model_sha256"]
    assert curve(tmp_path / "stopped") == curve(tmp_path / "whole")


# --- guidance against closed forms ---------------------------------------------------------------------------------

MEANS, DEVIATION = np.array([-0.8, 0.5]), 0.25


class Mixture:
    """The best denoiser of two classes N(m_c, s²), pixel by pixel alike: of one class, or of both where none is told.

    E[x_0 | x_t, c] = m_c + s²a/(s²a² + b²)·(x_t − a·m_c). Without label, their mean by the classes' posterior.
    """

    classes = 2
    variant = {"diffusion": LINEAR, "parameters": {}}  # noqa: RUF012

    def __init__(self):
        self.schedule = make_schedule(LINEAR, dtype=torch.float64)
        self.asked = []

    def x_0(self, x_t, timesteps, labels=None, **_):
        self.asked.append(labels is not None)
        a, b = at(self.schedule, timesteps)
        means = torch.from_numpy(MEANS)
        of_each = torch.stack([m + DEVIATION**2 * a / self.variance(a, b) * (x_t - a * m) for m in means])
        if labels is not None:
            return of_each[labels, torch.arange(len(labels))]
        posterior = torch.softmax(torch.stack([-((x_t - a * m) ** 2) / 2 / self.variance(a, b) for m in means]), 0)
        return (posterior * of_each).sum(0)

    @staticmethod
    def variance(a, b):
        return DEVIATION**2 * a**2 + b**2


def options(**changes):
    clean = {"steps": 50, "spacing": "leading", "clip": False, "last_alpha_is_one": True, "images": 8, "batch": 3}
    return {**EXAMPLE["sampling"], **clean, **changes}


def drawn(count, classes=(0, 1), **changes):
    """Return one-pixel samples of the mixture, (count,), and the labels they were asked for."""
    asked, mixture = torch.tensor(classes).repeat(count // len(classes)), Mixture()
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((count, 1, 1, 1)))
    found = denoise(mixture, noise, Sampler(mixture.variant, options(**changes)), asked)
    return found.flatten().numpy(), asked.numpy(), mixture


def test_samples_of_a_label_are_of_its_class():
    found, asked, _ = drawn(4000, steps=250)
    for label, mean in enumerate(MEANS):
        assert found[asked == label].mean() == pytest.approx(mean, abs=0.02)
        assert found[asked == label].std() == pytest.approx(DEVIATION, abs=0.02)


def test_without_label_both_classes_come():
    found, _, mixture = drawn(4000, guidance=0)
    assert np.mean(found > MEANS.mean()) == pytest.approx(0.5, abs=0.04)
    assert not any(mixture.asked)


def test_a_guided_estimate_moves_away_from_the_other_class_by_its_posterior():
    """x̂ − x̂_c = (w − 1)·p(other | x_t)·(x̂_c − x̂_other), computed with scipy at numpy's own noise levels."""
    w, t = 2.5, 400
    a = np.sqrt(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))[t]
    b = np.sqrt(1 - a**2)
    mixture, x = Mixture(), np.linspace(-1.5, 1.5, 7)
    x_t, asked = torch.from_numpy(x).view(-1, 1, 1, 1), torch.ones(7, dtype=torch.int64)
    found = guided(partial_of(mixture, x_t, t), asked, Point(a, b, t), {"guidance": w}).flatten().numpy()
    variance = DEVIATION**2 * a**2 + b**2
    density = [norm.pdf(x, a * mean, np.sqrt(variance)) for mean in MEANS]
    best = [mean + DEVIATION**2 * a / variance * (x - a * mean) for mean in MEANS]
    other = density[0] / sum(density)
    np.testing.assert_allclose(found, best[1] + (w - 1) * other * (best[1] - best[0]), rtol=1e-6)


def partial_of(denoiser, x_t, t):
    timesteps = torch.full((len(x_t),), t)
    return lambda labels=None: denoiser.x_0(x_t, timesteps, labels)


def test_more_guidance_leads_further_from_the_other_class():
    means = [[drawn(2000, guidance=w)[0][label::2].mean() for w in (1, 2, 4)] for label in (0, 1)]
    assert means[0][0] - 0.01 > means[0][1] > means[0][2] + 0.01, "the lower class goes down"
    assert means[1][0] + 0.01 < means[1][1] < means[1][2] - 0.01, "and the upper one up"


@pytest.mark.parametrize(("weight", "asked"), [(None, [True]), (1, [True]), (1.0, [True]), (0, [False])])
def test_one_estimate_is_enough_where_the_other_has_no_part(weight, asked):
    mixture, x_t, label = Mixture(), some_images(3)[1], torch.tensor([0, 1, 1])
    chosen = {} if weight is None else {"guidance": weight}
    point = Point(0.8, 0.6, 100)
    found = guided(partial_of(mixture, x_t, 100), label, point, {**chosen, "guidance_rescale": 0.7})
    assert mixture.asked == asked
    expected = mixture.x_0(x_t, torch.full((3,), 100), label if asked[0] else None)
    assert torch.equal(found, expected)


def test_guidance_is_where_the_interval_of_noise_levels_is():
    """Both estimates at −2 ≤ λ ≤ 1 and only the one with the label elsewhere; λ from numpy's own ᾱ."""
    mixture = drawn(4, guidance=3, guidance_interval=[-2, 1], steps=20)[2]
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[np.arange(950, -1, -50)]
    lam = np.log(alpha_bar / (1 - alpha_bar))
    inside = (lam >= -2) & (lam <= 1)
    assert 3 < inside.sum() < 17 and not inside[0] and not inside[-1]
    assert mixture.asked == [each for guide in inside for each in ([True, False] if guide else [True])]


def test_at_pure_noise_the_signal_is_below_any_interval():
    x_t, asked = some_images(2)[1], torch.tensor([0, 1])
    for interval, count in (([-50, 50], 1), (None, 2)):
        mixture = Mixture()
        chosen = {"guidance": 3} | ({"guidance_interval": interval} if interval else {})
        guided(partial_of(mixture, x_t, 999), asked, Point(0.0, 1.0, 999), chosen)
        assert len(mixture.asked) == count


@pytest.mark.parametrize("phi", [0.0, 0.3, 1.0])
def test_rescaling_brings_each_images_spread_back(phi):
    """Against numpy, image by image; at φ = 1 its standard deviation is that of the estimate with the label."""
    x_c, x_none = (each.numpy() for each in some_images(3, seed=1))
    labels_, w = torch.tensor([0, 1, 0]), 3.0
    estimate = lambda labels=None: torch.from_numpy(x_none if labels is None else x_c)  # noqa: E731
    chosen = {"guidance": w, "guidance_rescale": phi}
    found = guided(estimate, labels_, Point(0.8, 0.6, 100), chosen).numpy()
    for i in range(3):
        cfg = w * x_c[i] + (1 - w) * x_none[i]
        rescaled = cfg * np.std(x_c[i]) / np.std(cfg)
        np.testing.assert_allclose(found[i], phi * rescaled + (1 - phi) * cfg, rtol=1e-6)
        assert (abs(found[i].std() - x_c[i].std()) < 1e-9) == (phi == 1.0)


AFFINE = [name for name in FILES if name in ("epsilon", "x0", "v", "u", "score")]


def test_guiding_the_networks_output_or_x_0_is_the_same_for_every_target():
    """w·y_c + (1 − w)·y_∅ read as x_0, y of one and the same denoiser: one guided x_0 for all targets."""
    schedule = make_schedule(LINEAR, dtype=torch.float64)
    (x_c, x_t), (x_none, _) = some_images(4, seed=1), some_images(4, seed=2)
    timesteps, w, results = torch.tensor([20, 300, 600, 980]), 2.5, []
    a, b = at(schedule, timesteps)
    assert len(AFFINE) == 5
    for name in AFFINE:
        target = load(name)

        def output(x_0, target=target):
            return target.compute_training_target(x_0, (x_t - a * x_0) / b, timesteps, schedule)

        def estimate(labels=None, target=target, output=output):
            return target.predict_x0(output(x_none if labels is None else x_c), x_t, timesteps, schedule)

        results.append(guided(estimate, torch.zeros(4), Point(0.8, 0.6, 100), {"guidance": w}))
        y = output(x_none) + w * (output(x_c) - output(x_none))
        torch.testing.assert_close(target.predict_x0(y, x_t, timesteps, schedule), results[-1], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(results[-1], w * x_c + (1 - w) * x_none, rtol=1e-6, atol=1e-6)


# --- through the stages --------------------------------------------------------------------------------------------

SWEEP = {
    "plain": {},
    "none": {"guidance": 0},
    "one": {"guidance": 1},
    "more": {"guidance": 3},
    "part": {"guidance": 3, "guidance_interval": [-1, 1]},
    "rescaled": {"guidance": 3, "guidance_rescale": 0.7},
}


@pytest.fixture(scope="module")
def sweep(digits, tmp_path_factory):
    """A class-conditional cell, trained for some seconds and sampled with each of the settings."""
    folder = tmp_path_factory.mktemp("sweep")
    training = {"steps": 500, "global_batch": 128, "label_dropout": 0.1, "learning_rate": 3e-3, "ema_decay": 0.98}
    # The noise of a clipped estimate: what guidance adds and clipping cuts would otherwise stay in x_t.
    samplings = {name: {"steps": 20, "clipped_epsilon": True, **own} for name, own in SWEEP.items()}
    study = conditional({**MLP, "width": 64, "layers": 2}, samplings, **training)
    (cell,) = cells.grid(study)
    files = cells.specifications(study)
    spec = files[cell.folder / "cell.json"]
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        loop.train(spec, digits, folder, save_every_seconds=1e9, stop=Stop())
        for name in SWEEP:
            chosen = {**files[cells.sampling_file(cell.folder.parents[2], "v", name)], "images": 100}
            sample(spec, chosen, digits, folder, 0, folder / f"{name}.npz", batch=64)
    plain = files[cells.sampling_file(cell.folder.parents[2], "v", "plain")]
    return SimpleNamespace(folder=folder, cell=cell, spec=spec, plain={**plain, "images": 100, "batch": 64})


def test_a_guidance_sweep_is_of_one_training(sweep):
    """No setting of the sampling is in the training's key; each has its own samples, but 1 is the plain estimate."""
    alone = conditional({**MLP, "width": 64, "layers": 2}, None, **{k: sweep.spec["training"][k] for k in LEARNED})
    assert cells.specifications(alone)[sweep.cell.folder / "cell.json"] == sweep.spec
    digest = read_json(sweep.folder / "training.json")["model_sha256"]
    facts = {name: read_json(sweep.folder / f"{name}.json") for name in SWEEP}
    assert {each["model_sha256"] for each in facts.values()} == {digest}
    assert len({each["key"] for each in facts.values()}) == len(SWEEP)
    digests = {name: each["samples_sha256"] for name, each in facts.items()}
    assert digests["one"] == digests["plain"] and len(set(digests.values())) == len(SWEEP) - 1


LEARNED = ("steps", "global_batch", "label_dropout", "learning_rate", "ema_decay", "log_every")


def test_image_i_has_label_i_mod_k_whatever_the_batch(sweep):
    assert read_json(sweep.folder / "more.json")["labels"] == "image i has label i mod 10"
    found = torch.cat([labels_of(10, first, count, CPU) for first, count in ((0, 64), (64, 36))])
    assert found.tolist() == list(range(10)) * 10 and labels_of(None, 0, 4, CPU) is None


def of_class(images):
    """Return the class whose mean among scikit-learn's digits is nearest to each image."""
    real = load_digits()
    means = np.stack([real.images[real.target == label].mean(0) for label in range(10)])
    flat = images[..., 0].astype(float) * 16 / 255
    return ((flat[:, None] - means) ** 2).sum((2, 3)).argmin(1)


def test_digits_are_of_the_class_that_was_asked_for(sweep):
    """One of ten by chance. Guided ones are more often of their class than ones that are told no label."""
    asked = np.arange(100) % 10
    right = {name: np.mean(of_class(load_samples(sweep.folder / f"{name}.npz")) == asked) for name in SWEEP}
    assert right["plain"] > 0.8 and right["more"] > 0.9 and right["none"] < 0.25
    assert right["more"] >= right["plain"]


def test_an_estimate_without_label_is_that_of_label_k(sweep, digits):
    denoiser = Denoiser(sweep.spec, digits, load("v"), CPU)
    denoiser.load(sweep.folder / "model.safetensors")
    x_t, t = torch.randn(3, 1, 8, 8), torch.tensor([500, 500, 500])
    with torch.no_grad():
        without = denoiser.x_0(x_t, t)
        assert torch.equal(without, denoiser.x_0(x_t, t, torch.full((3,), 10)))
        assert not torch.allclose(without, denoiser.x_0(x_t, t, torch.full((3,), 9)), atol=1e-3)
    again = draw_images(denoiser, sweep.plain, 0, "test")
    np.testing.assert_array_equal(again, load_samples(sweep.folder / "plain.npz"))


def test_a_guided_step_asks_twice_and_so_it_is_estimated():
    assert [labels.evaluations(SWEEP[name]) for name in SWEEP] == [1, 1, 1, 2, 2, 2]
    networks = ["conditional_mlp", "conditional_unet", "mlp", "plain_mlp", "unet", "vit"]
    assert kinds.known("networks") == networks
