"""training.json and train.jsonl as every stage reads them: what is wrong is one line, whatever wrote it."""

import hashlib
import json
import re

import pytest
import yaml
from helpers import ROOT, whole_outcome
from synthetic import Files, write_json

from targetwise import cells
from targetwise.cells.agreement import Agreement, parts, require_whole
from targetwise.cells.outcome import check_outcome, clipped_share, read_curve, read_outcome
from targetwise.data.store import Images
from targetwise.errors import UserError
from targetwise.operations import status
from targetwise.records import manifest
from targetwise.report import origins, page
from targetwise.report.table import table as table_of
from targetwise.sampling.stage import sample
from targetwise.tracking.runs import Runs
from targetwise.training import loop
from targetwise.training.stopping import Stop

SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/training.schema.yaml").read_text())
LINE = {"step": 4, "loss": 0.5, "time": 1_790_000_004.0}


@pytest.fixture
def config(study, project):
    """One finished cell of the demo, trained by a rule of one's own: its record holds what it must and no more."""
    study["grid"] |= {"parameterizations": ["v"], "seeds": [0]}
    made = Files(study)
    (cell,) = made.cells
    made.finish(cell, [4])
    write_json(cell.folder / "training.json", whole_outcome())
    write_curve(cell, LINE)
    return study


@pytest.fixture
def cell(config):
    return cells.grid(config)[0]


def write_curve(cell, *lines):
    (cell.folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def table(config, cell):
    """It shows the other cells all the same, and of this one the reason."""
    (row,) = table_of(config).itertuples()
    if row.status == "missing":
        raise UserError(row.reason)


def report_origins(config, cell):
    origins.origins(config)


def make_manifest(config, cell):
    manifest.gather(cell.folder)


def draw_samples(config, cell, images):
    specification = json.loads((cell.folder / "cell.json").read_text())
    sample(specification, config["sampling"], images, cell.folder, 0, cell.folder / "drawn/draw0.npz")


def track(config, cell):
    Runs(config).describe(status.standings(config)[0])


def version(config, cell):
    Agreement(config).require(cell)


def restore(config, cell):
    require_whole(parts(config, cell)[0])


def train(config, cell, images):
    specification = json.loads((cell.folder / "cell.json").read_text())
    (cell.folder / "model.safetensors").touch()
    loop.train(specification, images, cell.folder, save_every_seconds=60, stop=Stop())


READERS = [table, report_origins, make_manifest, draw_samples, track, version, restore, train]


def read_by(reader, config, cell, images: Images):
    return reader(config, cell, images) if reader in (draw_samples, train) else reader(config, cell)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("key", SCHEMA["required"])
def test_a_record_that_lacks_a_key_is_one_line_for_every_reader(config, cell, images, reader, key):
    path = cell.folder / "training.json"
    record = whole_outcome()
    del record[key]
    write_json(path, record)
    with pytest.raises(UserError, match=f"^{path}: {key} is missing .*publish.py") as refusal:
        read_by(reader, config, cell, images)
    assert "\n" not in str(refusal.value)
    assert not (cell.folder / "drawn").exists()


@pytest.mark.parametrize("reader", READERS)
def test_a_record_that_is_wrong_inside_is_one_line_for_every_reader(config, cell, images, reader):
    path = cell.folder / "training.json"
    write_json(path, whole_outcome(environment={}))
    with pytest.raises(UserError, match=f"^{path}: environment.versions is missing .*publish.py"):
        read_by(reader, config, cell, images)


@pytest.mark.parametrize("key", SCHEMA["required"])
def test_status_calls_such_a_cell_failed_and_shows_the_others(config, cell, key):
    record = whole_outcome()
    del record[key]
    write_json(cell.folder / "training.json", record)
    config["grid"]["seeds"] = [0, 1]
    cells.write_specifications(config)
    wrong, other = status.standings(config)
    assert wrong.state == "failed"
    assert wrong.detail.startswith(f"{cell.folder}/training.json: {key} is missing ")
    assert other.state == "waiting"


@pytest.mark.parametrize("reader", [table, report_origins, track])
def test_what_must_be_there_is_all_that_the_stages_after_it_need(config, cell, reader):
    reader(config, cell)
    assert status.standings(config)[0].state == "done"


def test_the_table_and_the_report_of_a_training_that_clipped_nothing(config, cell):
    frame = table_of(config)
    assert frame["steps"].tolist() == [12] and frame["final_loss"].tolist() == [0.5]
    assert frame["clipped_share"].isna().all()
    shown = page.render(config, cells.RESULTS / config["study"])
    assert "Training loss of v" in shown and "Share of clipped steps" not in shown


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "done"}, r"status is 'done'; \(choices: diverged, finished\)"),
        ({"steps": "12"}, "steps is '12'; it must be a whole number"),
        ({"steps": -1}, "steps is -1; it must be at least 0"),
        ({"final_loss": float("nan")}, "final_loss is nan; it must be a finite number"),
        ({"final_loss": None}, "final_loss is empty; it must be a finite number"),
        ({"reason": "because"}, "reason is 'because'; it must be null"),
        ({"status": "diverged"}, "reason is empty; it must be a text"),
        ({"model_sha256": "A" * 64}, "model_sha256 is 'A+'; it must be a SHA-256 in hex"),
        ({"model_sha256": "a" * 64 + "\n"}, "model_sha256 is .*it must be a SHA-256 in hex"),
        ({"seconds": None}, "seconds is empty; it must be a finite number"),
        ({"clipped_shre": 0.5}, "unknown key 'clipped_shre'; did you mean 'clipped_share'"),
        ({"clipped_share": 50}, "clipped_share is 50; it must be at most 1"),
        ({"environment": {}}, "environment.versions is missing"),
        ({"key": None}, "key is empty; it must be a text"),
    ],
)
def test_a_wrong_record_says_what_would_be_right(tmp_path, changes, words):
    path = tmp_path / "training.json"
    path.write_text(json.dumps(whole_outcome(**changes)))
    with pytest.raises(UserError, match=f"^{path}: {words}"):
        read_outcome(path)


