"""The benchmarks: fair turns, ratios, records that say what they were measured with, a page that repeats them."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import document
import figure
import host
import plan as planning
import pytest
import run
import sections
import timing
import torch
from helpers import FAST, ROOT
from timing import Contestant

from targetwise.errors import UserError
from targetwise.operations import rates
from targetwise.text import replaced

SLOW = {**FAST, "compile": False}
TINY = {"channels": [32, 32], "attention": [1], "layers_per_block": 1}


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self, monkeypatch):
        self.now, self.turns = 0.0, []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def contestant(self, name, durations, work=1, prepare=lambda: None):
        durations = iter(durations)

        def work_for_a_while():
            self.turns.append(name)
            self.now += next(durations)

        return Contestant(name, work_for_a_while, work, {}, prepare)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_contestants_take_turns_and_whoever_began_a_pair_ends_the_next(clock):
    timing.compare(clock.contestant("a", [1] * 4), clock.contestant("b", [1] * 4), pairs=3)
    assert clock.turns == ["a", "b", *"ab", *"ba", *"ab"]


def test_ratio_is_that_of_neighbours_without_the_first_run(clock):
    ours = clock.contestant("ours", [100, 1, 2, 4], work=8)
    theirs = clock.contestant("theirs", [50, 2, 3, 12], work=8)
    found = timing.compare(ours, theirs, pairs=3)
    assert found["ratio"] == {"median": 2.0, "min": 1.5, "max": 3.0}
    assert found["ours"]["rates"] == [8.0, 4.0, 2.0] and found["theirs"]["rates"] == [4.0, 8 / 3, 8 / 12]
    assert (found["ours"]["first_run_seconds"], found["theirs"]["first_run_seconds"]) == (100.0, 50.0)


def test_kernels_are_set_before_every_run(clock):
    prepared = []
    ours = clock.contestant("ours", [1] * 3, prepare=lambda: prepared.append(len(clock.turns)))
    timing.compare(ours, clock.contestant("theirs", [1] * 3), pairs=2)
    assert prepared == [0, 2, 5]


@pytest.mark.parametrize("configured", [FAST, SLOW, {**FAST, "deterministic": True}])
def test_every_switch_of_the_configuration_is_measured_by_itself(configured):
    names = planning.SWITCHES + planning.SWITCHES_OF_GPU
    pairs = {name: planning.with_and_without(name, configured) for name in names}
    changed = {name: {key for key in on if on[key] != off[key]} for name, (on, off) in pairs.items()}
    assert all(len(keys) == 1 for keys in changed.values()), changed
    assert set().union(*changed.values()) == set(rates.TRAINING_SWITCHES) == set(configured)
    assert set(planning.SWITCHES_OF_SAMPLING) <= set(pairs)
    assert pairs["fp16"][0]["precision"] == "fp16" and pairs["tf32"][0]["precision"] == "fp32"


def test_plans_ask_for_five_pairs_and_the_tasks_batches():
    cpu = planning.plan_for(torch.device("cpu"))
    gpu = planning.plan_for(torch.device("cuda"))
    assert (cpu.batch, gpu.batch) == (8, 128) and min(cpu.pairs, gpu.pairs) >= 5
    assert gpu.configured == FAST and gpu.formats == ("fp16", "bf16")
    assert set(gpu.switched) == {*cpu.switched, "fp16", "tf32"}


@pytest.mark.parametrize(
    ("precision", "formats", "measures_bf16"), [("fp32", ("fp32",), False), ("bf16", ("fp32", "bf16"), True)]
)
def test_what_config_yaml_leaves_to_be_chosen_is_chosen_for_the_benchmarks_network(
    monkeypatch, precision, formats, measures_bf16
):
    asked = []

    def measure(cell, shape):
        asked.append((cell, shape))
        return {"values": {"precision": precision, "compile": False}, "compared": []}

    monkeypatch.setattr(planning, "measure", measure)
    plan = planning.plan_for(torch.device("cpu"))
    assert (plan.configured["precision"], plan.configured["compile"]) == ("auto", "auto")
    found = planning.with_choice(plan, threads=2)
    assert found.configured == {**plan.configured, "precision": precision, "compile": False}
    assert found.choice == {"compared": []}
    assert found.formats == formats and ("bf16" in found.switched) == measures_bf16
    assert run._formats(found) == list(formats)
    assert planning.with_choice(found, threads=2) is found
    ((cell, shape),) = asked
    assert shape == (32, 3) and cell["network"] == plan.network
    options = cell["training"]
    assert (options["threads"], options["global_batch"], options["steps"]) == (2, 128, 35000)
    assert options["precision"]["cpu"] == options["compile"]["cpu"] == "auto"


def tiny_plan():
    plan = planning.plan_for(torch.device("cpu"))
    return replace(
        plan,
        configured=SLOW,
        network=TINY,
        scale="tiny",
        pairs=2,
        images=128,
        steps=1,
        sampling_steps=2,
        sampling_images=2,
        matrix=64,
        copied=1024,
        switched=("fused_optimizer",),
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A whole record with every real contestant, of a network so small that nothing but the metric takes long."""
    folder = tmp_path_factory.mktemp("records")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        path = run.measure(tiny_plan(), ["train", "sample", "switches"], 1, folder)
    return path


