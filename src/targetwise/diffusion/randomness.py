"""Every random number of a study, by what it is for: never by what was drawn before it.

A stream is keyed by (purpose, seed, …), so step k of training and sample i of a draw are the same whatever the
batch size, the number of processes, the order or the number of restarts, and the same for all parameterizations
of one seed: common random numbers, which make the comparison paired.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha256

import numpy as np

#: Images whose noise shares one stream. A process draws only the blocks its slice touches.
BLOCK = 32


def stream(purpose: str, *key: int) -> np.random.Generator:
    """Return the generator of (purpose, key); different keys give independent streams (Philox).

    Each number is below 2³², because numpy splits a larger one into two words. All keys of one purpose have the same
    length, because numpy pads the words with zeros to 4: (7,) and (7, 0) would be one stream.
    """
    if not all(0 <= number < 2**32 for number in key):
        raise ValueError(f"{key} is not a key of numbers from 0 to 2**32 - 1")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([zlib.crc32(purpose.encode()), *key])))


@cache
def golden_draw() -> str:
    """Return the SHA-256 of a short draw of every kind that a study makes.

    NumPy promises no stable streams. Keys hold this digest, so that what another NumPy drew is another result.
    """
    random = stream("golden", 0)
    drawn = (
        random.standard_normal(32, dtype=np.float32),
        random.random(32),
        random.integers(0, 1000, size=32, dtype=np.int64),
        random.permutation(32),
    )
    return sha256(b"".join(array.tobytes() for array in drawn)).hexdigest()


@dataclass(frozen=True)
class StepDraw:
    """What one process needs for its slice of one training step; B is the size of the slice."""

    indices: np.ndarray  # (B,) int64, into the data set
    flips: np.ndarray  # (B,) bool
    timesteps: np.ndarray  # (B,) int64 in 0 … T−1
    noise: np.ndarray  # (B, C, H, W) fp32, standard normal
    unlabelled: np.ndarray | None = None  # (B,) bool, whose label is dropped; None where the network sees no labels


class TrainingStreams:
    """The draws of all steps of one seed.

    Step k takes its slice of the permutation of epoch k // (N // B), as a shuffled loader with drop_last does.
    """

    def __init__(
        self,
        seed: int,
        *,
        images: int,
        global_batch: int,
        draw_times: Callable[[np.random.Generator, int], np.ndarray],
        image_shape: tuple[int, int, int],
        horizontal_flip: bool,
        label_dropout: float | None = None,
    ) -> None:
        """Fix what is drawn: N ``images`` of shape (C, H, W), a batch of ``global_batch``, t by ``draw_times``.

        A label is dropped with probability ``label_dropout``; None where the network sees no labels.
        """
        if global_batch > images:
            raise ValueError(f"a batch of {global_batch} cannot be drawn from {images} images")
        self.seed = seed
        self.images = images
        self.global_batch = global_batch
        self.draw_times = draw_times
        self.image_shape = image_shape
        self.horizontal_flip = horizontal_flip
        self.label_dropout = label_dropout
        # Threads draw steps ahead, across the border of two epochs too.
        self._permutation = lru_cache(maxsize=2)(lambda epoch: stream("epoch", seed, epoch).permutation(images))

    def draw(self, step: int, first: int = 0, count: int | None = None) -> StepDraw:
        """Return positions ``first`` … ``first + count − 1`` of step ``step``'s global batch (all by default)."""
        stop = self.global_batch if count is None else first + count
        if not 0 <= first < stop <= self.global_batch:
            raise ValueError(f"positions {first} to {stop - 1} are not a slice of a batch of {self.global_batch}")
        random = stream("step", self.seed, step)
        flips = random.random(self.global_batch) < 0.5
        if not self.horizontal_flip:
            flips[:] = False
        timesteps = self.draw_times(random, self.global_batch)
        return StepDraw(
            self._batch(step)[first:stop],
            flips[first:stop],
            timesteps[first:stop],
            self._noise(step, first, stop),
            self._unlabelled(step, first, stop),
        )

    def _batch(self, step: int) -> np.ndarray:
        epoch, position = divmod(step, self.images // self.global_batch)
        permutation: np.ndarray = self._permutation(epoch)
        return permutation[position * self.global_batch : (position + 1) * self.global_batch]

    def _unlabelled(self, step: int, first: int, stop: int) -> np.ndarray | None:
        if self.label_dropout is None:
            return None
        # A stream of its own, so that a class-conditional training sees the images and noise of one that is not.
        chosen: np.ndarray = stream("label", self.seed, step).random(self.global_batch) < self.label_dropout
        return chosen[first:stop]

    def _noise(self, step: int, first: int, stop: int) -> np.ndarray:
        return _noise_in_blocks("noise", (self.seed, step), first, stop, self.image_shape)


def _noise_in_blocks(
    purpose: str, key: tuple[int, ...], first: int, stop: int, image_shape: tuple[int, ...]
) -> np.ndarray:
    """Return the noise of images ``first`` … ``stop − 1``, cut out of the blocks that it touches."""
    blocks = [
        stream(purpose, *key, block).standard_normal((BLOCK, *image_shape), dtype=np.float32)
        for block in range(first // BLOCK, (stop - 1) // BLOCK + 1)
    ]
    offset = first // BLOCK * BLOCK
    return np.concatenate(blocks)[first - offset : stop - offset]


def sampling_noise(
    seed: int, training_seed: int, draw: int, first: int, count: int, image_shape: tuple[int, int, int]
) -> np.ndarray:
    """Return the starting noise of samples ``first`` … ``first + count − 1`` of a draw, (count, C, H, W) fp32.

    The training seed is part of the key: what noise common to all training seeds adds to their distances would never
    average out over seeds. All parameterizations of one training seed still start from the same noise.
    """
    return np.stack(
        [
            stream("sample", seed, training_seed, draw, index).standard_normal(image_shape, dtype=np.float32)
            for index in range(first, first + count)
        ]
    )


def step_noise(
    seed: int, training_seed: int, draw: int, step: int, first: int, count: int, image_shape: tuple[int, ...]
) -> np.ndarray:
    """Return the noise that step ``step`` of a sampler adds to the same samples, (count, C, H, W) fp32."""
    return _noise_in_blocks("sampler", (seed, training_seed, draw, step), first, first + count, image_shape)
