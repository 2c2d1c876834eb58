"""The metrics of images themselves: numbers by hand, closed forms, and that they get images and not features."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from targetwise.data import store
from targetwise.errors import UserError
from targetwise.metric import fid, reference
from targetwise.metric.reference import Selection, load_reference
from targetwise.recipe import config, kinds, metrics

ROOT = Path(__file__).parent.parent
NAMES = ["image_means", "channel_means", "saturation", "contrast"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def measured(name, images, real):
    (value,) = kinds.load("metrics", name)["measure"](images, real).values()
    return float(value)


def flat(*levels, channels=1):
    """Images of 4×4, each of one level."""
    return np.broadcast_to(np.array(levels, np.uint8).reshape(-1, 1, 1, 1), (len(levels), 4, 4, channels))


def noise(count, low=0, high=256, channels=3):
    return np.random.default_rng(count).integers(low, high, (count, 4, 4, channels), dtype=np.uint8)


# --- by hand


def test_how_bright_images_are_is_compared_as_distributions():
    """Of 0 and 255 against 51 and 204, each is 51 levels off: 0.4; the mean brightness of both sets is one."""
    assert measured("image_means", flat(0, 255), flat(204, 51)) == pytest.approx(0.4)
    assert measured("image_means", flat(0, 255), flat(255, 0, 0, 255)) == 0
    # Half of the mass goes from 0 to 102.
    assert measured("image_means", flat(0, 102), flat(102)) == pytest.approx(0.4)


def test_brightness_is_of_an_image_and_not_of_pixels():
    halves = flat(0, 0, 0).copy()
    halves[:, :2] = 254
    assert measured("image_means", halves, flat(127)) == pytest.approx(0)


def test_a_shift_of_colour_is_the_root_mean_square_over_channels():
    images = flat(100, 120, channels=3).astype(int) + np.array([0, 30, 60])
    real = flat(110, channels=3)
    assert measured("channel_means", images, real) == pytest.approx(np.sqrt((0 + 30**2 + 60**2) / 3) / 127.5)
    assert measured("channel_means", images[..., ::-1], images) == pytest.approx(np.sqrt(2 * 60**2 / 3) / 127.5)


def test_where_in_an_image_a_colour_is_does_not_matter():
    images = noise(50)
    for mirrored in (images[:, ::-1], images[:, :, ::-1]):
        assert measured("channel_means", mirrored, images) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("level", "counts"), [(0, True), (2, True), (3, False), (252, False), (253, True)])
def test_saturated_is_what_is_beyond_098(level, counts):
    assert counts == (abs(level / 127.5 - 1) > 0.98)
    real = flat(0, 128, 128, 128)
    assert measured("saturation", flat(level, 128), real) == (2 if counts else 0)


def test_contrast_is_the_spread_within_images_over_that_of_real_ones():
    """Half 0, half 100 is a deviation of 50; how images differ from one another is nothing."""
    striped = flat(0, 0).copy()
    striped[:, 2:] = 100
    real = striped.copy()
    real[:, 2:] = 20
    real[1] += 200
    assert measured("contrast", striped, real) == pytest.approx(5)
    assert measured("contrast", flat(0, 255), real) == 0


# --- closed forms


@pytest.mark.parametrize(("draw", "factor"), [("uniform", 1.085), ("standard_normal", 1.29)])
def test_the_floor_of_image_means_is_what_its_file_says(draw, factor):
    """E W₁ = √(2/π)·√(1/n + 1/m)·∫√(F(1 − F)), where F is the distribution function: π/8 for uniform on 0 … 1."""
    said = (ROOT / "workflow/metrics/image_means.py").read_text()
    assert "1.1 (uniform) to 1.3 times (normal) σ·√(1/n + 1/m)" in " ".join(said.split())
    random, n, m = np.random.default_rng(0), 200, 500
    found = []
    for _ in range(200):
        values = [getattr(random, draw)(size=size) for size in (n, m)]
        # as images of one pixel; no levels, so that rounding adds nothing
        found.append(measured("image_means", *(127.5 * each.reshape(-1, 1, 1, 1) for each in values)))
    sigma = 1 / np.sqrt(12) if draw == "uniform" else 1
    expected = factor * sigma * np.sqrt(1 / n + 1 / m)
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / np.sqrt(200) + 0.01 * expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_images_themselves_have_the_ideal_number(name):
    images = noise(20)
    ideal = 1 if metrics.better(name) == "neither" else 0
    assert measured(name, images, images[::-1]) == pytest.approx(ideal, abs=1e-12)


def test_noise_of_half_the_range_has_half_the_contrast():
    narrow = (noise(200).astype(int) // 2 + 64).astype(np.uint8)
    assert measured("contrast", narrow, noise(200)) == pytest.approx(0.5, rel=0.01)


# --- what a study gives them


@pytest.mark.parametrize(
    ("name", "real", "words"),
    [("saturation", flat(100), "no pixel of theirs is beyond"), ("contrast", flat(100), "each of theirs is of one")],
)
def test_a_ratio_to_nothing_is_refused_in_one_line(name, real, words):
    with pytest.raises(UserError, match=words) as caught:
        measured(name, flat(0), real)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def tinted(tmp_path_factory):
    root = tmp_path_factory.mktemp("tinted")
    with contextlib.chdir(ROOT):
        store.prepare("tinted", {"kind": "digits", "tint": True}, root / "tinted")
        reference.make(Selection("tinted", "train", 300, "digits", "fast"), root / "reference.npz", root=root)
    return root, load_reference(root / "reference.npz")


def test_a_row_holds_numbers_of_images_against_the_references_own_beside_those_of_features(tinted, monkeypatch):
    root, compared = tinted
    monkeypatch.setattr(store, "ROOT", root)
    test, train = (store.load(root / "tinted", split).images for split in ("test", "train"))
    extractor = compared.extractor(CPU)
    features = extractor.features(test, CPU)
    names = ["frechet", *NAMES]
    row = fid.measure(test, extractor, compared, features, names, what="file", file="mine")
    for name in NAMES:
        assert row["values"][name] == measured(name, test, train[:300])
    alone = fid.measure(test, extractor, compared, features, ["frechet"], what="file", file="mine")
    assert row["value"] == alone["value"] and row["errors"] == alone["errors"]
    assert fid.measure(test, extractor, compared, None, names, what="cell")["values"] == {}


def test_numbers_of_images_need_those_the_reference_was_made_of(tinted, tmp_path, monkeypatch):
    _, compared = tinted
    monkeypatch.setattr(store, "ROOT", tmp_path)
    store.prepare("tinted", {"kind": "digits", "tint": True, "brightness": True}, tmp_path / "tinted")
    test, extractor = store.load(tmp_path / "tinted", "test").images, compared.extractor(CPU)
    features = extractor.features(test, CPU)
    with pytest.raises(UserError, match="tinted holds other images than the reference was made of"):
        fid.measure(test, extractor, compared, features, ["image_means"], what="file", file="mine")


def test_the_error_of_a_metric_of_images_is_given_images_too(tinted, tmp_path, monkeypatch):
    root, compared = tinted
    monkeypatch.setattr(store, "ROOT", root)
    test, extractor = store.load(root / "tinted", "test").images, compared.extractor(CPU)
    features = extractor.features(test, CPU)
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    monkeypatch.chdir(tmp_path)
    Path("workflow/errors/image_means.py").write_text(
        "from targetwise.metric.contributions import NoErrorKnown\n\n\ndef contributions(images, real):\n"
        "    raise NoErrorKnown(f'{images.shape} {real.shape}')\n"
    )
    row = fid.measure(test, extractor, compared, features, ["frechet", "image_means"], what="file", file="mine")
    assert row["without_error"] == {"image_means": "(512, 8, 8, 3) (300, 8, 8, 3)"}


@pytest.mark.parametrize("name", NAMES)
def test_any_study_may_name_them(name):
    study = config.load([Path("config/digits.yaml")])
    study["metric"]["names"] = ["frechet", name]
    config.validate(study)
    assert metrics.needs(name) == ("images",)
