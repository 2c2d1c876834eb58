"""Questions about a study: they read, and write what they are told to, and that its values were looked at."""

from pathlib import Path

from targetwise import cells, errors, files
from targetwise.cli.verbs import Study, argument, interval, verb
from targetwise.recipe import config
from targetwise.text import counted


@verb(
    "validate the configuration and check every parameterization of the grid, or examine one",
    argument("what", nargs="?", metavar="NAME|FILE", help="one variant, or a parameterization's file, anywhere"),
    argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="of the variant"),
    argument("--figure", type=Path, metavar="FILE", help="also draw it, as .svg, .png or .pdf"),
)
def check(study: Study, what: str | None, changes: list[str], figure: Path | None) -> None:
    """Print what the grid is and how well each parameterization is conditioned, or all that is found of one."""
    from targetwise.check import figure as drawing
    from targetwise.check.process import check_files, in_words
    from targetwise.diffusion.effective import same_objectives
    from targetwise.operations import examination

    if figure is not None:
        drawing.require_drawable(figure)
    if what is not None:
        examined = examination.candidate(study, what, changes)
        description = examination.examine(examined)
        print(examination.render(examined, description))
        if figure is not None:
            drawing.draw({examined.name: description}, figure)
        return
    if changes:
        raise errors.UserError("--set changes one variant; name it before")
    drawn = sum(len(cells.draws(study, cell.parameterization)) for cell in cells.grid(study))
    size = f"{counted(len(cells.grid(study)), 'cell')}, {counted(drawn, 'draw')}"
    print(f"study {study['study']}: {size}; the configuration is sound")
    specifications = cells.specifications(study)
    checks = {}
    for name in study["grid"]["parameterizations"]:
        checks[name] = check_files(specifications[cells.RESULTS / study["study"] / name / "variant.json"])
        print(f"{name}: {in_words(checks[name])}")
    for sentence in same_objectives({name: found["objective"] for name, found in checks.items()}):
        print(sentence)
    if figure is not None:
        drawing.draw(checks, figure)


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
    "say how many seeds resolve a difference or show that there is none, from the spread so far, and their cost",
    argument("--difference", type=float, metavar="RATIO", help="0.05 is 5 %%; by default the study's smallest"),
    argument("--deviation", type=float, metavar="RATIO", help="assume this spread of ln(value), not the rows'"),
    argument("--record", type=Path, metavar="JSON", help="the benchmark record, as for estimate"),
)
def plan_seeds(study: Study, difference: float | None, deviation: float | None, record: Path | None) -> None:
    """Print a line per setting, and what it rests on."""
    from targetwise.operations import plan_seeds as planning
    from targetwise.report.table import table as table_of

    frame = table_of(study)
    print("\n".join(planning.plan(study, frame, difference=difference, deviation=deviation, record=record)))


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
    "show the means, what is missing and why, and the verdict of each pair; also while the grid is partly done",
    argument("--output", type=Path, metavar="CSV", help="also write every cell's row there"),
)
def table(study: Study, output: Path | None) -> None:
    """Print what the results say so far; nothing is written unless it is asked for, but the look is recorded."""
    from targetwise.report import looks, statistics
    from targetwise.report.table import table as table_of

    frame = table_of(study)
    looks.record(cells.RESULTS / study["study"], frame, study)
    said_twice = "setting" if frame["setting"].equals(frame["scale"]) else "scale"
    means = statistics.summary(frame).drop(columns=said_twice)
    if means["error"].isna().all():
        means = means.drop(columns="error")
    print(means.to_string(index=False))
    for row in frame[frame["status"] != "finished"].itertuples():
        draw = f"{row.sampling} draw {row.draw}" if study["grid"].get("samplings") else f"draw {row.draw}"
        print(f"{row.status}: {row.parameterization}-{row.scale}-{row.seed} {draw}: {row.reason}")
    compared = statistics.comparisons(frame, statistics.declared(study))
    if len(compared):
        words = "a against b with seeds as blocks, in simultaneous 95 % intervals"
        shown = compared[["setting", "family", "a", "b", "seeds", "ratio", "low", "high", "p_value", "verdict"]]
        print(f"\n{words}:\n{shown.dropna(axis=1, how='all').to_string(index=False)}")
    if output is not None:
        files.write_text(output, frame.to_csv(index=False))
        print(f"every cell's row: {output}")


@verb("list the claims that can be tested, or with a study's values what became of its own")
def claims(study: Study) -> None:
    """Print a block per claim; verdicts count as a look at the values."""
    from targetwise.operations import claims as listing

    print("\n".join(listing.lines(study)))


@verb("print the answer of a finished study, and where its report is")
def answer(study: Study, overlays: list[Path]) -> None:
    """Print the answer that the present files give, and the path of the report, which may be of before."""
    from targetwise.report import looks
    from targetwise.report.answer import headline
    from targetwise.report.table import table as table_of

    folder = cells.RESULTS / study["study"]
    page, frame = folder / "report.html", table_of(study)
    looks.record(folder, frame, study)
    print(headline(study, frame))
    made = f"`snakemake --cores all all{config.option(overlays)}`"
    if not page.exists():
        print(f"there is no report yet; {made} makes it")
    elif files.sha256_of_json(study) not in page.read_text():
        print(f"report: {page.resolve()}, of another configuration; {made} makes it again")
    else:
        print(f"report: {page.resolve()}")


@verb(
    "write the report's figures as files for papers, into results/<study>/figures",
    argument("--format", dest="kind", choices=("pdf", "svg", "png"), default="pdf", help="by default pdf"),
)
def figures(study: Study, overlays: list[Path], kind: str) -> None:
    """Print where they are."""
    from targetwise.report import paper

    page = cells.RESULTS / study["study"] / "report.html"
    if not page.exists():
        raise errors.UserError(
            f"{page} does not exist; `snakemake --cores all all{config.option(overlays)}` makes it"
        )
    written = paper.write(page, page.parent / "figures", kind)
    print(f"{counted(len(written), 'figure')}: {(page.parent / 'figures').resolve()}")


@verb("write results/index.html: all studies side by side, with their answers and the way to their reports")
def index(study: Study) -> None:
    """Print where the page is, and which studies cannot be read; of the others every value counts as looked at."""
    from targetwise.report import index as listing

    found = listing.write(look=True)
    for row in found:
        if row["wrong"]:
            print(f"{row['name']}: {row['wrong']}")
    if not found:
        print(f"there is no study in {cells.RESULTS} yet; `make demo` makes one")
    print(f"studies: {listing.PAGE.resolve()}")
