"""What a procedure of one's own made becomes a cell's result, or one line says why not and nothing is written."""

import json
import math
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, write_dataset
from safetensors.torch import load_file, save_file

from targetwise import cells
from targetwise.cells.outcome import read_outcome
from targetwise.data import store
from targetwise.data.samples import load_samples
from targetwise.errors import UserError
from targetwise.files import write_json
from targetwise.provenance import environment
from targetwise.sampling.stage import sample
from targetwise.training.publishing import publish

LINES = [{"step": step, "loss": 1 / step, "time": 1_790_000_000.0 + step} for step in (4, 8, 12)]
RESULT = ("model.safetensors", "train.jsonl", "training.json")

#: The network of the cell below, 1 level of 32 channels: its first tensor is diffusers' own name and shape.
FIRST, SHAPE = "conv_in.weight", (32, 1, 3, 3)


@pytest.fixture
def specification(study, project):
    """The cell.json of a small cell, beside its data; the test runs there."""
    study["scales"]["tiny"] = {"channels": [32], "attention": [], "layers_per_block": 1}
    study["datasets"] = {"digits": {**study["datasets"]["digits"], "train_sha256": None}}
    study["grid"] |= {"parameterizations": ["v"], "seeds": [0]}
    (cell,) = cells.grid(study)
    content = cells.specifications(study)[cell.folder / "cell.json"]
    content["data"]["train_sha256"] = None
    write_json(cell.folder / "cell.json", content)
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
    write_dataset(project / "data/digits", images)
    return cell.folder / "cell.json"


@pytest.fixture
def weights():
    """Weights of the cell's network, made by diffusers itself."""
    from diffusers import UNet2DModel

    torch.manual_seed(7)
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        norm_num_groups=32,
    )
    return {name: value.contiguous() for name, value in network.state_dict().items()}


@pytest.fixture
def made(project, weights):
    """What a procedure made, outside the cell's folder."""
    save_file(weights, "mine.safetensors")
    write_curve(*LINES)
    return Path("mine.safetensors"), Path("mine.jsonl")


