"""The last words of a run that failed: which jobs, why, and what to type."""

from types import SimpleNamespace

import pytest

from targetwise.operations import ending


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_STAGE", "TARGETWISE_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def ended(monkeypatch):
    """Run the end of a run; return the programs that were called, and the last words."""
    calls, words = [], []
    monkeypatch.setattr(ending.subprocess, "run", lambda command: calls.append([str(part) for part in command]))
    monkeypatch.setattr(ending.atexit, "register", lambda function, text, **options: words.append(text))

    def end(*failed):
        ending.after_failure("digits", failed)
        return calls, words[-1].splitlines()

    return end


def job(folder, log, rule="train", output="model.safetensors"):
    path = folder / f"{rule}.log"
    path.write_text(log)
    return SimpleNamespace(
        rule=SimpleNamespace(name=rule), wildcards=["digits", "v", "tiny", "1"], log=[path.name], output=[output]
    )


def test_the_scripts_own_line_is_the_reason_and_the_command_is_the_last_line(folder, ended, monkeypatch):
    monkeypatch.setattr(ending.sys, "argv", ["/bin/snakemake", "--cores", "2", "all", "--config", "a=b c"])
    calls, words = ended(job(folder, "train v-tiny-1: 5/10 steps\nerror: the data are damaged\n"))
    assert words == [
        "failed: train digits v tiny 1 (train.log): the data are damaged",
        "the same command goes on: snakemake --cores 2 all --config 'a=b c'",
    ]
    assert calls[0][1:4] == ["-m", "targetwise", "table"] and "results/digits/table.partial.csv" in calls[0]
    assert calls[1][1:] == ["workflow/scripts/version.py", "--study", "results/digits/study.json", "--finished"]


def test_what_must_be_deleted_first_is_said_in_the_last_line_too(folder, ended):
    _, words = ended(job(folder, "error: draw0.json is damaged; delete it; `snakemake …` makes it again\n", "fid"))
    assert words[-1].startswith("when that is done, the same command goes on: ")


def test_who_was_killed_has_no_words_of_its_own(folder, ended):
    _, words = ended(job(folder, "train v-tiny-1: 5/10 steps, 3.0 steps/s, 2 s left\n"))
    assert words[0] == "failed: train digits v tiny 1 (train.log): ended silently; was it killed?"


def test_after_ctrl_c_nobody_waits_for_dvc(folder, ended):
    calls, words = ended(job(folder, "interrupted; the same command goes on from the last saved state\n"))
    assert len(calls) == 1 and words[0].endswith(": interrupted; the same command goes on from the last saved state")
    assert ended()[1] == [words[1]], "also where no job was running"


def test_of_a_group_only_what_failed_is_named(folder, ended):
    (folder / "draw0.npz").touch()
    sampled = job(folder, "sample v-tiny-1 draw 0: 48/48 images\n", "sample", "draw0.npz")
    _, words = ended(SimpleNamespace(jobs=[sampled, job(folder, "error: no\n", "fid", "draw0.json")]))
    assert [line.split(" ")[1] for line in words[:-1]] == ["fid"]


def test_many_failures_are_counted(folder, ended):
    _, words = ended(*[job(folder, "error: no\n", f"rule{index}") for index in range(9)])
    assert len(words) == ending.SHOWN + 2 and words[-2] == "failed: 4 more"


@pytest.mark.parametrize(
    ("name", "value", "command"),
    [("TARGETWISE_COMMAND", "make demo", "make demo"), ("DVC_STAGE", "digits@v-tiny-1", "dvc repro digits@v-tiny-1")],
)
def test_what_called_snakemake_is_what_to_type(ended, monkeypatch, name, value, command):
    monkeypatch.setenv(name, value)
    assert ended()[1][-1] == f"the same command goes on: {command}"
