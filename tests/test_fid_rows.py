"""Rows: what they must hold, what marks them, and anybody's images measured like our own."""

import contextlib
import io
import re
import shutil
import zipfile
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from helpers import whole_outcome
from PIL import Image

from targetwise import cells
from targetwise.cells import rows
from targetwise.data import store
from targetwise.errors import UserError
from targetwise.files import read_json, sha256_of_array, sha256_of_file, write_json
from targetwise.metric import bounds, fid, measures, reference
from targetwise.metric.reference import Selection, load_reference
from targetwise.recipe import kinds
from targetwise.sampling import denoiser, stage

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
NAMES = ["frechet", "kid"]


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The digits and a reference of 300 of them, made once."""
    root = tmp_path_factory.mktemp("digits")
    store.prepare("digits", {"kind": "digits"}, root / "digits")
    reference.make(Selection("digits", "train", 300, "digits", "fast"), root / "reference.npz", root=root)
    return root


@pytest.fixture(scope="session")
def real_digits(digits):
    return store.load(digits / "digits", "test").images[:100]


@pytest.fixture(scope="session")
def whole_row(digits, real_digits):
    with contextlib.chdir(ROOT):
        return row_of(real_digits, digits)


@pytest.fixture
def row(whole_row):
    """The row of 100 real digits, free to be changed."""
    return dict(whole_row)


def row_of(images, digits, names=NAMES, **more):
    compared = load_reference(digits / "reference.npz")
    extractor = compared.extractor(CPU)
    options = {"what": "cell", "cell": CELL, "draw": 0, "sampler": "ddim-50", "model_sha256": "0" * 64, **more}
    return {
        **fid.measure(images, extractor, compared, extractor.features(images, CPU), names, **options),
        "key": "1" * 64,
    }


CELL = {"study": "s", "parameterization": "v", "scale": "tiny", "seed": 0}
#: What a metric.json holds that asks for the reference of these tests.
ASKED = {
    "protocol": 1,
    "dataset": "digits",
    "extractor": "digits",
    "names": ["frechet", "kid"],
    "implementation": "fast",
    "reference": {"protocol": 1, "split": "train", "first": 300},
}


def test_row_holds_its_number_and_every_digest(row, digits, real_digits, tmp_path):
    rows.write_row(tmp_path / "row.json", row)
    assert rows.read_row(tmp_path / "row.json") == row
    assert (
        row["n"] == 100 and row["reference_n"] == 300 and row["mode"] == "native" and row["implementation"] == "fast"
    )
    assert row["reference"] == "digits train, first 300"
    assert row["samples_sha256"] == sha256_of_array(real_digits)
    assert row["reference_sha256"] == sha256_of_array(store.load(digits / "digits", "train").images[:300])
    assert row["marks"] == []
    assert 0 < row["value"] < 40


def test_rows_kid_is_the_unbiased_estimate_between_samples_and_reference(digits):
    """Of two sets of one size below 1,000 every subset is the whole set: U-statistics within, all pairs across.

    In 32 dimensions the kernel is (x·y / 32 + 1)³, Bińkowski et al. 2018.
    """
    samples = store.load(digits / "digits", "test").images[:300]
    compared = load_reference(digits / "reference.npz")
    images = {"samples": samples, "reference": store.load(digits / "digits", "train").images[:300]}
    features = {name: compared.extractor(CPU).features(each, CPU).astype(float) for name, each in images.items()}

    def kernel(first, second):
        return (features[first] @ features[second].T / 32 + 1) ** 3

    within = [(kernel(name, name).sum() - kernel(name, name).trace()) / (300 * 299) for name in images]
    expected = sum(within) - 2 * kernel("samples", "reference").mean()
    assert row_of(samples, digits)["values"]["kid"] == pytest.approx(expected, rel=1e-6)


REQUIRED = [
    *(
        "n",
        "mode",
        "implementation",
        "draw",
        "metric",
        "value",
        "name",
        "values",
        "marks",
        "status",
        "sampler",
        "cell",
        "reference_n",
    ),
    *("key", "extractor_sha256", "reference_sha256", "samples_sha256", "model_sha256"),
]


@pytest.mark.parametrize("key", REQUIRED)
def test_row_without_what_makes_it_comparable_cannot_be_written(row, tmp_path, key):
    del row[key]
    with pytest.raises(UserError, match=f"not a whole row: .*'{key}' is a required property"):
        rows.write_row(tmp_path / "row.json", row)
    assert not (tmp_path / "row.json").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("key", None),
        ("mode", "legacy"),
        ("implementation", "other"),
        ("draw", None),
        ("extractor_sha256", "unknown"),
        ("reference_sha256", None),
        ("n", "many"),
        ("value", None),
        ("values", {}),
        ("values", {"frechet": None}),
        ("extra", 1),
    ],
)
def test_row_of_the_wrong_kind_cannot_be_written(row, tmp_path, key, value):
    with pytest.raises(UserError, match="not a whole row"):
        rows.write_row(tmp_path / "row.json", {**row, key: value})


def test_diverged_cell_has_a_row_without_a_number(digits, tmp_path):
    compared = load_reference(digits / "reference.npz")
    none = np.zeros((0, 8, 8, 1), dtype=np.uint8)
    options = {"what": "cell", "cell": CELL, "draw": 0, "sampler": "ddim-50", "model_sha256": "0" * 64}
    row = fid.measure(none, compared.extractor(CPU), compared, None, NAMES, reason="not finite", **options)
    row["key"] = "1" * 64
    rows.write_row(tmp_path / "row.json", row)
    assert (row["status"], row["value"], row["values"], row["n"]) == ("diverged", None, {}, 0)
    with pytest.raises(UserError, match="not a whole row"):
        rows.write_row(tmp_path / "row.json", {**row, "value": 3.0})
    with pytest.raises(UserError, match="not a whole row"):
        rows.write_row(tmp_path / "row.json", {**row, "values": {"frechet": 3.0}})


def test_samples_that_are_not_finite_give_a_diverged_row_and_no_number(digits, tmp_path, monkeypatch):
    """As uint8 they would look like images."""

    class Denoiser:
        image_shape, device, seed, classes, load = (1, 8, 8), CPU, 0, None, staticmethod(lambda *_, **__: None)
        variant, options = None, MappingProxyType({"precision": {"cpu": "fp32"}, "compile": {"cpu": False}})

    def denoise(network, noise, sampler, labels, **place):
        images = torch.zeros_like(noise)
        images[-1, 0, 3, 3] = float("nan")
        return images

    monkeypatch.setattr(stage, "Denoiser", lambda *arguments: Denoiser())
    monkeypatch.setattr(denoiser, "denoise", denoise)
    monkeypatch.setattr(denoiser, "Sampler", lambda variant, options: None)
    monkeypatch.setattr(stage, "evaluations", lambda variant, options: 50)
    (tmp_path / "model.safetensors").write_bytes(b"")
    digest = sha256_of_file(tmp_path / "model.safetensors")
    write_json(tmp_path / "training.json", whole_outcome(model_sha256=digest))
    specification = {
        "data": {"dataset": "digits"},
        "training": {"threads": 1, **Denoiser.options},
        "cell": CELL,
        "variant": {"target": "v", "diffusion": {"schedule": "linear"}},
        "network": {},
    }
    options = {"images": 70, "batch": 32, "seed": 0, "quantization": "round", "sampler": "ddim"}
    draw = tmp_path / "ddim-50/draw0.npz"
    stage.sample(specification, options, store.load(digits / "digits", "train"), tmp_path, 0, draw)
    row = fid.write_draw(specification, ASKED, draw, digits / "reference.npz", tmp_path / "row.json")
    assert (row["status"], row["value"], row["n"]) == ("diverged", None, 0)
    assert row["reason"] == "the sampled images are not finite"


@pytest.fixture
def own_metrics(tmp_path, monkeypatch):
    """A function that writes a metric's file and returns the row of 100 real digits that it gives."""
    shutil.copytree(ROOT / "workflow/metrics", tmp_path / "workflow/metrics")
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path / "workflow")

    def row(body, names, real_digits, digits):
        text = f"import numpy as np\n\n\ndef measure(features, reference):\n    return {body}\n"
        (tmp_path / "workflow/metrics/shift.py").write_text(text)
        return row_of(real_digits, digits, names=names)

    return row


