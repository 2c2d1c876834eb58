"""The tests' own tools, where a fault of theirs would hide or fake one of the project."""

import subprocess

import helpers
import pytest
from helpers import is_plain

from targetwise.diffusion.parameterization import load_file


def test_a_copy_of_the_working_tree_has_no_record_of_the_results_that_were_made_in_it(tmp_path, monkeypatch):
    """`make demo` leaves dvc.lock, and its README says to commit it; a copy without the results cannot keep it."""
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    tree.mkdir()
    for name in ("dvc.lock", "dvc.yaml", "ignored", ".gitignore"):
        (tree / name).write_text("ignored\n")
    monkeypatch.setattr(helpers, "ROOT", tree)
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    for tracked in (False, True):
        if tracked:
            subprocess.run(["git", "add", "dvc.lock"], cwd=tree, check=True)
        helpers.copy_working_tree(copy)
        assert sorted(path.name for path in copy.iterdir()) == [".gitignore", "dvc.yaml"]


@pytest.mark.parametrize(
    ("target", "predict", "plain"),
    [
        ("noise", "x_t - model_output", True),
        ("noise / schedule['sigma_data']", "x_t - model_output", False),
        ("torch.cat([x_0, noise], 1)", "model_output[:, :1]", False),
    ],
    ids=["plain", "constant", "two heads"],
)
def test_what_needs_a_variants_constants_or_has_other_channels_is_not_tested_like_the_others(
    tmp_path, target, predict, plain
):
    """As docs/extending.md says that one may add them: no shipped test turns red for it."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        f"def compute_training_target(x_0, noise, timesteps, schedule):\n    return {target}\n"
        f"def predict_x0(model_output, x_t, timesteps, schedule):\n    return {predict}\n"
    )
    assert is_plain(load_file(path)) == plain
