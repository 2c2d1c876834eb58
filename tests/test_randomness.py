"""Random numbers by what they are for: no order, no slicing, no neighbour and no global stream can change one."""

import itertools
import random
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import LINEAR
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from targetwise.diffusion import randomness
from targetwise.diffusion.randomness import BLOCK, TrainingStreams, golden_draw, sampling_noise, stream
from targetwise.diffusion.schedule import make_schedule
from targetwise.diffusion.times import draws_of, probabilities
from targetwise.errors import UserError
from targetwise.training.loop import DRAWING_THREADS, prefetched

SHAPE = (2, 3, 4)  # C, H, W; all different, so that a wrong axis shows
BATCH, IMAGES = 80, 333


def steps(count):
    """Return a schedule of so many time steps."""
    return {"sqrt_alpha": torch.linspace(1, 0, count)}


def streams(seed=0, **changes):
    options = {
        "images": IMAGES,
        "global_batch": BATCH,
        "draw_times": draws_of("uniform", steps(1000)),
        "image_shape": SHAPE,
        "horizontal_flip": True,
    }
    return TrainingStreams(seed, **{**options, **changes})


def same(one, two, part=slice(None)):
    """Return whether ``one`` is the part ``part`` of ``two``, in every field."""
    return all(
        np.array_equal(getattr(one, field), getattr(two, field)[part])
        for field in ("indices", "flips", "timesteps", "noise")
    )


# --- one step ------------------------------------------------------------------------------------------------------


def test_a_step_has_the_shapes_and_types_it_promises():
    draw = streams().draw(3)
    assert draw.indices.shape == draw.flips.shape == draw.timesteps.shape == (BATCH,)
    assert draw.noise.shape == (BATCH, *SHAPE)
    assert (draw.indices.dtype, draw.flips.dtype, draw.timesteps.dtype, draw.noise.dtype) == (
        np.int64,
        np.bool_,
        np.int64,
        np.float32,
    )


@given(step=some.integers(0, 50), cut=some.tuples(some.integers(0, BATCH - 1), some.integers(1, BATCH)))
def test_a_slice_is_the_slice_of_the_whole(step, cut):
    """How many processes share a batch, and how, changes nothing."""
    first, count = cut[0], min(cut[1], BATCH - cut[0])
    part = streams().draw(step, first, count)
    assert len(part.indices) == len(part.noise) == count
    assert same(part, streams().draw(step), slice(first, first + count))


@pytest.mark.parametrize("processes", [1, 2, 4, 5, 16])
def test_processes_together_draw_the_global_batch(processes):
    share = BATCH // processes
    parts = [streams().draw(7, rank * share, share) for rank in range(processes)]
    whole = streams().draw(7)
    for field in ("indices", "flips", "timesteps", "noise"):
        joined = np.concatenate([getattr(part, field) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, field))


@pytest.mark.parametrize(("first", "count"), [(-1, 2), (0, 0), (BATCH, 1), (BATCH - 1, 2), (0, BATCH + 1), (5, -1)])
def test_a_slice_beyond_the_batch_is_refused(first, count):
    with pytest.raises(ValueError, match="not a slice"):
        streams().draw(0, first, count)


def test_neither_order_nor_repetition_nor_a_restart_matters():
    one = streams()
    forwards = [one.draw(step) for step in range(12)]
    backwards = [one.draw(step) for step in reversed(range(12))][::-1]
    fresh = [streams().draw(step) for step in range(12)]
    for step in range(12):
        assert same(forwards[step], backwards[step])
        assert same(forwards[step], fresh[step])
        assert same(forwards[step], one.draw(step))


def test_no_global_stream_is_read_or_moved():
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    torch.manual_seed(1)
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()  # noqa: NPY002
    first = streams().draw(5), sampling_noise(0, 0, 0, 3, 2, SHAPE)
    after = np.random.get_state()[1], random.getstate(), torch.get_rng_state()  # noqa: NPY002
    assert np.array_equal(before[0], after[0])
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])
    np.random.seed(2)  # noqa: NPY002
    random.seed(2)
    torch.manual_seed(2)
    assert same(streams().draw(5), first[0])
    assert np.array_equal(sampling_noise(0, 0, 0, 3, 2, SHAPE), first[1])


