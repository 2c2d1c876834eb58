"""Sampling: draw images from a trained cell.

sampling-<sampler>.json + model.safetensors + training.json -> <cell>/samples/<sampler>/draw<d>.{npz, json}
"""


rule sample:
    input:
        options="results/{study}/{parameterization}/sampling-{sampler}.json",
        sampler=lambda wildcards: sampler_file(samplings_of(wildcards)[wildcards.sampler]),
        specification="results/{study}/{parameterization}/{scale}/seed{seed}/cell.json",
        facts="results/{study}/{parameterization}/{scale}/seed{seed}/training.json",
        model=ancient("results/{study}/{parameterization}/{scale}/seed{seed}/model.safetensors"),
        images=ancient(f"{DATASET}/dataset.npz"),
    output:
        images="results/{study}/{parameterization}/{scale}/seed{seed}/samples/{sampler}/draw{draw}.npz",
        facts="results/{study}/{parameterization}/{scale}/seed{seed}/samples/{sampler}/draw{draw}.json",
    log:
        "results/{study}/{parameterization}/{scale}/seed{seed}/log/sample-{sampler}-draw{draw}.log",
    benchmark:
        "results/{study}/{parameterization}/{scale}/seed{seed}/benchmark/sample-{sampler}-draw{draw}.tsv"
    conda:
        "../environment.yml"
    threads: lambda wildcards: training_of(wildcards)["threads"]
    params:
        launch=lambda wildcards, resources: slurm.launcher(resources),
        # A function of the resources makes no samples out of date when its value changes, as nothing here should.
        batch=lambda wildcards, resources: samplings_of(wildcards)[wildcards.sampler]["batch"],
        gpu=lambda wildcards, resources: slurm.gpu_demand(resources),
    shell:
        "{params.launch} workflow/scripts/sample.py --specification {input.specification:q} --options {input.options:q}"
        " --draw {wildcards.draw} --batch {params.batch} --output {output.images:q} {params.gpu}"
        " > {log} 2>&1"
