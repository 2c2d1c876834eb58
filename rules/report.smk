"""The report: one page that answers the question, and opens without a network.

study.json + tables + rows + curves + checks + bounds + manifests -> report.html
"""


localrules:
    report,


rule report:
    input:
        study="results/{study}/study.json",
        table=rules.aggregate.output.table,
        comparisons=rules.aggregate.output.comparisons,
        pairs=rules.aggregate.output.pairs,
        paper=rules.aggregate.output.paper,
        claims="results/{study}/claims.csv" if CLAIMS else [],
        rows=of_every_draw("fid/{draw.name}.json"),
        images=ancient(of_every_draw("samples/{draw.name}.npz")),
        samples=of_every_draw("samples/{draw.name}.json"),
        curves=of_every_cell("train.jsonl"),
        training=of_every_cell("training.json"),
        manifests=of_every_cell("manifest.json"),
        manifest=manifest_of(STUDY["data"]["dataset"]),
        dataset=ancient(f"{DATASET}/dataset.npz"),
        checks=expand(
            "results/{{study}}/{parameterization}/check.json",
            parameterization=STUDY["grid"]["parameterizations"],
        ),
        floor="results/{study}/floor.json" if STUDY["bounds"] else [],
        exact="results/{study}/exact.json" if images.has_exact(STUDY) else [],
        ceilings=(
            expand(
                "results/{{study}}/{parameterization}/{scale}/ceiling.json",
                parameterization=STUDY["grid"]["parameterizations"],
                scale=STUDY["grid"]["scales"],
            )
            if STUDY["bounds"]
            else []
        ),
        template=multiext("workflow/report/", "report.html.j2", "base.css.j2", "report.css.j2"),
        script=multiext("workflow/report/", "figures.js", "questions.js", "page.js"),
        published=[
            "workflow/resources/published.csv",
            "workflow/resources/papers.csv",
            "config.yaml",
            "config/reference.yaml",
        ],
    output:
        report(
            "results/{study}/report.html",
            caption="../workflow/report/captions/report.rst",
            category="Answer",
            labels={"page": "the study's report"},
        ),
    log:
        "results/{study}/log/report.log",
    benchmark:
        "results/{study}/benchmark/report.tsv"
    conda:
        "../environment.yml"
    shell:
        "python workflow/scripts/report.py --study {input.study:q} --output {output:q} --complete > {log} 2>&1"