def test_seeds_and_steps_differ_in_everything():
    draws = [streams(seed).draw(step) for seed in (0, 1) for step in (0, 1)]
    for i, one in enumerate(draws):
        for two in draws[:i]:
            for field in ("indices", "flips", "timesteps", "noise"):
                assert not np.array_equal(getattr(one, field), getattr(two, field)), field


def test_without_flips_all_else_is_the_same():
    with_flips, without = streams().draw(4), streams(horizontal_flip=False).draw(4)
    assert with_flips.flips.any()
    assert not without.flips.any()
    assert np.array_equal(with_flips.timesteps, without.timesteps)
    assert np.array_equal(with_flips.noise, without.noise)
    assert np.array_equal(with_flips.indices, without.indices)


def test_the_numbers_are_these():
    """A golden draw: a change of generator, key or order makes every earlier cell another experiment."""
    draw = streams(7).draw(3)
    assert draw.indices[:5].tolist() == [9, 221, 132, 144, 248]
    assert draw.timesteps[:5].tolist() == [226, 140, 699, 389, 708]
    assert draw.noise[40, 1, 2].tolist() == pytest.approx([0.368102, -0.728280, 1.663848, -0.057901], abs=1e-6)
    assert sampling_noise(7, 2, 1, 5, 1, SHAPE)[0, 1, 2].tolist() == pytest.approx(
        [0.620439, -1.099182, -0.028983, 1.217584], abs=1e-6
    )


def test_the_streams_of_this_numpy_are_those_of_record():
    """A NumPy that draws other numbers is seen here, and its cells have other keys."""
    assert golden_draw() == "b227d312f65e80f0038dcbd52e973507ce50fcb6122c2421bdabf4f26304b6e3"


@pytest.mark.parametrize("method", ["standard_normal", "random", "integers", "permutation"])
def test_the_golden_draw_shows_a_change_of_any_method(monkeypatch, method):
    class Other:
        def __init__(self, generator):
            self.generator = generator

        def __getattr__(self, name):
            draw = getattr(self.generator, name)
            return (lambda *args, **kwargs: draw(*args, **kwargs)[::-1]) if name == method else draw

    monkeypatch.setattr(randomness, "stream", lambda *key: Other(stream(*key)))
    assert golden_draw.__wrapped__() != golden_draw()


# --- epochs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "batch"), [(320, 80), (IMAGES, BATCH), (80, 80), (81, 80), (7, 2), (1, 1)])
def test_an_epoch_takes_each_image_at_most_once_and_leaves_out_the_rest(images, batch):
    made = streams(images=images, global_batch=batch)
    steps = images // batch
    seen = []
    for epoch in range(3):
        taken = np.concatenate([made.draw(epoch * steps + step).indices for step in range(steps)])
        assert len(taken) == steps * batch
        assert len(set(taken.tolist())) == len(taken)
        assert 0 <= taken.min() <= taken.max() < images
        seen.append(taken.tolist())
    if images > 10:
        assert seen[0] != seen[1] != seen[2]


def test_every_image_has_its_turn():
    """What an epoch leaves out must not be the same in all epochs."""
    made = streams(images=100, global_batch=80)
    taken = {index for step in range(12) for index in made.draw(step).indices.tolist()}
    assert taken == set(range(100))


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="a batch of 80 cannot be drawn from 79 images"):
        streams(images=79)


# --- distributions -------------------------------------------------------------------------------------------------


