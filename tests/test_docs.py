"""README and docs/: as a site they need no network and no link of theirs is dead; every command is one that exists.

Commands are not run here: each is given to the parser of the program it calls, and what it names is looked up.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, copy_working_tree

from targetwise import chain, cli
from targetwise.records import reproduce

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
RULES = {
    name
    for path in [ROOT / "Snakefile", *ROOT.glob("rules/*.smk")]
    for name in re.findall(r"^rule (\w+):", path.read_text(), re.MULTILINE)
}

#: What a page tells its reader to write, and where a command names something that is the reader's own.
READERS_OWN = {
    *("config/perturbed.yaml", "rules/custom/perturbed.smk", "workflow/scripts/train_perturbed.py"),
    *("half_way.yaml", "workflow/claims/half_way.yaml", "half.py"),
}
PLACEHOLDER = re.compile(r"…|[A-Z]+")

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def commands(text):
    """Find what a page tells one to type, as words: in blocks without a language or of text, and in `inline code`."""
    lines = [
        line for language, block in FENCE.findall(text) if language in ("", "text") for line in block.splitlines()
    ]
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCE.sub("", text))]
    for part in (part for line in lines + inline for part in re.split(r"&&| \| ", line.split(" #")[0])):
        words = re.sub(r"^(\$ )?(\w+=\S* )*", "", part.strip()).split(" ", 1)
        if words[0] in CHECKS and len(words) > 1:
            yield [words[0], *shlex.split(words[1])]


def require_file(name):
    assert PLACEHOLDER.fullmatch(str(name)) or str(name) in READERS_OWN or (ROOT / name).is_file(), name


def require_cell(name):
    reproduce.find(cli.config.load(), name)


def check_make(words):
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        variable, given, value = word.partition("=")
        if given:
            assert f"$({variable})" in makefile, variable
        else:
            assert re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE), word
        if variable == "CELL":
            chain.load(value)


def check_targetwise(words):
    """Let the command parse its words, up to where it would read the configuration; a verb alone is but mentioned."""
    if len(words) == 1 and words[0] in cli.VERBS:
        return

    class Parsed(Exception):  # noqa: N818
        pass

    def stop(overlays):
        raise Parsed(overlays)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.argv", ["targetwise", *words])
        patched.setattr(cli.config, "load", stop)
        try:
            cli._main()
        except Parsed as parsed:
            for overlay in parsed.args[0]:
                require_file(overlay)
        except SystemExit as ended:
            assert not ended.code and "--help" in words, words
    for word in words:
        if re.fullmatch(r"\w+@\S+", word):
            require_cell(word)


def check_snakemake(words):
    from snakemake.cli import parse_args

    _, found = parse_args(words)
    for path in found.configfile or []:
        require_file(Path(path).relative_to(ROOT) if Path(path).is_absolute() else path)
    for profile in found.profile or []:
        assert (ROOT / profile).is_dir(), profile
    assert all(target in RULES or target in FILES for target in found.targets), found.targets


def check_dvc(words):
    from dvc.cli.parser import get_main_parser

    found = get_main_parser().parse_args(words)
    if found.cmd in ("repro", "status"):
        for target in found.targets:
            stage, _, cell = target.partition("@")
            assert stage in DVC and (not cell or cell in DVC[stage]["foreach"]), target


def check_mlflow(words):
    import click
    from mlflow.cli import cli as group

    name, command, rest = group.resolve_command(click.Context(group), words)
    command.make_context(name, rest)


def check_python(words):
    script, *options = words
    require_file(script)
    known = [
        argument.value
        for node in ast.walk(ast.parse((ROOT / script).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    ]
    assert {option.split("=")[0] for option in options if option.startswith("-")} <= set(known), options


def check_torchrun(words):
    from torch.distributed.run import get_args_parser

    found = get_args_parser().parse_args(words)
    check_python([found.training_script, *found.training_script_args])


CHECKS = {
    "make": check_make,
    "targetwise": check_targetwise,
    "snakemake": check_snakemake,
    "dvc": check_dvc,
    "mlflow": check_mlflow,
    "python": check_python,
    "torchrun": check_torchrun,
}

COMMANDS = sorted({tuple(words) for page in PAGES for words in commands(page.read_text())})
#: The files that Snakemake is asked for by name; that it can make them is shown by one run of its own, below.
FILES = {word for words in COMMANDS if words[0] == "snakemake" for word in words if word.startswith("data/")}


def check(words):
    """Refuse a command that does not exist, whatever its program does to say so."""
    try:
        CHECKS[words[0]](list(words[1:]))
    except (SystemExit, Exception) as refused:
        pytest.fail(f"{' '.join(words)}: {refused!r}")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_exists(words):
    check(words)


@pytest.mark.parametrize(
    "command",
    [
        "make dmeo",
        "make cell-gpu CEL=reference@epsilon-small-42",
        "make cell-gpu CELL=reference@epsilon-small-43",
        "targetwise tabel",
        "targetwise table --outptu x.csv",
        "targetwise status --watch often",
        "targetwise check --configfile config/digit.yaml",
        "targetwise reproduce digits@v-tiny-9",
        "snakemake --cores all al",
        "snakemake --corse all all",
        "snakemake --cores all all --configfile config/digits.yaml config/none.yaml",
        "snakemake --profile sulrm all",
        "dvc repor digits@v-tiny-1",
        "dvc repro digits@v-tiny-9",
        "dvc status digit",
        "dvc push --everything",
        "mlflow uy",
        "mlflow ui --prot 5000",
        "python workflow/scripts/trian.py",
        "python workflow/scripts/train.py --spec cell.json",
        "torchrun --nporc-per-node=4 workflow/scripts/train.py",
    ],
)
def test_a_wrong_command_is_refused(command):
    [words] = commands(f"Type `{command}`.")
    with pytest.raises(pytest.fail.Exception, match=re.escape(command)):
        check(words)


def test_commands_are_found_where_pages_have_them():
    page = """Run `make
demo`, `A=b dvc push` or `make`, never `rm -r x`.

