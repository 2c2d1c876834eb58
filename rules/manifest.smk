"""The manifest: everything that a cell's number was made from and with, in one small file.

specifications + check.json + training.json + samples' facts + rows -> <cell>/manifest.json
"""


localrules:
    manifest,


rule manifest:
    input:
        specification="results/{study}/{parameterization}/{scale}/seed{seed}/cell.json",
        study=ancient("results/{study}/study.json"),
        files=parameterization_files,
        check="results/{study}/{parameterization}/check.json",
        data=manifest_of(STUDY["data"]["dataset"]),
        training="results/{study}/{parameterization}/{scale}/seed{seed}/training.json",
        curve="results/{study}/{parameterization}/{scale}/seed{seed}/train.jsonl",
        samples=of_its_draws("samples/{draw.name}.json"),
        rows=of_its_draws("fid/{draw.name}.json"),
    output:
        "results/{study}/{parameterization}/{scale}/seed{seed}/manifest.json",
    log:
        "results/{study}/{parameterization}/{scale}/seed{seed}/log/manifest.log",
    benchmark:
        "results/{study}/{parameterization}/{scale}/seed{seed}/benchmark/manifest.tsv"
    conda:
        "../environment.yml"
    shell:
        "python workflow/scripts/manifest.py --specification {input.specification:q} > {log} 2>&1"
