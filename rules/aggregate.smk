"""The tables: every cell of the grid, the comparisons of parameterizations, a plain check of each pair, and claims.

study.json + all fid/<sampler>/draw<d>.json -> table.csv, comparisons.csv, pairs.csv, table.tex;
    effects.csv, curves.csv if declared
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
        table=report(
            "results/{study}/table.csv",
            caption="../workflow/report/captions/table.rst",
            category="Tables",
            labels={"table": "every cell"},
        ),
        comparisons=report(
            "results/{study}/comparisons.csv",
            caption="../workflow/report/captions/comparisons.rst",
            category="Tables",
            labels={"table": "comparisons"},
        ),
        paper=report(
            "results/{study}/table.tex",
            caption="../workflow/report/captions/paper.rst",
            category="Tables",
            labels={"table": "means, for a paper"},
        ),
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
        " --paper {output.paper:q}"
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
        report(
            "results/{study}/claims.csv",
            caption="../workflow/report/captions/claims.rst",
            category="Tables",
            labels={"table": "claims"},
        ),
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