```
git clone … && make setup    # or `make test`
$ snakemake -n all
```
```yaml
make: no
```
"""
    found = ["make setup", "snakemake -n all", "make demo", "dvc push"]
    assert [" ".join(words) for words in commands(page)] == found
    assert len(COMMANDS) > 60 and {words[0] for words in COMMANDS} == set(CHECKS)


def test_snakemake_can_make_every_file_that_a_page_asks_it_for(tmp_path):
    assert FILES
    copy_working_tree(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--quiet", "--cores", "1", "--", *sorted(FILES)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_configuration_and_folder_that_a_page_names_exists(path):
    folders = "config|workflow|rules|src|tests|benchmarks|findings|slurm|profiles"
    for name in re.findall(rf"`((?:{folders})/[\w./+@-]*)`", path.read_text()):
        assert (ROOT / name).exists() or name in READERS_OWN, name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_lists_read_the_same_in_the_repository_and_in_the_site(path):
    """Python-Markdown wants what belongs to an item four columns in, and an empty line before a list."""
    text = FENCE.sub("", path.read_text())
    assert not re.findall(r"^ {1,3}[-*] .*", text, re.MULTILINE), "an inner list with fewer than four spaces"
    assert not re.findall(r"\n\n {1,3}\S.*", text), "a paragraph of an item with fewer than four spaces"
    assert not re.findall(r"^(?![-*] |\d+\. | |\n).+\n(?:- |1\. ).*", text, re.MULTILINE), (
        "a list without a line before"
    )


class Wanted(HTMLParser):
    """What a page has a browser fetch by itself."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(given["href"])
        elif tag not in ("a", "link"):
            self.found += [given[name] for name in ("src", "srcset", "data", "href", "poster") if given.get(name)]


def test_the_site_has_no_dead_link_and_asks_nothing_of_a_network(site):
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]  # which only a server shows
    assert len(pages) > len(PAGES)
    for page in pages:
        wanted = Wanted()
        wanted.feed(page.read_text())
        for address in wanted.found:
            assert not re.match(r"(https?:)?//", address), (page, address)
            if not address.startswith(("data:", "#")):
                assert (page.parent / address.split("?")[0].split("#")[0]).is_file(), (page, address)
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style


def test_the_site_holds_every_page_and_what_the_pages_link_to(site):
    assert {path.stem for path in PAGES[1:]} | {"index", "demo"} <= {path.stem for path in site.glob("*.html")}
    home = (site / "index.html").read_text()
    assert "Is it true what they say?" in home and 'src="images/report.png"' in home
    assert 'href="performance.html#the-demo"' in home and 'href="files/CITATION.cff.html"' in home
    kept = site / "files/findings/digits_claims-cells.csv"
    assert kept.read_bytes() == (ROOT / "findings/digits_claims-cells.csv").read_bytes()
    assert "x0 with epsilon" in (site / "files/workflow/claims/weight_not_output.yaml.html").read_text()
    assert (site / "search/search_index.js").stat().st_size > 100_000


def test_the_demos_report_is_in_the_site_if_it_is_there(site):
    page, report = (site / "demo.html").read_text(), "results/digits/report.html"
    if (ROOT / report).exists():
        assert (site / report).read_bytes() == (ROOT / report).read_bytes() and f'href="{report}"' in page
    else:
        assert "<code>make demo</code>" in page and f'href="{report}"' not in page
