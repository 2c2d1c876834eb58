"""The page of all studies: each row says what its study's own files say, and no study can spoil the page."""

import copy
import json
import re
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from helpers import EXAMPLE
from synthetic import Files, write_json

from targetwise import cells, cli
from targetwise.files import one_at_a_time, sha256_of_json
from targetwise.recipe.config import validate
from targetwise.report import index, looks
from targetwise.report.table import table

COLUMNS = ["answer", "metric", "data set", "size", "finished", "missing", "diverged", "claims", "last trained, UTC"]


class Rows(HTMLParser):
    """The table as a screen reader has it: for each row its header and its cells by the column's header."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.columns, self.rows, self.links, self.loads, self.inside = [], {}, {}, [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "tr":
            self.name, self.cells = "", []
        elif tag == "th":
            assert given["scope"] in ("col", "row")
            self.inside = given["scope"]
            self.columns += [""] if self.inside == "col" else []
        elif tag == "td":
            self.inside, self.cells = "td", [*self.cells, *[""] * int(given.get("colspan", 1))]
            self.at = len(self.cells) - int(given.get("colspan", 1))
        elif tag == "a":
            self.links[unquote(urlsplit(given["href"]).path)] = True
        self.loads += [
            value for key, value in attributes if key in ("src", "srcset") or (tag == "link" and key == "href")
        ]

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.inside = None
        elif tag == "tr" and self.name:
            cells_of = [" ".join(text.split()) for text in self.cells]
            self.rows[self.name] = dict(zip(self.columns[1:], cells_of, strict=True))

    def handle_data(self, text):
        if self.inside == "col":
            self.columns[-1] += text
        elif self.inside == "row":
            self.name += text
        elif self.inside == "td":
            self.cells[self.at] += text


def make(name, finished=None, **grid):
    """Write a study whose cells are finished, or the first so many; the values are 40, 41, 42, …, over the seeds."""
    study = copy.deepcopy(EXAMPLE) | {"study": name}
    study["grid"] |= grid
    files = Files(validate(study))  # claims bring variants
    for cell in files.cells[:finished]:
        files.finish(cell, [600])
    return files


def folder(name):
    return cells.RESULTS / name


def seen(files):
    looks.record(folder(files.config["study"]), table(files.config), files.config)
    return files


def written(**options):
    index.write(**{"look": False, **options})
    return Rows(index.PAGE.read_text())


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["targetwise", *map(str, arguments)])
    cli.main()


def test_a_row_says_what_the_studys_files_say(project, monkeypatch, capsys):
    files = make("one", 8)
    files.publish(files.cells[4], [200], diverged="the loss was not finite")
    files.measure(files.cells[4], reason="the loss was not finite")
    call(monkeypatch, "answer", "--configfile", folder("one") / "study.json")
    headline = capsys.readouterr().out.splitlines()[0]
    assert headline.startswith("Provisional, with 7 of 9 cells finished.")
    page = written()
    assert page.columns == ["study", *COLUMNS]
    made = "No report yet; this makes it: snakemake --cores all all --configfile results/one/study.json"
    # The eighth cell was trained last, at BEGAN + 7 × 10,000 s + 600 steps + 1 s of synthetic.py.
    assert page.rows == {
        "one": dict(
            zip(
                COLUMNS,
                [
                    headline + made,
                    "FD (digits features)",
                    "digits",
                    "3 × 1 × 3",
                    "7",
                    "1",
                    "1",
                    "–",
                    "2026-09-22 09:50",
                ],
                strict=True,
            )
        )
    }
    assert page.links == {} and page.loads == []


def test_the_name_leads_to_the_report_and_one_of_another_configuration_is_told(project):
    for name in ("old", "new"):
        seen(make(name))
        (folder(name) / "report.html").write_text("0" * 64)
    study = json.loads((folder("new") / "study.json").read_text())
    (folder("new") / "report.html").write_text(f"<code>{sha256_of_json(study)}</code>")
    page = written()
    assert all((index.PAGE.parent / link).is_file() for link in page.links) and len(page.links) == 2
    assert "this makes it again: snakemake" in page.rows["old"]["answer"]
    assert "snakemake" not in page.rows["new"]["answer"]


def test_samplings_count_into_the_size(project):
    study = copy.deepcopy(EXAMPLE) | {"study": "drawn", "samplings": {"few": {"steps": 4}, "many": {"steps": 90}}}
    study["grid"] |= {"samplings": ["few", "many"], "seeds": [0]}
    Files(study)
    row = written().rows["drawn"]
    assert (row["size"], row["missing"], row["metric"], row["last trained, UTC"]) == ("3 × 1 × 1 × 2", "3", "–", "–")
    assert row["answer"].startswith("There is no answer, because no parameterization has a value.")


def test_verdicts_are_counted_from_the_table_of_claims(project):
    make("claimed", 0, claims=["v_quality"])
    assert written().rows["claimed"]["claims"] == "not judged yet"
    verdicts = ["open", "supported", "open", "contradicted", "open", "supported"]
    (folder("claimed") / "claims.csv").write_text("claim,verdict\n" + "".join(f"c,{each}\n" for each in verdicts))
    assert written().rows["claimed"]["claims"] == "2 supported, 1 contradicted, 3 open"


def test_a_run_shows_no_value_of_another_study_that_nobody_asked_for_yet(project, monkeypatch, capsys):
    """It would not be counted as a look, and yet be one."""
    files = seen(make("half", 4))
    before = written().rows["half"]["answer"]
    assert "epsilon (41.00)" in before
    files.finish(files.cells[4], [600])
    record = (folder("half") / looks.NAME).read_bytes()
    row = written().rows["half"]
    assert not re.search(r"\d\d\.\d", row["answer"]) and row["finished"] == "5"
    assert (folder("half") / looks.NAME).read_bytes() == record
    (command,) = re.findall(r": targetwise (answer .*)", row["answer"])
    call(monkeypatch, *command.split())
    assert written().rows["half"]["answer"].startswith(capsys.readouterr().out.splitlines()[0])
    files.finish(files.cells[5], [600])
    assert "v (44.00)" in written(look=True).rows["half"]["answer"]
    assert len(json.loads((folder("half") / looks.NAME).read_text())) == 3


def other_study(path):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"study": "sound"}))


def older_schema(path):
    content = json.loads(path.read_text())
    del content["probes"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("study.json", '{"study": ', "results/bad/study.json is damaged"),
        ("study.json", "[]", "results/bad/study.json is damaged (it is no mapping)"),
        ("study.json", "\x00\n", "results/bad/study.json is damaged"),
        ("study.json", other_study, "results/bad/study.json is of study sound"),
        (
            "study.json",
            older_schema,
            "study.json is of another version of the project, or was edited: configuration: probes",
        ),
        ("epsilon/tiny/seed0/fid/ddim-50/draw0.json", "{", "seed0/fid/ddim-50/draw0.json is damaged"),
        ("epsilon/tiny/seed0/fid/ddim-50/draw0.json", "[]", "its files cannot be read (AttributeError: "),
        ("looks.json", "{}", "results/bad/looks.json is damaged (it is no list)"),
        ("claims.csv", "", "results/bad/claims.csv is damaged"),
        ("claims.csv", "claim\nv_quality\n", "results/bad/claims.csv is damaged"),
    ],
)
def test_a_damaged_study_has_one_line_and_the_others_their_rows(project, name, damage, words, monkeypatch, capsys):
    seen(make("sound"))
    seen(make("bad", claims=["v_quality"]))
    (folder("bad") / "report.html").write_text("0" * 64)
    path = folder("bad") / name
    if isinstance(damage, str):
        path.write_text(damage)
    else:
        damage(path)
    call(monkeypatch, "index")
    *lines, last = capsys.readouterr().out.splitlines()
    (line,) = lines
    assert line.startswith("bad: ") and words in line and last == f"studies: {index.PAGE.resolve()}"
    page = Rows(index.PAGE.read_text())
    assert page.rows["sound"]["finished"] == "9"
    assert words in page.rows["bad"]["answer"] and not any(list(page.rows["bad"].values())[1:])
    assert list(page.links) == ["bad/report.html"]


def test_a_folder_that_cannot_be_read_is_told_too(project):
    seen(make("sound"))
    (cells.RESULTS / "folder" / "study.json").mkdir(parents=True)
    page = written()
    assert "IsADirectoryError" in page.rows["folder"]["answer"] and page.rows["sound"]["finished"] == "9"


def test_names_are_no_html(project):
    odd = "<script>alert(1)<b>&amp; 100% #1?"
    (folder(odd)).mkdir(parents=True)
    (folder(odd) / "study.json").write_text("{}")
    (folder(odd) / "report.html").touch()
    page = written()
    assert list(page.rows) == [odd] and list(page.links) == [f"{odd}/report.html"]
    assert "<script" not in index.PAGE.read_text() and "<b>" not in index.PAGE.read_text()


def test_without_a_study_there_is_one_clear_line(project, monkeypatch, capsys):
    call(monkeypatch, "index")
    assert capsys.readouterr().out.splitlines()[0] == "there is no study in results yet; `make demo` makes one"
    page = index.PAGE.read_text()
    assert "There is no study in <code>results/</code> yet" in page and "<table" not in page


def test_the_same_files_give_the_same_page_in_the_order_of_names(project):
    for name in ("b", "a", "c"):
        make(name, 1)
    assert list(written().rows) == ["a", "b", "c"]
    first = index.PAGE.read_bytes()
    written()
    assert index.PAGE.read_bytes() == first


def test_who_waits_for_another_writer_reads_after_it(project):
    """Otherwise the last one would put back the page of before the other's study was there."""
    make("first", 0)
    waiting = threading.Thread(target=index.write, kwargs={"look": False})
    with one_at_a_time(index.PAGE):
        waiting.start()
        time.sleep(0.5)  # in which it would have read
        assert not index.PAGE.exists()
        make("second", 0)
    waiting.join()
    assert list(Rows(index.PAGE.read_text()).rows) == ["first", "second"]


