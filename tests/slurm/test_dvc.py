"""One cell by DVC on the cluster: its jobs are submitted, and only the driver's machine writes to DVC."""

import subprocess

import yaml


def test_dvc_repro_runs_a_cells_jobs_on_the_cluster_and_records_it(new_project):
    project = new_project()
    path = project.folder / "config/digits.yaml"
    study = yaml.safe_load(path.read_text())
    study["scales"]["tiny"] = {"network": "mlp", "width": 16, "layers": 1}
    study["training"] |= {"steps": 12, "global_batch": 16, "log_every": 4}
    study["sampling"] |= {"images": 48, "batch": 48}
    path.write_text(yaml.safe_dump(study))
    subprocess.run(["git", "init", "-q"], cwd=project.folder, check=True)
    done = subprocess.run(
        ["dvc", "repro", "digits@v-tiny-1"],
        cwd=project.folder,
        env={**project.environment, "SNAKEMAKE_PROFILE": "slurm"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    (job,) = project.jobs("train")
    assert job["JobState"] == "COMPLETED"
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text())
    assert list(lock["stages"]) == ["digits@v-tiny-1"]
