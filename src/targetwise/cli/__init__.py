"""The command line: what can be asked about a study outside its run."""

import argparse
import inspect
from pathlib import Path

from targetwise import __version__, errors
from targetwise.cli import questions, work  # noqa: F401 (they register their verbs)
from targetwise.cli.verbs import VERBS
from targetwise.recipe import config


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
