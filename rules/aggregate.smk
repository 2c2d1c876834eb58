"""The tables: every cell of the grid, the comparisons of parameterizations, a plain check of each pair, and claims.

study.json + all fid/<sampler>/draw<d>.json -> table.csv, comparisons.csv, pairs.csv; effects.csv, curves.csv if declared
the same + workflow/claims/*.yaml -> claims.csv
"""


localrules:
    aggregate,
    claims,


rule aggregate:
    input:
        study="results/{study}/study.json",
        rows=of_every_draw("fid/{draw.name}.json"),
        training=of_every_cell("training.json"),
    output:
        table="results/{study}/table.csv",
        comparisons="results/{study}/comparisons.csv",
        pairs="results/{study}/pairs.csv",
        declared=[
            f"results/{{study}}/{table}.csv"
            for table, section in {"effects": "factors", "curves": "curves"}.items()
            if STUDY["comparison"][section]
        ],
    log:
        "results/{study}/log/aggregate.log",
    benchmark:
        "results/{study}/benchmark/aggregate.tsv"
    conda:
        "../environment.yml"
    shell:
        "python workflow/scripts/aggregate.py --study {input.study:q} --table {output.table:q}"
        " --comparisons {output.comparisons:q} --pairs {output.pairs:q}"
        " > {log} 2>&1"


rule claims:
    input:
        study="results/{study}/study.json",
        files=CLAIMS,
        rows=rules.aggregate.input.rows,
        training=rules.aggregate.input.training,
        curves=of_every_cell("train.jsonl"),
        probes=of_every_cell("probe.json") if PROBES else [],
    output:
        "results/{study}/claims.csv",
    log:
        "results/{study}/log/claims.log",
    benchmark:
        "results/{study}/benchmark/claims.tsv"
    conda:
        "../environment.yml"
    params:
        judging=cells.JUDGING,  # raised, it gives the verdicts again
    shell:
        "python workflow/scripts/claims.py --study {input.study:q} --output {output:q} > {log} 2>&1"