def test_a_report_is_made_even_if_the_page_of_all_cannot_be(project):
    files = make("one", 1)
    index.PAGE.mkdir()
    script, report = project / "workflow/scripts/report.py", folder("one") / "report.html"
    command = [sys.executable, script, "--study", folder("one") / "study.json", "--output", report]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "note: results/index.html is not up to date: Is a directory\n"
    assert sha256_of_json(files.config) in report.read_text()
    index.PAGE.rmdir()
    subprocess.run(command, check=True)
    assert "one" in Rows(index.PAGE.read_text()).rows
    assert not list(Path("results").glob(".*.part"))


@pytest.fixture
def read(monkeypatch):
    """The studies whose tables were made, in order."""
    found = []
    monkeypatch.setattr(index, "table", lambda config: found.append(config["study"]) or table(config))
    return found


def test_what_was_said_of_a_study_is_said_again_until_a_file_of_it_changes(project, read):
    first, other = seen(make("first")), seen(make("other"))
    before = written().rows
    assert read == ["first", "other"]
    for look in (False, True):
        assert written(look=look).rows == before and read == ["first", "other"]
    other.measure(other.cells[0], reason="the samples were not finite")
    seen(other)
    changed = written().rows
    assert changed["other"]["diverged"] == "1" and changed["first"] == before["first"] and read[2:] == ["other"]
    (folder("first") / looks.NAME).unlink()
    for _ in range(2):  # nobody has asked for its values yet, so far as is known
        assert not re.search(r"\d\d\.\d", written().rows["first"]["answer"])
    assert written(look=True).rows["first"] == before["first"] and read[3:] == ["first"] * 3
    first.publish(first.cells[0], [400])
    assert written(look=True).rows["first"]["last trained, UTC"] == before["first"]["last trained, UTC"]
    assert read[6:] == ["first"]


