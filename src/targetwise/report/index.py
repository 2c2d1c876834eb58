"""The studies of ``results/`` side by side, in one page: ``results/index.html``.

What it says of a study is kept beside it, with the digest of all that decides it, and said again while that is the
same: every report that is made writes the page anew, and the comparisons of one large study take seconds.
"""

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from targetwise import cells, provenance
from targetwise.data import store
from targetwise.errors import UserError, in_one_line
from targetwise.files import (
    one_at_a_time,
    read_json,
    read_whole,
    remedy,
    sha256_of_file,
    sha256_of_json,
    write_json,
    write_text,
)
from targetwise.inference.claims import CONTRADICTED, OPEN, SUPPORTED
from targetwise.recipe import claims
from targetwise.recipe.config import validate
from targetwise.report import looks, templates
from targetwise.report.answer import cell_states, headline, metric_of
from targetwise.report.table import table

PAGE = cells.RESULTS / "index.html"

#: By study: ``sha256`` of what decides its facts, and the ``facts``.
KEPT = cells.RESULTS / ".index.json"


def write(*, look: bool) -> list[dict[str, Any]]:
    """Write the page, from the studies' files as they are now.

    Runs of several studies write it when they end. One waits for the other and reads only then, so that the last one
    has read what all have made.

    Args:
        look: whether somebody asked to see all values there are, which is recorded as a look at each study
            (:mod:`targetwise.report.looks`). Otherwise only those are shown that were looked at before.

    Returns:
        For each study, in the order of their names, what its row says: at least ``name``, and ``wrong`` with what is
        wrong with its files, or None.
    """
    with one_at_a_time(PAGE):
        kept, common = read_whole(KEPT) or {}, [provenance.code_sha256(), _digests(store.ROOT)]
        studies = [_row(path.parent, look, common, kept) for path in sorted(cells.RESULTS.glob("*/study.json"))]
        write_text(PAGE, templates.environment().get_template("index.html.j2").render(studies=studies))
        write_json(KEPT, {row["name"]: kept[row["name"]] for row in studies if row["name"] in kept})
    return studies


def _row(folder: Path, look: bool, common: Any, kept: dict[str, Any]) -> dict[str, Any]:
    row = {"name": folder.name, "has_report": (folder / "report.html").exists(), "wrong": None}
    try:
        facts = _facts(folder, look, sha256_of_json([common, _digests(folder)]), kept)
        return row | facts | _note(folder, facts)
    except UserError as error:
        return row | {"wrong": " ".join(str(error).splitlines())}
    except Exception as error:  # whatever is in one study's files, the others have their rows
        return row | {"wrong": f"its files cannot be read ({in_one_line(error)})"}


def _facts(folder: Path, look: bool, sha256: str, kept: dict[str, Any]) -> dict[str, Any]:
    """Return what a study's files say: what is kept of that digest, or what they are read for and then kept."""
    known = kept.get(folder.name)
    if isinstance(known, dict) and known.get("sha256") == sha256:
        return dict(known["facts"])
    config = _configuration(folder)
    frame, axes = table(config), config["grid"]
    states = cell_states(frame)["status"].value_counts()
    if look:
        looks.record(folder, frame, config)
    is_new = looks.is_new(folder, frame, config)
    may_show = look or not is_new
    facts = {
        "may_show": may_show,
        "answer": headline(config, frame) if may_show else "Its values are not those that were looked at last.",
        "metric": metric_of(frame) if frame["metric"].notna().any() else "–",
        "dataset": config["data"]["dataset"],
        "size": " × ".join(
            str(len(axes[axis])) for axis in ("parameterizations", "scales", "seeds", "samplings") if axis in axes
        ),
        **{state: int(states.get(state, 0)) for state in ("finished", "missing", "diverged")},
        "claims": _verdicts(config, folder / "claims.csv"),
        "trained": _trained(config),
        "configuration": sha256_of_json(config),
    }
    if not is_new:  # otherwise it depends on who asks
        kept[folder.name] = {"sha256": sha256, "facts": facts}
    return facts


def _digests(folder: Path) -> dict[str, str]:
    """Return the digests of all records and tables in a folder, and in those in it."""
    found = {}
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".json", ".csv")):
                with suppress(FileNotFoundError):  # a run that is under way has taken it away
                    found[str(Path(place, name))] = sha256_of_file(Path(place, name))
    return found


def _configuration(folder: Path) -> dict[str, Any]:
    path = folder / "study.json"
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (it is no mapping); {remedy(path)}")
    try:
        config = validate(content)
    except UserError as error:
        raise UserError(f"{path} is of another version of the project, or was edited: {error}") from None
    if config["study"] != folder.name:
        raise UserError(f"{path} is of study {config['study']}; a study's results are read in the folder of its name")
    return config


def _verdicts(config: Mapping[str, Any], path: Path) -> str:
    if not claims.named(config):
        return "–"
    if not path.exists():
        return "not judged yet"
    try:
        found = pd.read_csv(path, usecols=["verdict"])["verdict"].value_counts()
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {remedy(path)}") from None
    return ", ".join(f"{found[each]} {each}" for each in (SUPPORTED, CONTRADICTED, OPEN) if each in found)


def _trained(config: Mapping[str, Any]) -> str:
    """Return when the last training ended, in UTC; a training by a rule of one's own need not say it."""
    found = [read_whole(cell.folder / "training.json") or {} for cell in cells.grid(config)]
    ends = [each["finished_at"] for each in found if each.get("finished_at")]
    return datetime.fromtimestamp(max(ends), UTC).strftime("%Y-%m-%d %H:%M") if ends else "–"


def _note(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be said below the answer, and a command that changes it."""
    report, specification = folder / "report.html", shlex.quote(str(folder / "study.json"))
    if not facts["may_show"]:
        return {"note": "This shows the answer so far", "command": f"targetwise answer --configfile {specification}"}
    made = f"snakemake --cores all all --configfile {specification}"
    if not report.exists():
        return {"note": "No report yet; this makes it", "command": made}
    if facts["configuration"].encode() not in report.read_bytes():
        return {"note": "The report is of another configuration; this makes it again", "command": made}
    return {"note": None}
