"""Cells, and what makes one out of date: its own file changes exactly when its own result would."""

import copy
import os
import shutil
from pathlib import Path

import pytest
from helpers import ROOT

from targetwise import cells
from targetwise.errors import UserError
from targetwise.files import canonical_json, read_json
from targetwise.recipe import config


@pytest.fixture
def written(project, study):
    """The study's specifications on disk, with dates of long ago."""
    cells.write_specifications(study)
    for path in cells.specifications(study):
        os.utime(path, ns=(1, 1))
    return study


def touched(config):
    """Write the specifications again; return those whose date moved, and those that are new."""
    cells.write_specifications(config)
    return {str(path.relative_to("results/digits")) for path in all_files() if path.stat().st_mtime_ns != 1}


def all_files():
    return [path for path in Path("results").rglob("*") if path.is_file()]


def of_variant(config, name):
    seeds, scales = config["grid"]["seeds"], config["grid"]["scales"]
    return {f"{name}/variant.json", f"{name}/sampling-ddim-50.json"} | {
        f"{name}/{scale}/seed{seed}/cell.json" for scale in scales for seed in seeds
    }


def all_cells(config):
    return {str(cell.folder.relative_to("results/digits") / "cell.json") for cell in cells.grid(config)}


def test_names_and_folders():
    cell = cells.Cell("cifar10", "epsilon", "small", 42)
    assert cell.name == "epsilon-small-42"
    assert cell.folder == Path("results/cifar10/epsilon/small/seed42")


def test_the_grid_is_the_product_of_its_lists_in_their_order(study):
    study["grid"] = {"parameterizations": ["v", "epsilon"], "scales": ["tiny", "small"], "seeds": [5, 0]}
    names = [cell.name for cell in cells.grid(study)]
    assert names == [f"{p}-{s}-{k}" for p in ("v", "epsilon") for s in ("tiny", "small") for k in (5, 0)]
    assert len(set(names)) == 8


def test_a_cell_is_found_by_its_name(study):
    for cell in cells.grid(study):
        assert cells.find(study, cell.name) == cell


@pytest.mark.parametrize("name", ["epsilon-tiny-7", "epsilom-tiny-0", "v-tinny-0"])
def test_a_cell_that_is_not_there_is_refused_with_a_near_one(study, name):
    with pytest.raises(UserError, match=f"no cell '{name}'; did you mean '(epsilon|v)-tiny-[0-9]'"):
        cells.find(study, name)


def test_names_of_folders(study):
    assert cells.Draw("ddim-50", 2).name == "ddim-50/draw2"
    study["metric"].update(extractor="inception", implementation="fast", reference={"split": "test", "first": 2000})
    assert cells.reference_name(study) == "inception-fast-test-first2000"


def test_one_specification_per_stage(study):
    files = {str(path.relative_to("results/digits")) for path in cells.specifications(study)}
    shared = {"study.json", "metric.json"}
    assert files == shared.union(*(of_variant(study, name) for name in study["grid"]["parameterizations"]))


def test_specifications_are_plain_json(study):
    for content in cells.specifications(study).values():
        canonical_json(content)


def test_making_specifications_changes_no_configuration(study):
    before = copy.deepcopy(study)
    cells.specifications(study)
    assert study == before


def test_what_is_unchanged_keeps_its_date(written):
    assert touched(written) == set()


def test_the_order_of_keys_and_a_copy_change_nothing(written):
    shuffled = {key: written[key] for key in reversed(written)}
    shuffled["training"] = {key: written["training"][key] for key in sorted(written["training"])}
    assert touched(shuffled) == set()


@pytest.mark.parametrize(
    "change", [{"weighting": "snr"}, {"loss_space": "x0"}, {"schedule": "cosine"}, {"parameters": {"k": 1.0}}]
)
def test_a_changed_variant_touches_exactly_its_own(written, change):
    written["parameterizations"]["v"].update(change)
    assert touched(written) == {"study.json"} | of_variant(written, "v") - {"v/sampling-ddim-50.json"}