@pytest.mark.parametrize("kept", ["", "[]", '{"one": 3}', '{"one": {}}', '{"one": {"sha256": "0", "facts": null}}'])
def test_what_was_kept_is_not_believed_if_it_is_damaged_or_of_other_code(project, read, monkeypatch, kept):
    seen(make("one"))
    before = written().rows
    index.KEPT.write_text(kept)
    assert written().rows == before and read == ["one", "one"]
    monkeypatch.setattr(index.provenance, "code_sha256", lambda: "0" * 64)
    assert written().rows == before and read == ["one", "one", "one"]


OPENED = """
import os, sys
opened = set()
sys.addaudithook(lambda event, of: opened.add(str(of[0])) if event == "open" else None)
from targetwise.report import index
index.write(look=False)
print(*sorted(os.path.relpath(path) for path in opened if "__pycache__" not in path), sep="\\n")
"""


def test_all_that_a_row_is_read_from_decides_whether_it_is_read_anew(project):
    """The second time nothing is opened but to take its digest, and what is said of a report."""
    files = seen(make("one", claims=["v_quality"]))
    (folder("one") / "claims.csv").write_text("verdict\nopen\n")
    write_json(Path("data/digits/reference/digits-fast-train.json"), {"images_sha256": "0", "extractor_sha256": "1"})
    first, second = (
        set(subprocess.run([sys.executable, "-c", OPENED], capture_output=True, text=True, check=True).stdout.split())
        for _ in range(2)
    )
    own = {path for path in first if path.split("/")[0] in ("results", "data", "workflow", "config", "config.yaml")}
    made = {path for path in own if re.match(r"results/\.+index", path)}
    row = str(files.cells[0].folder / "fid/ddim-50/draw0.json")
    assert {row, "results/one/claims.csv", "data/digits/manifest.json", "workflow/parameterizations/v.py"} <= own
    assert own - made <= second
