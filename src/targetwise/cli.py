"""The command line: what one asks of a study outside its run."""

import argparse
from pathlib import Path
from typing import Any

from targetwise import __version__, cells, config, errors, files


def main() -> None:
    """Run ``targetwise``; what the user can mend ends in one line and an exit code."""
    errors.run(_main)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="targetwise", description=__doc__)
    parser.add_argument("--version", action="version", version=f"targetwise {__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for name, function, explanation in (
        ("check", check, "validate the configuration and prove every parameterization of the grid sound"),
        ("table", table, "make the table of a grid that is partly done, naming what is missing"),
        ("track", track, "bring MLflow into agreement with the results"),
        ("status", status, "show where every cell stands; reads files only"),
        ("doctor", doctor, "say what is missing for a run here or on the cluster, with a remedy for each"),
        ("fid", fid, "measure anybody's samples against the study's reference"),
    ):
        verb = verbs.add_parser(name, help=explanation, description=explanation.capitalize() + ".")
        verb.add_argument(
            "--configfile",
            type=Path,
            nargs="+",
            default=[],
            metavar="FILE",
            help="laid over config.yaml, as for snakemake, e.g. config/digits.yaml",
        )
        if function is status:
            verb.add_argument("--watch", type=float, nargs="?", const=10.0, metavar="SECONDS", help="again and again")
        if function is doctor:
            verb.add_argument("--profile", type=Path, default=Path("slurm"), help="a Snakemake profile's folder")
        if function is fid:
            verb.add_argument(
                "file", type=Path, help="npz with arr_0 (uint8, N×H×W×C), or a folder or zip of PNG files"
            )
            verb.add_argument("--reference", type=Path, metavar="NPZ", help="by default the study's")
            verb.add_argument("--output", type=Path, metavar="JSON", help="also write the row there")
        verb.set_defaults(function=function)
    arguments = vars(parser.parse_args())
    run, overlays = arguments.pop("function"), arguments.pop("configfile")
    run(config.load(overlays), **arguments)


def check(study: dict[str, Any]) -> None:
    """Print what the grid is and how well each parameterization is conditioned."""
    from targetwise import check as checking
    from targetwise import parameterization

    count = len(cells.grid(study))
    print(f"study {study['study']}: {count} cells × {study['sampling']['draws']} draws; the configuration is sound")
    for name in study["grid"]["parameterizations"]:
        variant = config.variant(study, name)
        target = parameterization.load(variant["target"])
        loss_space = parameterization.load(variant["loss_space"])
        found = checking.check(target, loss_space, variant, [])
        gain, ill = found["gain_to_x0"], found["ill_conditioned"]
        print(
            f"{name}: inverts to {found['round_trip']['fp64']['largest_error']:.1e} in fp64 and "
            f"{found['round_trip']['fp32']['largest_error']:.1e} in fp32; an output error reaches x0 up to "
            f"{gain['largest']:.3g} times (t = {gain['at_t']}), over {ill['gain_above']:.0f} times at {ill['steps']} "
            "steps"
        )


def table(study: dict[str, Any]) -> None:
    """Write and print the table of what is there; the full table is the pipeline's."""
    from targetwise import statistics

    frame = statistics.table(study)
    path = cells.RESULTS / study["study"] / "table.partial.csv"
    files.write_text(path, frame.to_csv(index=False))
    print(statistics.summary(frame).to_string(index=False))
    for row in frame[frame["status"] != "finished"].itertuples():
        print(f"{row.status}: {row.parameterization}-{row.scale}-{row.seed} draw {row.draw}: {row.reason}")
    print(path)


def fid(study: dict[str, Any], file: Path, reference: Path | None, output: Path | None) -> None:
    """Print the row of a file of samples: the same number, marks and digests as a cell's."""
    from targetwise import fid as measuring
    from targetwise.rows import check_row, write_row

    path = reference or Path("data") / study["data"]["dataset"] / "reference" / f"{cells.reference_name(study)}.npz"
    if not path.with_suffix(".json").exists():
        raise errors.UserError(f"{path} does not exist; `snakemake --cores all {path}` makes it")
    row = measuring.measure_file(file, path)
    check_row(row, str(file))
    if output is not None:
        write_row(output, row)
    print(files.canonical_json(row), end="")


def track(study: dict[str, Any]) -> None:
    """Import the finished cells into MLflow."""
    from targetwise import tracking

    done = tracking.import_study(study)
    print(", ".join(f"{len(names)} {what}" for what, names in done.items()))


def status(study: dict[str, Any], watch: float | None) -> None:
    """Print where every cell stands."""
    from targetwise import status as standing

    if watch:
        standing.watch(study, watch)
    else:
        print(standing.render(standing.standings(study)))


def doctor(study: dict[str, Any], profile: Path) -> None:
    """Print what was found, as it is found; what is wrong makes the exit code 1."""
    from targetwise import doctor as examination

    wrong = 0
    for finding in examination.examine(study, profile):
        print(f"{finding.state:<6} {finding.what:<10} {finding.words}", flush=True)
        wrong += finding.state == "wrong"
    if wrong:
        raise errors.UserError(f"{wrong} of these must be mended before a run")
