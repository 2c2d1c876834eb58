"""The check as the pipeline runs it: a user's file in a process of its own, which it may end or never leave."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, TARGETS, VARIANT, link_workflow, verdict

from targetwise import cells, chain, cli
from targetwise.check.process import check_files
from targetwise.diffusion import parameterization
from targetwise.errors import UserError
from targetwise.files import canonical_json, write_json
from targetwise.recipe.config import load
from targetwise.training.stopping import Stop

SPECIFICATION = {**VARIANT, "target": "mine", "loss_space": "mine", "precision": {"cpu": "fp32", "cuda": "bf16"}}

#: Python code at the places where a file can go wrong: when it is loaded, and in either function.
FILE = """
import os, random, signal, sys, time
import numpy, torch
{loading}

def compute_training_target(x_0, noise, timesteps, schedule):
    {computing}
    return x_0

def predict_x0(model_output, x_t, timesteps, schedule):
    {predicting}
    return model_output
"""
WHERE = {
    "loading": "parameterization mine: loading its file",
    "computing": "parameterization mine: compute_training_target",
    "predicting": "parameterization mine: predict_x0",
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write workflow/parameterizations/mine.py in a project of its own, in which the test runs."""
    folder = link_workflow(tmp_path)
    (tmp_path / "config.yaml").symlink_to(ROOT / "config.yaml")
    monkeypatch.chdir(tmp_path)

    def write(**code):
        nothing = dict.fromkeys(WHERE, "pass")
        (folder / "mine.py").write_text(FILE.format(**{**nothing, **code}))

    return write


def refusal(seconds=60.0, **changes):
    with pytest.raises(UserError) as caught:
        check_files({**SPECIFICATION, **changes}, seconds)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# --- sound ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_found_is_byte_for_byte_what_the_check_finds(name):
    """check.json is a trigger: another byte in it would train every cell again."""
    found = check_files({**SPECIFICATION, "target": name, "loss_space": name})
    loaded = parameterization.load(name)
    assert canonical_json(found) == canonical_json(verdict(loaded, precisions=["bf16", "fp32"]))


def test_a_stacked_target_of_a_file_that_prints_and_keeps_a_constant_is_sound(tmp_path, monkeypatch, capfd):
    folder = tmp_path / "workflow/parameterizations"
    folder.mkdir(parents=True)
    for kind in ("paths", "times"):
        (tmp_path / "workflow" / kind).symlink_to(ROOT / "workflow" / kind)
    (folder / "mine.py").write_text("""
import torch
HALF = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1, 1)
print("loading mine")

def compute_training_target(x_0, noise, timesteps, schedule):
    return torch.cat([x_0, noise], dim=1)

def predict_x0(model_output, x_t, timesteps, schedule):
    print("predicting")
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    x_0, noise = model_output.chunk(2, dim=1)
    return (torch.stack([x_0, (x_t - b * noise) / a], dim=1) * HALF.to(x_0)).sum(dim=1)
""")
    monkeypatch.chdir(tmp_path)
    found = check_files(SPECIFICATION)
    assert found["output_channels_per_image_channel"] == 2
    assert found["gain_to_x0"]["at_t"] == 999
    printed = capfd.readouterr()
    assert printed.out == ""  # where `targetwise check` answers
    assert "loading mine" in printed.err and "predicting" in printed.err


# --- a process that ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", WHERE)
def test_a_file_that_ends_the_process_is_refused(write, place):
    """With exit code 0, so that only the missing answer shows it."""
    write(**{place: "os._exit(0)"})
    assert refusal() == (
        f"{WHERE[place]} ended the process with exit code 0; a parameterization must leave the process as it found it"
    )


def test_a_file_that_is_ended_by_a_signal_is_refused(write):
    write(predicting="os.kill(os.getpid(), signal.SIGSEGV)")
    assert f"{WHERE['predicting']} ended the process with signal SIGSEGV; " in refusal()


def test_sys_exit_is_an_error_like_others(write):
    write(computing="sys.exit(0)")
    assert f"{WHERE['computing']} fails for 2 images (t = 0 … 1): SystemExit: 0" in refusal()


def test_a_file_whose_process_ends_badly_after_the_answer_is_refused(write):
    write(loading="import atexit; atexit.register(os._exit, 3)")
    assert "the check of parameterization mine ended with exit code 3, outside of its functions" in refusal()


