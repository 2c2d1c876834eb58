"""Work on a study or a file: what measures, makes again, or brings other tools into agreement."""

from pathlib import Path

from targetwise import cells, errors, files
from targetwise.cli.verbs import Study, argument, interval, verb
from targetwise.recipe import config
from targetwise.text import counted


@verb(
    "examine an idea, train it beside a finished study's cells, by default the demo's, and compare seed by seed",
    argument("what", metavar="NAME|FILE", help="a variant, or a parameterization's file, anywhere"),
    argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="of the variant"),
)
def try_(study: Study, overlays: list[Path], what: str, changes: list[str]) -> None:
    """Print what a candidate is, how it compares, and what to do next."""
    from targetwise.operations import examination, trial

    if not overlays:
        overlays = [Path("config/digits.yaml")]
        study = config.load(overlays)
    candidate = examination.candidate(study, what, changes)
    print(examination.render(candidate, examination.examine(candidate)), flush=True)
    beside = trial.baselines(study, overlays)
    own, file = trial.prepare(study, candidate, beside)
    trial.train(own, [*overlays, file])
    print("\n".join(["", *trial.compare(own, beside), "", *trial.what_next(candidate)]))


@verb(
    "measure any samples against the study's reference",
    argument("file", type=Path, help="npz with arr_0 (uint8, N×H×W×C), or a folder or zip of PNG files"),
    argument("--reference", type=Path, metavar="NPZ", help="by default the study's"),
    argument("--output", type=Path, metavar="JSON", help="also write the row there"),
)
def fid(study: Study, file: Path, reference: Path | None, output: Path | None) -> None:
    """Print the row of a file of samples: the same number, error, marks and digests as a cell's."""
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
    shown = {name: content for name, content in row.items() if name != "contributions"}  # hundreds of numbers
    print(files.canonical_json(shown), end="")


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


@verb("write the study's stages into dvc.yaml, so that DVC keeps its cells; other stages stay")
def stages(study: Study, overlays: list[Path]) -> None:
    """Write the group of the study's stages."""
    from targetwise.versioning import stages as writing

    name = writing.write(study, overlays)
    grid = cells.grid(study)
    print(f"{writing.PIPELINE}: {counted(len(grid), 'stage')} of study {study['study']}, from {name}@{grid[0].name}")


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