@pytest.fixture
def record(measured):
    return rates.read_record(measured)


def test_record_names_machine_versions_and_peaks_of_every_section(record):
    assert list(record["sections"]) == ["sample", "switches", "train"]
    for section in record["sections"].values():
        assert section["machine"]["cpu"] and "host" not in section["machine"]
        assert {"python", "torch", "diffusers", "accelerate", "denoising-diffusion-pytorch"} <= set(
            section["versions"]
        )
        assert section["measured_at"] and section["code"] and section["cores"] == 1
        assert min(section["peaks"][name] for name in ("fp32_tflops", "bf16_tflops", "copy_gb_per_s")) > 0


def test_every_contestant_did_the_same_work(record):
    comparisons = document.compared(record["sections"])
    assert [comparison["theirs"]["name"] for comparison in comparisons] == [
        "diffusers' loop, fp32",
        "diffusers' loop, bf16",
        "denoising-diffusion-pytorch, fp32",
        "denoising-diffusion-pytorch, bf16",
        "diffusers' DDIMPipeline, fp32",
        "diffusers' DDIMPipeline, bf16",
    ]
    for comparison in comparisons:
        assert comparison["ours"]["work"] == comparison["theirs"]["work"]
        assert comparison["ours"]["settings"].get("batch") == comparison["theirs"]["settings"].get("batch")
        assert len(comparison["ours"]["rates"]) == len(comparison["theirs"]["rates"]) == comparison["pairs"] == 2
    assert [comparison["ours"]["settings"].get("batch") for comparison in comparisons[:4]] == [8, 8, 16, 16]


def test_measuring_a_section_again_keeps_the_others(measured, tmp_path, monkeypatch):
    monkeypatch.setitem(sections.SECTIONS, "sample", lambda plan, scratch, cores: {"comparisons": []})
    path = tmp_path / measured.name
    path.write_text(measured.read_text())
    assert run.measure(tiny_plan(), ["sample"], 1, tmp_path) == path
    before, after = rates.read_record(measured)["sections"], rates.read_record(path)["sections"]
    assert after["sample"]["comparisons"] == []
    assert (after["train"], after["switches"]) == (before["train"], before["switches"])


