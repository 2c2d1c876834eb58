"""Inception: the network and the resizing are clean-fid's, whichever file they come in and whoever computes."""

import shutil

import numpy as np
import pytest
import torch
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer

from targetwise.data import store
from targetwise.errors import UserError
from targetwise.files import read_json
from targetwise.metric import clean_fid, extractors, inception

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(real_data):
    return real_data / "data/weights/inception.pt"


@pytest.fixture(scope="module")
def images(real_data):
    return store.load(real_data / "data/cifar10", "test").images[:24]


@pytest.fixture(scope="module")
def wrapper(weights, tmp_path_factory):
    """clean-fid's own wrapper; it reads a file of this name that has its layers at the top."""
    folder = tmp_path_factory.mktemp("cleanfid")
    torch.jit.save(torch.jit.load(weights).net, folder / "inception-2015-12-05.pt")
    return InceptionV3W(str(folder), download=False)


@pytest.fixture
def features(real, images):
    return {
        each: extractors.load("inception", CPU, each).features(images, CPU) for each in extractors.IMPLEMENTATIONS
    }


def test_features_are_those_of_clean_fids_wrapper(features, wrapper, images):
    resize = build_resizer("clean")
    with torch.no_grad():
        batch = torch.stack([torch.from_numpy(resize(image).transpose(2, 0, 1)) for image in images])
        expected = torch.cat([wrapper(part) for part in batch.split(8)]).numpy()
    assert expected.shape == (24, 2048) and expected.std() > 0.1
    np.testing.assert_allclose(features["clean-fid"], expected, rtol=1e-4, atol=1e-5)
    off = np.linalg.norm(features["fast"] - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert off.max() < 1e-5


def test_extractor_says_what_it_is(real):
    extractor = extractors.load("inception", CPU, "fast")
    assert (extractor.name, extractor.mode((32, 32, 3)), extractor.implementation) == (
        "inception",
        "clean",
        "fast",
    )
    assert extractor.digest == inception.LAYERS_SHA256
    with pytest.raises(UserError, match=r"three channels, not of shape \(8, 8, 1\)"):
        extractor.features(np.zeros((2, 8, 8, 1), np.uint8), CPU)


@pytest.mark.parametrize("size", [8, 32, 64, 299, 512])
def test_batched_resizing_is_pillows(size):
    """Noise, black and white edges and flat colours, below and above the network's input size."""
    random = np.random.default_rng(size)
    sets = [
        random.integers(0, 256, (2, size, size, 3)),
        255 * random.integers(0, 2, (2, size, size, 3)),
        np.full((1, size, size, 3), 255),
    ]
    batch = np.concatenate(sets).astype(np.uint8)
    ours, pillows = inception.resize_on_device(torch.from_numpy(batch)), inception.resized_by_pillow(batch, CPU)
    assert ours.shape == pillows.shape == (5, 299, 299, 3)
    assert ours.min() >= 0 and ours.max() <= 255
    assert (ours - pillows).abs().max() < 3e-5


def test_pillow_in_threads_is_pillow_alone_in_the_same_order(images):
    alone, together = np.full((2, len(images), 299, 299, 3), np.nan, np.float32)
    clean_fid.resize(images, alone)
    clean_fid.resize(images, together, threads=3)
    np.testing.assert_array_equal(together, alone)
    assert len(np.unique(alone.reshape(len(alone), -1), axis=0)) == len(images)  # so that an order shows


def test_bicubic_without_antialiasing_would_be_another_metric(images):
    """What the tolerance above would let through, if it were loose: PyTorch's other bicubic."""
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    plain = torch.nn.functional.interpolate(planes, size=(299, 299), mode="bicubic").permute(0, 2, 3, 1)
    assert (plain.clamp(0, 255) - inception.resized_by_pillow(images, CPU)).abs().max() > 1


def test_weights_are_prepared_once_and_say_which_network(real_data):
    facts = read_json(real_data / "data/weights/inception.json")
    assert facts == {"extractor": "inception", "layers_sha256": inception.LAYERS_SHA256}


def test_only_known_files_are_loaded(weights, tmp_path, monkeypatch):
    """A TorchScript file is a program: nothing is loaded before its digest is right."""
    changed = bytearray(weights.read_bytes())
    changed[len(changed) // 2] ^= 1
    (tmp_path / "changed.pt").write_bytes(changed)
    loaded = []
    monkeypatch.setattr(torch.jit, "load", lambda *arguments, **options: loaded.append(arguments))
    with pytest.raises(
        UserError, match=r"the file has SHA-256 [0-9a-f]{64}, but 7ff4a85c.* is declared; it is not loaded"
    ):
        inception.load(CPU, tmp_path / "changed.pt")
    assert not loaded
    with pytest.raises(UserError, match=r"none\.pt is missing; `snakemake --cores 1 "):
        inception.load(CPU, tmp_path / "none.pt")


def test_other_layers_are_refused_even_in_a_known_file(weights, monkeypatch):
    monkeypatch.setattr(inception, "LAYERS_SHA256", "0" * 64)
    with pytest.raises(UserError, match=f"feature layers have SHA-256 [0-9a-f]{{64}}, but {'0' * 64} is declared"):
        inception.load(CPU, weights)


def test_layers_are_found_where_clean_fids_file_has_them(weights, tmp_path, monkeypatch):
    """The canonical file has the layers at its top; its stand-in here has no class head."""
    path = tmp_path / "inception.pt"
    torch.jit.save(torch.jit.load(weights).net, path)
    digest = inception.sha256_of_file(path)
    monkeypatch.setitem(inception.FILES, digest, "stand-in")
    assert inception.layers_digest(inception.load(CPU, path)) == inception.LAYERS_SHA256


def test_wrong_weights_are_told_and_the_next_source_is_tried(weights, tmp_path, capsys):
    shutil.copy(weights, tmp_path / "right.pt")
    (tmp_path / "wrong.pt").write_bytes(b"wrong")
    sources = [{"kind": "file", "path": str(tmp_path / name)} for name in ("wrong.pt", "right.pt")]
    inception.prepare(sources, tmp_path / "made/inception.pt")
    assert (tmp_path / "made/inception.pt").read_bytes() == weights.read_bytes()
    told = capsys.readouterr().out
    assert "wrong.pt: the file has SHA-256" in told and "right.pt" in told
    with pytest.raises(
        UserError, match=r"(?s)Inception weights could not be had from any of its sources.*inception-2015"
    ):
        inception.prepare(sources[:1], tmp_path / "other/inception.pt")
    assert not (tmp_path / "other").exists()