def test_noise_is_standard_normal_and_of_one_piece():
    noise = np.stack([streams().draw(step).noise for step in range(40)])  # (steps, B, C, H, W)
    flat = noise.astype(np.float64).ravel()
    assert flat.mean() == pytest.approx(0, abs=4 / np.sqrt(flat.size))
    assert flat.var() == pytest.approx(1, abs=4 * np.sqrt(2 / flat.size))
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    # Every number of its own: no block, image, channel or step repeats another.
    assert len(np.unique(flat)) > 0.99 * flat.size


def test_blocks_of_noise_are_not_correlated():
    noise = np.concatenate([streams().draw(step).noise.reshape(BATCH, -1) for step in range(60)], axis=1)
    first, second = noise[:BLOCK].astype(np.float64), noise[BLOCK : 2 * BLOCK].astype(np.float64)
    for shift in range(BLOCK):
        r = np.corrcoef(first.ravel(), np.roll(second, shift, axis=0).ravel())[0, 1]
        assert abs(r) < 5 / np.sqrt(first.size)


def test_noise_knows_neither_time_step_nor_flip():
    draws = [streams().draw(step) for step in range(60)]
    noise = np.concatenate([draw.noise.reshape(BATCH, -1).mean(axis=1) for draw in draws])
    for field in ("timesteps", "flips", "indices"):
        other = np.concatenate([getattr(draw, field) for draw in draws]).astype(float)
        assert abs(np.corrcoef(noise, other)[0, 1]) < 4.5 / np.sqrt(len(noise)), field


def test_time_steps_are_uniform_on_all_of_them():
    T = 10
    counts = np.bincount(
        np.concatenate(
            [streams(draw_times=draws_of("uniform", steps(T))).draw(step).timesteps for step in range(100)]
        ),
        minlength=T,
    )
    assert len(counts) == T
    assert stats.chisquare(counts).pvalue > 1e-3


def test_uniform_time_steps_are_numpys_own_integers():
    """Bit for bit what every study has drawn since the first."""
    random = stream("step", 7, 3)
    random.random(BATCH)  # the flips come first
    expected = random.integers(0, 1000, size=BATCH, dtype=np.int64)
    np.testing.assert_array_equal(streams(7).draw(3).timesteps, expected)


@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (-1.2, 1.2), (1, 0.5)])
def test_logit_normal_time_steps_follow_their_density(mean, deviation):
    """Against scipy: its density at the middle of each step, and the probability of (t, t + 1)/T."""
    T = 40
    schedule = steps(T) | {"logit_mean": torch.tensor(mean), "logit_deviation": torch.tensor(deviation)}
    middle = (np.arange(T) + 0.5) / T
    density = stats.norm.pdf(np.log(middle / (1 - middle)), mean, deviation) / (middle * (1 - middle))
    np.testing.assert_allclose(probabilities("logit_normal", schedule), density / density.sum(), rtol=1e-6)
    edges = np.linspace(0, 1, T + 1)
    with np.errstate(divide="ignore"):
        exact = np.diff(stats.norm.cdf(np.log(edges) - np.log1p(-edges), mean, deviation))
    assert np.abs(probabilities("logit_normal", schedule) - exact).max() < 0.003
    drawn = draws_of("logit_normal", schedule)(stream("test", 0), 200_000)
    assert drawn.dtype == np.int64 and drawn.shape == (200_000,)
    expected = density / density.sum() * len(drawn)
    counts, often = np.bincount(drawn, minlength=T), expected > 5
    assert len(counts) == T and counts[~often].sum() < 200
    assert stats.chisquare(counts[often], expected[often] * counts[often].sum() / expected[often].sum()).pvalue > 1e-3


def test_by_default_logit_normal_time_steps_are_of_the_standard_normal():
    named = steps(100) | {"logit_mean": torch.tensor(0.0), "logit_deviation": torch.tensor(1.0)}
    np.testing.assert_array_equal(probabilities("logit_normal", steps(100)), probabilities("logit_normal", named))


