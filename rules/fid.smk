"""The metric of one draw, and its scale.

metric.json + draw<d>.npz + reference   -> <cell>/fid/<sampler>/draw<d>.json
held-out images + reference             -> floor.json
untrained network + reference           -> <parameterization>/<scale>/ceiling.json
exact denoiser + reference              -> exact.json
"""


rule fid:
    input:
        options="results/{study}/metric.json",
        metrics=METRICS,
        facts="results/{study}/{parameterization}/{scale}/seed{seed}/samples/{sampler}/draw{draw}.json",
        images=ancient("results/{study}/{parameterization}/{scale}/seed{seed}/samples/{sampler}/draw{draw}.npz"),
        specification="results/{study}/{parameterization}/{scale}/seed{seed}/cell.json",
        reference=f"{REFERENCE}.json",
        statistics=ancient(f"{REFERENCE}.npz"),
        weights=weights_of(STUDY["metric"]["extractor"]),
    output:
        "results/{study}/{parameterization}/{scale}/seed{seed}/fid/{sampler}/draw{draw}.json",
    log:
        "results/{study}/{parameterization}/{scale}/seed{seed}/log/fid-{sampler}-draw{draw}.log",
    benchmark:
        "results/{study}/{parameterization}/{scale}/seed{seed}/benchmark/fid-{sampler}-draw{draw}.tsv"
    conda:
        "../environment.yml"
    threads: lambda wildcards: training_of(wildcards)["threads"]
    params:
        gpu=lambda wildcards, resources: slurm.gpu_demand(resources),
    shell:
        "python workflow/scripts/fid.py --samples {input.images:q} --specification {input.specification:q}"
        " --metric {input.options:q} --reference {input.statistics:q} --output {output:q} {params.gpu}"
        " > {log} 2>&1"


rule floor:
    input:
        options="results/{study}/metric.json",
        metrics=METRICS,
        manifest=manifest_of(STUDY["data"]["dataset"]),
        images=ancient(f"{DATASET}/dataset.npz"),
        reference=f"{REFERENCE}.json",
        statistics=ancient(f"{REFERENCE}.npz"),
        weights=weights_of(STUDY["metric"]["extractor"]),
    output:
        "results/{study}/floor.json",
    log:
        "results/{study}/log/floor.log",
    benchmark:
        "results/{study}/benchmark/floor.tsv"
    conda:
        "../environment.yml"
    params:
        gpu=lambda wildcards, resources: slurm.gpu_demand(resources),
    shell:
        "python workflow/scripts/floor.py --metric {input.options:q} --images {input.images:q}"
        " --reference {input.statistics:q} --output {output:q} {params.gpu}"
        " > {log} 2>&1"


rule ceiling:
    input:
        options="results/{study}/metric.json",
        metrics=METRICS,
        sampling=lambda wildcards: specifications_of_samplings(wildcards)[0],
        specification=f"results/{{study}}/{{parameterization}}/{{scale}}/seed{CELLS[0].seed}/cell.json",
        files=parameterization_files,
        sampler=lambda wildcards: sampler_file(next(iter(samplings_of(wildcards).values()))),
        manifest=manifest_of(STUDY["data"]["dataset"]),
        images=ancient(f"{DATASET}/dataset.npz"),
        reference=f"{REFERENCE}.json",
        statistics=ancient(f"{REFERENCE}.npz"),
        weights=weights_of(STUDY["metric"]["extractor"]),
    output:
        "results/{study}/{parameterization}/{scale}/ceiling.json",
    log:
        "results/{study}/{parameterization}/{scale}/log/ceiling.log",
    benchmark:
        "results/{study}/{parameterization}/{scale}/benchmark/ceiling.tsv"
    conda:
        "../environment.yml"
    threads: lambda wildcards: training_of(wildcards)["threads"]
    params:
        gpu=lambda wildcards, resources: slurm.gpu_demand(resources),
    shell:
        "python workflow/scripts/ceiling.py --specification {input.specification:q} --sampling {input.sampling:q}"
        " --metric {input.options:q} --reference {input.statistics:q} --output {output:q} {params.gpu}"
        " > {log} 2>&1"


# Along the path, and by the first sampling, of the study's first variant: what the network outputs is nothing to it.
rule exact:
    input:
        options="results/{study}/metric.json",
        metrics=METRICS,
        sampling=f"results/{{study}}/{CELLS[0].parameterization}/sampling-{DRAWS[CELLS[0].parameterization][0].sampler}.json",
        specification=f"results/{{study}}/{CELLS[0].parameterization}/{CELLS[0].scale}/seed{CELLS[0].seed}/cell.json",
        path=str(kinds.file_of("paths", variant(STUDY, CELLS[0].parameterization)["diffusion"]["schedule"])),
        sampler=sampler_file(SAMPLINGS[CELLS[0].parameterization][DRAWS[CELLS[0].parameterization][0].sampler]),
        manifest=manifest_of(STUDY["data"]["dataset"]),
        images=ancient(f"{DATASET}/dataset.npz"),
        reference=f"{REFERENCE}.json",
        statistics=ancient(f"{REFERENCE}.npz"),
        weights=weights_of(STUDY["metric"]["extractor"]),
    output:
        "results/{study}/exact.json",
    log:
        "results/{study}/log/exact.log",
    benchmark:
        "results/{study}/benchmark/exact.tsv"
    conda:
        "../environment.yml"
    threads: TRAINING[CELLS[0].parameterization]["threads"]
    params:
        gpu=lambda wildcards, resources: slurm.gpu_demand(resources),
    shell:
        "python workflow/scripts/exact.py --specification {input.specification:q} --sampling {input.sampling:q}"
        " --metric {input.options:q} --reference {input.statistics:q} --output {output:q} {params.gpu}"
        " > {log} 2>&1"
