"""`auto` on a CPU: chosen once for a study by timings, followed by all its cells, and part of no key."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import whole_outcome

from targetwise import cells
from targetwise.check.process import check_files
from targetwise.compute.distributed import World
from targetwise.data.store import Images
from targetwise.diffusion import parameterization
from targetwise.errors import StoppedEarlyError, UserError
from targetwise.files import canonical_json, read_json, sha256_of_array, write_json
from targetwise.recipe import config as configuration
from targetwise.sampling import stage
from targetwise.sampling.denoiser import Denoiser, draw_images
from targetwise.training import formats, loop, measurement
from targetwise.training.measurement import decide
from targetwise.training.stopping import Stop

CPU = torch.device("cpu")
AUTO = {"precision": {"cpu": "auto"}, "compile": {"cpu": "auto"}}
SAMPLING = {"sampler": "ddim", "steps": 3, "images": 4, "draws": 1}

#: How a process of its own begins that settles what a cell leaves open.
BEGIN = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_formats
from targetwise.training import formats, measurement
study = test_formats.study()
"""


@pytest.fixture(autouse=True)
def in_a_project(project):
    """Records are written below the working directory."""


def study(**training):
    overlay = {
        "study": "tried",
        "grid": {"parameterizations": ["v"], "seeds": [0, 1]},
        "scales": {"tiny": {"network": "mlp", "width": 16, "layers": 1}},
        "training": {"steps": 3, "global_batch": 16, "log_every": 2, **AUTO, **training},
        "sampling": SAMPLING,
    }
    return configuration.validate(configuration.merge(configuration.load([Path("config/digits.yaml")]), overlay))


def pixels():
    array = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    return Images(array, np.zeros(64, dtype=np.int64), sha256_of_array(array))


def specification(seed=0, **training):
    cell = cells.grid(study(**training))[seed]
    return cells.specifications(study(**training))[cell.folder / "cell.json"]


def train(seed=0, **training):
    cells.write_specifications(study(**training))
    cell = cells.grid(study(**training))[seed]
    return loop.train(
        read_json(cell.folder / "cell.json"), pixels(), cell.folder, save_every_seconds=1e9, stop=Stop()
    )


RECORD = Path("results/tried/cpu.json")


@pytest.fixture
def measure(monkeypatch):
    """A measurement that finds what it is told, and remembers how often it was asked."""

    class Measurement:
        def __init__(self):
            self.count, self.precision, self.compile = 0, "bf16", False

        def __call__(self, specification, shape, *, processes, stop):
            self.count += 1
            values = {"precision": self.precision, "compile": self.compile}
            return {"values": values, "compared": [{"fp32": 2.0, "bf16": 1.0}], "training_seconds": 3.0, "images": 8}

    found = Measurement()
    monkeypatch.setattr(measurement, "measure", found)
    return found


@pytest.fixture
def never(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("something was measured")

    monkeypatch.setattr(measurement, "measure", fail)


def candidates(**seconds):
    """Networks that take these seconds a step, by number format; compiled ones are e.g. ``bf16_compiled``."""

    def begin(precision, compiled):
        taken = seconds[precision + ("_compiled" if compiled else "")]
        return lambda: taken

    return begin


OPEN = {"precision": {"cpu": "auto"}, "compile": {"cpu": "auto"}}


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"),
    [(1.5, 1.0, "bf16"), (1.1, 1.0, "bf16"), (1.09, 1.0, "fp32"), (1.0, 1.0, "fp32"), (1.0, 11.0, "fp32")],
)
def test_bf16_is_chosen_only_where_it_is_clearly_faster(fp32, bf16, chosen):
    found = decide(OPEN, candidates(fp32=fp32, bf16=bf16), batches=1)
    assert found["values"] == {"precision": chosen, "compile": False}
    assert found["compared"] == [{"fp32": fp32, "bf16": bf16}]


@pytest.mark.parametrize(("bf16", "turns"), [(2.0, measurement.MOST_ROUNDS), (2.1, measurement.PATIENCE)])
def test_a_format_that_is_twice_as_slow_as_the_other_takes_few_turns(bf16, turns):
    """Otherwise a processor without bf16 would spend minutes on what the first turns have shown."""
    taken = []

    def begin(precision, compiled):
        return lambda: taken.append(precision) or {"fp32": 1.0, "bf16": bf16}[precision]

    decide({**OPEN, "compile": {"cpu": False}}, begin, batches=1)
    assert taken.count("bf16") == turns and taken.count("fp32") == measurement.MOST_ROUNDS


