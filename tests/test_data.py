"""Data sets on disk, and the kind that is a folder of one's own images."""

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from targetwise.data import datasets, digests, store
from targetwise.errors import UserError
from targetwise.files import read_json, sha256_of_array, sha256_of_file
from targetwise.recipe import config


@pytest.fixture
def folder(tmp_path):
    """Twelve colour images of 12×10 in a folder and a subfolder."""
    random = np.random.default_rng(0)
    (tmp_path / "own/sub").mkdir(parents=True)
    for index in range(12):
        path = tmp_path / "own" / ("sub" if index % 3 == 0 else "") / f"{index:02}.png"
        Image.fromarray(random.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(path)
    return tmp_path / "own"


def own(folder, **options):
    return {
        "kind": "images",
        "folder": str(folder),
        "size": 8,
        "held_out": 4,
        "filter": "lanczos",
        "crop": "center",
        **options,
    }


def test_digits_are_made_alike_twice(tmp_path):
    for name in ("first", "second"):
        store.prepare("digits", {"kind": "digits"}, tmp_path / name)
    for file in ("dataset.npz", "manifest.json"):
        assert sha256_of_file(tmp_path / "first" / file) == sha256_of_file(tmp_path / "second" / file)
    train, test = store.load(tmp_path / "first", "train"), store.load(tmp_path / "first", "test")
    assert train.images.shape == (1285, 8, 8, 1) and test.images.shape == (512, 8, 8, 1)
    assert train.digest == sha256_of_array(train.images) == digests.DIGITS["train"]


def test_manifest_tells_nothing_that_could_change(tmp_path, capsys):
    """Snakemake compares it; where the images came from is in the log."""
    store.prepare("digits", {"kind": "digits"}, tmp_path)
    manifest = read_json(tmp_path / "manifest.json")
    assert set(manifest) == {"dataset", "kind", "file_sha256", "pixel_deviation", "splits"}
    assert set(manifest["splits"]["train"]) == {"shape", "sha256", "labels_sha256"}


def test_own_images_are_cut_resized_by_the_named_filter_and_split(folder, tmp_path):
    arrays = datasets.make("own", own(folder))
    files = sorted(folder.rglob("*.png"), key=lambda path: path.relative_to(folder).as_posix())
    expected = [
        np.asarray(Image.open(file).crop((1, 0, 11, 10)).resize((8, 8), Image.Resampling.LANCZOS)) for file in files
    ]
    order = np.random.RandomState(0).permutation(12)
    np.testing.assert_array_equal(arrays["test"], np.stack(expected)[order[:4]])
    np.testing.assert_array_equal(arrays["train"], np.stack(expected)[order[4:]])
    assert not np.array_equal(arrays["train"], datasets.make("own", own(folder, filter="box"))["train"])
    assert not np.array_equal(arrays["train"], datasets.make("own", own(folder, split_seed=1))["train"])


def test_own_images_prepare_and_load(folder, tmp_path):
    store.prepare("own", own(folder), tmp_path / "made")
    assert store.load(tmp_path / "made", "train").images.shape == (8, 8, 8, 3)
    assert read_json(tmp_path / "made/manifest.json")["kind"] == "images"


def test_sigma_data_is_measured_on_the_training_images(folder, tmp_path, monkeypatch):
    """Those of known data sets are constants, so that nothing must be prepared to plan a study."""
    monkeypatch.chdir(tmp_path)
    store.prepare("digits", {"kind": "digits"}, Path("data/digits"))
    train = store.load(Path("data/digits"), "train")
    expected = statistics.pstdev((train.images.ravel().astype(float) / 127.5 - 1).tolist())
    assert read_json(Path("data/digits/manifest.json"))["pixel_deviation"] == pytest.approx(expected, rel=1e-9)
    assert digests.pixel_deviation("digits", {"kind": "digits"}) == pytest.approx(expected, rel=1e-12)

    store.prepare("own", own(folder), Path("data/own"))
    images = store.load(Path("data/own"), "train").images
    found = read_json(Path("data/own/manifest.json"))["pixel_deviation"]
    assert found == pytest.approx((images / 127.5).std(), rel=1e-12)
    with pytest.raises(UserError, match=r"write the number that data/own/manifest\.json has as pixel_deviation"):
        digests.pixel_deviation("own", own(folder))


@pytest.mark.slow
def test_sigma_data_of_cifar10_is_that_of_its_pixels(real):
    found = read_json(Path("data/cifar10/manifest.json"))["pixel_deviation"]
    images = store.load(Path("data/cifar10"), "train").images
    parts = [np.asarray(part, dtype=np.float64) / 127.5 - 1 for part in np.array_split(images, 50)]
    mean = sum(part.sum() for part in parts) / images.size
    expected = (sum(((part - mean) ** 2).sum() for part in parts) / images.size) ** 0.5
    assert found == pytest.approx(expected, rel=1e-10)
    assert digests.pixel_deviation("cifar10", {"kind": "cifar10"}) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (Image.new("L", (8, 8)), {}, r"bad.png is grey \(mode L\), but colour \(mode RGB\) is needed; convert it"),
        (Image.new("RGBA", (8, 8)), {}, r"bad.png is colour with alpha \(mode RGBA\)"),
        (Image.new("P", (8, 8)), {}, r"bad.png is a palette"),
        (Image.new("RGB", (9, 9)), {"filter": None}, "is 12×10, but 8×8 is needed; set filter:"),
        (Image.new("RGB", (9, 8)), {"crop": None}, "is 12×10 and not square; crop it, or set crop: center"),
    ],
)
def test_nothing_is_converted_cut_or_resized_unasked(folder, image, options, message):
    image.save(folder / "bad.png")
    with pytest.raises(UserError, match=message):
        datasets.make("own", {key: value for key, value in own(folder, **options).items() if value is not None})


