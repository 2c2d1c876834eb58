"""The one line that says how far a run is."""

import logging
import re
import subprocess
import sys

import pytest

from targetwise.cells import Cell
from targetwise.operations import follow
from targetwise.operations.status import Standing


def standing(name, state, step, detail="", steps=600):
    return Standing(Cell("digits", name, "tiny", 0), state, detail, step, steps)


FOUND = [
    standing("epsilon", "done", 600),
    standing("v", "running", 150, "train: step 150 of 600, 7.5 steps/s, 60 s left (host node3)"),
    standing("x0", "running", 600, "sample: 128/512 images"),
    standing("u", "waiting", 0),
]


def test_it_says_what_is_done_what_is_at_work_and_what_is_left():
    assert follow.line(FOUND, 0, 240.0) == (
        "1 of 4 cells done, about 3 min left; v-tiny-0 train: step 150 of 600, 7.5 steps/s, 60 s left; "
        "x0-tiny-0 sample: 128/512 images"
    )


def test_steps_of_an_earlier_run_say_nothing_of_how_fast_this_one_is():
    assert "about 9 min left" in follow.line(FOUND, 900, 240.0)


@pytest.mark.parametrize("before", [1350, 2400])
def test_where_nothing_was_trained_or_is_left_to_train_no_time_is_said(before):
    found = FOUND if before == 1350 else [standing(name, "done", 600) for name in "abcd"]
    assert re.match(r"\d of 4 cells done(;|$)", follow.line(found, before, 10.0))


def test_only_who_asks_sees_it(study, monkeypatch):
    monkeypatch.delenv(follow.ASKED, raising=False)
    started = []
    snakemake, printer = logging.Logger("snakemake"), logging.StreamHandler()
    printer.name = follow.PRINTER
    snakemake.addHandler(printer)
    monkeypatch.setattr(follow.threading, "Thread", lambda **options: started.append(options) or FakeThread())
    follow.start(study, snakemake)
    assert not started and printer.level == logging.NOTSET
    monkeypatch.setenv(follow.ASKED, "1")
    follow.start(study, snakemake)
    assert printer.level == logging.WARNING
    assert [options["args"] for options in started] == [(study,)] and started[0]["daemon"]


class FakeThread:
    def start(self):
        """Run nothing."""


def test_its_thread_does_not_keep_a_process_alive(project, monkeypatch):
    monkeypatch.setenv(follow.ASKED, "1")
    code = """
import logging
import time
from pathlib import Path
from targetwise.operations import follow
from targetwise.recipe.config import load
follow.EVERY_SECONDS[False] = 0.05
follow.start(load([Path("config/digits.yaml")]), logging.getLogger())
time.sleep(6)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr.splitlines()[0] == "0 of 9 cells done", done.stderr
