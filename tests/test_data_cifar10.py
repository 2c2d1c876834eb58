"""CIFAR-10: every copy gives the same bytes, and nothing else is taken for it."""

import io
import json
import os
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from targetwise.data import cifar10, store
from targetwise.errors import UserError
from targetwise.files import read_json, sha256_of_file

BATCHES = [*((name, "train", 10_000 * index) for index, name in enumerate(cifar10.TRAIN)), ("test_batch", "test", 0)]


@pytest.fixture(scope="module")
def arrays(real_data):
    with np.load(real_data / "data/cifar10/dataset.npz") as archive:
        return dict(archive)


def rows(arrays, split, first):
    """Return a batch as the canonical files hold it: (10,000, 3,072), the planes one after another, and labels."""
    images = arrays[split][first : first + 10_000]
    return images.transpose(0, 3, 1, 2).reshape(10_000, 3072), arrays[f"{split}_labels"][first : first + 10_000]


def python_version(arrays):
    for name, split, first in BATCHES:
        planes, labels = rows(arrays, split, first)
        content = {b"batch_label": b"a batch", b"data": np.ascontiguousarray(planes), b"labels": labels.tolist()}
        # The canonical files were written by numpy 1, which calls the module by its old name.
        yield f"cifar-10-batches-py/{name}", pickle.dumps(content, 2).replace(b"numpy._core", b"numpy.core")


def binary_version(arrays):
    for name, split, first in BATCHES:
        planes, labels = rows(arrays, split, first)
        yield f"cifar-10-batches-bin/{name}.bin", np.hstack([labels[:, None].astype(np.uint8), planes]).tobytes()


def npm_version(arrays):
    for name, split, first in BATCHES:
        file = io.BytesIO()
        Image.fromarray(arrays[split][first : first + 10_000].reshape(10_000, 1024, 3)).save(
            file, "png", compress_level=0
        )
        yield f"package/{name}.png", file.getvalue()
    for split in ("train", "test"):
        yield f"package/{split}_lables.json", json.dumps(arrays[f"{split}_labels"].tolist()).encode()


def archive(path, members):
    with tarfile.open(path, "w") as file:
        for name, content in [*members, ("package/README", b"not a batch")]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def test_it_is_cifar10(arrays):
    """Facts of the data set's paper and page, and what everybody knows of its first images."""
    assert arrays["train"].shape == (50_000, 32, 32, 3) and arrays["test"].shape == (10_000, 32, 32, 3)
    assert np.bincount(arrays["train_labels"]).tolist() == [5000] * 10
    assert np.bincount(arrays["test_labels"]).tolist() == [1000] * 10
    assert arrays["train_labels"][:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert arrays["test_labels"][:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    means = arrays["train"].mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.49140, 0.48216, 0.44653], atol=1e-5)


@pytest.mark.parametrize(
    "version", [python_version, binary_version, npm_version], ids=lambda version: version.__name__
)
def test_every_version_gives_the_same_bytes_of_the_data_set(version, arrays, real_data, tmp_path):
    path = archive(tmp_path / "copy.tar", version(arrays))
    store.prepare("cifar10", {"kind": "cifar10", "sources": [{"kind": "file", "path": str(path)}]}, tmp_path / "made")
    assert sha256_of_file(tmp_path / "made/dataset.npz") == sha256_of_file(real_data / "data/cifar10/dataset.npz")
    assert read_json(tmp_path / "made/manifest.json") == read_json(real_data / "data/cifar10/manifest.json")


def test_folder_of_unpacked_members_and_our_own_archive_do_as_well(arrays, real_data, tmp_path):
    for name, content in binary_version(arrays):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for path in (tmp_path, real_data / "data/cifar10/dataset.npz"):
        again = cifar10.read(path)
        assert all(np.array_equal(again[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize("what", ["train", "test", "train_labels", "test_labels"])
def test_one_wrong_value_is_refused_with_both_digests(what, arrays, tmp_path):
    wrong = {**arrays, what: arrays[what].copy()}
    wrong[what][7] ^= 1
    np.savez(tmp_path / "copy.npz", **wrong)
    with pytest.raises(UserError, match=f"have SHA-256 [0-9a-f]{{64}}, but {cifar10.DIGESTS[what]} is declared"):
        cifar10.read(tmp_path / "copy.npz")


def test_images_in_another_order_are_refused(arrays, tmp_path):
    """The reference of a subset, and the batches of a seed, depend on the order."""
    order = np.random.default_rng(0).permutation(50_000)
    np.savez(tmp_path / "copy.npz", **{**arrays, "train": arrays["train"][order]})
    with pytest.raises(UserError, match="the train images have SHA-256"):
        cifar10.read(tmp_path / "copy.npz")


def test_pickle_that_asks_for_more_than_arrays_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    path = archive(tmp_path / "copy.tar", [("data_batch_1", pickle.dumps(Evil()))])
    with pytest.raises(UserError, match=r"asks to load posix\.mkdir, which is not part of CIFAR-10; it is not run"):
        cifar10.read(path)
    assert not (tmp_path / "harm").exists()


def test_truncated_and_foreign_files_are_told(tmp_path):
    path = archive(tmp_path / "copy.tar", [("data_batch_1.bin", b"short")])
    with pytest.raises(UserError, match=r"copy.tar cannot be read as CIFAR-10 \(ValueError"):
        cifar10.read(path)
    (tmp_path / "half.tar").write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match=r"half.tar cannot be read as CIFAR-10 \(ReadError"):
        cifar10.read(tmp_path / "half.tar")
    with pytest.raises(UserError, match=r"foreign\.tar has none of the members data_batch_1, "):
        cifar10.read(archive(tmp_path / "foreign.tar", []))


def test_wrong_source_is_told_and_the_next_is_tried(arrays, real_data, tmp_path, capsys):
    np.savez(tmp_path / "wrong.npz", **{**arrays, "train": arrays["train"][::-1]})
    shutil.copy(real_data / "data/cifar10/dataset.npz", tmp_path / "right.npz")
    sources = [{"kind": "file", "path": str(tmp_path / f"{name}.npz")} for name in ("wrong", "right")]
    store.prepare("cifar10", {"kind": "cifar10", "sources": sources}, tmp_path / "made")
    told = capsys.readouterr().out
    assert f"not from file {tmp_path}/wrong.npz: the train images have SHA-256" in told
    assert cifar10.DIGESTS["train"] in told and f"accepted from file {tmp_path}/right.npz" in told
    with pytest.raises(UserError, match=r"(?s)could not be had from any of its sources.*cifar-10-python.tar.gz"):
        store.prepare("cifar10", {"kind": "cifar10", "sources": sources[:1]}, tmp_path / "other")
    assert not (tmp_path / "other").exists()
