"""The two-node layout of docs/cluster.md, as it stands there."""

import re
import textwrap

import pytest
import yaml
from helpers import ROOT

from targetwise.files import read_json


@pytest.mark.slow
def test_two_nodes_train_one_cell(new_project):
    project = new_project()
    project.configure()
    block = re.search(r"## Several nodes.*?```yaml\n(.*?)```", (ROOT / "docs/cluster.md").read_text(), re.DOTALL)[1]
    own = yaml.safe_load(textwrap.dedent(block).replace("gpu:4", "gpu:2"))["set-resources"]["train"]
    path = project.folder / "slurm/config.v9+.yaml"
    profile = yaml.safe_load(path.read_text())
    profile["set-resources"]["train"] |= own
    path.write_text(yaml.safe_dump(profile))
    driver = project.start(
        "--retries", "0", targets=[str(project.cell("epsilon").relative_to(project.folder)) + "/training.json"]
    )
    code = driver.wait(timeout=200)
    log = project.cell("epsilon") / "log/train.log"
    assert code == 0, project.log[-3000:] + (log.read_text() if log.exists() else "")
    assert read_json(project.cell("epsilon") / "training.json")["processes"] == 4
    (job,) = project.jobs("train")
    assert (job["NumNodes"], job["NumTasks"], job["TresPerNode"]) == ("2", "2", "gres:gpu:2")