def test_a_new_variant_touches_no_other(written):
    written["parameterizations"]["v2"] = {"target": "v"}
    written["grid"]["parameterizations"].append("v2")
    assert touched(written) == {"study.json"} | of_variant(written, "v2")


def test_a_new_seed_touches_no_other(written):
    written["grid"]["seeds"].append(77)
    new = {f"{name}/tiny/seed77/cell.json" for name in written["grid"]["parameterizations"]}
    assert touched(written) == {"study.json"} | new


def test_a_definition_that_nothing_uses_touches_no_cell(written):
    written["parameterizations"]["later"] = {"target": "x0"}
    written["scales"]["small"]["channels"] = [32]
    assert touched(written) == {"study.json"}


@pytest.mark.parametrize(("key", "value"), [("images", 64), ("clip", False), ("seed", 1)])
def test_sampling_touches_no_cell(written, key, value):
    written["sampling"][key] = value
    floor = {"metric.json"} if key == "images" else set()
    samplings = {f"{name}/sampling-ddim-50.json" for name in written["grid"]["parameterizations"]}
    assert touched(written) == {"study.json"} | samplings | floor


def test_the_metric_touches_no_cell(written):
    written["metric"]["reference"]["split"] = "test"
    assert touched(written) == {"study.json", "metric.json"}


@pytest.mark.parametrize(("section", "key"), [("training", "save_every_seconds"), (None, "bounds")])
def test_what_changes_no_result_touches_no_cell(written, section, key):
    values = written[section] if section else written
    values[key] = 1234.5 if section else not values[key]
    assert touched(written) == {"study.json"}


def test_the_tracking_server_touches_no_cell(written):
    written["tracking"] = {"uri": "http://somewhere"}
    assert touched(written) == {"study.json"}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("training", "steps", 7), ("training", "learning_rate", 0.5), ("data", "horizontal_flip", True)],
)
def test_training_touches_every_cell_and_no_check(written, section, key, value):
    written[section][key] = value
    assert touched(written) - {"metric.json"} == {"study.json"} | all_cells(written)


def test_the_noise_path_touches_checks_and_cells(written):
    written["diffusion"]["timesteps"] = 500
    variants = {f"{name}/variant.json" for name in written["grid"]["parameterizations"]}
    assert touched(written) == {"study.json"} | variants | all_cells(written)


def test_a_scale_touches_its_own_cells(written):
    written["scales"]["tiny"]["layers"] = 2
    assert touched(written) == {"study.json"} | all_cells(written)


@pytest.mark.parametrize("stage", ["training", "sampling", "metric", "reference"])
def test_a_stages_protocol_number_touches_that_stage_and_no_other(written, monkeypatch, stage):
    monkeypatch.setattr(
        "targetwise.cells.specification.PROTOCOL", {**cells.PROTOCOL, stage: cells.PROTOCOL[stage] + 1}
    )
    variants = {f"{name}/variant.json" for name in written["grid"]["parameterizations"]}
    of_stage = {
        "training": variants | all_cells(written),
        "sampling": {f"{name}/sampling-ddim-50.json" for name in written["grid"]["parameterizations"]},
        "metric": {"metric.json"},
        "reference": {"metric.json"},  # and it is in the reference's own key (test_fid_reference.py)
    }
    assert touched(written) == of_stage[stage]


@pytest.mark.parametrize(
    ("file", "trained", "sampled"),
    [
        ("parameterizations/v.py", True, True),
        ("paths/cosine.py", True, True),
        ("weightings/snr.py", True, False),
        ("samplers/ddim.py", False, True),
        ("samplers/dpmpp_2m.py", False, False),
    ],
)
def test_a_file_belongs_to_the_stages_that_use_it_and_to_no_other(project, study, file, trained, sampled):
    (project / "workflow").unlink()
    shutil.copytree(ROOT / "workflow", project / "workflow")
    study["parameterizations"] |= {"mine": {"target": "v", "weighting": "snr", "schedule": "cosine"}}
    study["grid"] |= {"parameterizations": ["mine", "epsilon"], "seeds": [0]}
    mine, other = (content for path, content in cells.specifications(study).items() if path.name == "cell.json")
    training = {"model_sha256": "m", "status": "finished"}

    def keys(specification):
        made = cells.Keys("d" * 64)
        return made.of(specification), made.of_samples(specification, training, study["sampling"], 0)

    before, before_of_other = keys(mine), keys(other)
    path = Path("workflow") / file
    path.write_text(path.read_text() + "\n# another file\n")
    assert [now != then for now, then in zip(keys(mine), before, strict=True)] == [trained, sampled]
    assert (keys(other) != before_of_other) == (file == "samplers/ddim.py")


