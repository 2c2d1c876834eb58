"""`targetwise estimate`: what a grid costs follows from a record's rates and the grid's arithmetic."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from helpers import FAST as GPU
from helpers import ROOT
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from targetwise import cli, errors
from targetwise.diffusion.cost import cost, count
from targetwise.diffusion.network import build
from targetwise.errors import UserError
from targetwise.operations import estimate as estimating
from targetwise.operations import rates
from targetwise.recipe import config

SMALL = config.load([], ROOT / "config.yaml")["scales"]["small"]
FLOPS = cost(SMALL, 3, 32)


def comparison(what, settings, median, ours="targetwise"):
    """One of which only our side counts: its rates lie around ``median``."""
    mine = {"name": ours, "settings": settings, "rates": [0.5 * median, median, 1.5 * median]}
    return {"what": what, "ours": mine, "theirs": {"name": "theirs", "settings": {}, "rates": [1e9]}}


def conditions(day=1):
    return {
        "measured_at": datetime(2026, 11, day, tzinfo=UTC).isoformat(),
        "machine": {"cpu": "a CPU"},
        "versions": {"torch": "2.14.1"},
        "cores": 2,
    }


def record(kind="cuda", day=1, **sections):
    """A record of 1,000 training images/s and 20 samples/s in 50 steps, at scale small."""
    network = {
        "scale": "small",
        "batch": 128,
        "parameters": FLOPS.parameters,
        "forward_flops": FLOPS.forward,
        "training_flops": FLOPS.training,
    }
    found = {
        "train": {**network, "comparisons": [comparison("training", {**GPU, "batch": 128}, 1000.0)]},
        "sample": {**network, "steps": 50, "comparisons": [comparison("sampling", GPU, 20.0)]},
        "metric": {
            "kernel_distance_seconds": 2.0,
            "comparisons": [
                comparison("features", {"implementation": "clean-fid"}, 100.0),
                comparison("features", {"implementation": "fast"}, 1000.0),
                comparison("distance", {"implementation": "clean-fid"}, 0.125),
            ],
        },
        **sections,
    }
    return {
        "format": rates.FORMAT,
        "kind": kind,
        "name": f"a {kind}",
        "measured_at": conditions(day)["measured_at"],
        "sections": {name: {**conditions(day), **section} for name, section in found.items() if section},
    }


@pytest.fixture
def write(project):
    def write(content, name="here.json"):
        path = project / rates.RECORDS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    return write


def study(**overlay):
    changes = {"grid": {"parameterizations": ["epsilon", "v"], "scales": ["small"], "seeds": [0]}}
    return config.validate(config.merge(config.merge(config.load(), changes), overlay))


def estimate(path, devices=1, **overlay):
    return estimating.estimate(study(**overlay), path, devices)


def test_small_costs_what_pytorch_counts_and_its_attention():
    """On a CPU the counter sees everything but attention: two products of tokens × tokens × channels a layer."""
    network = build(SMALL, in_channels=3, out_channels=3, image_size=32, seed=0)
    image, timestep = torch.zeros(1, 3, 32, 32), torch.zeros(1)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network(image, timestep)
    with FlopCounterMode(display=False) as training:
        network(image, timestep).sum().backward()
    assert round(forward.get_total_flops() / 1e9, 2) == 3.03
    assert round(training.get_total_flops() / 1e9, 2) == 9.09
    layers, tokens, channels = 2 + 3, 16 * 16, 128
    in_the_middle = 2 * 2 * (4 * 4) ** 2 * channels
    attention = layers * 2 * 2 * tokens**2 * channels + in_the_middle
    assert FLOPS.forward - forward.get_total_flops() == attention
    assert FLOPS.training - training.get_total_flops() == 3 * attention


def test_cost_of_a_convolution_by_hand():
    """A 1×1 convolution from 3 to 5 channels is 2·3·5 operations a pixel; its gradient, as many."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 5, 1)

        def forward(self, x, t):
            return self.layer(x)

    found = count(Network(), 3, 4)
    assert (found.parameters, found.forward, found.training) == (3 * 5 + 5, 2 * 3 * 5 * 16, 2 * (2 * 3 * 5 * 16))


