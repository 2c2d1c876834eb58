"""The importer killed, doubled, and with much to do: no run is lost, none is doubled."""

import time

import pytest
from mlflow.tracking import MlflowClient
from mlflow_tools import HERE, apart, configured, look_here, rows, targetwise, without_ids
from synthetic import Files

from targetwise.operations import status
from targetwise.tracking import experiment, runs

pytestmark = pytest.mark.deep

STEPS = [20, 40, 60]


#: All by which the importer changes anything.
WRITES = (
    *("create_experiment", "create_run", "log_batch", "delete_tag", "log_inputs", "log_artifacts"),
    *("update_run", "set_terminated", "set_tag", "delete_run"),
)


class Killed(BaseException):
    """The importer is gone, and has done nothing more."""


def _killed_at_any_write(half, whole):
    """Import ``half``, then ``whole`` with a kill after each possible write; return what the next import makes of it.

    The first that is returned is of an import that was not cut off. Each has an experiment of its own.
    """
    client, calls, last = MlflowClient(HERE), 0, 0

    def counted(write):
        def call(*arguments, **options):
            nonlocal calls
            done = write(*arguments, **options)
            calls += 1
            if calls == last:
                raise Killed
            return done

        return call

    for name in WRITES:
        setattr(client, name, counted(getattr(client, name)))
    experiment.BATCH = 20
    found = []
    while True:
        name = f"killed after {len(found)}"
        for part in (half, whole):
            calls, last = 0, len(found) if part is whole else 0
            try:
                opened = experiment.Experiment(client, name, {})
                for run in part:
                    opened.write(run)
            except Killed:
                continue
        was_killed, calls, last = calls == last, 0, 0
        opened = experiment.Experiment(client, name, {})
        for run in whole:
            opened.write(run)
        found.append(without_ids(look_here(HERE, name)))
        if len(found) > 1 and not was_killed:
            return found


def test_an_importer_killed_after_any_write_and_run_again_loses_and_doubles_nothing(config, made):
    """One cell's run is there and grows, the other's is made."""
    made.log(made.cells[0], STEPS, saved=40)
    half = [runs.Runs(config).describe(status.standings(config)[0])]
    for cell in made.cells:
        made.finish(cell, [*STEPS, 80])
    whole = [runs.Runs(config).describe(standing) for standing in status.standings(config)]
    expected, *found = apart(_killed_at_any_write, half, whole)
    assert set(expected) == {"epsilon-tiny-0", "v-tiny-0"}
    assert len(found) > 15
    for number, each in enumerate(found, 1):
        assert each == expected, f"killed after write {number}"


def test_200_cells_imported_by_two_at_once_both_killed_and_by_two_again(config, project):
    """On a database that is not there at first, so that both would make it."""
    (project / "mlflow.db").unlink()
    config["grid"]["seeds"] = list(range(100))
    made = Files(config)
    steps = list(range(20, 1020, 20))
    for cell in made.cells:
        made.finish(cell, steps)
    arguments = configured(config)
    two = [targetwise("track", *arguments) for _ in range(2)]
    while not rows("select 1 from runs where status = 'FINISHED' limit 1 offset 20"):
        assert [each.poll() for each in two] == [None, None], [each.communicate() for each in two]
        time.sleep(0.1)
    for each in two:
        each.kill()
        each.communicate()
    assert 20 <= rows("select count(*) from runs")[0][0] < 200
    ended = [each.communicate(timeout=300) for each in [targetwise("track", *arguments) for _ in range(2)]]
    said = sorted(words.splitlines()[-1] for words, _ in ended)
    assert said[0] == "0 imported, 200 unchanged, 0 waiting", ended
    assert "200 imported" not in said[1], "what was whole is not made again"
    assert rows("select count(*), count(distinct name) from runs") == [(200, 200)]
    lines = {cell.name: [made.line(cell, step) for step in steps] for cell in made.cells}
    losses = rows("select name, step, value, timestamp from metrics join runs using (run_uuid) where key = 'loss'")
    assert sorted(losses) == sorted(
        (name, line["step"], line["loss"], round(line["time"] * 1000))
        for name, each in lines.items()
        for line in each
    )
    assert rows("select count(*) from metrics group by run_uuid") == [(50 * 9 + 2 * 2 + 2,)] * 200
