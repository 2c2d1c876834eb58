"""What rows say of how sure their numbers are, on the digits."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from targetwise.cells import rows
from targetwise.data import store
from targetwise.errors import UserError
from targetwise.files import read_json
from targetwise.metric import fid, reference
from targetwise.metric.contributions import paired_error
from targetwise.metric.distance import frechet_distance, moments
from targetwise.metric.influence import frechet_contributions
from targetwise.metric.reference import Selection, load_reference
from targetwise.recipe import kinds

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
NAMES = ["frechet", "kid"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The digits' training images, as a reference."""
    root = tmp_path_factory.mktemp("digits")
    store.prepare("digits", {"kind": "digits"}, root / "digits")
    with contextlib.chdir(ROOT):
        reference.make(Selection("digits", "train", None, "digits", "fast"), root / "reference.npz", root=root)
    return load_reference(root / "reference.npz")


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    root = tmp_path_factory.mktemp("held-out")
    store.prepare("digits", {"kind": "digits"}, root / "digits")
    return store.load(root / "digits", "test").images


def row_of(images, compared, names=NAMES):
    with contextlib.chdir(ROOT):
        extractor = compared.extractor(CPU)
    features = extractor.features(images, CPU)
    return fid.measure(images, extractor, compared, features, names, what="file", file="mine.npz")


@pytest.fixture(scope="module")
def row(compared, held_out):
    return row_of(held_out, compared)


def test_a_row_holds_the_error_of_each_number_and_what_pairing_needs(row, tmp_path):
    rows.write_row(tmp_path / "row.json", row)
    kept = rows.read_row(tmp_path / "row.json")
    assert kept == row
    assert set(row["errors"]) == set(row["contributions"]) == set(NAMES) and row["without_error"] == {}
    assert all(0 < row["errors"][name] < 0.5 for name in NAMES)
    longest = {name: max(len(part["values"]) for part in row["contributions"][name]["parts"]) for name in NAMES}
    assert longest == {"frechet": 51, "kid": 50}
    assert paired_error(kept["contributions"]["frechet"], row["contributions"]["frechet"]) == 0


def test_the_error_is_the_spread_over_draws_from_real_features(compared):
    """Draws from half of the digits' features, with replacement, against the other half."""
    random = np.random.default_rng(0)
    features = random.permutation(compared.features)
    pool, other = np.array_split(features, 2)
    against = moments(other)
    sets = [pool[random.integers(len(pool), size=384)] for _ in range(300)]
    values = [frechet_distance(*moments(each), *against) for each in sets]
    squares = [frechet_contributions(each, *against).error() ** 2 for each in sets]
    assert np.sqrt(np.mean(squares)) == pytest.approx(np.std(values, ddof=1), rel=0.12)


def test_a_row_of_too_few_samples_says_why_it_has_no_error(compared, held_out, tmp_path):
    row = row_of(held_out[:65], compared)
    rows.write_row(tmp_path / "row.json", row)
    assert row["errors"] == row["contributions"] == {} and row["marks"] == []
    assert row["without_error"] == {
        "frechet": "65 samples are fewer than 66, twice the features and two",
        "kid": "65 samples are fewer than 200",
    }
    assert set(row_of(held_out[:66], compared)["errors"]) == {"frechet"}


def test_a_row_from_before_there_were_errors_stays_readable(row, tmp_path):
    old = {name: each for name, each in row.items() if name not in ("errors", "contributions", "without_error")}
    rows.write_row(tmp_path / "row.json", old)
    assert rows.read_row(tmp_path / "row.json") == old


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("errors", {"frechet": -1.0}),
        ("errors", {"frechet": None}),
        ("without_error", {"frechet": ""}),
        ("contributions", {"frechet": [1.0, 2.0]}),
        ("contributions", {"frechet": {"method": "m", "order": "0" * 64, "least": 0, "most": None, "parts": []}}),
    ],
)
def test_a_row_with_errors_of_the_wrong_kind_cannot_be_written(row, key, value, tmp_path):
    with pytest.raises(UserError, match="not a whole row"):
        rows.write_row(tmp_path / "row.json", {**row, key: value})