SHIFT = '{"shift": np.linalg.norm(features.mean(0) - reference.mean)}'


def test_a_metric_of_ones_own_adds_its_number_and_changes_no_other(own_metrics, row, real_digits, digits, tmp_path):
    found = own_metrics(SHIFT, ["frechet", "kid", "shift"], real_digits, digits)
    rows.write_row(tmp_path / "row.json", found)
    compared = load_reference(digits / "reference.npz")
    off = compared.extractor(CPU).features(real_digits, CPU).mean(0) - compared.features.mean(0)
    assert found["values"].pop("shift") == pytest.approx(float((off.astype(float) ** 2).sum() ** 0.5), rel=1e-4)
    told = ("name", "metric", "value", "values")
    assert {key: found[key] for key in told} == {key: row[key] for key in told}
    assert list(row["values"]) == ["frechet", "kid"] and row["values"]["frechet"] == row["value"]


def test_the_first_metric_is_the_rows_value(own_metrics, real_digits, digits):
    found = own_metrics(SHIFT, ["shift", "frechet"], real_digits, digits)
    assert found["value"] == found["values"]["shift"] and "kid" not in found["values"]
    assert (found["name"], found["metric"]) == ("shift", "shift (digits features)")
    found = own_metrics(SHIFT, ["kid"], real_digits, digits)
    assert found["values"] == {"kid": found["value"]} and found["metric"] == "KID (digits features)"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"other": 1.0}', "measure returned no number named shift"),
        ('{"shift": float("nan")}', "measure returned nan as shift; it must return finite numbers"),
        ('{"shift": 1.0, "kid": 2.0}', "measure returned kid, which another metric measures"),
        ("1.0", "measure failed: .*not iterable"),
        ("1 / 0", "measure failed: .*division by zero"),
    ],
)
def test_a_metric_that_gives_no_number_of_its_own_is_named(own_metrics, real_digits, digits, body, words):
    with pytest.raises(UserError, match=rf"metrics/shift\.py: {words}") as caught:
        own_metrics(body, ["kid", "shift"], real_digits, digits)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("extractor", "title"), [("inception", "FID"), ("digits", "FD (digits features)")])
