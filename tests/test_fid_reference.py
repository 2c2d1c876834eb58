"""References: made in parts, resumed, shared by processes and machines, and always the same."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from targetwise import cells
from targetwise.data import store
from targetwise.errors import UserError
from targetwise.files import read_json, sha256_of_array, sha256_of_file, write_json
from targetwise.metric import extractors, inception, reference
from targetwise.metric.distance import moments
from targetwise.metric.extractors import Extractor
from targetwise.metric.reference import CHUNK, Selection
from targetwise.provenance import environment

WHOLE = Selection("digits", "train", None, "digits", "fast")
PARTS = -(-1285 // CHUNK)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    store.prepare("digits", {"kind": "digits"}, folder / "digits")
    return folder


@pytest.fixture(scope="module")
def expected(root):
    reference.make(WHOLE, root / "expected.npz", root=root)
    return reference.load_reference(root / "expected.npz")


@pytest.fixture
def counted(monkeypatch):
    """How many images were put through the network."""
    counts = []
    honest = Extractor.features

    def features(self, images, *arguments):
        counts.append(len(images))
        return honest(self, images, *arguments)

    monkeypatch.setattr(Extractor, "features", features)
    return counts


@pytest.mark.parametrize(
    ("content", "lacks"), [("{}", "dataset"), ("[]", "anything"), ('{"dataset": "x"}', "extractor")]
)
def test_facts_that_lack_something_are_one_line(tmp_path, content, lacks):
    (tmp_path / "mine.npz").touch()
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(UserError, match=rf"mine.json is damaged: it does not say {lacks}; "):
        reference.load_reference(tmp_path / "mine.npz")


def test_reference_is_features_and_their_moments(expected, root):
    images = store.load(root / "digits", "train")
    features = expected.extractor(reference.choose(1)).features(images.images, reference.choose(1))
    np.testing.assert_allclose(expected.features, features, rtol=1e-5, atol=1e-5)
    mean, covariance = moments(expected.features)
    np.testing.assert_array_equal(expected.mean, mean)
    np.testing.assert_array_equal(expected.covariance, covariance)
    facts = expected.facts
    assert (facts["n"], facts["first"], facts["image_shape"]) == (1285, None, [8, 8, 1])
    assert facts["images_sha256"] == images.digest and facts["file_sha256"] == sha256_of_file(root / "expected.npz")
    assert facts["environment"] == json.loads(json.dumps(environment()))
    assert not (root / "state").exists()


def test_reference_of_another_protocol_is_refused_and_made_again(expected, root, tmp_path, monkeypatch):
    reference.make(WHOLE, tmp_path / "made.npz", root=root)
    before = read_json(tmp_path / "made.json")
    assert before["protocol"] == cells.PROTOCOL["reference"] and reference.is_current(
        WHOLE, tmp_path / "made.npz", root
    )
    for facts in ({**before, "protocol": 0}, {name: before[name] for name in before if name != "protocol"}):
        write_json(tmp_path / "made.json", facts)
        words = r"made\.npz was made by protocol (0|unknown), but \d+ is in force; delete it and run again$"
        with pytest.raises(UserError, match=words):
            reference.load_reference(tmp_path / "made.npz")
    write_json(tmp_path / "made.json", before)
    monkeypatch.setitem(cells.PROTOCOL, "reference", before["protocol"] + 1)
    assert not reference.is_current(WHOLE, tmp_path / "made.npz", root)
    with pytest.raises(UserError, match="is in force"):
        reference.load_reference(tmp_path / "made.npz")
    reference.make(WHOLE, tmp_path / "made.npz", root=root)
    assert reference.is_current(WHOLE, tmp_path / "made.npz", root)
    np.testing.assert_array_equal(reference.load_reference(tmp_path / "made.npz").features, expected.features)


def test_reference_of_other_images_or_weights_is_not_current(expected, root, monkeypatch):
    path = root / "expected.npz"
    assert reference.is_current(WHOLE, path, root)
    assert not reference.is_current(dataclasses.replace(WHOLE, first=300), path, root)
    assert not reference.is_current(WHOLE, root / "none.npz", root)
    with monkeypatch.context() as patch:
        patch.setitem(extractors.DIGESTS, "digits", "0" * 64)
        assert not reference.is_current(WHOLE, path, root)


def test_extractors_have_the_digests_that_they_are_listed_with():
    assert extractors.DIGESTS["digits"] == extractors.load("digits", reference.choose(1), "fast").digest
    assert extractors.DIGESTS["inception"] == inception.LAYERS_SHA256
    assert extractors.DIGESTS["pixels"] == hashlib.sha256(b"").hexdigest() and len(extractors.DIGESTS) == 3


def test_killed_run_goes_on_and_ends_with_the_same_bytes(expected, root, tmp_path, monkeypatch, counted):
    honest = reference.Parts.write

    def killed(self, name, features):
        if name == "00002":
            raise KeyboardInterrupt
        honest(self, name, features)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reference.Parts, "write", killed)
        reference.make(WHOLE, tmp_path / "made.npz", root=root)
    assert not (tmp_path / "made.npz").exists() and len(list((tmp_path / "state/made").glob("*.npz"))) == 2
    counted.clear()
    assert reference.make(WHOLE, tmp_path / "made.npz", root=root)
    assert sum(counted) == 1285 - 2 * CHUNK
    assert sha256_of_file(tmp_path / "made.npz") == sha256_of_file(root / "expected.npz")


def test_shards_of_several_machines_make_it_together(expected, root, tmp_path, counted):
    for shard in range(3):
        assert not reference.make(WHOLE, tmp_path / "made.npz", shard=(shard, 3), root=root)
        assert not (tmp_path / "made.npz").exists()
    counted.clear()
    assert reference.make(WHOLE, tmp_path / "made.npz", root=root)
    assert counted == []
    assert sha256_of_file(tmp_path / "made.npz") == sha256_of_file(root / "expected.npz")


def test_processes_of_one_machine_make_the_same(expected, root, tmp_path):
    reference.make(WHOLE, tmp_path / "made.npz", processes=2, root=root)
    assert sha256_of_file(tmp_path / "made.npz") == sha256_of_file(root / "expected.npz")


def test_parts_of_another_selection_are_not_used(expected, root, tmp_path):
    reference.make(
        Selection("digits", "test", None, "digits", "fast"), tmp_path / "made.npz", shard=(0, 1), root=root
    )
    assert list((tmp_path / "state/made").glob("*.npz"))
    reference.make(WHOLE, tmp_path / "made.npz", root=root)
    assert sha256_of_file(tmp_path / "made.npz") == sha256_of_file(root / "expected.npz")


def test_damaged_part_is_made_again_and_no_other(expected, root, tmp_path, counted):
    reference.make(WHOLE, tmp_path / "made.npz", shard=(0, 1), root=root)
    part = tmp_path / "state/made/00001.npz"
    part.write_bytes(part.read_bytes()[:-500])
    counted.clear()
    assert reference.make(WHOLE, tmp_path / "made.npz", root=root)
    assert counted == [CHUNK]
    assert sha256_of_file(tmp_path / "made.npz") == sha256_of_file(root / "expected.npz")


def test_subset_is_part_of_name_digest_and_facts(expected, root, tmp_path, study):
    study["metric"]["reference"] = {"split": "train", "first": 300}
    assert cells.reference_name(study) == "digits-fast-train-first300"
    del study["metric"]["reference"]["first"]
    assert cells.reference_name(study) == "digits-fast-train"
    reference.make(Selection("digits", "train", 300, "digits", "fast"), tmp_path / "made.npz", root=root)
    facts = read_json(tmp_path / "made.json")
    assert (facts["first"], facts["n"]) == (300, 300)
    assert facts["images_sha256"] == sha256_of_array(store.load(root / "digits", "train").images[:300])
    assert facts["images_sha256"] != expected.facts["images_sha256"]
    with pytest.raises(UserError, match=r"metric\.reference\.first is 2000, but the split has 1285 images"):
        reference.make(Selection("digits", "train", 2000, "digits", "fast"), tmp_path / "big.npz", root=root)
