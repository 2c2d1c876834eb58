"""The command line: what can be asked about a study outside its run."""

import argparse
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from targetwise import __version__, cells, errors, files
from targetwise.recipe import config
from targetwise.text import counted

Study = dict[str, Any]

DAY = 86400


@dataclass(frozen=True)
class Verb:
    """One word after ``targetwise``: what it does with a study, and the arguments it takes."""

    function: Callable[..., None]
    explanation: str
    arguments: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]


VERBS: dict[str, Verb] = {}


def argument(*names: str, **options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what ``argparse.add_argument`` takes."""
    return names, options


def verb(explanation: str, *arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Callable[..., Any]:
    """Make a function the verb of its name."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        VERBS[function.__name__] = Verb(function, explanation, arguments)
        return function

    return register


def interval(option: str) -> Callable[[str], float]:
    """Return what reads the seconds of an option that does something again and again."""

    def read(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds <= DAY:
            raise errors.UserError(f"{option} is {text}; it must be a number of seconds above 0 and at most {DAY}")
        return seconds

    return read


def main() -> None:
    """Run ``targetwise``; what the user can fix ends in one line and an exit code."""
    errors.run(_main)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="targetwise", description=__doc__)
    parser.add_argument("--version", action="version", version=f"targetwise {__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for name, each in VERBS.items():
        subparser = verbs.add_parser(name, help=each.explanation, description=each.explanation.capitalize() + ".")
        subparser.add_argument(
            "--configfile",
            type=Path,
            nargs="+",
            default=[],
            metavar="FILE",
            help="laid over config.yaml, as for snakemake, e.g. config/digits.yaml; name them last",
        )
        for names, options in each.arguments:
            subparser.add_argument(*names, **options)
        subparser.set_defaults(function=each.function)
    arguments = vars(parser.parse_args())
    run, overlays = arguments.pop("function"), arguments.pop("configfile")
    if "overlays" in inspect.signature(run).parameters:
        arguments["overlays"] = overlays
    run(config.load(overlays), **arguments)


@verb("validate the configuration and check every parameterization of the grid")
def check(study: Study) -> None:
    """Print what the grid is and how well each parameterization is conditioned."""
    from targetwise.check.process import check_files, in_words
    from targetwise.diffusion.effective import same_objectives

    drawn = sum(len(cells.draws(study, cell.parameterization)) for cell in cells.grid(study))
    size = f"{counted(len(cells.grid(study)), 'cell')}, {counted(drawn, 'draw')}"
    print(f"study {study['study']}: {size}; the configuration is sound")
    specifications = cells.specifications(study)
    objectives = {}
    for name in study["grid"]["parameterizations"]:
        found = check_files(specifications[cells.RESULTS / study["study"] / name / "variant.json"])
        objectives[name] = found["objective"]
        print(f"{name}: {in_words(found)}")
    for sentence in same_objectives(objectives):
        print(sentence)


@verb(
    "print the weighting that gives a variant the objective of another, on its own path and time steps",
    argument("variant", metavar="VARIANT", help="whose objective is wanted"),
    argument("--to", required=True, metavar="VARIANT", help="which is to have it"),
    argument("--output", type=Path, metavar="CSV", help="write it there, e.g. as workflow/weightings/mine.csv"),
)
def match(study: Study, variant: str, to: str, output: Path | None) -> None:
    """Print or write the table of weights."""
    from targetwise.operations import matching

    matching.run(study, variant, to, output)


@verb(
    "show the means, what is missing and why, and the verdict of each pair; also while the grid is partly done",
    argument("--output", type=Path, metavar="CSV", help="also write every cell's row there"),
)
def table(study: Study, output: Path | None) -> None:
    """Print what the results say so far; nothing is written unless it is asked for."""
    from targetwise.report import statistics

    frame = statistics.table(study)
    said_twice = "setting" if frame["setting"].equals(frame["scale"]) else "scale"
    print(statistics.summary(frame).drop(columns=said_twice).to_string(index=False))
    for row in frame[frame["status"] != "finished"].itertuples():
        draw = f"{row.sampling} draw {row.draw}" if study["grid"].get("samplings") else f"draw {row.draw}"
        print(f"{row.status}: {row.parameterization}-{row.scale}-{row.seed} {draw}: {row.reason}")
    pairs = statistics.pairs(frame)
    if len(pairs):
        print(
            f"\na − b, seed by seed, with its 95 % interval:\n{pairs.drop(columns=said_twice).to_string(index=False)}"
        )
    if output is not None:
        files.write_text(output, frame.to_csv(index=False))
        print(f"every cell's row: {output}")


@verb("write the study's stages into dvc.yaml, so that DVC keeps its cells; other stages stay")
def stages(study: Study, overlays: list[Path]) -> None:
    """Write the group of the study's stages."""
    from targetwise.versioning import stages as writing

    name = writing.write(study, overlays)
    grid = cells.grid(study)
    print(f"{writing.PIPELINE}: {counted(len(grid), 'stage')} of study {study['study']}, from {name}@{grid[0].name}")


@verb("print the answer of a finished study, and where its report is")
def answer(study: Study, overlays: list[Path]) -> None:
    """Print the answer that the present files give, and the path of the report, which may be of before."""
    from targetwise.report import statistics
    from targetwise.report.answer import headline

    page = cells.RESULTS / study["study"] / "report.html"
    print(headline(statistics.table(study)))
    made = f"`snakemake --cores all all{config.option(overlays)}`"
    if not page.exists():
        print(f"there is no report yet; {made} makes it")
    elif files.sha256_of_json(study) not in page.read_text():
        print(f"report: {page.resolve()}, of another configuration; {made} makes it again")
    else:
        print(f"report: {page.resolve()}")


@verb(
    "measure any samples against the study's reference",
    argument("file", type=Path, help="npz with arr_0 (uint8, N×H×W×C), or a folder or zip of PNG files"),
    argument("--reference", type=Path, metavar="NPZ", help="by default the study's"),
    argument("--output", type=Path, metavar="JSON", help="also write the row there"),
)
def fid(study: Study, file: Path, reference: Path | None, output: Path | None) -> None:
    """Print the row of a file of samples: the same number, marks and digests as a cell's."""
    from targetwise.cells.rows import check_row, write_row
    from targetwise.data import store
    from targetwise.metric import fid as measuring

    own = store.ROOT / study["data"]["dataset"] / "reference" / f"{cells.reference_name(study)}.npz"
    if reference is not None:
        _require_reference(reference, own)
    elif not own.with_suffix(".json").exists():
        raise errors.UserError(f"{own} does not exist; `snakemake --cores all {own}` makes it")
    row = measuring.measure_file(file, reference or own, study["metric"]["names"])
    check_row(row, str(file))
    if output is not None:
        write_row(output, row)
    print(files.canonical_json(row), end="")


def _require_reference(path: Path, own: Path) -> None:
    facts = path.with_suffix(".json")
    if path.suffix != ".npz":
        problem = f"{path} is not an .npz file"
    elif not path.exists():
        problem = f"{path} does not exist"
    elif not facts.exists():
        problem = f"{facts}, which says what {path} was made from, does not exist"
    else:
        return
    raise errors.UserError(
        f"{problem}; --reference takes the .npz and the .json beside it that `snakemake` made of a data set; without "
        f"it the study's own is taken, {own}"
    )


@verb(
    "bring MLflow into agreement with the results, also while they are being made",
    argument("--follow", type=interval("--follow"), nargs="?", const=10.0, metavar="SECONDS", help="repeatedly"),
)
def track(study: Study, follow: float | None) -> None:
    """Import the cells into MLflow."""
    from targetwise.tracking.importer import Importer

    importer = Importer(study)
    for count, done in enumerate(importer.follow(follow) if follow is not None else [importer.update()]):
        if count == 0:
            print(f"in a browser, while `mlflow ui` or your server runs: {importer.page}")
        if count == 0 or done["imported"]:
            print(", ".join(f"{len(names)} {what}" for what, names in done.items()), flush=True)


@verb(
    "make a cell again from scratch and compare it with its record",
    argument("cell", metavar="STUDY@CELL", help="e.g. digits@v-tiny-1; docs/reproduce.md says what the answers mean"),
    argument("--keep", type=Path, metavar="FOLDER", help="work there, and leave there what was made"),
)
def reproduce(study: Study, cell: str, keep: Path | None) -> None:
    """Print how the cell that was made again compares; what is not identical makes the exit code 1."""
    from targetwise.records import reproduce as again
    from targetwise.training.stopping import Stop

    loaded, found = again.find(study, cell)
    comparison = again.reproduce(loaded, found, Stop().listen(), keep)
    print("\n".join(comparison.lines()))
    if not comparison.identical:
        raise errors.UserError(comparison.summary())
    print(f"{found.name} of study {found.study} is identical to its record")


@verb("bring back what dvc.lock records, of every study or of --configfile's, and make Snakemake agree")
def restore(study: Study) -> None:
    """Print what was brought back; what is lost makes the exit code 1."""
    from targetwise.versioning import restore as restoring

    lost = 0
    for each in [study] if study != config.load() else restoring.recorded_studies():
        outcome = restoring.restore(each)
        print("\n".join(outcome.lines()), flush=True)
        lost += len(outcome.lost)
    if lost:
        raise errors.UserError(
            f"{counted(lost, 'recorded file', 'are')} lost; the next run makes what is lost again, or push it from "
            "where it is"
        )


@verb(
    "show where every cell stands; reads files only",
    argument("--watch", type=interval("--watch"), nargs="?", const=10.0, metavar="SECONDS", help="repeatedly"),
)
def status(study: Study, watch: float | None) -> None:
    """Print where every cell stands."""
    from targetwise.operations import status as standing

    if watch is not None:
        standing.watch(study, watch)
        return
    found = standing.standings(study)
    print(standing.render(found))
    if hint := standing.elsewhere(found, study):
        print(hint)


@verb(
    "say what the grid costs before it runs: hours and disk, from a benchmark record",
    argument("--record", type=Path, metavar="JSON", help="by default the newest of a GPU, or else of a CPU"),
    argument("--devices", type=int, default=1, metavar="N", help="GPUs that work at once, one cell on each"),
)
def estimate(study: Study, record: Path | None, devices: int) -> None:
    """Print hours and disk per scale and in all, and what they rest on."""
    from targetwise.operations import estimate as estimating
    from targetwise.operations import rates

    if devices < 1:
        raise errors.UserError(f"--devices is {devices}; it must be at least 1")
    print(estimating.render(estimating.estimate(study, record or rates.newest_record(), devices)))


@verb(
    "say what is missing for a run here or on the cluster, with a remedy for each",
    argument("--profile", type=Path, default=Path("slurm"), help="a Snakemake profile's folder"),
)
def doctor(study: Study, profile: Path) -> None:
    """Print what was found, as it is found; what is wrong makes the exit code 1."""
    from targetwise.operations import doctor as examination

    wrong = 0
    for finding in examination.examine(study, profile):
        print(f"{finding.state:<6} {finding.what:<10} {finding.words}", flush=True)
        wrong += finding.state == "wrong"
    if wrong:
        raise errors.UserError(f"{wrong} of these must be fixed before a run")