def test_what_ends_the_process_after_a_function_has_returned_is_not_called_the_function(write):
    odd = "torch.Tensor.as_subclass(model_output, type('Odd', (torch.Tensor,), {'__torch_function__': later}))"
    write(loading="later = classmethod(lambda *_: os._exit(4))", predicting=f"return {odd}")
    assert "the check of parameterization mine ended with exit code 4, outside of its functions" in refusal()


def test_a_broken_installation_is_not_blamed_on_the_file(write, monkeypatch, tmp_path, capfd):
    """Somewhere before the file is loaded the process ends, and has said why."""
    write()
    (tmp_path / "broken/torch").mkdir(parents=True)
    (tmp_path / "broken/torch/__init__.py").write_text("import not_a_package\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/broken:{ROOT}/src")
    assert "the check of parameterization mine ended with exit code 1, outside of its functions" in refusal()
    assert "error: the package 'not_a_package' is missing" in capfd.readouterr().err


def test_what_lies_in_the_working_directory_cannot_be_imported(write):
    """Nor can it in training and sampling, which would fail after the check had passed."""
    write(loading="import beside")
    Path("beside.py").touch()
    assert "mine.py does not run: ModuleNotFoundError: No module named 'beside'" in refusal()


# --- a process that does not end -----------------------------------------------------------------------------------


def test_a_file_whose_loading_does_not_end_is_refused(write):
    write(loading="while True: pass")
    assert refusal(seconds=0.5) == (
        f"{WHERE['loading']} did not end within 0.5 s; a check of sound files takes a few seconds"
    )


def test_a_function_that_does_not_end_is_refused_though_it_catches_everything(write):
    write(predicting="exec('while True:\\n try: time.sleep(9)\\n except BaseException: pass')")
    assert refusal(seconds=5.0).startswith(f"{WHERE['predicting']} did not end within 5 s; ")


def test_nothing_is_left_running_when_the_caller_is_killed(write):
    """Nobody may be there any more to end an endless loop, which would keep a login node busy."""
    write(loading="print(os.getpid(), flush=True)\nwhile True: pass")
    code = f"from targetwise.check.process import check_files; check_files({SPECIFICATION!r}, 3.0)"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as program:
        child = int(program.stderr.readline())
        program.kill()
        ended, *_ = select.select([program.stderr], [], [], 30)  # its end is seen once nobody can write there
        if not ended:
            os.kill(child, signal.SIGKILL)
        assert ended and program.stderr.read() == ""


# --- a process that is changed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("torch.set_default_dtype(torch.float64)", "torch's default type from torch.float32 to torch.float64"),
        ("torch.manual_seed(0)", "torch's global random state by drawing or seeding"),
    ],
)
def test_loading_must_leave_the_process_as_it_found_it(write, change, named):
    write(loading=change)
    assert refusal().startswith(f"{WHERE['loading']} changes {named}; ")


def test_a_loss_spaces_file_is_named(write):
    write(loading="os._exit(0)")
    assert refusal(target="v").startswith("parameterization mine: loading its file ended the process")


# --- whoever calls it ----------------------------------------------------------------------------------------------


def test_the_rule_ends_in_one_line_and_writes_nothing(write, tmp_path):
    write(predicting="os._exit(0)")
    write_json(Path("variant.json"), SPECIFICATION)
    script = ROOT / "workflow/scripts/check_parameterization.py"
    command = [sys.executable, str(script), "--specification", "variant.json", "--output", "check/check.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: parameterization mine: predict_x0 ended the process with exit code 0")
    assert len(done.stderr.splitlines()) == 1
    assert not Path("check").exists()


def test_the_command_line_is_protected(write, monkeypatch, capsys):
    write(predicting="os._exit(0)")
    Path("mine.yaml").write_text("grid: {parameterizations: [mine]}\n")
    monkeypatch.setattr("sys.argv", ["targetwise", "check", "--configfile", "mine.yaml"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    assert "error: parameterization mine: predict_x0 ended the process" in capsys.readouterr().err


def test_a_cell_without_snakemake_is_protected(write, monkeypatch):
    write(loading="os._exit(0)")
    Path("mine.yaml").write_text("grid: {parameterizations: [mine]}\n")
    study = load([Path("mine.yaml")])
    monkeypatch.setattr(chain, "prepare", lambda study: (None, None))
    with pytest.raises(UserError, match="loading its file ended the process"):
        chain.run(study, cells.grid(study)[0], Stop())
    assert not list(Path("results").rglob("check.json"))


def test_the_caller_does_not_wait_for_torch_twice():
    """One import of torch in a check, in its process: the time of a check is mostly that."""
    code = "import sys; from targetwise.check import process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
