"""The spiral: its formula and plane, what rounding leaves, a network without a way around, metrics of its pixels.

Some twenty seconds.
"""

import json

import numpy as np
import pytest
import torch
from helpers import ROOT
from scipy.spatial.distance import cdist
from scipy.stats import energy_distance

from targetwise.data import datasets, digests, spiral, store
from targetwise.data.store import Images
from targetwise.diffusion.network import build
from targetwise.diffusion.randomness import sampling_noise
from targetwise.errors import UserError
from targetwise.files import sha256_of_array
from targetwise.metric import extractors, measures
from targetwise.metric.distance import moments
from targetwise.metric.reference import Reference
from targetwise.operations.disk import image_shapes
from targetwise.recipe import config, images, kinds, variants
from targetwise.report.pictures import projection
from targetwise.sampling.denoiser import draw_images
from targetwise.sampling.exact import Exact

CPU = torch.device("cpu")
OWN = {"kind": "images", "folder": "x", "size": 8, "held_out": 2}
STUDY = ROOT / "config/spiral.yaml"


def study(path, **changes):
    path.write_text(json.dumps(changes))
    return config.load([STUDY, path], ROOT / "config.yaml")


def pixels(array):
    return extractors.load("pixels", CPU, "fast").features(array, CPU)


def compared(features):
    mean, covariance = moments(features)
    return Reference({"implementation": "fast", "split": "train", "first": None}, features, mean, covariance)


def measured(name, features, real):
    samples = measures.Samples(features, np.empty(0), compared(real))  # of the features alone
    return measures.values(samples, [name])[name]


# --- the data


@pytest.mark.parametrize("dimensions", [2, 3, 8, 16, 512, 4096])
def test_the_planes_columns_are_orthonormal_and_its_rows_of_one_length(dimensions):
    plane = spiral.plane(dimensions)
    np.testing.assert_allclose(plane.T @ plane, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(plane, axis=1), np.sqrt(2 / dimensions), rtol=1e-12)
    assert len({tuple(row) for row in plane.round(9)}) == dimensions, "no two coordinates are the same"