def write_curve(*lines, end="\n"):
    Path("mine.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + end)


def left(specification):
    return sorted(path.name for path in specification.parent.iterdir() if path.name != "cell.json")


def test_it_needs_weights_and_a_curve_and_nothing_else(specification, made):
    outcome = publish(specification, *made)
    folder = specification.parent
    assert left(specification) == sorted(RESULT)
    digest = sha256(made[0].read_bytes()).hexdigest()
    assert outcome == {
        "status": "finished",
        "reason": None,
        "steps": 12,
        "final_loss": 1 / 12,
        "model_sha256": digest,
        "sources": {
            f"workflow/{name}.py": sha256(Path(f"workflow/{name}.py").read_bytes()).hexdigest()
            for name in ("parameterizations/v", "networks/unet", "paths/linear")
        },
        "seconds": 8.0,
        "finished_at": 1_790_000_012.0,
        "environment": environment(),
    }
    assert read_outcome(folder / "training.json") == outcome
    assert sha256((folder / "model.safetensors").read_bytes()).hexdigest() == digest
    assert [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()] == LINES


def test_what_is_published_can_be_sampled(specification, made, study):
    publish(specification, *made)
    options = {**study["sampling"], "images": 4, "batch": 4, "steps": 2}
    content = json.loads(specification.read_text())
    sample(content, options, store.training_images(content), specification.parent, 0, Path("draw0.npz"))
    assert load_samples(Path("draw0.npz")).shape == (4, 8, 8, 1)


def test_a_last_line_without_an_end_counts(specification, made):
    write_curve(*LINES, end="")
    assert publish(specification, *made)["steps"] == 12
    assert (specification.parent / "train.jsonl").read_text().endswith("}\n")


def test_what_the_training_took_and_its_clipped_steps_are_recorded(specification, made):
    write_curve(*({**line, "clipped_share": share} for line, share in zip(LINES, (1, 0.5, 0), strict=True)))
    outcome = publish(specification, *made, seconds=99.5)
    assert (outcome["seconds"], outcome["clipped_share"]) == (99.5, 0.5)


def test_a_divergence_is_a_result_with_a_reason(specification, made):
    write_curve(*LINES[:2], {**LINES[2], "loss": None})
    outcome = publish(specification, *made, status="diverged", reason="the student left the teacher")
    assert (outcome["status"], outcome["final_loss"]) == ("diverged", None)
    assert outcome["reason"] == "the student left the teacher"


def test_files_may_lie_in_their_place_already(specification, made):
    for path, name in zip(made, RESULT[:2], strict=True):
        path.rename(specification.parent / name)
    publish(specification, *(specification.parent / name for name in RESULT[:2]))
    assert left(specification) == sorted(RESULT)


def test_what_dvc_keeps_under_the_same_name_stays_as_it_is(specification, made):
    kept = specification.parent / "model.safetensors"
    kept.write_bytes(b"recorded")
    kept.chmod(0o444)
    Path("cache").hardlink_to(kept)
    publish(specification, *made)
    assert Path("cache").read_bytes() == b"recorded" and kept.read_bytes() == made[0].read_bytes()


def lacks(weights):
    return {f"module.{name}": value for name, value in weights.items()}


def other_shape(weights):
    return weights | {FIRST: torch.zeros(16, 1, 3, 3)}


def too_many(weights):
    return weights | {"teacher.weight": torch.zeros(1)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lacks, f"it lacks the tensor {FIRST} (32×1×3×3); it holds e.g. module."),
        (other_shape, f"its tensor {FIRST} is 16×1×3×3, that of the network is 32×1×3×3"),
        (too_many, "its tensor teacher.weight is not one of the network's"),
    ],
)
def test_weights_of_another_network_are_refused_by_the_first_tensor(specification, made, weights, change, words):
    assert tuple(weights[FIRST].shape) == SHAPE
    save_file(change(weights), "mine.safetensors")
    refused(specification, made, f"mine.safetensors does not fit the network of v-tiny-0: {words}")


def test_snapshots_that_the_cell_declares_are_asked_for(specification, made, weights):
    content = json.loads(specification.read_text())
    write_json(specification, content | {"training": content["training"] | {"snapshots": [4, 8]}})
    kept, later = ({f"snapshot/{step}/{name}": weights[name].clone() for name in weights} for step in (4, 8))
    save_file(weights | kept, "mine.safetensors")
    refused(specification, made, "mine.safetensors holds no snapshot after step 8; it has those after step 4")
    save_file(weights | kept | later | {f"snapshot/8/{FIRST}": torch.zeros(16, 1, 3, 3)}, "mine.safetensors")
    refused(specification, made, f"mine.safetensors does not fit the network of v-tiny-0: its tensor {FIRST} is 16")
    save_file(weights | kept | later, "mine.safetensors")
    assert publish(specification, *made)["status"] == "finished"


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04pickle"])
def test_weights_that_cannot_be_read_are_named(specification, made, content):
    made[0].unlink() if content is None else made[0].write_bytes(content)
    refused(specification, made, "mine.safetensors cannot be loaded (")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "mine.jsonl does not exist"),
        ("", "mine.jsonl has no lines"),
        ("{", "mine.jsonl, line 1 is not JSON"),
        ('{"step": 1, "loss": 1.0, "time": 1}\nloss 0.5\n', "mine.jsonl, line 2 is not JSON"),
        ("[4, 0.5]\n", "mine.jsonl, line 1: it holds a list; it must be a mapping of keys"),
        ('{"step": 1, "loss": 1.0}\n', "mine.jsonl, line 1: time is missing (When the line was written"),
        ('{"step": 1, "loss": NaN, "time": 1}\n', "mine.jsonl, line 1: loss is nan; it must be a finite number or"),
        (
            '{"step": 1, "loss": 1.0, "time": 1}\n{"step": 2, "loss": Infinity, "time": 1}\n',
            "mine.jsonl, line 2: loss is inf; it must be a finite number or",
        ),
        (
            '{"step": 1, "loss": null, "time": 1}\n',
            "mine.jsonl: the last loss is not finite; say so with --status diverged --reason",
        ),
    ],
)
def test_a_curve_that_cannot_be_drawn_is_refused(specification, made, text, words):
    made[1].unlink() if text is None else made[1].write_text(text)
    refused(specification, made, words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"status": "diverged"}, "reason is empty; it must be a text"),
        ({"reason": "it did"}, "reason is 'it did'; it must be null"),
        ({"status": "done"}, "status is 'done'; (choices: diverged, finished)"),
        ({"seconds": -1.0}, "seconds is -1.0; it must be at least 0"),
        ({"seconds": math.nan}, "seconds is nan; it must be a finite number"),
    ],
)
def test_an_outcome_that_makes_no_sense_is_refused(specification, made, options, words):
    refused(specification, made, f"{specification.with_name('training.json')}: {words}", **options)


