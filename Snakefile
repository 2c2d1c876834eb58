"""Targetwise: one diffusion model under many prediction parameterizations, and which differences are real.

snakemake --cores all all                                   the study of config.yaml, here
snakemake --cores all all --configfile config/digits.yaml   another study
snakemake --profile slurm all                               on a cluster
"""


# Configuration, cells and their specifications
include: "rules/common.smk"
# Data and what samples are compared with
include: "rules/data.smk"
# One cell: check its parameterization, train, sample, measure, probe, and write down what was made from what
include: "rules/train.smk"
include: "rules/sample.smk"
include: "rules/fid.smk"
include: "rules/probe.smk"
include: "rules/manifest.smk"
# The whole grid: table, report, MLflow, DVC
include: "rules/aggregate.smk"
include: "rules/report.smk"
include: "rules/track.smk"
include: "rules/version.smk"


# What `snakemake --report` says first of all
report: "workflow/report/workflow.rst"


# Rules of your own
for extra in sorted(glob("rules/custom/*.smk")):

    include: extra


localrules:
    all,


# Not the report alone, but all that it is made from: a file that is missing is made again, however new the report is.
rule all:
    default_target: True
    input:
        expand(map(str, rules.report.input), study=STUDY["study"]),
        expand(map(str, rules.version.input), study=STUDY["study"]),
        of_every_cell("probe.json") if PROBES else [],
        expand([*rules.report.output, *rules.track.output, *rules.version.output], study=STUDY["study"]),


onstart:
    # What is there already, and would only come out the same, is not made again, unless it is forced.
    jobs = list(workflow.dag.needrun_jobs())
    forced = adoption.forced(workflow.dag, workflow.dag_settings, jobs)
    adoption.forget(STUDY["study"], forced)
    adoption.adopt(STUDY, [job for job in jobs if job not in forced])
    # A prediction counts if it was written down before its values were there.
    try:
        declarations.record(STUDY)
    except UserError as error:
        sys.exit(f"error: {error}")
    # What the cluster does not have is said now, not by a job that waits forever.
    if workflow.executor_plugin.name == "slurm":
        try:
            preflight.require_fit(preflight.profile_file(sys.argv, os.environ), STUDY["grid"]["scales"])
        except UserError as error:
            sys.exit(f"error: {error}")
    follow.start(STUDY, logger)


onerror:
    ending.after_failure(STUDY["study"], workflow.scheduler.failed)