def test_a_cost_is_counted_once_for_one_network_file_and_options(tmp_path, monkeypatch):
    monkeypatch.setenv("TARGETWISE_CACHE", str(tmp_path / "cache"))
    shutil.copytree("workflow/networks", tmp_path / "workflow/networks")
    monkeypatch.chdir(tmp_path)
    counted = []
    counts = lambda *arguments: counted.append(1) or count(*arguments)  # noqa: E731
    monkeypatch.setattr("targetwise.diffusion.cost.count", counts)
    narrow, wide = ({"network": "mlp", "width": width, "layers": 1} for width in (16, 32))
    first = cost(narrow, 1, 8)
    assert cost(narrow, 1, 8) == first != cost(wide, 1, 8) and len(counted) == 2
    file = Path("workflow/networks/mlp.py")
    file.write_text(file.read_text().replace("in range(layers)", "in range(2 * layers)"))
    deeper = cost(narrow, 1, 8)
    assert deeper.parameters > first.parameters and len(counted) == 3
    for kept in (tmp_path / "cache/costs").iterdir():
        kept.write_text("{")
    assert cost(narrow, 1, 8) == deeper and len(counted) == 4


def test_parameters_are_the_networks():
    network = build(SMALL, in_channels=3, out_channels=3, image_size=32, seed=0)
    assert FLOPS.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_a_cell_takes_its_images_at_the_measured_rates(write):
    (scale,) = estimate(write(record())).scales
    assert scale.training == pytest.approx(35000 * 128 / 1000)
    assert scale.sampling == pytest.approx(2 * 50000 / 20)  # two draws
    assert scale.measuring == pytest.approx(
        2 * (50000 / 100 + 8 + 2)
    )  # features, then 1/0.125 s for FID and 2 for KID


def test_total_grows_with_the_cells(write):
    path = write(record())
    few, many = estimate(path), estimate(path, grid={"seeds": [0, 1, 2]})
    assert (few.scales[0].cells, many.scales[0].cells) == (2, 6)
    assert many.seconds - many.once == pytest.approx(3 * (few.seconds - few.once))


def test_training_grows_with_the_steps_and_sampling_with_its_own(write):
    path = write(record())
    (usual,) = estimate(path).scales
    (longer,) = estimate(path, training={"steps": 70000}, sampling={"steps": 25}).scales
    assert longer.training == pytest.approx(2 * usual.training)
    assert longer.sampling == pytest.approx(usual.sampling / 2)


@pytest.mark.parametrize(
    ("sampler", "evaluations"),
    [("dpmpp_3m", 50), ("ancestral", 50), ("heun", 99), ("edm_stochastic", 99), ("pndm", 51)],
)
def test_a_sampler_costs_by_how_often_it_asks_the_network(write, sampler, evaluations):
    """All steps of a method of two evaluations ask twice, but for the last one."""
    path = write(record())
    (usual,), (other,) = (estimate(path, sampling={"sampler": each}).scales for each in ("ddim", sampler))
    assert other.sampling == pytest.approx(usual.sampling * evaluations / 50)


def test_a_guided_step_costs_two_evaluations_of_a_network_with_labels(write):
    """Its weights are more by the embedding of eleven labels, which is no arithmetic."""
    path = write(record())
    told = {"scales": {"small": {"network": "conditional_unet"}}, "training": {"label_dropout": 0.1}}
    (usual,), (plain,) = estimate(path).scales, estimate(path, **told).scales
    assert plain.parameters == usual.parameters + 11 * 4 * 64 and plain.sampling == pytest.approx(usual.sampling)
    for guidance, times in ((0, 1), (1, 1), (1.5, 2)):
        (guided,) = estimate(path, **told, sampling={"guidance": guidance}).scales
        assert guided.sampling == pytest.approx(times * plain.sampling)
        assert guided.training == pytest.approx(plain.training)
    more = estimate(path, **told).disk.total - estimate(path).disk.total
    assert more >= 2 * 4 * 11 * 4 * 64


def test_another_scale_costs_by_its_flops(write):
    found = estimate(write(record()), grid={"scales": ["small", "medium"]})
    small, medium = found.scales
    factor = cost(study()["scales"]["medium"], 3, 32).training / FLOPS.training
    assert factor > 3.5
    assert medium.training == pytest.approx(factor * small.training)
    assert f"medium × {factor:.3g}" in estimating.render(found)


def test_a_scales_own_batch_counts(write):
    half = {"small": {"global_batch": 64}}
    assert estimate(write(record()), scales=half).scales[0].training == pytest.approx(35000 * 64 / 1000)


