"""The line in a log: how far, how fast, how long still."""

import pytest

from targetwise import progress
from targetwise.progress import LOG_EVERY_SECONDS, PROGRESS_LINE, Progress


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def test_the_first_step_which_compiles_does_not_count_for_the_rate(clock, capsys):
    with Progress("train v-small-0", 1001, "step") as bar:
        clock.now += 75  # compiling
        bar.advance()
        line = capsys.readouterr().err
        assert line == "train v-small-0: 1/1001 steps, 0.0 steps/s\n"  # and not 20 hours left
        for _ in range(500):
            clock.now += 0.1
            bar.advance(note="loss 0.03" if bar.count == 350 else "")
        line = capsys.readouterr().err
        assert line.startswith("train v-small-0: 302/1001 steps, 10.0 steps/s, 70 s left\n")
    assert capsys.readouterr().err == "train v-small-0: 501/1001 steps, 10.0 steps/s, 50 s left\n"


def test_what_an_earlier_run_has_finished_says_nothing_of_how_fast_this_one_is(clock, capsys):
    with Progress("sample", 1000, "image", done=200) as bar:
        clock.now += 10
        bar.advance(100)
        bar.skip(500)
        clock.now += 10
        bar.advance(100)
    line = capsys.readouterr().err
    assert line == "sample: 900/1000 images, 10.0 images/s, 10 s left\n"
    assert PROGRESS_LINE.search(line)


def test_what_is_done_at_once_is_as_fast_as_it_was(clock, capsys):
    with Progress("sample", 64, "image") as bar:
        clock.now += LOG_EVERY_SECONDS / 2
        bar.advance(64)
    assert capsys.readouterr().err == "sample: 64/64 images, 4.3 images/s\n"


def test_a_silent_process_says_nothing(clock, capsys):
    with Progress("train", 2, "step", silent=True) as bar:
        clock.now += 2 * LOG_EVERY_SECONDS
        bar.advance()
    assert capsys.readouterr().err == ""