@pytest.mark.parametrize(("compiled", "chosen"), [(0.8, True), (0.95, True), (0.97, False), (3.0, False)])
def test_compiling_is_kept_where_the_chosen_format_is_slightly_faster_with_it(compiled, chosen):
    found = decide(OPEN, candidates(fp32=2.0, bf16=1.0, bf16_compiled=compiled), batches=3601)
    assert found["values"] == {"precision": "bf16", "compile": chosen}
    assert found["compared"][1] == {"bf16": 1.0, "bf16, compiled": compiled}


def test_compiling_is_not_tried_where_the_training_is_short():
    found = decide(OPEN, candidates(fp32=2.0, bf16=1.0, bf16_compiled=0.1), batches=3600)
    assert found == {
        "values": {"precision": "bf16", "compile": False},
        "compared": [{"fp32": 2.0, "bf16": 1.0}],
        "training_seconds": 3600,
    }


def test_without_a_compiler_nothing_is_compiled_and_the_reason_is_kept():
    def begin(precision, compiled):
        if compiled:
            raise RuntimeError("no C++ compiler\nat all")
        return lambda: 1.0

    found = decide(OPEN, begin, batches=1e9)
    assert found["values"]["compile"] is False and found["not_compiled"] == "RuntimeError: no C++ compiler"


def test_only_what_is_left_open_is_varied():
    bf16 = {**OPEN, "precision": {"cpu": "bf16"}}
    assert decide(bf16, candidates(bf16=9.0, bf16_compiled=8.0), batches=1e9)["values"] == {
        "precision": "bf16",
        "compile": True,
    }
    for stated in (True, False):
        found = decide({**OPEN, "compile": {"cpu": stated}}, candidates(fp32=1.0, bf16=2.0), batches=1e9)
        assert found["values"] == {"precision": "fp32", "compile": stated}


def test_a_step_that_was_disturbed_does_not_decide():
    taken = {"fp32": iter([1.0, *[9.0] * 99]), "bf16": iter([5.0, 5.0, 0.5, *[5.0] * 97])}
    found = decide(OPEN, lambda precision, _: lambda: next(taken[precision]), batches=1)
    assert found["compared"] == [{"fp32": 1.0, "bf16": 0.5}] and found["values"]["precision"] == "bf16"


def test_later_cells_follow_the_first_one_whatever_a_measurement_would_say_now(measure):
    first = train(0)
    before = RECORD.read_bytes()
    measure.precision = "fp32"
    second = train(1)
    assert first["formats"] == second["formats"] == {"precision": "bf16", "compile": False}
    assert measure.count == 1 and RECORD.read_bytes() == before
    record = read_json(RECORD)
    assert record["values"] == first["formats"]
    (grounds,) = record["grounds"]
    assert grounds["cell"] == "v-tiny-0" and grounds["compared"] == [{"fp32": 2.0, "bf16": 1.0}]
    assert grounds["environment"]["machine"] == first["environment"]["machine"]
    assert not list(Path("results/tried").glob("state/*"))


def test_a_switch_that_the_first_cell_stated_is_chosen_by_the_first_that_leaves_it_open(measure):
    assert train(0, precision={"cpu": "fp32"})["formats"] == {"precision": "fp32", "compile": False}
    assert read_json(RECORD)["values"] == {"compile": False}
    assert train(1)["formats"] == {"precision": "bf16", "compile": False}
    assert read_json(RECORD)["values"] == {"compile": False, "precision": "bf16"} and measure.count == 2
    assert [each["decided"] for each in read_json(RECORD)["grounds"]] == [["compile"], ["precision"]]


def test_a_deleted_record_is_made_again_from_a_trained_cell(measure):
    train(0)
    RECORD.unlink()
    measure.precision = "fp32"
    assert train(1)["formats"]["precision"] == "bf16" and measure.count == 1
    assert read_json(RECORD)["grounds"] == [
        {"decided": ["precision", "compile"], "taken_from": "results/tried/v/tiny/seed0/training.json"}
    ]


@pytest.mark.parametrize("change", [{"key": "0" * 64}, {"device": "cuda"}])
def test_a_training_of_another_configuration_or_device_is_not_followed(measure, change):
    train(0)
    RECORD.unlink()
    path = Path("results/tried/v/tiny/seed0/training.json")
    write_json(path, {**read_json(path), **change})
    measure.precision = "fp32"
    assert train(1)["formats"]["precision"] == "fp32" and measure.count == 2