def test_wall_time_shrinks_with_devices_as_long_as_there_are_cells(write):
    path = write(record())
    one, two, many = (estimate(path, devices) for devices in (1, 2, 50))
    assert one.wall == pytest.approx(one.seconds)
    assert two.wall - two.once == pytest.approx((one.wall - one.once) / 2)
    assert many.wall == pytest.approx(two.wall)  # there are two cells


def test_longest_jobs_come_first():
    assert estimating.makespan([1, 1, 1, 3], 2) == 3
    assert estimating.makespan([5, 4, 3, 3], 2) == 8
    assert estimating.makespan([], 3) == 0


def test_rates_of_the_studys_own_switches_are_taken_where_they_were_measured(write):
    plain = {**GPU, "precision": "fp32", "compile": False, "batch": 128}
    switches = {"train": [comparison("training", plain, 400.0, "plain")], "sample": []}
    path = write(record(switches=switches))
    overlay = {"precision": {"cuda": "fp32", "cpu": "fp32"}, "compile": {"cuda": False, "cpu": False}}
    found = estimate(path, training=overlay)
    assert found.scales[0].training == pytest.approx(35000 * 128 / 400)
    assert "sampling: 20.00 images/s at scale small with bf16" in (words := estimating.render(found))
    assert "the study's own switches, fp32, channels_last, were not measured" in words


def test_what_is_left_to_be_chosen_is_taken_to_be_the_fastest_that_was_measured(write):
    """Of a CPU, where config.yaml has auto; what it states, here channels_last, must have been measured as it is."""
    slow = {**GPU, "precision": "fp32", "compile": False, "batch": 128}
    other = {**GPU, "channels_last": False, "compile": False, "batch": 128}
    trained = [comparison("training", slow, 1500.0), comparison("training", other, 9000.0)]
    path = write(record("cpu", switches={"train": trained, "sample": []}))
    found = estimate(path, training={"threads": 2})
    assert found.scales[0].training == pytest.approx(35000 * 128 / 1500)
    words = estimating.render(found)
    assert "1,500.00 images/s at scale small with fp32, channels_last, fused_optimizer: " in words
    assert "; the fastest of what was measured, as a study with auto chooses it" in words
    stated = estimating.render(estimate(path, training={"precision": {"cpu": "bf16"}, "compile": {"cpu": True}}))
    assert "1,000.00 images/s" in stated and "auto" not in stated
    only = estimating.render(estimate(path, training={"precision": {"cpu": "bf16"}, "compile": {"cpu": "auto"}}))
    assert "1,000.00 images/s" in only and "as a study with auto chooses it" in only


def test_a_choice_among_what_was_not_measured_is_said(write):
    words = estimating.render(estimate(write(record("cpu")), training={"channels_last": False}))
    assert "the study's own switches, precision auto, compile auto, fused_optimizer, were not measured" in words


def test_what_was_not_measured_is_left_out_and_said(write):
    found = estimate(write(record(sample=None, metric={"skipped": "no weights"})))
    (scale,) = found.scales
    assert (scale.sampling, scale.measuring, found.once) == (None, None, None)
    words = estimating.render(found)
    assert "total, without what is ?" in words
    assert "- sampling: not measured there, left out" in words and "- metric: not measured there, left out" in words


def test_a_cell_has_only_its_own_threads_of_a_cpu(write):
    """The record's rates are of both cores; the study's cells have one thread each, so two are at work at a time."""
    path = write(record("cpu"))
    one = estimate(path)
    (both,) = estimate(path, training={"threads": 2}).scales
    (scale,) = one.scales
    assert scale.training == pytest.approx(2 * both.training) == pytest.approx(2 * 35000 * 128 / 1000)
    assert scale.sampling == pytest.approx(2 * both.sampling) == pytest.approx(2 * 2 * 50000 / 20)
    assert scale.measuring == pytest.approx(2 * both.measuring) == pytest.approx(2 * 2 * (50000 / 100 + 8 + 2))
    assert one.wall == pytest.approx(one.once + scale.cell)  # of two cells
    assert one.disk.states == 2 * estimate(write(record())).disk.states
    words = estimating.render(one)
    assert "1 of its 2 threads each; wall time" in words and "2 cells at a time on each; disk" in words
    assert "- threads: those rates are of 2; a cell has 1 and is taken to be 1/2 as fast" in words


