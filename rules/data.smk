"""Data set, weights and reference: what cells are trained on, and what their samples are compared with.

config.yaml                    -> data/<dataset>/{dataset.npz, manifest.json}
config.yaml                    -> data/weights/<extractor>.{pt, json}
dataset + weights              -> data/<dataset>/reference/<extractor>-<implementation>-<split>[-first<n>].{npz, json}
"""


# They fetch, so they run where there is a network: on the submitting machine.
localrules:
    prepare_data,
    prepare_weights,


rule prepare_data:
    input:
        folders=lambda wildcards: images.source_folders(STUDY["datasets"][wildcards.dataset]),
    output:
        images="data/{dataset}/dataset.npz",
        manifest="data/{dataset}/manifest.json",
    log:
        "data/{dataset}/log/prepare_data.log",
    benchmark:
        "data/{dataset}/benchmark/prepare_data.tsv"
    wildcard_constraints:
        dataset="|".join(STUDY["datasets"]),
    conda:
        "../environment.yml"
    params:
        definition=lambda wildcards: json.dumps(STUDY["datasets"][wildcards.dataset]),
    shell:
        "python workflow/scripts/prepare_data.py --dataset {wildcards.dataset:q} --definition {params.definition:q}"
        " 2>&1 | tee {log}"


rule prepare_weights:
    output:
        weights="data/weights/{extractor}.pt",
        facts="data/weights/{extractor}.json",
    log:
        "data/weights/log/{extractor}.log",
    benchmark:
        "data/weights/benchmark/{extractor}.tsv"
    wildcard_constraints:
        extractor="|".join(STUDY["weights"]),
    conda:
        "../environment.yml"
    params:
        sources=lambda wildcards: json.dumps(STUDY["weights"][wildcards.extractor]["sources"]),
    shell:
        "python workflow/scripts/prepare_weights.py --sources {params.sources:q} --output {output.weights:q}"
        " 2>&1 | tee {log}"


# Killed, it goes on from the parts it has made; they are no output, because Snakemake deletes those of a failed job.
rule reference_stats:
    input:
        images=ancient("data/{dataset}/dataset.npz"),
        manifest=lambda wildcards: manifest_of(wildcards.dataset),
        weights=lambda wildcards: weights_of(wildcards.extractor),
    output:
        statistics="data/{dataset}/reference/{extractor}-{implementation}-{split}{first}.npz",
        facts="data/{dataset}/reference/{extractor}-{implementation}-{split}{first}.json",
    log:
        "data/{dataset}/log/reference_stats-{extractor}-{implementation}-{split}{first}.log",
    benchmark:
        "data/{dataset}/benchmark/reference_stats-{extractor}-{implementation}-{split}{first}.tsv"
    wildcard_constraints:
        extractor="[a-z]+",
        implementation="clean-fid|fast",
        split="train|test",
        first=r"|-first\d+",
    conda:
        "../environment.yml"
    # As many processes, where there is no GPU; --cores is the limit.
    threads: 8
    params:
        first=lambda wildcards: wildcards.first.replace("-first", "--first "),
        protocol=cells.PROTOCOL["reference"],  # raised, it makes the reference again
        gpu=lambda wildcards, resources: slurm.gpu_demand(resources),
    shell:
        "python workflow/scripts/reference_stats.py --dataset {wildcards.dataset:q} --extractor {wildcards.extractor}"
        " --implementation {wildcards.implementation} --split {wildcards.split} {params.first}"
        " --output {output.statistics:q} --processes {threads} {params.gpu}"
        " > {log} 2>&1"