def test_the_frechet_distance_is_called_fid_in_inceptions_features_only(extractor, title):
    assert measures.title("frechet", extractor) == title


def test_marks_name_what_a_reader_must_know(digits, real_digits):
    assert row_of(real_digits[:31], digits)["marks"] == ["fewer than 32 samples: 31"]
    assert row_of(real_digits[:32], digits)["marks"] == []
    twice = np.concatenate([real_digits[:40], real_digits[:3]])
    assert row_of(twice, digits)["marks"] == ["3 of 43 images are copies of others"]
    itself = store.load(digits / "digits", "train").images[:300]
    row = row_of(itself, digits)
    assert row["marks"] == ["the images are the reference itself"]
    assert abs(row["value"]) < 1e-3


def test_small_reference_is_a_mark(digits, real_digits, tmp_path):
    reference.make(Selection("digits", "test", 20, "digits", "fast"), tmp_path / "small.npz", root=digits)
    compared = load_reference(tmp_path / "small.npz")
    assert fid.marks(real_digits, compared) == ["reference of fewer than 32 images: 20"]


def test_images_of_another_shape_are_refused(digits):
    other = np.zeros((40, 8, 8, 3), dtype=np.uint8)
    compared = load_reference(digits / "reference.npz")
    with pytest.raises(UserError, match=r"are 8×8×3, but those of the reference \(digits train, first 300\)"):
        fid.measure(other, compared.extractor(CPU), compared, np.zeros((40, 32)), NAMES, what="floor")


def test_features_by_another_implementation_are_refused(digits, real_digits):
    from targetwise.metric import extractors

    compared = load_reference(digits / "reference.npz")
    other = extractors.load("digits", CPU, "clean-fid")
    with pytest.raises(UserError, match=r"by fast, the samples' features with digits [0-9a-f]{12} by clean-fid"):
        fid.measure(real_digits, other, compared, other.features(real_digits, CPU), NAMES, what="floor")