@pytest.mark.parametrize("content", ["{}", "[]", '{"cell": {"seed": 1}}'])
def test_a_file_that_is_no_specification_is_named(specification, made, content):
    specification.write_text(content)
    refused(specification, made, f"{specification} is not a cell.json of results/")


def refused(specification, made, words, **options):
    """Make sure that publishing ends in one line that begins with ``words``, and leaves what was there as it was."""
    for name in RESULT:
        (specification.parent / name).write_text("before")
    with pytest.raises(UserError) as refusal:
        publish(specification, *made, **options)
    assert str(refusal.value).startswith(words), refusal.value
    assert "\n" not in str(refusal.value)
    assert left(specification) == sorted(RESULT)
    assert {(specification.parent / name).read_text() for name in RESULT} == {"before"}


def test_a_disk_that_fills_up_replaces_nothing(specification, made, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    for name in RESULT:
        (specification.parent / name).write_text("before")
    monkeypatch.setattr("targetwise.training.publishing.canonical_json", full)
    with pytest.raises(OSError, match="No space"):
        publish(specification, *made)
    assert left(specification) == sorted(RESULT)
    assert {(specification.parent / name).read_text() for name in RESULT} == {"before"}


def test_the_record_comes_last(specification, made, monkeypatch):
    """A kill between two of the files must not leave a record of files that are not there."""
    order, replace = [], Path.replace

    def replace_and_note(path, target):
        order.append(Path(target).name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_and_note)
    publish(specification, *made)
    assert sorted(order) == sorted(RESULT) and order[-1] == "training.json"


def test_the_script_says_what_is_wrong_in_one_line(specification, made, weights):
    script = [sys.executable, ROOT / "workflow/scripts/publish.py", "--specification", specification]
    command = [*script, "--model", made[0], "--curve", made[1], "--seconds", "5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((specification.parent / "training.json").read_text())["seconds"] == 5
    assert load_file(specification.parent / "model.safetensors").keys() == weights.keys()
    made[1].write_text("")
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: mine.jsonl has no lines\n")


def test_what_was_published_is_not_sampled_along_another_path(specification, made, study, project):
    publish(specification, *made)
    (project / "workflow").unlink()
    shutil.copytree(ROOT / "workflow", project / "workflow")
    with Path("workflow/paths/linear.py").open("a") as file:
        file.write("# edited\n")
    content = json.loads(specification.read_text())
    options = {**study["sampling"], "images": 4, "batch": 4, "steps": 2}
    with pytest.raises(UserError, match=r"^workflow/paths/linear\.py is not the file that .* was trained with"):
        sample(content, options, store.training_images(content), specification.parent, 0, Path("draw0.npz"))