def test_more_threads_than_were_measured_are_no_faster(write):
    path = write(record("cpu"))
    assert estimate(path, training={"threads": 3}).scales == estimate(path, training={"threads": 2}).scales


def test_every_job_of_a_cell_starts(write):
    """Training, and two of sampling and of measuring: what small studies mostly wait for."""
    found = estimate(write(record()))
    (scale,) = found.scales
    assert scale.cell - scale.training - scale.sampling - scale.measuring == pytest.approx(5 * estimating.START_UP)
    assert f"- start-up: {estimating.START_UP:g} s for each of 10 jobs" in estimating.render(found)


def test_bounds_cost_a_draw_of_an_untrained_network_each(write):
    path = write(record())
    without, bounds = estimate(path), estimate(path, bounds=True)
    draw = 50000 / 20 + 50000 / 100 + 10
    assert bounds.scales[0].bounds == pytest.approx(2 * draw) and without.scales[0].bounds == 0
    assert bounds.once - without.once == pytest.approx(50000 / 100)


def test_disk_is_weights_samples_states_data_and_reference():
    shapes = {"train": [100, 32, 32, 3], "test": [10, 32, 32, 3]}
    found = estimating.disk(study(sampling={"images": 1000}), shapes, training_at_once=2)
    weights = 4 * FLOPS.parameters
    assert found.cells == {"small": 2 * (weights + 2 * 1000 * 32 * 32 * 3)}
    assert found.states == 2 * 4 * weights * 2
    assert found.shared == 110 * (32 * 32 * 3 + 8) + 100 * 2048 * 4 + 2048**2 * 8
    assert found.total == found.cells["small"] + found.states + found.shared


def test_newest_record_of_a_gpu_is_taken_before_any_of_a_cpu(write):
    write(record("cpu", day=9), "cpu.json")
    assert rates.newest_record().name == "cpu.json"
    write(record("cuda", day=2), "old.json")
    write(record("cuda", day=3), "new.json")
    write(record("cuda", day=5, train=None), "no-training.json")
    assert rates.newest_record().name == "new.json"


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["targetwise", "estimate", *map(str, arguments)])
    cli.main()


def test_command_prints_hours_disk_wall_time_and_grounds(write, monkeypatch, capsys):
    path = write(record())
    call(monkeypatch, "--devices", 3)
    out = capsys.readouterr().out
    assert "study cifar10: 27 cells" in out
    assert "GPU-hours; wall time" in out and "on 3 × a cuda, one cell on each; disk" in out
    assert f"- record: {path.relative_to(path.parents[2])}, a cuda, measured 2026-11-01" in out
    assert "- training: 1,000.00 images/s at scale small with bf16, channels_last, fused_optimizer, compile" in out


def test_hours_of_a_cpu_are_not_called_gpu_hours(write, monkeypatch, capsys):
    write(record("cpu"))
    call(monkeypatch)
    out = capsys.readouterr().out
    assert "hours of this kind of CPU" in out and "so these are not GPU-hours: `make bench-gpu`" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no benchmark record in benchmarks/results; `make bench` measures this CPU, `make bench-gpu` a GPU"),
        (["--devices", "0"], "--devices is 0; it must be at least 1"),
        (["--record", "gone.json"], "gone.json does not exist"),
    ],
)
def test_what_is_missing_is_said_in_one_line(project, monkeypatch, capsys, arguments, words):
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, *arguments)
    assert left.value.code == errors.EXIT_ERROR
    assert capsys.readouterr().err == f"error: {words}\n"


@pytest.mark.parametrize("content", [[], {}, {"format": 0}])
def test_what_is_no_record_is_refused(write, content):
    with pytest.raises(UserError, match="is not a benchmark record of format 1"):
        rates.read_record(write(content))


@pytest.mark.parametrize("key", rates.CONDITIONS)
def test_a_record_that_does_not_say_its_conditions_is_refused(write, key):
    content = record()
    content["sections"]["sample"][key] = {}
    with pytest.raises(UserError, match=f"section sample does not say its {key}"):
        estimate(write(content))


def test_a_data_set_of_unknown_size_asks_for_its_preparation(write):
    own = {"kind": "images", "folder": "pictures", "size": 32, "channels": 3, "held_out": 10}
    configured = study(datasets={"mine": own}, data={"dataset": "mine"})
    with pytest.raises(UserError, match=r"is known once `snakemake --cores 1 -- data/mine/dataset.npz` has run"):
        estimating.estimate(configured, write(record()))
