"""The files of workflow/metrics: what all promise, MIND's closed forms, classes, and what a study may ask for."""

import contextlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from targetwise.data import store
from targetwise.errors import UserError
from targetwise.files import sha256_of_array
from targetwise.metric import classes, measures, reference
from targetwise.metric.distance import frechet_distance, moments
from targetwise.metric.reference import Reference, Selection, load_reference
from targetwise.recipe import config, kinds, metrics

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "workflow/metrics").glob("*.py"))
NAMES = [path.stem for path in FILES]


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The reference of all training digits, and the features of the test digits with their labels."""
    root = tmp_path_factory.mktemp("digits")
    with contextlib.chdir(ROOT):
        store.prepare("digits", {"kind": "digits"}, root / "digits")
        reference.make(Selection("digits", "train", None, "digits", "fast"), root / "reference.npz", root=root)
        compared = load_reference(root / "reference.npz")
        test = store.load(root / "digits", "test")
        cpu = torch.device("cpu")
        return root, compared, compared.extractor(cpu).features(test.images, cpu), test.labels


@pytest.fixture(autouse=True)
def own_data(digits, monkeypatch):
    monkeypatch.setattr(store, "ROOT", digits[0])


def measured(name, features, compared):
    return {key: float(value) for key, value in kinds.load("metrics", name)["measure"](features, compared).items()}


def samples(digits, features=None, images=None):
    """The test digits as metrics take them, or others in their place."""
    root, compared, real, _ = digits
    images = store.load(root / "digits", "test").images if images is None else images
    return measures.Samples(real if features is None else features, images, compared)


def like(features):
    """A reference by the fast implementation that has no images behind it."""
    facts = {"implementation": "fast", "split": "train", "first": None}
    return Reference(facts, features, *moments(features)[:1], np.atleast_2d(moments(features)[1]))


# --- what every metric promises


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_says_its_source_and_its_range(path):
    docstring = re.match(r'"""(.*?)"""', path.read_text(), re.DOTALL)[1]
    assert docstring.startswith(f"{path.stem}: ")
    assert "arXiv:" in docstring or "targetwise.metric.classes" in docstring
    if path.stem not in ("frechet", "frechet_infinity", "kid"):  # unbiased, or nearly: they may come out below 0
        assert re.search(r"From (0|1/classes)( to 1)?[ ,]", " ".join(docstring.split())), "its range"
        word = {"lower": "lower is better", "higher": "higher is better", "neither": "neither end is good"}
        assert word[metrics.better(path.stem)] in " ".join(docstring.split())


@pytest.mark.parametrize("name", NAMES)
def test_real_images_are_better_than_noise_in_the_direction_that_the_file_says(digits, name):
    _, compared, real, _ = digits
    random = np.random.default_rng(0)
    noise = (compared.mean + 6 + random.standard_normal(real.shape)).astype(np.float32)
    noisy = random.integers(0, 256, (len(real), 8, 8, 1), dtype=np.uint8)
    values = [measures.values(each, [name])[name] for each in (samples(digits), samples(digits, noise, noisy))]
    direction = metrics.better(name)
    assert values[0] != values[1]
    assert direction == "neither" or (values[0] < values[1]) == (direction == "lower")


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_samples_is_nothing(digits, name):
    found = samples(digits)
    order = np.random.default_rng(1).permutation(len(found.images))
    shuffled = samples(digits, found.features[order], found.images[order])
    assert measures.values(shuffled, [name]) == pytest.approx(measures.values(found, [name]), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["precision", "recall", "density", "coverage", "copying"])
def test_neighbours_stay_what_they_are_when_features_are_moved_turned_and_scaled(name):
    random = np.random.default_rng(2)
    features, real = random.standard_normal((150, 12)), random.standard_normal((200, 12)) * 1.1
    rotation, _ = np.linalg.qr(random.standard_normal((12, 12)))
    moved = [7 * (each @ rotation) + 1e5 for each in (features, real)]
    assert measured(name, moved[0], like(moved[1])) == measured(name, features, like(real))


def test_all_metrics_together_make_one_row(digits):
    found = measures.values(samples(digits), ["frechet", *(name for name in NAMES if name != "frechet")])
    assert set(found) == {*NAMES, "authenticity"}


@pytest.mark.parametrize(
    ("name", "extractor", "title"),
    [
        ("recall", "inception", "recall ↑"),
        ("density", "digits", "density (digits features) ↑"),
        ("mind", "inception", "MIND"),
        ("copying", "digits", "copying (digits features)"),
        ("saturation", "digits", "saturation over real"),
    ],
)
def test_a_title_says_where_higher_is_better(name, extractor, title):
    assert measures.title(name, extractor) == title


# --- FD∞


@pytest.mark.parametrize("apart", [0.0, 3.0])
def test_the_distance_of_infinitely_many_samples_is_near_the_true_one(apart):
    """‖δ‖² for normal samples and a reference whose moments are known; n samples add D/n + D(D + 1)/4n to it."""
    dimensions, n, sets = 16, 400, 40
    compared = Reference({}, np.zeros((2, dimensions)), np.zeros(dimensions), np.eye(dimensions))
    shift = np.zeros(dimensions)
    shift[0] = apart
    random = np.random.default_rng(8)
    samples = [random.standard_normal((n, dimensions)) + shift for _ in range(sets)]
    found = [measured("frechet_infinity", each, compared)["frechet_infinity"] for each in samples]
    plain = [frechet_distance(*moments(each), compared.mean, compared.covariance) for each in samples]
    assert np.mean(found) == pytest.approx(apart**2, abs=4 * np.std(found) / np.sqrt(sets) + 0.02)
    # E‖μ̂ − μ‖² = D/n, and to second order E tr(C + I − 2C^½) = E tr(C − I)²/4.
    bias = dimensions / n + dimensions * (dimensions + 1) / 4 / n
    noise = 4 * np.std(np.subtract(plain, found)) / np.sqrt(sets)
    assert np.mean(plain) - np.mean(found) == pytest.approx(bias, abs=noise + 0.1 * bias)


# --- MIND


def test_mind_of_uniform_samples_in_one_dimension_is_the_closed_form():
    """Order statistics of U(0, 1): E[W₂²] of two samples of n is (2/n)·Σ_j Var(u_(j)) = 1/(3(n + 1)), times 3D."""
    random, n = np.random.default_rng(3), 20
    found = [measured("mind", random.random((n, 1)), like(random.random((n, 1))))["mind"] for _ in range(400)]
    assert np.mean(found) == pytest.approx(1 / (n + 1), abs=4 * np.std(found) / 20)


def test_mind_of_a_shift_and_of_a_scale_are_their_closed_forms():
    """W₂² of uᵀx is (uᵀδ)² from uᵀ(x + δ), (s − 1)²·E[(uᵀx)²] from s·uᵀx; E[uuᵀ] = 1/D: 3‖δ‖², 3(s − 1)²·E‖x‖²."""
    random = np.random.default_rng(4)
    x, shift = random.standard_normal((300, 30)), random.standard_normal(30)
    assert measured("mind", x + shift, like(x))["mind"] == pytest.approx(3 * shift @ shift, rel=0.1)
    assert measured("mind", x + 2 * shift, like(x))["mind"] == pytest.approx(
        4 * measured("mind", x + shift, like(x))["mind"]
    )
    assert measured("mind", 1.5 * x, like(x))["mind"] == pytest.approx(0.75 * (x**2).sum(1).mean(), rel=0.1)
    assert measured("mind", x[::-1], like(x))["mind"] == 0


@pytest.mark.parametrize(("n", "m"), [(6, 6), (4, 6), (7, 3), (1, 5)])
def test_mind_of_two_sizes_is_that_of_as_many_copies_of_each(n, m):
    random = np.random.default_rng(n)
    x, y = random.standard_normal((n, 5)), random.standard_normal((m, 5)) + 1
    found = measured("mind", x, Reference({}, y, y.mean(0), np.eye(5)))["mind"]
    many_x, many_y = np.repeat(x, m, axis=0), np.repeat(y, n, axis=0)
    directions = np.random.RandomState(0).standard_normal((1000, 5))
    expected = np.mean(
        [
            15 * np.mean((np.sort(many_x @ u) - np.sort(many_y @ u)) ** 2)
            for u in directions / np.sqrt((directions**2).sum(1))[:, None]
        ]
    )
    assert found == pytest.approx(expected, rel=1e-9)


def test_minds_floor_is_what_its_file_says():
    said = re.search(r"(0\.0063) for n = (1,000)", (ROOT / "workflow/metrics/mind.py").read_text())
    scales = np.linspace(0.1, 2, 40)
    random = np.random.default_rng(5)
    x, y = (random.standard_normal((1000, 40)) * scales for _ in range(2))
    assert measured("mind", x, like(y))["mind"] == pytest.approx(3 * (scales**2).sum() * float(said[1]), rel=0.1)


# --- classes


def test_the_classifier_is_scikit_learns_linear_discriminant(digits):
    root, compared, real, labels = digits
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(
        compared.features.astype(np.float64), store.load(root / "digits", "train").labels
    )
    found = classes.posterior(real, compared)
    np.testing.assert_allclose(found, theirs.predict_proba(real.astype(np.float64)), atol=1e-9)
    assert (found.argmax(1) == labels).mean() > 0.95


def test_class_shares_and_confidence_of_one_class_and_of_none(digits):
    _, compared, real, _ = digits
    predicted = classes.posterior(real, compared).argmax(1)
    everyone = np.bincount(classes.posterior(compared.features, compared).argmax(1), minlength=10) / 1285
    threes = real[predicted == 3]
    assert measured("class_shares", threes, compared)["class_shares"] == pytest.approx(1 - everyone[3])
    assert measured("class_shares", compared.features, compared)["class_shares"] == 0
    balanced = measured("class_shares", real, compared)["class_shares"]
    assert balanced == pytest.approx(np.clip(everyone - np.bincount(predicted, minlength=10) / 512, 0, None).sum())
    between = (threes[:20] + real[predicted == 8][:20]) / 2
    sure, unsure = (measured("confidence", each, compared)["confidence"] for each in (real, between))
    assert 1 / 10 < unsure < sure - 0.05 < 1


def test_classes_need_labels_of_the_images_the_reference_was_made_of(digits):
    root, compared, real, _ = digits
    few = Reference({**compared.facts, "first": 30}, compared.features[:30], compared.mean, compared.covariance)
    with pytest.raises(UserError, match="digits holds other images than the reference was made of"):
        classes.posterior(real, few)
    images = store.load(root / "digits", "train").images[:30]
    few.facts["images_sha256"] = sha256_of_array(images)
    with pytest.raises(
        UserError, match=r"by 32 features need as many labelled .*, but digits train, first 30 has 30"
    ):
        classes.posterior(real, few)


def test_images_of_one_class_have_no_classes(digits, monkeypatch):
    _, compared, real, _ = digits
    monkeypatch.setattr(classes, "labels_of", lambda reference: np.zeros(len(reference.features), np.int64))
    with pytest.raises(UserError, match="the images of digits train are of one class; classes need labels"):
        classes.posterior(real, compared)


# --- what a study may ask for


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A function that reads the digits' study with other fields, beside files of one's own."""
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow", ignore=shutil.ignore_patterns("resources"))
    monkeypatch.chdir(tmp_path)

    def read(changes, **files):
        for name, text in files.items():
            Path("workflow/metrics", f"{name}.py").write_text(text)
        Path("mine.yaml").write_text(json.dumps(changes))
        return config.load([ROOT / "config/digits.yaml", Path("mine.yaml")], ROOT / "config.yaml")

    return read


