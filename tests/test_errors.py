"""How a command ends: one line that says what to do, and an exit code that a scheduler can read."""

import errno
import os
import subprocess
import sys

import pytest

from targetwise import errors


def ending(capsys, error):
    """Return the exit code and the only line on stderr."""

    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        errors.run(main)
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert len(lines) == 1, printed.err
    return caught.value.code, lines[0]


def test_success_says_nothing(capsys):
    errors.run(lambda: None)
    assert capsys.readouterr() == ("", "")


def test_what_the_user_can_mend(capsys):
    assert ending(capsys, errors.UserError("x is 3; it must be 2")) == (1, "error: x is 3; it must be 2")


def test_a_message_of_several_lines_is_made_one(capsys):
    assert ending(capsys, errors.UserError("x fails:\nbecause")) == (1, "error: x fails: because")


def test_stopped_early_asks_to_be_tried_again(capsys):
    code, line = ending(capsys, errors.StoppedEarlyError("saved after step 3"))
    assert (code, line) == (75, "stopped: saved after step 3")


def test_ctrl_c_says_that_the_work_goes_on(capsys):
    code, line = ending(capsys, KeyboardInterrupt())
    assert code == 130
    assert "goes on" in line


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_a_full_disk_or_a_forbidden_file_is_named(capsys, number):
    code, line = ending(capsys, OSError(number, "told by the system", "results/x/model.safetensors"))
    assert code == 1
    assert line.startswith("error: told by the system: results/x/model.safetensors;")


def test_a_missing_package_is_named_with_the_remedy(capsys):
    code, line = ending(capsys, ModuleNotFoundError("No module named 'cleanfid.fid'", name="cleanfid"))
    assert code == 1
    assert line == "error: the package 'cleanfid' is missing; run `make setup`, then `. .venv/bin/activate`"


def test_what_is_started_as_a_program_of_its_own_is_asked_for_before():
    errors.require("snakemake", "pytest")
    with pytest.raises(errors.UserError, match=r"^the package 'no_such' is missing; run `make setup`, then"):
        errors.require("snakemake", "no_such")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "a broken disk"),
        ValueError("a bug"),
        ModuleNotFoundError("No module named 'targetwise.x'", name="targetwise.x"),
    ],
)
def test_our_own_mistakes_keep_their_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)) as caught:
        errors.run(main)
    assert caught.value is error


@pytest.mark.parametrize("lines", [1, 9999])
def test_a_reader_that_leaves_gets_no_traceback(lines):
    """`targetwise table | true` must end quietly, also when all output fits the buffer."""
    code = f"from targetwise import errors; errors.run(lambda: [print('x' * 99) for _ in range({lines})])"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered
    )
    program.stdout.close()
    assert program.stderr.read() == b""
    program.stderr.close()
    assert program.wait(20) == errors.EXIT_ERROR


def test_the_nearest_choice_is_offered():
    assert errors.nearest("epsilom", ["v", "epsilon"]) == "did you mean 'epsilon'? (choices: epsilon, v)"
    assert errors.nearest("qqqq", ["v", "epsilon"]) == "(choices: epsilon, v)"
    assert errors.nearest("a", []) == "(choices: none)"
