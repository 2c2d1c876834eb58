"""Configuration, schema, cells; every other rule file uses what is defined here and nothing else."""

import gc
import json
import os
import sys
from functools import cache
from glob import glob

try:
    from targetwise import cells, errors
    from targetwise.recipe import claims, images, kinds, variants
    from targetwise.cluster import preflight, slurm
    from targetwise.recipe.config import require_readable, validate, variant
    from targetwise.data.digests import declared
    from targetwise.errors import UserError
    from targetwise.jobs import adoption, drivers
    from targetwise.operations import ending, follow
    from targetwise.report import declarations
except ModuleNotFoundError as error:
    sys.exit(f"error: the package '{error.name}' is missing; run `make setup`, then `. .venv/bin/activate`")

# Planning makes some objects for every file of the grid and drops hardly any, so looking for garbage finds none.
gc.set_threshold(100_000)

errors.run(lambda: require_readable(workflow.configfiles))


configfile: "config.yaml"


try:
    STUDY = validate(config)
    # Only the driver writes what the cells are; its jobs make sure that the configuration was not edited since. A dry
    # run, or a second driver that is about to be refused, must not change them under a run that is under way.
    if workflow.is_main_process:
        drivers.register(STUDY["study"])
        cells.write_specifications(STUDY, replace=not drivers.is_at_work(STUDY["study"]))
    else:
        cells.require_specifications(STUDY)
except UserError as error:
    sys.exit(f"error: {error}")

CELLS = cells.grid(STUDY)
DATASET = f"data/{STUDY['data']['dataset']}"
REFERENCE = f"{DATASET}/reference/{cells.reference_name(STUDY)}"
TRAINING = {name: variants.settings(STUDY, name)["training"] for name in STUDY["grid"]["parameterizations"]}
SAMPLINGS = {name: variants.samplings(STUDY, name) for name in STUDY["grid"]["parameterizations"]}
DRAWS = {name: cells.draws(STUDY, name) for name in STUDY["grid"]["parameterizations"]}
CLAIMS = [str(claims.file_of(name)) for name in claims.named(STUDY)]
PROBES = [str(kinds.file_of("probes", name)) for name in STUDY["probes"]]
METRICS = [str(kinds.file_of("metrics", name)) for name in STUDY["metric"]["names"]]


wildcard_constraints:
    study=STUDY["study"],
    parameterization="|".join(STUDY["grid"]["parameterizations"]),
    scale="|".join(STUDY["grid"]["scales"]),
    seed="|".join(str(seed) for seed in STUDY["grid"]["seeds"]),
    sampler="|".join({draw.sampler for draws in DRAWS.values() for draw in draws}),
    draw=r"\d+",


@cache
def _source_files(name, scale):
    network = variants.network(STUDY, name, scale) if scale else None
    return sorted({str(path) for path in cells.source_files(variant(STUDY, name), network)})


def parameterization_files(wildcards):
    """Return the files that a variant's check, or at a scale a cell's training, is defined in."""
    return _source_files(wildcards.parameterization, getattr(wildcards, "scale", None))


def manifest_of(dataset):
    """Return a data set's manifest. Where its digest is declared, in cell.json, making it again changes nothing."""
    manifest = f"data/{dataset}/manifest.json"
    return ancient(manifest) if declared(STUDY["datasets"][dataset], "train") else manifest


def weights_of(extractor):
    """Return the files of an extractor whose weights are fetched; the digits' are in the repository."""
    return {"inception": ["data/weights/inception.json", ancient("data/weights/inception.pt")]}.get(extractor, [])


def of_every_cell(path):
    """Return the path below every cell's folder, e.g. ``training.json``."""
    return [f"{cell.folder}/{path}" for cell in CELLS]


def of_every_draw(path):
    """Return the path below every cell's folder, for every draw, e.g. ``fid/{draw.name}.json``."""
    return [f"{cell.folder}/{path.format(draw=draw)}" for cell in CELLS for draw in DRAWS[cell.parameterization]]


def of_its_draws(path):
    """Return the path below a cell's folder, for every draw of the cell whose wildcards a rule is asked for."""
    folder = "results/{study}/{parameterization}/{scale}/seed{seed}"
    return lambda wildcards: [
        f"{folder.format(**wildcards)}/{path.format(draw=draw)}" for draw in DRAWS[wildcards.parameterization]
    ]


def specifications_of_samplings(wildcards):
    """Return what decides the samples of a parameterization, a file for each sampler."""
    study, name = Path("results", wildcards.study), wildcards.parameterization
    return [str(cells.sampling_file(study, name, sampler)) for sampler in SAMPLINGS[name]]


def samplings_of(wildcards):
    """Return the options of a parameterization's samplings, by name."""
    return SAMPLINGS[wildcards.parameterization]


def sampler_file(sampling):
    """Return the file of the sampler that options name."""
    return str(kinds.file_of("samplers", sampling["sampler"]))


def training_of(wildcards):
    """Return the section `training` that holds for a parameterization."""
    return TRAINING[wildcards.parameterization]