def test_points_are_on_the_spiral_and_evenly_along_its_angle():
    points = spiral.points(20_000)
    radius = np.linalg.norm(points, axis=1)
    assert radius.min() == pytest.approx(1 / 3, abs=1e-3) and radius.max() == pytest.approx(1, abs=1e-3)
    # Of radius r is the angle 4.5π·r, however many turns that is.
    turned = np.exp(1j * 4.5 * np.pi * radius)
    np.testing.assert_allclose(points, np.stack([turned.real, turned.imag], axis=1) * radius[:, None], atol=1e-9)
    counts, _ = np.histogram(radius, bins=20, range=(1 / 3, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 45, "χ² of 19 degrees of freedom, 99.9 %"
    np.testing.assert_array_equal(spiral.points(50), points[:50])


@pytest.mark.parametrize("dimensions", [2, 8, 16, 512])
def test_images_deviate_alike_in_every_number_of_dimensions_and_are_in_the_range(dimensions):
    array = spiral.images(4096, dimensions)
    assert array.shape == (4096, 1, 1, dimensions) and array.dtype == np.uint8
    found = array / 127.5 - 1
    assert np.abs(found).max() <= spiral.REACH + 1 / 255
    # E t² of t uniform from a to b is (a² + ab + b²)/3, half of it in each direction; the mean takes a little off.
    expected = spiral.REACH * np.sqrt((1 / 9 + 1 / 3 + 1) / 3 / 2)
    assert found.std() == pytest.approx(expected, rel=0.03)


def test_rounding_leaves_the_energy_off_the_plane_that_rounding_has_and_no_more():
    """A level is 1/127.5, and an error of rounding has the variance 1/12 of its square in D − 2 of D directions."""
    dimensions = 512
    found = spiral.images(2000, dimensions).reshape(2000, dimensions) / 127.5 - 1
    plane = spiral.plane(dimensions)
    off = found - found @ plane @ plane.T
    assert np.square(off).mean() == pytest.approx((dimensions - 2) / dimensions / 127.5**2 / 12, rel=0.01)
    assert np.square(off).mean() / found.var() < 4e-5
    exact = spiral.levels(2000, dimensions) / 127.5 - 1
    assert np.abs(exact - exact @ plane @ plane.T).max() < 1e-12


@pytest.mark.parametrize("dimensions", [2, 8, 16, 512])
def test_every_platform_rounds_to_the_declared_levels(dimensions):
    """The nearest boundary between two levels is farther off than any arithmetic in fp64 can be."""
    exact = spiral.levels(6144, dimensions)
    assert np.abs(exact % 1 - 0.5).min() > 1e-9
    definition = {"kind": "spiral", "dimensions": dimensions, "images": 4096, "held_out": 2048}
    arrays = datasets.make("mine", definition)
    for split in ("train", "test"):
        assert sha256_of_array(arrays[split]) == digests.declared(definition, split)
        assert list(arrays[split].shape) == digests.shapes(definition)[split]
        assert not arrays[f"{split}_labels"].any() and len(arrays[f"{split}_labels"]) == len(arrays[split])
    np.testing.assert_array_equal(np.concatenate([arrays["train"], arrays["test"]]), spiral.images(6144, dimensions))


def test_other_spirals_have_no_declared_digest_and_other_levels_are_refused(monkeypatch, tmp_path):
    definition = {"kind": "spiral", "dimensions": 5, "images": 40, "held_out": 20}
    assert digests.declared(definition, "train") is None
    assert digests.declared({**definition, "dimensions": 512}, "train") is None
    store.prepare("mine", definition, tmp_path)
    assert store.load(tmp_path, "test").images.shape == (20, 1, 1, 5)
    monkeypatch.setattr(spiral, "REACH", 0.7)
    with pytest.raises(UserError, match=r"dataset mine: its train has SHA-256 .* but 57b5bd13"):
        datasets.make("mine", {**definition, "dimensions": 512, "images": 4096, "held_out": 2048})


# --- what a study may ask for


def test_the_committed_studies_are_valid_and_differ_in_the_dimension_and_what_is_claimed_of_it():
    full = config.load([STUDY], ROOT / "config.yaml")
    names = full["grid"]["parameterizations"]
    pairs = {(each["target"], each["loss_space"]) for each in (config.variant(full, name) for name in names)}
    assert pairs == {(target, space) for target in ("x0", "epsilon", "u") for space in ("x0", "epsilon", "u")}
    assert len(names) == 9 and {variants.network(full, name, "toy")["network"] for name in names} == {"plain_mlp"}
    for dimensions in (2, 8, 16):
        other = config.load([STUDY, ROOT / f"config/spiral_{dimensions}.yaml"], ROOT / "config.yaml")
        definition = other["datasets"][other["data"]["dataset"]]
        assert definition == {**full["datasets"]["spiral_512"], "dimensions": dimensions}
        assert other["study"] == other["data"]["dataset"] == f"spiral_{dimensions}"
        same = [key for key in full if key not in ("study", "datasets", "data", "grid")]
        assert {key: other[key] for key in same} == {key: full[key] for key in same}
        assert {**other["grid"], "claims": None} == {**full["grid"], "claims": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": {"spiral_512": {"dimensions": 1}}}, r"dimensions is 1; it must be at least 2"),
        ({"datasets": {"spiral_512": {"dimensions": 4097}}}, r"dimensions is 4097; it must be at most 4096"),
        ({"datasets": {"spiral_512": {"size": 8}}}, "datasets.spiral_512"),
        ({"data": {"horizontal_flip": True}}, "horizontal_flip is true .* have no left and right; set it to false"),
        (
            {"parameterizations": {"x0": {"data": {"horizontal_flip": True}}}},
            r"horizontal_flip is true \(parameterization x0\)",
        ),
        ({"metric": {"extractor": "inception"}}, "of kind spiral; take 'pixels'"),
        ({"metric": {"extractor": "digits"}}, "of kind spiral; take 'pixels'"),
        ({"training": {"label_dropout": 0.1}}, "needs labels, but datasets.spiral_512 of kind spiral has none"),
        (
            {"datasets": {"own": {**OWN, "size": 64}}, "data": {"dataset": "own"}},
            "'pixels', which takes up to 4,096 numbers per image, but those of own have 12,288; take 'inception'",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        study(tmp_path / "mine.yaml", **changes)
    assert len(str(caught.value).splitlines()) == 1


def test_measured_sigma_data_says_where_the_number_is(tmp_path):
    found = study(tmp_path / "mine.yaml", grid={"parameterizations": ["edm_f"]}, comparison={"factors": []})
    with pytest.raises(
        UserError, match=r"write the number that data/spiral_512/manifest\.json has as pixel_deviation"
    ):
        config.variant(found, "edm_f")


def test_pixels_are_allowed_for_any_small_images(tmp_path):
    asked = {"metric": {"extractor": "pixels"}}
    for dataset in ("digits", "cifar10"):
        found = study(
            tmp_path / "mine.yaml", **asked, data={"dataset": dataset, "horizontal_flip": dataset != "digits"}
        )
        assert found["metric"]["extractor"] == "pixels"


def test_the_size_is_known_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROOT", tmp_path)
    full = config.load([STUDY], ROOT / "config.yaml")
    assert image_shapes(full) == {"train": [4096, 1, 1, 512], "test": [2048, 1, 1, 512]}


def test_the_exact_bound_is_asked_for_where_the_training_split_is_small(tmp_path):
    def has(**changes):
        return images.has_exact(study(tmp_path / "mine.yaml", **changes))

    assert has() and not has(bounds=False)
    assert not has(datasets={"spiral_512": {"images": 8193}}), "4,194,816 numbers, and 2²² are 4,194,304"
    assert has(datasets={"spiral_512": {"images": 8192}})
    assert not has(data={"dataset": "cifar10"}, metric={"extractor": "inception"})
    assert not has(datasets={"own": OWN}, data={"dataset": "own"}), "nobody knows yet how many there are"


# --- features


def test_features_are_the_pixels_in_the_range():
    array = np.array([0, 255, 51, 204], np.uint8).reshape(2, 1, 1, 2)
    found = pixels(array)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[-1, 1], [-0.6, 0.6]], atol=1e-6)
    many = np.random.default_rng(0).integers(0, 256, (700, 2, 3, 3), np.uint8)
    np.testing.assert_allclose(pixels(many), many.reshape(700, 18) / 127.5 - 1, atol=1e-6)


def test_a_title_says_pixel():
    assert measures.title("nearest", "pixels") == "nearest distance (pixel features)"


# --- the network


@pytest.mark.parametrize("layers", [1, 3])
def test_whatever_the_input_the_output_has_as_many_dimensions_as_the_network_is_wide(layers):
    width, size = 16, 40
    options = {"network": "plain_mlp", "width": width, "layers": layers}
    network = build(options, in_channels=size, out_channels=size, image_size=1, seed=0)
    generator = torch.Generator().manual_seed(0)
    x = 100 * torch.randn(300, size, 1, 1, generator=generator)
    for times in (torch.full((300,), 7), torch.randint(1000, (300,), generator=generator)):
        with torch.no_grad():
            output = network.double()(x.double(), times).flatten(1)
        singular = torch.linalg.svdvals(output - output.mean(0))
        assert singular[width:].max() < 1e-10 * singular[0] and singular[width - 1] > 1e-6 * singular[0]


def test_the_mlp_with_a_way_around_is_not_so_confined():
    network = build(
        {"network": "mlp", "width": 16, "layers": 1}, in_channels=40, out_channels=40, image_size=1, seed=0
    )
    torch.nn.init.ones_(network.time[-1].bias)
    with torch.no_grad():
        network.time[-1].bias[32:] = torch.eye(40).flatten()
        output = network(torch.randn(300, 40, 1, 1), torch.zeros(300, dtype=torch.int64)).flatten(1)
    singular = torch.linalg.svdvals(output - output.mean(0))
    assert singular[16:].max() > 0.1 * singular[0]


def test_the_plain_mlp_sees_time_and_every_pixel():
    options = {"network": "plain_mlp", "width": 16, "layers": 2}
    network = build(options, in_channels=3, out_channels=5, image_size=2, seed=0)
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    output = network(x, torch.tensor([0, 1, 500, 999]))
    assert output.shape == (4, 5, 2, 2)
    output.square().sum().backward()
    assert (x.grad != 0).all()
    one = x[:1].detach().expand(4, -1, -1, -1)
    assert (torch.pdist(network(one, torch.tensor([0, 1, 500, 999])).flatten(1)) > 1e-4).all()


@pytest.mark.parametrize(
    "options", [{"width": 15, "layers": 2}, {"width": 16}, {"width": 16, "layers": 1, "depth": 2}]
)
def test_a_plain_mlp_of_other_options_is_refused(options):
    with pytest.raises(UserError, match="network plain_mlp takes an even width and layers"):
        build({**options, "network": "plain_mlp"}, in_channels=1, out_channels=1, image_size=8, seed=0)


# --- metrics


@pytest.mark.parametrize(("n", "m"), [(50, 50), (40, 70), (1, 30)])
def test_energy_distance_in_one_dimension_is_the_square_of_scipys(n, m):
    random = np.random.default_rng(n)
    x, y = random.standard_normal((n, 1)), 2 * random.standard_normal((m, 1)) + 0.5
    found = kinds.load("metrics", "energy_distance")["measure"](x, Reference({}, y, None, None))["energy_distance"]
    assert found == pytest.approx(energy_distance(x[:, 0], y[:, 0]) ** 2, rel=1e-9)


def test_energy_distance_in_many_dimensions_is_that_of_all_pairs():
    random = np.random.default_rng(0)
    x, y = random.standard_normal((80, 30)), random.standard_normal((60, 30)) + 0.1
    expected = 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()
    assert measured("energy_distance", x, y) == pytest.approx(expected, rel=1e-9)
    assert measured("energy_distance", x, x[::-1]) == pytest.approx(0, abs=1e-7)


def test_energy_distance_of_one_distribution_falls_as_its_file_says():
    random = np.random.default_rng(1)
    found = []
    for _ in range(200):
        x, y = random.standard_normal((30, 4)), random.standard_normal((60, 4))
        found.append(measured("energy_distance", x, y))
    apart = np.mean(np.linalg.norm(np.sqrt(2) * random.standard_normal((100_000, 4)), axis=1))
    assert np.mean(found) == pytest.approx(apart * (1 / 30 + 1 / 60), abs=4 * np.std(found) / np.sqrt(200))


def test_nearest_is_the_mean_distance_to_the_nearest():
    random = np.random.default_rng(2)
    x, y = random.standard_normal((50, 6)), random.standard_normal((40, 6))
    assert measured("nearest", x, y) == pytest.approx(cdist(x, y).min(1).mean(), rel=1e-9)
    assert measured("nearest", y[:5], y) == 0
    corner = np.array([[0.0, 0.0], [10.0, 0.0]])
    assert measured("nearest", np.array([[3.0, 4.0], [10.0, 1.0]]), corner) == pytest.approx(3)


def test_energy_off_the_subspace_by_hand():
    """Of (3, 4, 12) from the mean, where real images have the first two directions: 144 of 169."""
    random = np.random.default_rng(3)
    real = np.concatenate([random.standard_normal((500, 2)), np.zeros((500, 1))], axis=1)
    mean = real.mean(0)
    axes = np.eye(3)
    inside, outside = 3 * axes[0] + 4 * axes[1], 12 * axes[2]
    samples = np.stack([mean + inside + outside, mean - inside - outside])
    assert measured("off_subspace", samples, real) == pytest.approx(144 / 169)
    assert measured("off_subspace", np.stack([mean + inside, mean - inside]), real) == pytest.approx(0, abs=1e-15)
    assert measured("off_subspace", np.stack([mean + inside, mean + 5 * axes[2]]), real) == pytest.approx(0.5)


@pytest.mark.parametrize(("third", "share"), [(0.05, 0.0), (0.02, 0.0004 / 2.0004)])
def test_directions_count_as_long_as_they_hold_a_thousandth(third, share):
    """Of the variances 1, 1, and s² of a third: it is one of the leading ones from s² = 0.002 on."""
    signs = np.array(np.meshgrid([1, -1], [1, -1], [1, -1])).reshape(3, -1).T
    real = signs * [1, 1, third]
    assert measured("off_subspace", real, real) == pytest.approx(share)


def test_off_subspace_of_the_spiral_is_what_noise_there_has():
    array = spiral.images(3000, 64)
    real, new = pixels(array[:2000]), pixels(array[2000:])
    assert 0 < measured("off_subspace", new, real) < 4e-5
    noise = 0.1 * np.random.default_rng(4).standard_normal(new.shape)
    expected = 62 * 0.01 / (64 * 0.01 + np.square(new - real.mean(0)).sum(1).mean())
    assert measured("off_subspace", (new + noise).astype(np.float32), real) == pytest.approx(expected, rel=0.02)


# --- the exact denoiser through the sampler


def exact_samples(array, full, **changes):
    options = next(iter(variants.samplings(full, "x0").values()))
    specification = {
        "cell": {"study": "spiral_512", "parameterization": "x0", "scale": "toy", "seed": 0},
        "variant": config.variant(full, "x0"),
        "training": variants.training(full, "x0", "toy"),
    }
    denoiser = Exact(specification, Images(array, np.zeros(len(array), np.int64), "0" * 64), CPU)
    return draw_images(denoiser, {**options, "images": 64, **changes}, 0, "exact")


@pytest.mark.parametrize("sampler", ["heun", "ddim"])
def test_the_exact_denoiser_reproduces_training_images(sampler):
    full = config.load([STUDY], ROOT / "config.yaml")
    array = spiral.images(40, 16)
    samples = exact_samples(array, full, sampler=sampler)
    found = {each.tobytes() for each in samples}
    assert found <= {each.tobytes() for each in array} and len(found) > 15


def test_the_exact_bound_starts_from_the_noise_of_the_cells():
    """Of two images at the ends of a coordinate, a sample is the one on whose side its first noise is."""
    full = config.load([STUDY], ROOT / "config.yaml")
    array = np.array([[40], [215]], np.uint8).reshape(2, 1, 1, 1)
    samples = exact_samples(array, full)
    noise = sampling_noise(0, 0, 0, 0, 64, (1, 1, 1)).ravel()
    assert ((samples.ravel() > 127) == (noise > 0)).mean() > 0.98


# --- the picture


def test_images_without_colours_are_points_of_the_plane_of_real_ones():
    array = spiral.images(500, 32)
    picture = projection(array, array, 128)
    assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8
    dark = np.argwhere(picture[..., 0] < 255) - 63.5
    assert len(dark) > 100
    radius = np.linalg.norm(dark, axis=1)
    assert 0.55 * 64 < radius.max() < 0.75 * 64, "real images reach to two thirds of it"
    assert (radius > 0.1 * 64).all(), "the spiral has nothing in its middle"
    far = np.full((1, 1, 1, 32), 255, np.uint8)
    assert (projection(far, array, 128)[..., 0] < 255).sum() == 1
