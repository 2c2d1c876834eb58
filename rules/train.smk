"""Training: check that the parameterization is sound, then train the cell.

variant.json + its files                                  -> <parameterization>/check.json
cell.json + its files + check.json + dataset              -> <cell>/{model.safetensors, train.jsonl, training.json}

The resumable state is in <cell>/state, which is not an output: Snakemake deletes the outputs of a failed job.
"""


# Seconds of work that decide whether hours are submitted: done where the run was started.
localrules:
    check_parameterization,


rule check_parameterization:
    input:
        specification="results/{study}/{parameterization}/variant.json",
        files=parameterization_files,
    output:
        "results/{study}/{parameterization}/check.json",
    log:
        "results/{study}/{parameterization}/log/check_parameterization.log",
    benchmark:
        "results/{study}/{parameterization}/benchmark/check_parameterization.tsv"
    conda:
        "../environment.yml"
    shell:
        "python workflow/scripts/check_parameterization.py --specification {input.specification:q} --output {output:q}"
        " > {log} 2>&1"


rule train:
    input:
        specification="results/{study}/{parameterization}/{scale}/seed{seed}/cell.json",
        files=parameterization_files,
        check="results/{study}/{parameterization}/check.json",
        manifest=manifest_of(STUDY["data"]["dataset"]),
        images=ancient(f"{DATASET}/dataset.npz"),
    output:
        model="results/{study}/{parameterization}/{scale}/seed{seed}/model.safetensors",
        curve="results/{study}/{parameterization}/{scale}/seed{seed}/train.jsonl",
        facts="results/{study}/{parameterization}/{scale}/seed{seed}/training.json",
    log:
        "results/{study}/{parameterization}/{scale}/seed{seed}/log/train.log",
    benchmark:
        "results/{study}/{parameterization}/{scale}/seed{seed}/benchmark/train.tsv"
    conda:
        "../environment.yml"
    threads: lambda wildcards: training_of(wildcards)["threads"]
    # A function of the resources makes no cell out of date when its value changes, as nothing here should.
    params:
        launch=lambda wildcards, resources: slurm.launcher(resources),
        gpu=lambda wildcards, resources: slurm.gpu_demand(resources),
        budget=lambda wildcards, resources: slurm.time_budget(resources),
        save_every=lambda wildcards, resources: training_of(wildcards)["save_every_seconds"],
    shell:
        "{params.launch} workflow/scripts/train.py --specification {input.specification:q}"
        " --save-every-seconds {params.save_every} --wait {params.gpu} {params.budget}"
        " > {log} 2>&1"
