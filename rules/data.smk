"""Data set and reference: what cells are trained on, and what their samples are compared with.

config.yaml            -> data/<dataset>/{dataset.npz, manifest.json}
dataset + extractor    -> data/<dataset>/reference/<extractor>-<split>.{npz, json}
"""


rule prepare_data:
    output:
        images="data/{dataset}/dataset.npz",
        manifest="data/{dataset}/manifest.json",
    log:
        "data/{dataset}/log/prepare_data.log",
    benchmark:
        "data/{dataset}/benchmark/prepare_data.tsv"
    conda:
        "../environment.yml"
    params:
        definition=lambda wildcards: json.dumps(STUDY["datasets"][wildcards.dataset]),
    shell:
        "python workflow/scripts/prepare_data.py --dataset {wildcards.dataset:q} --definition {params.definition:q}"
        " > {log} 2>&1"


rule reference_stats:
    input:
        images=ancient("data/{dataset}/dataset.npz"),
        manifest="data/{dataset}/manifest.json",
    output:
        statistics="data/{dataset}/reference/{extractor}-{split}.npz",
        facts="data/{dataset}/reference/{extractor}-{split}.json",
    log:
        "data/{dataset}/log/reference_stats-{extractor}-{split}.log",
    benchmark:
        "data/{dataset}/benchmark/reference_stats-{extractor}-{split}.tsv"
    wildcard_constraints:
        extractor="[a-z]+",
        split="train|test",
    conda:
        "../environment.yml"
    shell:
        "python workflow/scripts/reference_stats.py --dataset {wildcards.dataset:q} --extractor {wildcards.extractor}"
        " --split {wildcards.split} --output {output.statistics:q}"
        " > {log} 2>&1"
