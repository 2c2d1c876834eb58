"""Targetwise: one diffusion model under many prediction parameterizations, and which differences are real.

snakemake --cores all all                                   the study of config.yaml, here
snakemake --cores all all --configfile config/digits.yaml   another study
snakemake --profile slurm all                               on a cluster
"""


configfile: "config.yaml"


# Configuration, cells and their specifications
include: "rules/common.smk"
# Data and what samples are compared with
include: "rules/data.smk"
# One cell: check its parameterization, train, sample, measure, and write down what was made from what
include: "rules/train.smk"
include: "rules/sample.smk"
include: "rules/fid.smk"
include: "rules/manifest.smk"
# The whole grid: table, report, MLflow, DVC
include: "rules/aggregate.smk"
include: "rules/report.smk"
include: "rules/track.smk"
include: "rules/version.smk"


# Rules of your own
for extra in sorted(glob("rules/custom/*.smk")):

    include: extra


localrules:
    all,


rule all:
    default_target: True
    input:
        expand(rules.report.output, study=STUDY["study"]),
        expand(rules.track.output, study=STUDY["study"]),
        expand(rules.version.output, study=STUDY["study"]),


onstart:
    # What the cluster does not have is said now, not by a job that waits for ever.
    if workflow.executor_plugin.name == "slurm":
        try:
            preflight.require_fit(preflight.profile_file(sys.argv, os.environ), STUDY["grid"]["scales"])
        except UserError as error:
            sys.exit(f"error: {error}")


onerror:
    # What is there already is an answer too: the partial table names what is missing.
    shell(f"targetwise table --configfile results/{STUDY['study']}/study.json || true")