def test_a_missing_package_leaves_its_contestant_out_and_ours_is_timed(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    plan, images = tiny_plan(), planning.load_images(128)[1]
    mine = sections.training.ours(plan, images, SLOW, "targetwise")
    found = sections.versus(
        plan, "training", mine, "theirs", lambda name: sections.training.guide(plan, images, "fp32", name)
    )
    assert found["skipped"] == "no package accelerate here" and len(found["ours"]["rates"]) == 2
    assert document._skipped({"train": {"comparisons": [found]}}) == (
        "Not measured: theirs (no package accelerate here)."
    )


def test_metric_without_weights_is_skipped_with_the_command_that_fetches_them(project):
    found = sections.metric(tiny_plan(), project, 1)
    assert "snakemake --cores 1 -- data/weights/inception.pt" in found["skipped"]


def test_a_bare_gpu_machine_can_start_it():
    """`make bench-gpu` needs what a cell needs; the packages that it compares with may be missing there."""
    missing = ["accelerate", "denoising_diffusion_pytorch", "matplotlib", "pandas", "snakemake", "mlflow", "dvc"]
    code = f"import sys; sys.modules |= dict.fromkeys({missing}); sys.path.insert(0, 'benchmarks'); import run"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("key", rates.CONDITIONS)
def test_a_record_without_its_conditions_is_refused(record, tmp_path, key):
    del record["sections"]["train"][key]
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"section train does not say its {key}; measure it again"):
        document.load(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "trian"], "--only names 'trian'; did you mean 'train'?"),
        (["--pairs", "0"], "--pairs and --steps must be at least 1"),
        (["--device", "cuda"], "PyTorch sees no GPU here"),
    ],
)
def test_bad_options_are_refused_in_one_line(monkeypatch, arguments, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    with pytest.raises(UserError) as refused:
        run.main()
    assert str(refused.value).startswith(words)


def crafted(record):
    """The record with round numbers in its first comparison."""
    changed = copy.deepcopy(record)
    train = changed["sections"]["train"]
    train |= {"training_flops": 2e9, "parameters": 1_000_000, "batch": 8}
    train["peaks"] = {"fp32_tflops": 1.0, "bf16_tflops": 0.4, "copy_gb_per_s": 4.0}
    first = train["comparisons"][0]
    first["ratio"] = {"median": 1.5, "min": 1.25, "max": 1.75}
    first["ours"] |= {"rates": [90.0, 100.0, 110.0], "settings": {**FAST, "batch": 8}}
    first["theirs"]["rates"] = [60.0, 80.0, 70.0]
    return changed


def test_page_says_what_the_record_says(record):
    page = document.page({"here": crafted(record)})
    assert "| 100 | diffusers' loop, fp32 | 70 | **1.50** | 1.25 … 1.75 | 2 |" in page
    # 100 images/s × 2 GFLOP = 0.2 TFLOP/s, half of what a bf16 product reaches
    assert "| 2.00 | 0.2 | 0.4 (bf16) | 50% |" in page
    # 10 numbers of 4 bytes for each of a million weights, at 4 GB/s; a step is 8 images
    assert "at least 40 MB a step; at the 4 GB/s of a copy that is 10 ms, 12.5% of the 80 ms" in page
    assert "training 1 steps a run in batches of 8 (or as the row says); sampling 2 images in 2 steps." in page
    assert f"### {record['name']}" in page and "bench-here.svg" in page and "torch " in page


def test_parts_of_the_host_are_those_of_a_cell_and_no_quicker_than_their_bound(tmp_path, monkeypatch):
    for name, value in {"VECTORS": 64, "SUBSET": 32, "SAVED": 16, "ENOUGH_SECONDS": 0.0}.items():
        monkeypatch.setattr(host, name, value)
    monkeypatch.setattr(host.inception, "FEATURES", 8)
    parts = {part.name: part for part in host.parts(tiny_plan(), tmp_path, parameters=10)}
    cell = {name: part.per_cell for name, part in parts.items()}
    assert cell["noise and indices of a training step"] == 35_000
    assert cell["latents"] == cell["resizing to 299×299 by Pillow"] == 100_000
    assert cell["KID, fast"] == cell["FID, clean-fid"] == 2
    assert parts["noise and indices of a training step"].work().noise.shape == (128, 3, 32, 32)
    assert parts["latents"].work().shape == (500, 3, 32, 32)
    assert len(parts["resizing to 299×299 by Pillow"].work()) == parts["resizing to 299×299 by Pillow"].units
    saved = parts["samples: digest, file, and reading them again"]
    assert len(saved.work()) == saved.units
    for part in parts.values():
        found = host.measured(part)
        assert found["seconds"] > 0 and (found["bound_seconds"] is None) == (part.bound is None)


def test_page_says_what_a_cells_host_takes(record):
    parts = [
        {"name": "noise", "per_cell": 35_000, "seconds": 0.004, "bound_seconds": 0.002, "bound": "one stream"},
        {"name": "resizing", "per_cell": 100, "seconds": 0.004, "bound_seconds": None, "bound": ""},
    ]
    changed = copy.deepcopy(record)
    changed["sections"]["host"] = {
        **changed["sections"]["train"],
        "comparisons": [],
        "scale": "small",
        "parts": parts,
    }
    page = document.page({"here": changed})
    assert "| noise | 35,000 | 4 | 2.3 min | one stream: 70 s |" in page
    assert "| resizing | 100 | 4 | 0.4 s | nothing to tell apart |" in page


def test_page_says_what_auto_rests_on(record):
    changed = copy.deepcopy(record)
    turns = [{"fp32": 1.0, "bf16": 9.0}, {"fp32": 1.0, "fp32, compiled": 0.75}]
    changed["sections"]["train"]["choice"] = {"compared": turns, "images": 8}
    page = document.page({"here": changed})
    assert "a training step of 8 images: fp32 1 s, bf16 9 s; then fp32 1 s, fp32 compiled 0.75 s." in page
    assert "What `auto`" not in document.page({"here": record})


def test_page_of_a_record_without_training_says_what_was_sampled_and_no_more(record):
    page = document.page({"here": {**record, "sections": {"sample": record["sections"]["sample"]}}})
    assert "Scale tiny: " in page and "sampling 2 images in 2 steps." in page
    assert "training" not in page and "AdamW" not in page


def test_page_without_a_record_claims_nothing():
    assert document.page({}) == "No record yet: `make bench` writes one.\n"


def test_page_without_marks_is_refused():
    with pytest.raises(UserError, match="must hold the line"):
        replaced("# Performance\n", "block", document.PAGE, document.BEGIN, document.END)


def test_performance_page_repeats_the_committed_records():
    """`python benchmarks/document.py` repairs it."""
    records = document.load(rates.RECORDS)
    text = document.PAGE.read_text(encoding="utf-8")
    assert replaced(text, document.page(records), document.PAGE, document.BEGIN, document.END) == text
    pictures = {path.name: path.read_text(encoding="utf-8") for path in document.IMAGES.glob("bench-*.svg")}
    assert pictures == document.figures(records)


def test_a_record_in_which_nothing_was_compared_has_no_figure(record):
    host_only = {**record, "sections": {}}
    assert document.figures({"here": host_only, "there": record}).keys() == {"bench-there.svg"}
    assert "![" not in document.page({"here": host_only})


def test_figure_has_every_comparison_with_its_ratio(record):
    changed = crafted(record)
    groups = dict(figure.rows(changed))
    assert list(groups) == ["training", "sampling", "each switch, training"]
    first = groups["training"][0]
    assert (first.median, first.low, first.high) == (1.5, 1.25, 1.75)
    drawn = figure.draw(figure.rows(changed))
    assert "1.50" in drawn and drawn == figure.draw(figure.rows(changed))


def test_peaks_count_the_products_arithmetic(monkeypatch):
    monkeypatch.setattr(timing, "_best", lambda work: 2.0)
    found = timing.peaks(torch.device("cpu"), ["fp32", "bf16"], 100, 1000)
    assert found == {"fp32_tflops": 1e-6, "bf16_tflops": 1e-6, "copy_gb_per_s": pytest.approx(4e-6)}


def test_our_accumulated_step_is_one_optimizer_step(monkeypatch):
    seen = []
    monkeypatch.setattr(sections.training, "Trainer", lambda cell, *_: seen.append(cell) or SimpleNamespace())
    images = planning.load_images(128)[1]
    contestant = sections.training.ours(tiny_plan(), images, SLOW, "ours", accumulated=2)
    assert (seen[0]["training"]["global_batch"], seen[0]["training"]["micro_batch"]) == (16, 8)
    assert contestant.work == 16 * tiny_plan().steps