def test_a_diverged_cell_has_no_errors(compared):
    none = np.zeros((0, 8, 8, 1), dtype=np.uint8)
    with contextlib.chdir(ROOT):
        row = fid.measure(none, compared.extractor(CPU), compared, None, NAMES, what="file", reason="not finite")
    assert not {"errors", "contributions", "without_error"} & row.keys()


@pytest.fixture
def own_error(tmp_path, monkeypatch, compared, held_out):
    """A function that writes the files of a metric `shift` and of its error, and returns the row of the digits."""
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path / "workflow")

    def row(body):
        measure = (
            "def measure(features, reference):\n    return {'shift': features[:, 0].mean() - reference.mean[0]}\n"
        )
        (tmp_path / "workflow/metrics/shift.py").write_text(measure)
        if body:
            (tmp_path / "workflow/errors/shift.py").write_text(body)
        return row_of(held_out, compared, ["shift"])

    return row


OWN = """
from targetwise.metric.contributions import Contributions, Part, shuffled


def contributions(features, reference):
    order, digest = shuffled(len(features))
    return Contributions("mean", digest, (Part(1.0, features[order, 0]),))
"""


def test_a_metric_of_ones_own_may_tell_its_error(own_error, compared, held_out):
    assert own_error("")["errors"] == {}
    row = own_error(OWN)
    features = compared.extractor(CPU).features(held_out, CPU)[:, 0].astype(float)
    assert row["errors"]["shift"] == pytest.approx(features.std(ddof=1) / len(features) ** 0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def contributions(features, reference):\n    return 1 / 0", "contributions failed: .*division by zero"),
        ("def contributions(features, reference):\n    return [1.0, 2.0]", r"must return Contributions .*\[1\.0, 2"),
        ("def other(features, reference):\n    return 1", "must define contributions"),
        (
            OWN.replace("features[order, 0]", "features[order, 0] * float('nan')"),
            "must return Contributions of finite",
        ),
    ],
)
def test_a_file_that_gives_no_error_is_named(own_error, body, words):
    with pytest.raises(UserError, match=rf"errors/shift\.py:? (contributions )?{words}") as caught:
        own_error(body)
    assert len(str(caught.value).splitlines()) == 1


def test_the_benchmark_compares_predicted_and_observed_and_goes_on_where_it_was(compared, tmp_path, monkeypatch):
    import error_table
    import fid_error

    monkeypatch.chdir(tmp_path)
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    store.prepare("digits", {"kind": "digits"}, Path("data/digits"))
    path = Path("data/digits/reference/digits-fast-train.npz")
    reference.make(Selection("digits", "train", None, "digits", "fast"), path)
    command = ["fid_error.py", str(path), "--sizes", "128,512", "--replicates", "60", "--predictions", "20"]
    monkeypatch.setattr("sys.argv", [*command, "--device", "cpu"])
    fid_error.main()
    record = read_json(fid_error.RECORDS / "digits-digits-fast-train.json")
    entries = {(entry["population"], entry["n"]): entry for entry in record["entries"]}
    far = entries["7 of its 10 classes", 512]
    assert far["predicted"] == pytest.approx(far["observed"], rel=0.3)
    assert set(entries) == {
        *(("the reference itself", n) for n in (128, 512)),
        *(("7 of its 10 classes", n) for n in (128, 512)),
        *(("disjoint", n) for n in (128, 512)),
        ("disjoint, 7 of its 10 classes", 128),
    }
    apart = next(fid_error.trials(reference.load_reference(path), [128], CPU))
    cut = np.concatenate([apart.sets(apart.of_a_cut + number) for number in range(apart.of_a_cut)])
    assert len(cut) == 8 * 128 == len(np.unique(cut, axis=0)), (
        "four fifths of 1,285 hold eight sets, which share nothing"
    )
    target = fid_error.Target(compared.features, CPU)
    half = compared.features[:600]
    assert target.distance(half) == pytest.approx(frechet_distance(*moments(half), *moments(compared.features)))
    fid_error.main()
    assert read_json(fid_error.RECORDS / "digits-digits-fast-train.json") == record
    text = error_table.page((ROOT / "docs/errors.md").read_text(), [record])
    assert f"| {far['value']:.3g} | 60 |" in text and f"**{far['predicted'] / far['observed']:.2f}**" in text
