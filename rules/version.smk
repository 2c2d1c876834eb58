"""Versions: DVC keeps what the finished cells made, so that it can be shared and restored (docs/dvc.md).

dvc.yaml + all model.safetensors, samples, rows -> dvc.lock, and a note of what was recorded

Only the driver's machine writes to DVC, and a stage of dvc.yaml asks for its cell's files, never for this.
"""

from snakemake.jobs import Job

from targetwise.versioning import dvc

# What DVC keeps is read-only, and Snakemake would refuse to make such an output again.
Job.check_protected_output = dvc.allow_read_only_output


localrules:
    version,


rule version:
    input:
        study="results/{study}/study.json",
        stages="dvc.yaml",
        rows=of_every_draw("fid/{draw.name}.json"),  # which come after everything that DVC keeps of their cells
    output:
        "results/{study}/versioned.json",
    log:
        "results/{study}/log/version.log",
    benchmark:
        "results/{study}/benchmark/version.tsv"
    conda:
        "../environment.yml"
    params:
        # A project that becomes a git repository is versioned by the next run.
        repository=lambda wildcards: dvc.in_repository(),
    shell:
        "python workflow/scripts/version.py --study {input.study:q} --output {output:q} 2>&1 | tee {log}"
