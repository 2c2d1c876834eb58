"""Probes: measure a trained network itself, at each noise level, without sampling from it.

probes.json + files of workflow/probes/ + model.safetensors + training.json + dataset -> <cell>/probe.json

Only where the configuration names probes. What they give is no part of the cell's row, and DVC does not keep it.
"""


rule probe:
    input:
        options="results/{study}/probes.json",
        probes=PROBES,
        specification="results/{study}/{parameterization}/{scale}/seed{seed}/cell.json",
        facts="results/{study}/{parameterization}/{scale}/seed{seed}/training.json",
        model=ancient("results/{study}/{parameterization}/{scale}/seed{seed}/model.safetensors"),
        manifest=manifest_of(STUDY["data"]["dataset"]),
        images=ancient(f"{DATASET}/dataset.npz"),
    output:
        "results/{study}/{parameterization}/{scale}/seed{seed}/probe.json",
    log:
        "results/{study}/{parameterization}/{scale}/seed{seed}/log/probe.log",
    benchmark:
        "results/{study}/{parameterization}/{scale}/seed{seed}/benchmark/probe.tsv"
    conda:
        "../environment.yml"
    threads: lambda wildcards: training_of(wildcards)["threads"]
    params:
        gpu=lambda wildcards, resources: slurm.gpu_demand(resources),
    shell:
        "python workflow/scripts/probe.py --specification {input.specification:q} --options {input.options:q}"
        " --output {output:q} {params.gpu}"
        " > {log} 2>&1"