def test_a_cell_that_stated_its_format_chose_nothing_for_others(measure):
    train(0, precision={"cpu": "fp32"}, compile={"cpu": False})
    assert not RECORD.exists() and measure.count == 0
    found = formats.settled(specification(1), pixels(), CPU)  # as of another variant: the first one states it still
    assert found["training"]["precision"]["cpu"] == "bf16" and measure.count == 1


def test_what_is_stated_is_not_measured(never):
    assert train(precision={"cpu": "bf16"}, compile={"cpu": False})["formats"]["precision"] == "bf16"
    assert not RECORD.exists()


def test_a_gpu_needs_no_choice(never):
    own = specification()
    assert formats.settled(own, pixels(), torch.device("cuda")) == own


def test_no_key_and_no_specification_holds_the_choice(measure):
    one = train(0)
    shutil.rmtree("results/tried")
    measure.precision = "fp32"
    other = train(0)
    assert one["key"] == other["key"] and one["model_sha256"] != other["model_sha256"]
    own = read_json(Path("results/tried/v/tiny/seed0/cell.json"))["training"]
    assert (own["precision"]["cpu"], own["compile"]["cpu"]) == ("auto", "auto")
    assert read_json(Path("results/tried/v/variant.json"))["precision"]["cpu"] == "auto"


@pytest.mark.parametrize("chosen", ["fp32", "bf16"])
def test_a_chosen_format_gives_the_bits_of_the_same_one_stated(measure, chosen):
    measure.precision = chosen
    left_open = train(0)
    stated = train(1, precision={"cpu": chosen}, compile={"cpu": False})
    again = train(0, precision={"cpu": chosen}, compile={"cpu": False})
    assert left_open["model_sha256"] == again["model_sha256"] != stated["model_sha256"]


def test_a_training_that_measured_is_bit_by_bit_the_one_that_did_not():
    """The real measurement, of a process of its own: whatever it finds here, only its answer reaches the training."""
    measured = train(0)
    grounds = read_json(RECORD)["grounds"]
    assert [set(each) for each in grounds[0]["compared"]] == [{"fp32", "bf16"}]  # too short to be compiled
    stated = {name: {"cpu": value} for name, value in measured["formats"].items()}
    assert train(0, **stated)["model_sha256"] == measured["model_sha256"]


def test_sampling_follows_the_training_and_not_the_record(measure):
    training = train(0)
    formats.follow(Path("results/tried"), {"precision": "fp32", "compile": False}, Path("by hand"))
    folder = Path("results/tried/v/tiny/seed0")
    own, options = read_json(folder / "cell.json"), read_json(Path("results/tried/v/sampling-ddim-3.json"))
    stage.sample(own, options, pixels(), folder, 0, folder / "samples/ddim-3/draw0.npz")
    with np.load(folder / "samples/ddim-3/draw0.npz") as archive:
        images = archive["arr_0"]

    def drawn(precision):
        stated = formats.decided(own, {"precision": precision, "compile": False})
        denoiser = Denoiser(stated, pixels(), parameterization.load("v"), CPU)
        denoiser.load(folder / "model.safetensors")
        return draw_images(denoiser, options, 0, "again")

    assert training["formats"]["precision"] == "bf16"
    assert np.array_equal(images, drawn("bf16")) and not np.array_equal(images, drawn("fp32"))


@pytest.mark.parametrize("training", [None, {"device": "cuda", "formats": {"precision": "fp16"}}, whole_outcome()])
def test_what_no_cpu_has_trained_follows_the_studys_record(measure, training):
    """An untrained network, one that a GPU has trained, and one by a rule of one's own."""
    found = formats.settled(specification(), pixels(), CPU, training=training)["training"]
    assert found["precision"] == {"cuda": "bf16", "cpu": "bf16"} and found["compile"]["cpu"] is False
    assert measure.count == 1


def test_of_several_processes_one_chooses_and_all_agree(measure, monkeypatch):
    def chooses():  # while the others are at the barrier
        measure.precision = "bf16"
        formats.settled(specification(), pixels(), CPU)

    measure.precision = "fp32"
    monkeypatch.setattr(World, "barrier", lambda world: None if world.is_main else chooses())
    found = formats.settled(specification(), pixels(), CPU, world=World(rank=1, size=2))
    assert found["training"]["precision"]["cpu"] == "bf16" and measure.count == 1


def started(tmp_path, script):
    (tmp_path / "begin.py").write_text(BEGIN.format(tests=str(Path(__file__).parent)) + script)
    return subprocess.Popen([sys.executable, tmp_path / "begin.py"], stderr=subprocess.PIPE, text=True)


