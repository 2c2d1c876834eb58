"""What the host does for one cell while a GPU computes: each part by itself, and the least that any code must do."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plan import Plan, load_images
from scipy import linalg
from timing import Contestant, seconds

from targetwise.data.samples import load_samples
from targetwise.diffusion.randomness import TrainingStreams, sampling_noise, stream
from targetwise.files import sha256_of_array, write_bytes, write_json
from targetwise.metric import clean_fid, distance, inception
from targetwise.recipe.schema import read_yaml
from targetwise.training.state import StateFolder

#: A part is timed again, for the best time, until this much has passed.
ENOUGH_SECONDS = 4.0

#: Images of a batch of latents, of one that Pillow resizes, of a file of samples, and vectors of a covariance.
LATENTS, RESIZED, SAVED, VECTORS = 500, 16, 5000, 4096

#: Subsets of a kernel distance, and vectors in each.
SUBSETS, SUBSET = distance.SUBSETS, distance.SUBSET


@dataclass(frozen=True)
class Part:
    """Something that the host does.

    Attributes:
        name: for people.
        work: does ``units`` once.
        units: of what is counted, in one call.
        per_cell: units of one cell as ``config.yaml`` has it.
        bound: the least that any code must do for as many units; None where ``work`` is little else.
        least: what that is, for people.
    """

    name: str
    work: Callable[[], object]
    units: int
    per_cell: int
    bound: Callable[[], object] | None = None
    least: str = ""


def parts(plan: Plan, scratch: Path, parameters: int) -> list[Part]:
    """Return the parts of a cell of the plan's network, which has so many parameters."""
    config = read_yaml(Path("config.yaml"))
    training, sampling = config["training"], config["sampling"]
    batch, drawn = training["global_batch"], sampling["draws"] * sampling["images"]
    _, images = load_images(max(SAVED, batch))
    shape = (images.channels, images.size, images.size)
    streams = TrainingStreams(
        0,
        images=len(images.images),
        global_batch=batch,
        draw_times=lambda random, count: random.integers(0, 1000, size=count, dtype=np.int64),
        image_shape=shape,
        horizontal_flip=True,
    )
    random = stream("benchmark", 0)
    saved = images.images[:SAVED]
    vectors = random.standard_normal((VECTORS, inception.FEATURES))
    x, y = vectors[:SUBSET], vectors[-SUBSET:]
    gaussian = distance.moments(vectors)
    state = {"model": torch.zeros(4, parameters)}  # weights, their average, and AdamW's two moments
    return [
        Part(
            "noise and indices of a training step",
            lambda: streams.draw(0),
            1,
            training["steps"],
            lambda: random.standard_normal((batch, *shape), dtype=np.float32),
            "its normal numbers from one stream",
        ),
        Part(
            "latents",
            lambda: sampling_noise(0, 0, 0, 0, LATENTS, shape),
            LATENTS,
            drawn,
            lambda: random.standard_normal((LATENTS, *shape), dtype=np.float32),
            "its normal numbers from one stream",
        ),
        Part(
            "samples: digest, file, and reading them again",
            lambda: _save_and_load(saved, scratch / "draw0.npz"),
            SAVED,
            drawn,
            lambda: write_bytes(scratch / "bytes", saved.tobytes()),
            "writing their bytes",
        ),
        Part("resizing to 299×299 by Pillow", lambda: _resized(saved[:RESIZED]), RESIZED, drawn),
        Part(
            "mean and covariance of the features",
            lambda: distance.moments(vectors),
            VECTORS,
            drawn,
            lambda: vectors.T @ vectors,
            "one product in fp64",
        ),
        *(
            Part(f"FID, {name}", partial(distance.FRECHET[name], *gaussian, *gaussian), 1, sampling["draws"], *least)
            for name, least in (
                ("clean-fid", ()),
                ("fast", (lambda: linalg.eigvalsh(gaussian[1]), "one eigenvalue problem")),
            )
        ),
        *(
            Part(
                f"KID, {name}",
                partial(distance.KERNEL[name], x, y),
                1,
                sampling["draws"],
                lambda: [x @ y.T for _ in range(3 * SUBSETS)],
                "three products a subset in fp64",
            )
            for name in distance.KERNEL
        ),
        Part(
            "saving a state",
            lambda: StateFolder(scratch / "state", "benchmark").save(1, state),
            1,
            2,
            lambda: write_bytes(scratch / "bytes", state["model"].numpy().tobytes()),
            "writing its bytes",
        ),
    ]


def measured(part: Part) -> dict[str, Any]:
    """Return what a part takes, in seconds a unit, the best of some calls."""
    return {
        "name": part.name,
        "per_cell": part.per_cell,
        "seconds": _best(part.work) / part.units,
        "bound_seconds": _best(part.bound) / part.units if part.bound else None,
        "bound": part.least,
    }


def _best(work: Callable[[], object]) -> float:
    contestant = Contestant("part", work, 1, {}, lambda: None)
    times = [seconds(contestant)]
    while sum(times) < ENOUGH_SECONDS:
        times.append(seconds(contestant))
    return min(times)


def _resized(images: np.ndarray) -> np.ndarray:
    output = np.empty((len(images), inception.SIZE, inception.SIZE, 3), np.float32)
    clean_fid.resize(images, output)
    return output


def _save_and_load(images: np.ndarray, path: Path) -> np.ndarray:
    np.savez(path, images)
    write_json(path.with_suffix(".json"), {"samples_sha256": sha256_of_array(images)})
    return load_samples(path)