def test_damaged_image_is_named(folder):
    (folder / "05.png").write_bytes((folder / "05.png").read_bytes()[:100])
    with pytest.raises(UserError, match=r"own/05.png cannot be read as an image \("):
        datasets.make("own", own(folder))


def test_too_few_images_or_none_are_told(folder, tmp_path):
    with pytest.raises(UserError, match=r"holds 12 images, but 11 images are to be held out"):
        datasets.make("own", own(folder, held_out=11))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no image"):
        datasets.make("own", own(tmp_path / "empty"))
    with pytest.raises(UserError, match="nowhere is not a folder"):
        datasets.make("own", own(tmp_path / "nowhere"))


def test_hidden_and_other_files_are_no_images(folder):
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    assert len(datasets.make("own", own(folder))["train"]) == 8


@pytest.mark.parametrize("damage", ["truncate", "change", "remove"])
def test_damaged_dataset_is_named(tmp_path, damage):
    store.prepare("digits", {"kind": "digits"}, tmp_path)
    path = tmp_path / "dataset.npz"
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "remove":
        path.unlink()
    else:
        with np.load(path) as archive:
            arrays = dict(archive)
        arrays["train"][0, 0, 0] ^= 1
        np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"dataset.npz is .*damaged.*; delete it and run again"):
        store.load(tmp_path, "train")


def test_first_images_have_a_digest_of_their_own(images):
    first = images.first(3)
    np.testing.assert_array_equal(first.images, images.images[:3])
    assert first.digest == sha256_of_array(images.images[:3])
    with pytest.raises(UserError, match=r"reference\.first is 11, but the split has 10 images"):
        images.first(11)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": {"own": {"kind": "images", "folder": "x", "size": 8}}}, "datasets.own.held_out is missing"),
        ({"datasets": {"own": {"kind": "digits", "folder": "x"}}}, "unknown key 'folder' in datasets.own"),
        ({"datasets": {"own": {"kind": "digits", "size": 24}}}, "datasets.own.size is 24; did you mean"),
        ({"datasets": {"own": {"kind": "digits", "tint": 1}}}, "datasets.own.tint is 1; it must be true or false"),
        ({"datasets": {"own": {"kind": "cifar10"}}}, "datasets.own.sources is missing"),
        ({"datasets": {"own": {"kind": "cifar10", "sources": []}}}, "datasets.own.sources"),
        (
            {"datasets": {"own": {"kind": "cifar10", "sources": [{"kind": "npm", "package": "x", "versoin": "1"}]}}},
            "unknown key 'versoin' in datasets.own.sources.0; did you mean 'version'",
        ),
        (
            {"datasets": {"own": {"kind": "cifar10", "sources": [{"kind": "url", "url": "https://x"}]}}},
            "datasets.own.sources.0 has no digest",
        ),
        ({"datasets": {"own": own("x", filter="cubic")}}, "datasets.own.filter is 'cubic'; did you mean 'bicubic'"),
        ({"metric": {"extractor": "inception"}}, "metric.extractor is 'inception', but data.dataset is 'digits'"),
        ({"data": {"dataset": "cifar10"}}, "metric.extractor is 'digits', but data.dataset is 'cifar10'"),
        ({"metric": {"implementation": "quick"}}, r"metric.implementation is 'quick'; .*clean-fid, fast"),
        (
            {"metric": {"names": ["frechet", "kld"]}},
            "metric.names.1 is 'kld', but there is no workflow/metrics/kld.py",
        ),
        ({"metric": {"reference": {"first": 1}}}, "metric.reference.first is 1; it must be at least 2"),
        (
            {
                "datasets": {"own": own("x", channels=1)},
                "data": {"dataset": "own"},
                "metric": {"extractor": "inception"},
            },
            "takes three channels, but datasets.own.channels is 1",
        ),
    ],
)
def test_wrong_definitions_stop_before_anything_runs(project, changes, message):
    (project / "edit.yaml").write_text(json.dumps(changes))
    with pytest.raises(UserError, match=message):
        config.load([project / "config/digits.yaml", project / "edit.yaml"])


def test_a_cell_takes_the_images_it_declares_and_no_others(tmp_path):
    store.prepare("digits", {"kind": "digits"}, tmp_path / "digits")
    specification = {"data": {"dataset": "digits", "train_sha256": digests.DIGITS["train"]}}
    assert store.training_images(specification, tmp_path).digest == digests.DIGITS["train"]
    specification["data"]["train_sha256"] = digests.CIFAR10["train"]
    with pytest.raises(UserError, match=r"holds other images: .* but 47af8b.* is declared for digits"):
        store.training_images(specification, tmp_path)
    specification["data"]["train_sha256"] = None
    assert len(store.training_images(specification, tmp_path).images) == 1285
