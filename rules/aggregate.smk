"""The table: every cell of the grid, and the paired differences between parameterizations.

study.json + all fid/<sampler>/draw<d>.json -> table.csv, pairs.csv
"""


localrules:
    aggregate,


rule aggregate:
    input:
        study="results/{study}/study.json",
        rows=of_every_draw("fid/{draw.name}.json"),
        training=of_every_cell("training.json"),
    output:
        table="results/{study}/table.csv",
        pairs="results/{study}/pairs.csv",
    log:
        "results/{study}/log/aggregate.log",
    benchmark:
        "results/{study}/benchmark/aggregate.tsv"
    conda:
        "../environment.yml"
    shell:
        "python workflow/scripts/aggregate.py --study {input.study:q} --table {output.table:q} --pairs {output.pairs:q}"
        " > {log} 2>&1"
