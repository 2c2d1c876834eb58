"""The metric: our two implementations, and clean-fid's own folder command, all from folders of PNG files."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from plan import Plan
from timing import Contestant

from targetwise.data.image_files import read_set
from targetwise.data.store import Images
from targetwise.metric import clean_fid, extractors, inception
from targetwise.metric.distance import FRECHET, moments

#: What ``compute_fid`` takes, unless there are fewer cores.
WORKERS = 12

#: Feature vectors of each set whose kernel distance is timed: what its subsets are drawn from.
KERNEL_ROWS = 2048


def folders(plan: Plan, images: Images, scratch: Path) -> tuple[Path, Path]:
    """Write two folders of PNG files, of different images."""
    made = scratch / "first", scratch / "second"
    for place, folder in enumerate(made):
        folder.mkdir()
        for index in range(plan.metric_images):
            Image.fromarray(images.images[place * plan.metric_images + index]).save(folder / f"{index:05d}.png")
    return made


def our_command(plan: Plan, pair: tuple[Path, Path], implementation: str, name: str) -> Contestant:
    """Return the distance between two folders by one of our implementations: features of both, then the distance."""
    extractor = extractors.load("inception", plan.device, implementation)

    def run() -> float:
        first, second = (moments(extractor.features(_read(folder), plan.device)) for folder in pair)
        return FRECHET[implementation](*first, *second)

    return Contestant(name, run, 2 * plan.metric_images, {"implementation": implementation})


def our_features(plan: Plan, folder: Path, implementation: str, name: str) -> Contestant:
    """Return the features of one folder by one of our implementations."""
    extractor = extractors.load("inception", plan.device, implementation)
    return Contestant(
        name,
        lambda: extractor.features(_read(folder), plan.device),
        plan.metric_images,
        {"implementation": implementation},
    )


def their_command(plan: Plan, pair: tuple[Path, Path], scratch: Path, cores: int, name: str) -> Contestant:
    """Return clean-fid's ``compute_fid`` of two folders."""
    from cleanfid.fid import compute_fid

    layers = _their_network(scratch, plan.device)
    run = partial(
        compute_fid,
        str(pair[0]),
        str(pair[1]),
        mode="clean",
        custom_feat_extractor=layers,
        num_workers=min(WORKERS, cores),
        device=plan.device,
        verbose=False,
    )
    return Contestant(name, run, 2 * plan.metric_images, {})


def their_features(plan: Plan, folder: Path, scratch: Path, cores: int, name: str) -> Contestant:
    """Return the part of clean-fid's command that makes the features of one folder."""
    from cleanfid.fid import get_folder_features

    run = partial(
        get_folder_features,
        str(folder),
        _their_network(scratch, plan.device),
        num_workers=min(WORKERS, cores),
        batch_size=32,
        device=plan.device,
        mode="clean",
        verbose=False,
    )
    return Contestant(name, run, plan.metric_images, {})


def distance(plan: Plan, implementation: str, name: str) -> Contestant:
    """Return one distance of two Gaussians in 2,048 dimensions, from features that are drawn, not extracted."""
    random = np.random.default_rng(0)
    first, second = (
        moments(spread * random.standard_normal((plan.distance_rows, inception.FEATURES))) for spread in (1.0, 1.1)
    )
    return Contestant(name, partial(FRECHET[implementation], *first, *second), 1, {"implementation": implementation})


def kernel_distance(name: str) -> Contestant:
    """Return one kernel distance (KID), which every row has as well."""
    random = np.random.default_rng(0)
    first, second = (random.standard_normal((KERNEL_ROWS, inception.FEATURES)) for _ in range(2))
    return Contestant(name, partial(clean_fid.kernel_distance, first, second), 1, {})


def _read(folder: Path) -> np.ndarray:
    return read_set(folder, (32, 32, 3))


def _their_network(scratch: Path, device: torch.device) -> torch.nn.Module:
    """Return clean-fid's own wrapper of the very same weights."""
    from cleanfid.inception_torchscript import InceptionV3W

    file = scratch / "inception-2015-12-05.pt"
    if not file.exists():
        network = torch.jit.load(inception.WEIGHTS)
        torch.jit.save(network if hasattr(network, "layers") else network.net, file)
    return InceptionV3W(str(scratch), download=False).to(device)