def test_a_table_of_weights_belongs_to_the_training_that_uses_it_and_to_its_check(project, study):
    (project / "workflow").unlink()
    shutil.copytree(ROOT / "workflow", project / "workflow")
    table = Path("workflow/weightings/tabled.csv")
    table.write_text("t,weight\n0,1\n")
    study["parameterizations"]["v"] = {"weighting": "tabled"}
    study["grid"] |= {"parameterizations": ["v", "epsilon"], "seeds": [0]}
    config.validate(study)
    mine, other = (content for path, content in cells.specifications(study).items() if path.name == "cell.json")
    assert table in cells.source_files(mine["variant"]) and table not in cells.source_files(other["variant"])
    before = [cells.Keys("d" * 64).of(each) for each in (mine, other)]
    table.write_text("t,weight\n0,2\n")
    after = [cells.Keys("d" * 64).of(each) for each in (mine, other)]
    assert before[0] != after[0] and before[1] == after[1]


def test_a_numpy_with_other_streams_gives_other_keys(study, monkeypatch):
    """Else its draws would be mixed silently with those of before."""
    (specification, *_) = (
        content for path, content in cells.specifications(study).items() if path.name == "cell.json"
    )
    training = {"model_sha256": "m", "status": "finished"}

    def keys():
        found = cells.Keys("d" * 64)
        return found.of(specification), found.of_samples(specification, training, study["sampling"], 0)

    before = keys()
    assert keys() == before
    monkeypatch.setattr("targetwise.cells.keys.golden_draw", lambda: "0" * 64)
    assert all(now != then for now, then in zip(keys(), before, strict=True))


def test_a_scales_own_batch_replaces_the_general_one(study):
    study["scales"]["tiny"]["global_batch"] = 16
    study["scales"]["small"] = {key: value for key, value in study["scales"]["tiny"].items() if key != "global_batch"}
    study["grid"]["scales"] = ["tiny", "small"]
    files = cells.specifications(study)
    tiny, small = (files[Path(f"results/digits/v/{scale}/seed0/cell.json")] for scale in ("tiny", "small"))
    assert tiny["training"]["global_batch"] == 16
    assert small["training"]["global_batch"] == study["training"]["global_batch"] != 16
    assert "global_batch" not in tiny["network"]


def test_a_seed_is_all_that_two_cells_of_a_variant_differ_in(study):
    files = cells.specifications(study)
    one, two = (files[Path(f"results/digits/v/tiny/seed{seed}/cell.json")] for seed in (0, 1))
    assert one["cell"] == {"study": "digits", "parameterization": "v", "scale": "tiny", "seed": 0}
    assert {**one, "cell": None} == {**two, "cell": None}


def test_jobs_go_on_under_the_configuration_they_were_started_with(written):
    cells.require_specifications(written)


def test_a_configuration_edited_during_a_run_stops_its_jobs(written):
    written["training"]["steps"] += 1
    with pytest.raises(UserError, match=r"edited while a run is under way: results/digits/\S+ no longer agrees"):
        cells.require_specifications(written)
    assert read_json(Path("results/digits/v/tiny/seed0/cell.json"))["training"]["steps"] == (
        written["training"]["steps"] - 1
    )


def test_a_missing_or_damaged_specification_stops_jobs(written):
    path = Path("results/digits/v/tiny/seed0/cell.json")
    path.write_text("{")
    with pytest.raises(UserError, match=f"{path} is damaged"):
        cells.require_specifications(written)
    path.unlink()
    with pytest.raises(UserError, match=f"{path} does not exist"):
        cells.require_specifications(written)
    cells.write_specifications(written)
    cells.require_specifications(written)
