"""The digits in other sizes, from dark to light and tinted, and how the digits extractor takes them."""

import contextlib
import itertools
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT

from targetwise.cells.rows import write_row
from targetwise.data import datasets, digests, store
from targetwise.errors import UserError
from targetwise.files import read_json
from targetwise.metric import extractors, fid, reference
from targetwise.metric.reference import Selection, load_reference
from targetwise.operations import disk

CPU = torch.device("cpu")
FORMS = list(itertools.product((8, 16, 32), (False, True), (False, True)))


def definition(size, brightness, tint):
    return {"kind": "digits", "size": size, "brightness": brightness, "tint": tint}


@pytest.fixture(scope="module")
def extractor():
    with contextlib.chdir(ROOT):
        return extractors.load("digits", CPU, "fast")


@pytest.fixture(scope="module")
def plain():
    return datasets.digits()["train"]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form)))
def test_every_form_has_declared_digests_its_shape_and_its_deviation(form):
    arrays = datasets.make("mine", definition(*form))  # refuses what is not declared
    declared = {split: digests.declared(definition(*form), split) for split in arrays}
    assert all(len(digest) == 64 for digest in declared.values())
    assert declared["train_labels"] == digests.DIGITS["train_labels"]
    size, _, tint = form
    shapes = disk.image_shapes({"data": {"dataset": "mine"}, "datasets": {"mine": definition(*form)}})
    assert shapes == {"train": list(arrays["train"].shape), "test": list(arrays["test"].shape)}
    assert shapes["train"] == [1285, size, size, 3 if tint else 1]
    sample = arrays["train"][:, :: size // 8, :: size // 8].ravel() / 127.5 - 1
    assert digests.pixel_deviation("mine", definition(*form)) == pytest.approx(sample.std(), rel=1e-10)


def test_no_two_forms_have_one_digest():
    found = [digests.declared(definition(*form), split) for form in FORMS for split in ("train", "test")]
    assert len(set(found)) == 24
    assert digests.declared({"kind": "digits"}, "train") == digests.declared(definition(8, False, False), "train")


def test_other_images_than_declared_are_refused(monkeypatch):
    monkeypatch.setitem(digests.DIGITS_FORMS, (16, False, False), ("0" * 64, "1" * 64))
    with pytest.raises(UserError, match=f"dataset mine: its train has SHA-256 547c.*, but {'0' * 64} is declared"):
        datasets.make("mine", {"kind": "digits", "size": 16})


def test_a_larger_digit_is_the_digit_with_every_pixel_a_square(plain):
    for size in (16, 32):
        factor = size // 8
        large = datasets.digits(size)["train"]
        expected = np.kron(plain[7, ..., 0], np.ones((factor, factor), np.uint8))
        np.testing.assert_array_equal(large[7, ..., 0], expected)
        assert np.linalg.matrix_rank(large[:400].reshape(400, -1).astype(float)) <= 64


def test_brightness_goes_from_dark_to_light_and_keeps_the_digit(plain):
    light = datasets.digits(brightness=True)["train"].astype(int)
    offsets = light.min(axis=(1, 2, 3))
    np.testing.assert_array_equal(light - offsets[:, None, None, None], (plain.astype(int) + 1) // 2)
    assert offsets.min() < 3 and offsets.max() > 124 and abs(offsets.mean() - 63.5) < 4  # uniform: sd 37/√1285 = 1
    means = [statistics.pstdev(each.mean(axis=(1, 2, 3)) / 127.5) for each in (plain, light)]
    assert means[1] > 4 * means[0]


def test_tint_multiplies_each_channel_of_an_image_by_one_factor(plain):
    tinted = datasets.digits(tint=True)["train"]
    factors = tinted.max(axis=(1, 2)) / plain.max(axis=(1, 2))
    np.testing.assert_allclose(tinted, factors[:, None, None] * plain, atol=1.01)
    assert factors.min() == pytest.approx(64 / 255, abs=0.01) and factors.max() == 1
    np.testing.assert_allclose(factors.mean(axis=0), 159.5 / 255, atol=0.02)  # sd 0.217/√1285 = 0.006
    assert abs(np.corrcoef(factors.T)[np.triu_indices(3, 1)]).max() < 0.1


@pytest.mark.parametrize(("size", "mode"), [(16, "mean of 2×2 pixels"), (32, "mean of 4×4 pixels")])
def test_features_of_a_larger_digit_are_those_of_the_digit(extractor, plain, size, mode):
    large = datasets.digits(size)["train"]
    np.testing.assert_array_equal(extractor.features(large, CPU), extractor.features(plain, CPU))
    assert extractor.mode(large.shape[1:]) == mode and extractor.mode(plain.shape[1:]) == "native"


def test_images_that_are_no_enlarged_digits_are_averaged_over_squares_and_channels(extractor):
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    small = images.reshape(3, 8, 2, 8, 2, 3).mean(axis=(2, 4, 5))[..., None]
    with torch.inference_mode():
        expected = extractor.function(torch.from_numpy(small.astype(np.float32)))
    np.testing.assert_allclose(extractor.features(images, CPU), expected, atol=1e-4)
    assert extractor.mode((16, 16, 3)) == "mean of 2×2 pixels and mean of channels"
    assert extractor.mode((8, 8, 3)) == "mean of channels"


@pytest.mark.parametrize("shape", [(12, 12, 1), (16, 8, 1), (4, 4, 1)])
def test_other_sizes_are_refused(extractor, shape):
    with pytest.raises(
        UserError, match=f"takes images of 8×8×1, or of a multiple .*, not {'×'.join(map(str, shape))}"
    ):
        extractor.function(torch.zeros(2, *shape, dtype=torch.uint8))


def test_rows_and_references_say_how_images_were_brought_to_the_extractor(tmp_path, monkeypatch):
    """And distances on enlarged digits are those on the digits."""
    monkeypatch.chdir(ROOT)
    rows = {}
    for size in (8, 32):
        name = f"digits_{size}"
        store.prepare(name, {"kind": "digits", "size": size}, tmp_path / name)
        path = tmp_path / f"{name}.npz"
        reference.make(Selection(name, "train", None, "digits", "fast"), path, root=tmp_path)
        compared, images = load_reference(path), store.load(tmp_path / name, "test").images
        extractor = compared.extractor(CPU)
        rows[size] = fid.measure(
            images, extractor, compared, extractor.features(images, CPU), ["frechet"], what="file", file="x"
        )
        write_row(tmp_path / f"row-{name}.json", rows[size])  # by the schema
        assert read_json(Path(path).with_suffix(".json"))["mode"] == rows[size]["mode"]
    assert [row["mode"] for row in rows.values()] == ["native", "mean of 4×4 pixels"]
    assert rows[8]["value"] == rows[32]["value"]
