"""The sections of a benchmark record: what is compared with what, and what is needed to read the ratios."""

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import host as hosting
import metric as measuring
import sampling
import torch
import training
from plan import SWITCHES_OF_SAMPLING, Plan, Settings, load_images, with_and_without
from timing import Contestant, alone, compare, seconds

from targetwise.data.store import Images
from targetwise.diffusion.cost import cost
from targetwise.metric import inception

#: Our loops, with the switches as ``config.yaml`` has them.
OURS = "targetwise"

#: Runs of what is timed by itself, for `targetwise estimate` and not for a comparison.
REPEATS = 3

Section = dict[str, Any]


def train(plan: Plan, scratch: Path, cores: int) -> Section:
    """Compare our training loop with two others, each as it comes and in the number format that ours runs in."""
    source, images = load_images(plan.images)
    mine = training.ours(plan, images, plan.configured, OURS)
    found = [
        versus(plan, "training", mine, f"diffusers' loop, {each}", partial(training.guide, plan, images, each))
        for each in plan.formats
    ]
    accumulated = training.batches_accumulated(plan)
    if accumulated > 1:
        mine = training.ours(plan, images, plan.configured, OURS, accumulated)
    for each in plan.formats:
        build = partial(training.lucidrains, plan, images, each, scratch)
        found.append(versus(plan, "training", mine, f"denoising-diffusion-pytorch, {each}", build))
    about = {"steps": plan.steps, "images": source, "choice": plan.choice}
    return {**_network(plan, images), **about, "comparisons": found}


def sample(plan: Plan, scratch: Path, cores: int) -> Section:
    """Compare our sampler with diffusers' pipeline, as it comes and in the number format that ours runs in."""
    source, images = load_images(plan.images)
    mine = sampling.ours(plan, images, plan.configured, OURS)
    found = [
        versus(
            plan, "sampling", mine, f"diffusers' DDIMPipeline, {each}", partial(sampling.pipeline, plan, images, each)
        )
        for each in dict.fromkeys(("fp32", plan.configured["precision"]))
    ]
    sizes = {"steps": plan.sampling_steps, "sampling_batch": plan.sampling_images}
    return {**_network(plan, images), **sizes, "images": source, "comparisons": found}


def metric(plan: Plan, scratch: Path, cores: int) -> Section:
    """Compare our metric with clean-fid's folder command, and the two parts of it."""
    if not inception.WEIGHTS.exists():
        return {"skipped": f"{inception.WEIGHTS} is missing; `snakemake --cores 1 -- {inception.WEIGHTS}` fetches it"}
    source, images = load_images(2 * plan.metric_images)
    pair = measuring.folders(plan, images, scratch)
    theirs = "clean-fid's get_folder_features", partial(measuring.their_features, plan, pair[0], scratch, cores)
    command = "clean-fid's compute_fid", partial(measuring.their_command, plan, pair, scratch, cores)
    distance = "clean-fid's distance", partial(measuring.distance, plan, "clean-fid")
    found = [
        versus(plan, "FID of two folders", measuring.our_command(plan, pair, "fast", f"{OURS}, fast"), *command),
        *(
            versus(plan, "features", measuring.our_features(plan, pair[0], ours, f"{OURS}, {ours}"), *theirs)
            for ours in ("fast", "clean-fid")
        ),
        versus(plan, "distance", measuring.distance(plan, "fast", f"{OURS}, fast"), *distance),
    ]
    kernel = measuring.kernel_distance("kernel distance")
    return {
        "images": source,
        "metric_images": plan.metric_images,
        "comparisons": found,
        "kernel_distance_seconds": min(seconds(kernel) for _ in range(REPEATS)),
    }


def switches(plan: Plan, scratch: Path, cores: int) -> Section:
    """Measure each switch of the configuration by itself, the others as ``config.yaml`` has them."""
    source, images = load_images(plan.images)
    trained, sampled = (partial(loop.ours, plan, images) for loop in (training, sampling))
    for_sampling = [name for name in plan.switched if name in SWITCHES_OF_SAMPLING]
    return {
        **_network(plan, images),
        "images": source,
        "train": _each(plan, "training", plan.switched, trained),
        "sample": _each(plan, "sampling", for_sampling, sampled),
    }


def host(plan: Plan, scratch: Path, cores: int) -> Section:
    """Time what the host does for one cell, whatever computes its network."""
    network = _network(plan, load_images(1)[1])
    found = [hosting.measured(part) for part in hosting.parts(plan, scratch, network["parameters"])]
    return {"scale": plan.scale, "parts": found}


SECTIONS: Mapping[str, Callable[[Plan, Path, int], Section]] = {
    "train": train,
    "sample": sample,
    "metric": metric,
    "switches": switches,
    "host": host,
}


def versus(plan: Plan, what: str, ours: Contestant, name: str, build: Callable[[str], Contestant]) -> Section:
    """Return a comparison in doing ``what`` with a contestant that is built for it.

    Where its package is missing, ours is timed alone.
    """
    release()
    try:
        theirs = build(name)
    except ModuleNotFoundError as error:
        skipped = f"no package {error.name} here"
        return {"what": what, "ours": alone(ours, plan.pairs), "theirs": {"name": name}, "skipped": skipped}
    return {"what": what, **compare(ours, theirs, plan.pairs)}


def release() -> None:
    """Give back what ended contestants held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _each(
    plan: Plan,
    what: str,
    switched: Sequence[str],
    make: Callable[[Settings, str], Contestant],
) -> list[Section]:
    found = []
    for name in switched:
        on, off = with_and_without(name, plan.configured)
        found.append(versus(plan, what, make(on, name), f"without {name}", partial(make, off)))
    return found


def _network(plan: Plan, images: Images) -> Section:
    found = cost(plan.network, images.channels, images.size)
    return {
        "scale": plan.scale,
        "batch": plan.batch,
        "parameters": found.parameters,
        "forward_flops": found.forward,
        "training_flops": found.training,
    }