def test_stratified_time_steps_come_one_from_each_part_and_all_alike():
    draw = draws_of("stratified", steps(1000))
    random = stream("test", 0)
    drawn = np.stack([draw(random, 50) for _ in range(2000)])
    assert (drawn // 20 == np.arange(50)).all()
    assert stats.chisquare(np.bincount((drawn % 20).ravel(), minlength=20)).pvalue > 1e-3
    few = draw(random, 3)  # 3 does not divide 1,000
    assert few[0] <= 333 and 333 <= few[1] <= 666 and 666 <= few[2] <= 999


@pytest.mark.parametrize("path", ["linear", "cosine_continuous", "flow"])
def test_log_snr_normal_time_steps_have_normal_noise_levels_on_every_path(path):
    schedule = make_schedule({**LINEAR, "schedule": path}, dtype=torch.float64)
    probability = probabilities("log_snr_normal", schedule)
    lam = 2 * torch.log(schedule["sqrt_alpha"] / schedule["sqrt_one_minus_alpha"]).numpy()
    order = np.argsort(lam)
    # What lies beyond the path's ends is never drawn: 0.5 % at most, below 9 on the linear path.
    expected = stats.norm.cdf(lam[order], 2.4, 2.4)
    assert np.abs(np.cumsum(probability[order]) - expected).max() < 0.01


@pytest.fixture
def own_times(project):
    """Write the file of a researcher's own times; return its name."""
    Path("workflow").unlink()  # a link to ours
    Path("workflow/times").mkdir(parents=True)

    def write(text):
        Path("workflow/times/own.py").write_text("import numpy as np\nimport torch\n\n" + text)
        return "own"

    return write


def test_a_time_step_of_no_probability_is_never_drawn(own_times):
    name = own_times("def density(schedule):\n    return torch.tensor([0.0, 3.0, 0.0, 1.0, 0.0])\n")
    counts = np.bincount(draws_of(name, steps(5))(stream("test", 0), 40_000), minlength=5)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0]
    assert stats.chisquare(counts[[1, 3]], [30_000, 10_000]).pvalue > 1e-3


@pytest.mark.parametrize("number", [0.0, np.nextafter(1, 0)])
def test_the_ends_of_the_unit_interval_are_time_steps_too(own_times, number):
    name = own_times("def density(schedule):\n    return torch.full((7,), 0.1)\n")

    class Always:
        def random(self, count):
            return np.full(count, number)

    assert draws_of(name, steps(7))(Always(), 3).tolist() == [0 if number == 0 else 6] * 3


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("torch.ones(4)", r"density has shape \(4,\); it must be \(5,\)"),
        ("torch.tensor([1.0, -1.0, 1.0, 1.0, 1.0])", "density must be finite, nowhere negative"),
        ("torch.tensor([1.0, torch.nan, 1.0, 1.0, 1.0])", "density must be finite, nowhere negative"),
        ("torch.zeros(5)", "density must be finite, nowhere negative and somewhere above 0"),
        ("1 / 0", "density fails: ZeroDivisionError"),
    ],
)
def test_what_is_no_density_is_refused_in_one_line(own_times, returned, words):
    name = own_times(f"def density(schedule):\n    return {returned}\n")
    with pytest.raises(UserError, match=f"^times own: {words}") as caught:
        draws_of(name, steps(5))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("returned", ["np.arange(3)", "np.full(count, 5)", "np.full(count, -1)", "np.zeros(count)"])
def test_an_own_draw_that_gives_no_time_steps_is_refused(own_times, returned):
    name = own_times(
        "def density(schedule):\n    return torch.ones(5)\n\n\n"
        f"def draw(random, count, schedule):\n    return {returned}\n"
    )
    with pytest.raises(UserError, match=r"^times own: draw returned .*; it must return \(4,\) int64 from 0 to 4$"):
        draws_of(name, steps(5))(stream("test", 0), 4)


def test_half_of_the_images_are_flipped():
    """Of so many that 52 % would show."""
    made = streams(images=5000, global_batch=5000, image_shape=(1, 1, 1))
    flips = np.concatenate([made.draw(step).flips for step in range(40)])
    assert flips.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(len(flips)))


