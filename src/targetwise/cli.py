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
        verb.set_defaults(function=function)
    arguments = parser.parse_args()
    arguments.function(config.load(arguments.configfile))


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
            f"{gain['largest']:.3g} times (t = {gain['at_t']}), over {ill['gain_above']:.0f} times at {ill['steps']} steps"
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


def track(study: dict[str, Any]) -> None:
    """Import the finished cells into MLflow."""
    from targetwise import tracking

    done = tracking.import_study(study)
    print(", ".join(f"{len(names)} {what}" for what, names in done.items()))