OWN = {
    "datasets": {"own": {"kind": "images", "folder": "x", "size": 8, "held_out": 2}},
    "data": {"dataset": "own"},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"metric": {"names": ["precision", "frechet"]}},
            "metric.names.0 is 'precision', of which higher is better, but verdicts are about the first metric .*; "
            "name one of these before it: channel_means, class_shares, energy_distance, frechet, frechet_infinity, "
            "image_means, kid, mind, nearest, off_subspace",
        ),
        ({"metric": {"names": ["copying"]}}, "metric.names.0 is 'copying', of which neither is better"),
        (
            {"metric": {"names": ["frechet", "copying"], "reference": {"first": 500}}},
            "metric.names.1 is 'copying', which compares with all training images; metric.reference must be {",
        ),
        (
            {"metric": {"names": ["frechet", "copying"], "reference": {"split": "test"}}},
            "metric.names.1 is 'copying', which compares with all training images",
        ),
        (
            {**OWN, "metric": {"names": ["frechet", "class_shares"], "extractor": "inception"}},
            "metric.names.1 is 'class_shares', which needs labels, but datasets.own of kind images has none; "
            "kinds with labels: cifar10, digits",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(asked, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        asked(changes)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('BETTER = "up"\n', r"metrics/mine\.py: BETTER is 'up', but must be one of lower, higher, neither"),
        ('BETTER: str = "higher"\n', "metric.names.0 is 'mine', of which higher is better"),
        ('A = BETTER = "neither"\n', "metric.names.0 is 'mine', of which neither is better"),
        ("BETTER = max('higher', 'lower')\n", r"metrics/mine\.py: BETTER must be a plain value"),
        ('NEEDS = ("label",)\n', r"metrics/mine\.py: NEEDS names 'label'; did you mean 'labels'\?"),
        ("def measure(:\n", r"metrics/mine\.py does not run: SyntaxError"),
    ],
)
def test_what_a_file_says_of_itself_is_read_without_running_it(asked, text, message):
    with pytest.raises(UserError, match=message):
        asked(
            {"metric": {"names": ["mine", "frechet"]}}, mine=f"raise SystemExit\n{text}" if "(:" not in text else text
        )


def test_a_file_that_says_nothing_of_itself_is_taken_as_lower_is_better(asked):
    found = asked(
        {"metric": {"names": ["mine", *NAMES]}}, mine='"""mine"""\n\n\ndef measure(f, r):\n    BETTER = "up"\n'
    )
    assert found["metric"]["names"] == ["mine", *NAMES]