# --- keys ----------------------------------------------------------------------------------------------------------


def test_purposes_and_keys_give_different_streams():
    keys = [("step", 0, 1), ("epoch", 0, 1), ("noise", 0, 1), ("noise", 1, 0), ("step", 1, 0), ("noise", 0, 1, 2)]
    first = {key: stream(*key).integers(0, 2**62) for key in keys}
    assert len(set(first.values())) == len(keys)
    for key, value in first.items():
        assert stream(*key).integers(0, 2**62) == value


@pytest.mark.parametrize("key", [(-1,), (2**32,)])
def test_a_key_that_numpy_would_confuse_with_another_is_refused(key):
    """SeedSequence splits at 32 bits."""
    with pytest.raises(ValueError, match="not a key"):
        stream("step", *key)


# --- sampling ------------------------------------------------------------------------------------------------------


def test_a_samples_noise_is_its_own():
    whole = sampling_noise(0, 0, 0, 0, 10, SHAPE)
    assert whole.shape == (10, *SHAPE)
    assert whole.dtype == np.float32
    for first, count in ((0, 1), (3, 4), (9, 1)):
        assert np.array_equal(sampling_noise(0, 0, 0, first, count, SHAPE), whole[first : first + count])


def test_a_samples_noise_is_keyed_by_both_seeds_the_draw_and_its_index():
    """Written out with numpy alone: five seed words, in this order, and none of them can stand for another."""
    words = [zlib.crc32(b"sample"), 5, 6, 7, 8]
    theirs = np.random.Generator(np.random.Philox(np.random.SeedSequence(words))).standard_normal(SHAPE, np.float32)
    assert np.array_equal(sampling_noise(5, 6, 7, 8, 1, SHAPE)[0], theirs)
    keys = [*itertools.permutations((0, 1, 2, 3)), (0, 0, 0, 0), (0, 0, 0, 1), (1, 0, 0, 0)]
    assert len({sampling_noise(*key, 1, SHAPE).tobytes() for key in keys}) == len(keys)


def test_draws_and_seeds_are_not_correlated():
    reference = sampling_noise(0, 0, 0, 0, 500, SHAPE).ravel()
    for seed, training_seed, draw in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        other = sampling_noise(seed, training_seed, draw, 0, 500, SHAPE)
        assert abs(np.corrcoef(reference, other.ravel())[0, 1]) < 4.5 / np.sqrt(reference.size)
    assert abs(np.corrcoef(reference[:-24], reference[24:])[0, 1]) < 4.5 / np.sqrt(reference.size)


def test_sampling_noise_is_standard_normal():
    flat = sampling_noise(3, 1, 1, 0, 2000, SHAPE).astype(np.float64).ravel()
    assert stats.kstest(flat, "norm").pvalue > 1e-3


def test_training_and_sampling_share_no_noise():
    trained = {value for step in range(5) for value in streams().draw(step).noise.ravel()[:100].tolist()}
    sampled = set(sampling_noise(0, 0, 0, 0, 20, SHAPE).ravel().tolist())
    assert len(trained & sampled) <= 2  # fp32 has few enough values for chance


# --- drawing ahead -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_steps_drawn_ahead_in_threads_are_those_drawn_one_by_one(kind):
    one_by_one, ahead = streams(), streams()
    with prefetched(ahead.draw, 2, torch.device(kind)) as draws:
        for step in range(2, 2 + 3 * (IMAGES // BATCH)):  # across the borders of three epochs
            assert same(next(draws), one_by_one.draw(step)), step


def test_a_gpu_is_fed_by_several_threads_that_draw_at_the_same_time():
    together = threading.Barrier(DRAWING_THREADS["cuda"], timeout=60)

    def draw(step):
        together.wait()  # fails unless so many threads come
        return step

    with prefetched(draw, 0, torch.device("cuda")) as draws:
        assert [next(draws) for _ in range(2)] == [0, 1]
        together.abort()
