"""The sections of a benchmark record: what is compared with what, and what is needed to read the ratios."""

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import metric as measuring
import sampling
import torch
import training
from plan import PLAIN, SAMPLING_SWITCHES, Plan, Settings, load_images
from timing import Contestant, alone, compare, seconds

from targetwise.data.store import Images
from targetwise.diffusion.cost import cost
from targetwise.metric import inception

OURS, AS_CONFIGURED = "targetwise", "targetwise, as config.yaml has it"

#: Runs of what is timed by itself, for `targetwise estimate` and not for a comparison.
REPEATS = 3

Section = dict[str, Any]


def train(plan: Plan, scratch: Path, cores: int) -> Section:
    """Compare our training loop with two others, each as it comes and in the number format that ours runs in."""
    source, images = load_images(plan.images)
    fast = training.ours(plan, images, plan.fast, OURS)
    guides = {
        each: (f"diffusers' guide, {each}", partial(training.guide, plan, images, each)) for each in plan.formats
    }
    found = [versus(plan, "training", fast, *guide) for guide in guides.values()]
    if plan.configured != plan.fast:
        configured = training.ours(plan, images, plan.configured, AS_CONFIGURED)
        found.append(versus(plan, "training", configured, *guides[plan.formats[0]]))
    larger = plan
    if plan.batch < training.LEAST_BATCH:
        torch._dynamo.reset()  # or it would compile for a batch of any size, which is slower
        steps = max(1, plan.steps * plan.batch // training.LEAST_BATCH)
        larger = replace(plan, batch=training.LEAST_BATCH, steps=steps)
        fast = training.ours(larger, images, plan.fast, OURS)
    for each in plan.formats:
        build = partial(training.lucidrains, larger, images, each, scratch)
        found.append(versus(plan, "training", fast, f"denoising-diffusion-pytorch, {each}", build))
    return {**_network(plan, images), "images": source, "comparisons": found}


def sample(plan: Plan, scratch: Path, cores: int) -> Section:
    """Compare our sampler with diffusers' pipeline, as it comes and in the number format that ours runs in."""
    source, images = load_images(plan.images)
    fast = sampling.ours(plan, images, plan.fast, OURS)
    pipelines = {
        each: (f"diffusers' DDIMPipeline, {each}", partial(sampling.pipeline, plan, images, each))
        for each in ("fp32", plan.fast["precision"])
    }
    found = [versus(plan, "sampling", fast, *pipeline) for pipeline in pipelines.values()]
    if plan.configured != plan.fast:
        configured = sampling.ours(plan, images, plan.configured, AS_CONFIGURED)
        found.append(versus(plan, "sampling", configured, *pipelines["fp32"]))
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
            versus(plan, "features", measuring.our_features(plan, pair[0], path, f"{OURS}, {path}"), *theirs)
            for path in ("fast", "clean-fid")
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
    """Measure each switch of the configuration by itself, for training and for sampling."""
    source, images = load_images(plan.images)
    short = replace(plan, steps=plan.switch_steps)

    def trained(settings: Settings, name: str) -> Contestant:
        return training.ours(short, images, settings, name)

    def sampled(settings: Settings, name: str) -> Contestant:
        return sampling.ours(short, images, settings, name)

    for_sampling = {name: change for name, change in plan.switches.items() if name in SAMPLING_SWITCHES}
    each = {
        "train": _each_alone(plan, "training", plan.switches, trained),
        "sample": _each_alone(plan, "sampling", for_sampling, sampled),
    }
    if plan.device.type == "cuda":  # a CPU's kernels give the same bits anyway
        exact = trained({**plan.fast, "deterministic": True}, "deterministic, the others as the project runs")
        each["train"].append(versus(plan, "training", exact, "as the project runs", partial(trained, plan.fast)))
    return {**_network(plan, images), "images": source, **each}


SECTIONS: Mapping[str, Callable[[Plan, Path, int], Section]] = {
    "train": train,
    "sample": sample,
    "metric": metric,
    "switches": switches,
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


def _each_alone(
    plan: Plan, what: str, changes: Mapping[str, Settings], make: Callable[[Settings, str], Contestant]
) -> list[Section]:
    return [
        versus(plan, what, make({**PLAIN, **change}, name), "plain", partial(make, PLAIN))
        for name, change in changes.items()
    ]


def _network(plan: Plan, images: Images) -> Section:
    found = cost(plan.network, images.channels, images.size)
    return {
        "scale": plan.scale,
        "batch": plan.batch,
        "parameters": found.parameters,
        "forward_flops": found.forward,
        "training_flops": found.training,
    }
