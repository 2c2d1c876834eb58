"""MLflow: a view of the cells, made by one importer that can be run any number of times, also during a run.

study.json + table.csv + curves + rows + manifests -> mlflow.db, and a note of what was imported
"""


localrules:
    track,


rule track:
    input:
        study="results/{study}/study.json",
        table=rules.aggregate.output.table,
        manifests=of_every_cell("manifest.json"),  # which come after everything of their cells
    output:
        "results/{study}/tracked.json",
    log:
        "results/{study}/log/track.log",
    benchmark:
        "results/{study}/benchmark/track.tsv"
    conda:
        "../environment.yml"
    shell:
        "python workflow/scripts/track.py --study {input.study:q} --output {output:q}" " > {log} 2>&1"