def test_cell_is_not_measured_against_another_data_set(digits, tmp_path):
    specification = {"data": {"dataset": "cifar10"}, "training": {"threads": 1}, "cell": CELL}
    with pytest.raises(UserError, match="is digits train, first 300, but the cell was trained on cifar10"):
        fid.measure_draw(specification, tmp_path / "draw0.npz", load_reference(digits / "reference.npz"), NAMES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"implementation": "clean-fid"}, "implementation fast, but metric.json asks for clean-fid"),
        ({"extractor": "inception"}, "extractor digits, but metric.json asks for inception"),
        ({"dataset": "cifar10"}, "dataset digits, but metric.json asks for cifar10"),
        ({"reference": {"split": "test", "first": 300}}, "split train, but metric.json asks for test"),
        ({"reference": {"split": "train"}}, "first 300, but metric.json asks for None"),
    ],
)
def test_cell_is_not_measured_against_a_reference_that_was_not_asked_for(digits, tmp_path, change, words):
    with pytest.raises(UserError, match=f"reference.npz is a reference of {words}$"):
        fid.write_draw({}, {**ASKED, **change}, tmp_path / "0.npz", digits / "reference.npz", tmp_path / "row.json")


SPECIFICATION = {"cell": CELL, "training": {"threads": 1}}
SAMPLES = {
    "key": "c" * 64,
    "draw": 0,
    "status": "finished",
    "reason": None,
    "samples_sha256": "a" * 64,
    "model_sha256": "b" * 64,
}
COMPARED = {"images_sha256": "c" * 64, "extractor_sha256": "d" * 64}


@pytest.mark.parametrize(
    ("specification", "samples", "sampler", "options", "compared"),
    [
        ({"cell": {**CELL, "seed": 1}}, {}, "ddim-50", {}, {}),
        ({"training": {"threads": 2}}, {}, "ddim-50", {}, {}),
        *(({}, {name: "other"}, "ddim-50", {}, {}) for name in SAMPLES),
        ({}, {}, "ddim-100", {}, {}),
        *(({}, {}, "ddim-50", {name: ["kid"]}, {}) for name in ASKED),
        *(({}, {}, "ddim-50", {}, {name: "other"}) for name in COMPARED),
    ],
)
def test_everything_that_decides_a_row_is_in_its_key(specification, samples, sampler, options, compared):
    usual = cells.draw_key(SPECIFICATION, SAMPLES, "ddim-50", ASKED, COMPARED)
    changed = ({**SPECIFICATION, **specification}, {**SAMPLES, **samples}, sampler, {**ASKED, **options})
    assert cells.draw_key(*changed, {**COMPARED, **compared}) != usual


def test_a_metrics_file_is_in_the_key_of_the_rows_that_it_measures_and_of_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path)
    (tmp_path / "metrics").mkdir()
    for name in ("frechet", "kid", "own"):
        (tmp_path / f"metrics/{name}.py").write_text(name)
    usual = cells.draw_key(SPECIFICATION, SAMPLES, "ddim-50", ASKED, COMPARED)
    (tmp_path / "metrics/own.py").write_text("edited")
    assert cells.draw_key(SPECIFICATION, SAMPLES, "ddim-50", ASKED, COMPARED) == usual
    (tmp_path / "metrics/kid.py").write_text("edited")
    assert cells.draw_key(SPECIFICATION, SAMPLES, "ddim-50", ASKED, COMPARED) != usual


def test_where_and_when_files_were_made_is_in_no_key():
    usual = cells.draw_key(SPECIFICATION, SAMPLES, "ddim-50", ASKED, COMPARED)
    volatile = {"environment": {"machine": {"host": "other"}}, "seconds": 2.0, "file_sha256": "e" * 64}
    assert cells.draw_key(SPECIFICATION, {**SAMPLES, **volatile}, "ddim-50", ASKED, {**COMPARED, **volatile}) == usual


def test_floor_needs_enough_held_out_images(digits):
    held_out = store.load(digits / "digits", "test")
    compared = load_reference(digits / "reference.npz")
    row = bounds.floor(held_out, 100, compared, NAMES)
    assert (row["what"], row["n"], row["cell"]) == ("floor", 100, None)
    with pytest.raises(UserError, match=r"the test split has 512 images, fewer than sampling\.images, 513"):
        bounds.floor(held_out, 513, compared, NAMES)


# -- anybody's images


def png(array):
    file = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(file, "png")
    return file.getvalue()


def folder_of(images, path):
    path.mkdir()
    for index, image in enumerate(images):
        (path / f"{index:04}.png").write_bytes(png(image))
    return path


def zip_of(images, path):
    with zipfile.ZipFile(path, "w") as archive:
        for index, image in reversed(list(enumerate(images))):
            archive.writestr(f"samples/{index:04}.png", png(image))
        archive.writestr("samples/readme.txt", "mine")
    return path


def npz_of(images, path):
    np.savez(path, images)
    return path


