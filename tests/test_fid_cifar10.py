"""The FID of real CIFAR-10 against numbers and programs that are not ours; minutes each, so they are slow."""

import numpy as np
import pytest
import torch
from cleanfid.fid import compare_folders
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image
from scipy.ndimage import gaussian_filter

from targetwise.data import store
from targetwise.files import sha256_of_array, write_json
from targetwise.metric import fid, reference
from targetwise.metric.distance import FRECHET, moments
from targetwise.metric.reference import Selection, load_reference

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
COUNT = 256


def write_dataset(folder, train, test):
    """Write a data set as ``prepare_data`` does, of images chosen here."""
    folder.mkdir(parents=True)
    arrays = {"train": train, "test": test}
    labels = {f"{split}_labels": np.zeros(len(images), dtype=np.int64) for split, images in arrays.items()}
    np.savez(folder / "dataset.npz", **arrays, **labels)
    splits = {split: {"sha256": sha256_of_array(images)} for split, images in arrays.items()}
    write_json(folder / "manifest.json", {"splits": splits})


def make(root, split, implementation, count=None):
    name = root / f"{split}-{implementation}-{count}.npz"
    reference.make(Selection("checked", split, count, "inception", implementation), name, processes=2, root=root)
    return load_reference(name)


def between(implementation, first, second):
    return FRECHET[implementation](first.mean, first.covariance, second.mean, second.covariance)


@pytest.fixture
def checked(real):
    """The sets of the independent number: drawn by one generator, first from training, then from test images."""
    random = np.random.default_rng(0)
    train, test = (store.load(real / "data/cifar10", split).images for split in ("train", "test"))
    train, test = train[random.permutation(50000)[:2000]], test[random.permutation(10000)[:2000]]
    write_dataset(real / "checked", train, test)
    return real


def test_2000_training_against_2000_test_images(checked):
    """25.670 ± 0.02, computed independently, clean mode."""
    train, test = make(checked, "train", "clean-fid"), make(checked, "test", "clean-fid")
    for implementation in FRECHET:
        assert between(implementation, test, train) == pytest.approx(25.670, abs=0.02)
        assert between(implementation, train, train) == pytest.approx(0, abs=1e-3)
    assert between("fast", test, train) == pytest.approx(between("clean-fid", test, train), rel=1e-6)


def test_both_implementations_and_clean_fids_folder_command_agree(checked, real_data, tmp_path):
    train, test = (store.load(checked / "checked", split).images[:COUNT] for split in ("train", "test"))
    for name, images in {"train": train, "test": test}.items():
        (tmp_path / name).mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{index:04}.png")
    (tmp_path / "weights").mkdir()
    torch.jit.save(
        torch.jit.load(real_data / "data/weights/inception.pt").net, tmp_path / "weights/inception-2015-12-05.pt"
    )
    wrapper = InceptionV3W(str(tmp_path / "weights"), download=False)
    expected = compare_folders(
        str(tmp_path / "test"), str(tmp_path / "train"), wrapper, "clean", batch_size=16, device=CPU, verbose=False
    )
    features, values = {}, {}
    for implementation in FRECHET:
        compared = make(checked, "train", implementation, COUNT)
        row = fid.measure_file(
            tmp_path / "test", checked / f"train-{implementation}-{COUNT}.npz", ["frechet", "kid"], threads=2
        )
        assert row["n"] == COUNT and row["marks"] == [
            "fewer than 2,048 samples: 256",
            "reference of fewer than 2,048 images: 256",
        ]
        features[implementation], values[implementation] = compared.features, row["value"]
    assert values["clean-fid"] == pytest.approx(expected, rel=1e-5)
    assert values["fast"] == pytest.approx(expected, rel=1e-5)
    off = np.linalg.norm(features["fast"] - features["clean-fid"], axis=1)
    assert (off / np.linalg.norm(features["clean-fid"], axis=1)).max() < 1e-3


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_fid_grows_with_blur_noise_and_missing_classes(real, two_threads):
    with np.load(real / "data/cifar10/dataset.npz") as archive:
        images, labels = archive["test"], archive["test_labels"]
    random = np.random.default_rng(0)
    count = 128
    compared, others = images[:count], images[count:]
    write_dataset(real / "checked", compared, compared)
    whole = make(real, "train", "fast")
    extractor = whole.extractor(CPU)

    def value(chosen):
        return FRECHET["fast"](*moments(extractor.features(chosen, CPU)), whole.mean, whole.covariance)

    def noisy(sigma):
        return (base + sigma * random.standard_normal(base.shape)).clip(0, 255).astype(np.uint8)

    def blurred(sigma):
        return gaussian_filter(base, (0, sigma, sigma, 0))

    def only(classes):
        return others[labels[count:] < classes][:count]

    base = others[:count]
    clean = value(base)
    assert clean < value(noisy(8)) < value(noisy(24))
    assert clean < value(blurred(0.5)) < value(blurred(1.0))
    assert clean < value(only(4)) < value(only(1))
