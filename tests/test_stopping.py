"""A request to stop is heard between two steps, and says where it came from."""

import os
import signal
import time

import pytest

from targetwise.training.stopping import SIGNALS, Stop


@pytest.fixture
def restored():
    """Put back the handlers that were there."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_without_a_reason_the_work_goes_on(restored):
    assert not Stop().listen()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_a_request_with_its_name(restored, number):
    stop = Stop().listen()
    os.kill(os.getpid(), number)
    assert stop
    assert stop
    assert stop.reason == f"received {number.name}"
    assert stop.interrupted == (number == signal.SIGINT)


def test_the_time_budget_ends_margin_seconds_early(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stop = Stop(time_budget=60, margin=10)
    for moment, wanted in ((100.0, False), (149.9, False), (150.1, True)):
        now[0] = moment
        assert bool(stop) == wanted
    assert stop.reason == "the time budget is used up"
    assert not stop.interrupted


def test_what_the_job_has_used_already_counts(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stop = Stop(time_budget=60, margin=10, used=20)
    now[0] = 129.9
    assert not stop
    now[0] = 130.1
    assert stop


def test_a_budget_smaller_than_its_margin_stops_at_once(monkeypatch):
    assert Stop(time_budget=1, margin=5)


def test_without_a_budget_time_does_not_matter(monkeypatch):
    stop = Stop()
    monkeypatch.setattr(time, "monotonic", lambda: 1e12)
    assert not stop


def test_a_signal_before_the_end_of_time_keeps_its_reason(restored):
    stop = Stop(time_budget=0.0, margin=1.0).listen()
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop
    assert stop.reason == "received SIGTERM"