def test_two_jobs_at_once_measure_once(tmp_path):
    script = """
def measure(*_, **__):
    with open("measured", "a") as file:
        file.write("x")
    time.sleep(1)
    return {"values": {"precision": "bf16", "compile": os.getpid() % 2 == 0}, "compared": []}
measurement.measure = measure
Path(f"here-{os.getpid()}").touch()
while len(list(Path().glob("here-*"))) < 2:
    time.sleep(0.01)
found = formats.settled(test_formats.specification(), test_formats.pixels(), test_formats.CPU)
Path(f"found-{os.getpid()}").write_text(repr(found["training"]))
"""
    jobs = [started(tmp_path, script) for _ in range(2)]
    for job in jobs:
        assert job.communicate()[1] is not None and job.returncode == 0
    assert Path("measured").read_text() == "x"
    assert len({path.read_text() for path in Path().glob("found-*")}) == 1 == len(read_json(RECORD)["grounds"])


@pytest.mark.parametrize(
    "where",
    [
        "measurement.measure = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)",
        "measurement.measure = lambda *_, **__: {'values': {'precision': 'bf16', 'compile': False}, 'compared': []}\n"
        "Path.replace = lambda path, to: os.kill(os.getpid(), signal.SIGKILL) if to.name == 'cpu.json' "
        "else os.replace(path, to)",
    ],
)
def test_a_job_that_is_killed_while_it_chooses_leaves_nothing_that_counts(where, tmp_path, measure):
    job = started(
        tmp_path, where + "\nformats.settled(test_formats.specification(), test_formats.pixels(), test_formats.CPU)\n"
    )
    job.communicate()
    assert job.returncode == -signal.SIGKILL and not RECORD.exists()
    measure.precision = "fp32"
    assert train(0)["formats"]["precision"] == "fp32" and measure.count == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is damaged (Expecting property name"),
        ("[]", "is damaged: it holds a list"),
        ('{"grounds": []}', "is damaged: values is missing"),
        (canonical_json({"values": {"precision": "fp8"}, "grounds": [{"decided": ["precision"]}]}), "is 'fp8'"),
    ],
)
def test_a_damaged_record_gives_one_line(text, words, never):
    RECORD.parent.mkdir(parents=True)
    RECORD.write_text(text)
    with pytest.raises(UserError) as refused:
        train()
    message = str(refused.value)
    assert message.startswith(str(RECORD)) and words in message and "delete it" in message
    assert len(message.splitlines()) == 1


def test_a_measurement_ends_with_the_job_that_is_asked_to_stop(monkeypatch):
    begun, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *given, **more: begun.append(popen(*given, **more)) or begun[-1])
    with pytest.raises(StoppedEarlyError, match="received SIGTERM while number formats were measured"):
        measurement.measure(specification(), (8, 1), stop=lambda: "received SIGTERM")
    assert begun[0].returncode == -signal.SIGKILL
    assert not RECORD.exists()


def test_a_network_that_cannot_be_measured_is_told_in_one_line():
    own = specification()
    own["network"] = {"network": "unet", "channels": [31], "attention": [], "layers_per_block": 1}
    with pytest.raises(UserError, match=r"workflow/networks/unet\.py"):
        measurement.measure(own, (8, 1))


def test_a_measurement_that_crashes_says_how_to_do_without_it(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match=r"exit code 1; .* state training\.precision\.cpu and training\.compile\.cpu"):
        measurement.measure(specification(), (8, 1))


def test_the_check_reports_every_format_that_auto_may_be():
    variant = cells.specifications(study())[Path("results/tried/v/variant.json")]
    assert variant["precision"] == {"cuda": "bf16", "cpu": "auto"}
    assert set(check_files(variant)["round_trip"]) == {"fp64", "fp32", "bf16"}
    assert set(check_files({**variant, "precision": {"cuda": "fp32", "cpu": "auto"}})["round_trip"]) == {
        *("fp64", "fp32", "bf16")
    }


def test_an_unresolved_format_is_never_taken_for_another(monkeypatch):
    trainer = loop.Trainer(specification(), pixels(), *[parameterization.load("v")] * 2, CPU)
    with pytest.raises(KeyError, match="auto"):
        trainer.advance(trainer.draw(0))


def test_a_state_says_whether_its_network_was_compiled():
    said = {
        value: loop.Trainer(
            formats.decided(specification(), {"precision": "bf16", "compile": value}),
            pixels(),
            *[parameterization.load("v")] * 2,
            CPU,
        ).conditions
        for value in (False, True)
    }
    assert {value: (each["format"], each["compiled"]) for value, each in said.items()} == {
        False: ("bf16", "no"),
        True: ("bf16", "yes"),
    }