@pytest.mark.parametrize(("write", "name"), [(npz_of, "own.npz"), (folder_of, "own"), (zip_of, "own.zip")])
def test_archive_folder_and_zip_give_the_row_of_the_same_images(write, name, row, digits, real_digits, tmp_path):
    found = fid.measure_file(write(real_digits, tmp_path / name), digits / "reference.npz", NAMES)
    rows.write_row(tmp_path / "row.json", found)
    told = ("value", "values", "n", "mode", "samples_sha256", "reference_sha256", "extractor_sha256", "marks")
    assert {key: found[key] for key in told} == {key: row[key] for key in told}
    assert found["what"] == "file" and found["file"] == str(tmp_path / name) and found["draw"] is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"arr_0": np.zeros((5, 8, 8, 1))}, "arr_0 is float64, but uint8 in 0 … 255 is needed"),
        ({"arr_0": np.full((5, 8, 8, 1), np.nan, np.float32)}, "arr_0 is float32, but uint8"),
        ({"arr_0": np.zeros((5, 1, 8, 8), np.uint8)}, r"shape \(5, 1, 8, 8\), but \(N, 8, 8, 1\) is needed"),
        ({"arr_0": np.zeros((5, 8, 8, 3), np.uint8)}, r"shape \(5, 8, 8, 3\), but \(N, 8, 8, 1\)"),
        ({"arr_0": np.zeros((5, 16, 16, 1), np.uint8)}, r"shape \(5, 16, 16, 1\)"),
        ({"arr_0": np.zeros((1, 8, 8, 1), np.uint8)}, "holds 1 image; a distance needs at least two"),
        ({"arr_0": np.zeros((0, 8, 8, 1), np.uint8)}, "holds 0 images"),
        ({"images": np.zeros((5, 8, 8, 1), np.uint8)}, r"has no arr_0 \(it has: images\)"),
        ({"arr_0": np.array([{}] * 3)}, "arr_0 is object, but uint8"),
    ],
)
def test_wrong_archives_are_told_and_give_no_number(content, message, digits, tmp_path):
    np.savez(tmp_path / "own.npz", **content)
    with pytest.raises(UserError, match=message):
        fid.measure_file(tmp_path / "own.npz", digits / "reference.npz", NAMES)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (8, 8)), r"bad.png is colour \(mode RGB\), but grey \(mode L\) is needed"),
        (Image.new("LA", (8, 8)), r"bad.png is grey with alpha \(mode LA\)"),
        (Image.new("L", (9, 8)), r"bad.png is 9×8, but the reference's images are 8×8"),
    ],
)
def test_wrong_png_is_named(image, message, digits, real_digits, tmp_path):
    folder = folder_of(real_digits[:5], tmp_path / "own")
    image.save(folder / "bad.png")
    with pytest.raises(UserError, match=message):
        fid.measure_file(folder, digits / "reference.npz", NAMES)


def test_unreadable_sets_are_told(digits, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "broken.npz").write_bytes(b"PK\3\4 hello")
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.txt", "mine")
    for name, message in {
        "nowhere": "nowhere does not exist",
        "empty": "empty holds no image (.png)",
        "text.txt": "text.txt is not an .npz archive, a .zip of PNG files or a folder of PNG files",
        "broken.npz": "broken.npz is damaged or not an .npz archive",
        "none.zip": "none.zip holds no .png file",
    }.items():
        with pytest.raises(UserError, match=re.escape(message)):
            fid.measure_file(tmp_path / name, digits / "reference.npz", NAMES)


def test_damaged_and_missing_references_are_told(digits, tmp_path):
    with pytest.raises(UserError, match=r"none\.json does not exist"):
        load_reference(tmp_path / "none.npz")
    for name in ("reference.npz", "reference.json"):
        (tmp_path / name).write_bytes((digits / name).read_bytes())
    facts = read_json(tmp_path / "reference.json")
    write_json(tmp_path / "reference.json", {**facts, "extractor_sha256": "1" * 64})
    with pytest.raises(UserError, match=r"its weights are now [0-9a-f]{12}; delete the reference"):
        load_reference(tmp_path / "reference.npz").extractor(CPU)
    (tmp_path / "reference.npz").write_bytes(Path(digits / "reference.npz").read_bytes()[:-1])
    with pytest.raises(UserError, match="missing or damaged; delete it and run again"):
        load_reference(tmp_path / "reference.npz")
