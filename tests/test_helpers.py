"""The tests' own tools, where a fault of theirs would hide or fake one of the project."""

import subprocess

import helpers


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
