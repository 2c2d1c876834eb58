"""Looks: what was seen before more was added is recorded once, kept, and told."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import EXAMPLE, ROOT
from synthetic import Files

from targetwise import cells, cli
from targetwise.errors import UserError
from targetwise.report import looks
from targetwise.report.table import table

STUDY = Path("results/digits")


class Growing(Files):
    """The demo's study, whose seeds finish one after the other."""

    def add(self, *seeds, names=("epsilon", "v", "x0")):
        for cell in self.cells:
            if cell.seed in seeds and cell.parameterization in names:
                self.finish(cell, [600])
        return self

    def look(self, **declared):
        self.config["comparison"] |= declared
        return looks.record(STUDY, table(self.config), self.config)

    def told(self):
        return looks.summary(STUDY, self.config)


@pytest.fixture
def growing(project):
    study = copy.deepcopy(EXAMPLE)
    study["grid"]["seeds"] = list(range(10))
    return Growing(study)


def test_a_look_is_recorded_when_rows_are_others_and_only_then(growing):
    assert not growing.look(), "nothing to see"
    assert not (STUDY / looks.NAME).exists() and growing.told() == []
    growing.add(0, 1, 2)
    assert growing.look() and not growing.look()
    assert growing.told() == ["The results were looked at once, with 3 seeds."]
    growing.add(3, 4)
    assert growing.look() and not growing.look()
    growing.add(5, 6, 7, 8, 9)
    assert growing.look()
    assert growing.told() == ["The results were looked at 3 times, with 3, 5 and 10 seeds."]
    assert [look["values"] for look in looks.read(STUDY)] == [9, 15, 30]


def test_a_look_says_what_was_there(growing):
    growing.add(0, 1).add(2, names=["v"]).look()
    (look,) = json.loads((STUDY / looks.NAME).read_text())
    assert look["seeds"] == {"tiny": {"epsilon": 2, "v": 3, "x0": 2}}
    assert look["values"] == 7 and look["comparison"] == EXAMPLE["comparison"]
    assert look["date"].endswith("+00:00") and len(look["rows_sha256"]) == 64
    assert growing.told() == ["The results were looked at once, with 2 to 3 seeds."]
    growing.add(0, 1, 2).look()
    assert growing.told() == ["The results were looked at 2 times, with 2 to 3 and 3 seeds."]


def test_another_value_of_the_same_cell_is_another_look(growing):
    growing.add(0, 1).look()
    path = cells.find(growing.config, "v-tiny-0").folder / "fid/ddim-50/draw0.json"
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "value": row["value"] * (1 + 1e-9)}))
    assert growing.look()
    assert growing.told() == ["The results were looked at 2 times, with 6 and 6 values."]


def test_many_looks_are_told_by_the_first_and_the_last(growing):
    for seed in range(7):
        assert growing.add(seed).look()
    assert growing.told() == [
        "The results were looked at 7 times, first with 1 seed (3 values), last with 7 seeds (21 values)."
    ]


def test_what_was_declared_anew_after_values_were_there_is_told(growing):
    growing.config["comparison"]["smallest_difference"] = 0.05
    growing.add(0, 1, 2).look()
    growing.config["comparison"]["smallest_difference"] = 0.10
    changed = "The smallest difference of interest was changed from 5 % to 10 % when 9 values were already known."
    assert growing.told() == ["The results were looked at once, with 3 seeds.", changed], (
        "also before anybody looked again"
    )
    assert growing.look(), "the same values under another declaration"
    assert growing.told() == ["The results were looked at once, with 3 seeds.", changed]


def test_what_was_changed_and_changed_back_stays_told(growing):
    growing.add(0, 1, 2).look(smallest_difference=0.05)
    growing.look(smallest_difference=0.2)
    growing.look(smallest_difference=0.05)
    assert growing.told()[1:] == [
        "The smallest difference of interest was changed from 5 % to 20 % when 9 values were already known.",
        "The smallest difference of interest was changed from 20 % to 5 % when 9 values were already known.",
    ]


def test_everything_that_is_declared_is_told_of(growing):
    growing.add(0, names=["v"]).look()
    growing.config["comparison"] |= {"smallest_difference": None, "baseline": "v", "families": {"a": ["v", "x0"]}}
    growing.config["comparison"]["curves"] = ["training.steps"]
    assert growing.told()[1:] == [
        "The smallest difference of interest was changed from 10 % to none when 1 value was already known.",
        "The baseline was changed from none to v when 1 value was already known.",
        "The declared families and curves were changed when 1 value was already known.",
    ]


def test_what_was_declared_before_there_were_values_is_nobodys_business(growing):
    growing.look(smallest_difference=0.3)
    growing.add(0, 1).look(smallest_difference=0.05)
    assert growing.told() == ["The results were looked at once, with 2 seeds."]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[{", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        ("{}", "it is no list"),
        ("[{}]", "look 1 does not say date"),
        ("[3]", "look 1 does not say date"),
    ],
)
def test_a_damaged_record_gives_one_line_and_stays_as_it_is(growing, content, why):
    growing.add(0)
    path = STUDY / looks.NAME
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    before = path.read_bytes()
    for ask in (growing.look, growing.told):
        with pytest.raises(UserError) as caught:
            ask()
        assert str(caught.value) == (
            f"{path} is damaged ({why}); bring it back from a copy, or delete it, and that the values were looked at "
            "before is forgotten"
        )
    assert path.read_bytes() == before


def test_where_nothing_may_be_written_the_values_are_shown_all_the_same(growing, monkeypatch, capsys):
    growing.add(0)

    def refuse(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(looks, "write_json", refuse)
    assert not growing.look()
    told = f"note: this look at the values is not recorded: {STUDY / looks.NAME}: Permission denied\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("words", "counts"),
    [(["table"], 1), (["answer"], 1), (["status"], 0), (["plan-seeds", "--deviation", "0.03"], 0)],
    ids=lambda words: str(words),
)
def test_who_is_shown_numbers_has_looked(project, monkeypatch, capsys, words, counts):
    files = Files(EXAMPLE)
    for cell in files.cells[:4]:
        files.finish(cell, [600])
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["targetwise", *words, "--configfile", "config/digits.yaml"])
        cli.main()
    assert len(looks.read(STUDY)) == counts


def test_a_provisional_page_is_a_look(project):
    files = Files(EXAMPLE)
    for cell in files.cells[:2]:
        files.finish(cell, [600])
    command = [sys.executable, ROOT / "workflow/scripts/report.py", "--study", STUDY / "study.json"]
    subprocess.run([*command, "--output", STUDY / "report.html"], check=True)
    assert [look["values"] for look in looks.read(STUDY)] == [2]