@pytest.mark.parametrize("content", ["[]", '["status"]', "3", "null"])
def test_a_record_that_is_no_mapping_is_named(tmp_path, content):
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(UserError, match=r"training\.json: .*; it must be a mapping of keys"):
        read_outcome(tmp_path / "training.json")


def test_a_diverged_record_needs_its_reason_and_no_loss(tmp_path):
    record = whole_outcome(status="diverged", reason="too loud", final_loss=None)
    check_outcome(record, tmp_path / "training.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"step": None}, "line 2: step is empty; it must be a whole number"),
        ({"loss": "0.5"}, "line 2: loss is '0.5'; it must be a finite number or null"),
        ({"time": "now"}, "line 2: time is 'now'; it must be a finite number"),
        ({"clipped_share": "half"}, "line 2: clipped_share is 'half'"),
        ({"clipped_shre": 0.5}, "line 2: unknown key 'clipped_shre'; did you mean 'clipped_share'"),
        ({"own": {"teacher": "v"}}, "line 2: own.teacher is 'v'; it must be a finite number or null"),
        ({"step": 4}, "line 2: step is 4, after step 4; steps must increase"),
    ],
)
@pytest.mark.parametrize("reader", ["report", "restore"])
def test_a_wrong_line_of_the_curve_is_named(config, cell, reader, changes, words):
    write_curve(cell, LINE, {**LINE, "step": 8, **changes})
    (cell.folder / "model.safetensors").touch()
    write_json(cell.folder / "training.json", whole_outcome(model_sha256=hashlib.sha256(b"").hexdigest()))
    with pytest.raises(UserError, match=f"^{cell.folder}/train.jsonl, {re.escape(words)}"):
        restore(config, cell) if reader == "restore" else page.render(config, cells.RESULTS / config["study"])


@pytest.mark.parametrize("key", ["step", "loss", "time"])
def test_a_line_that_lacks_a_key_is_named(config, cell, key):
    line = {name: value for name, value in LINE.items() if name != key}
    write_curve(cell, line)
    for read in (track, lambda *_: read_curve(cell.folder / "train.jsonl")):
        with pytest.raises(UserError, match=f"train.jsonl, line 1: {key} is missing "):
            read(config, cell)


def test_a_curve_may_hold_numbers_of_its_own(tmp_path):
    lines = [{**LINE, "step": step, "own": {"distance_to_teacher": 0.25}} for step in (1, 2)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_curve(tmp_path / "train.jsonl") == lines


@pytest.mark.parametrize(
    ("steps_and_shares", "share"),
    [
        ([(4, 1.0), (8, 0.0)], 0.5),
        ([(100, 0.5), (200, 0.25), (210, 1.0)], 85 / 210),
        ([(100, None), (300, 0.5), (400, 0.0)], 1 / 3),
        ([(100, None)], None),
        ([], None),
    ],
    ids=["whole windows", "a short last one", "the first without", "none", "no line"],
)
def test_the_share_of_clipped_steps_counts_steps_and_not_lines(steps_and_shares, share):
    lines = [
        {**LINE, "step": step} | ({} if each is None else {"clipped_share": each}) for step, each in steps_and_shares
    ]
    assert clipped_share(lines) == (share if share is None else pytest.approx(share))


def test_a_record_of_another_procedure_is_not_trained_over(config, cell, images):
    (cell.folder / "model.safetensors").touch()
    before = {path: path.read_bytes() for path in cell.folder.iterdir() if path.is_file()}
    with pytest.raises(UserError, match=r"training\.json is of a training by a rule of your own; delete it to"):
        train(config, cell, images)
    assert {path: path.read_bytes() for path in cell.folder.iterdir() if path.is_file()} == before
