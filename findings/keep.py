"""Keep what the studies of claims found: tables for the record, and the page docs/findings.md from them.

    python findings/keep.py digits_claims digits_rates    the finished studies in results/ that are to be kept
    python findings/keep.py                               the page again, from the tables that are here

A study gives two tables: ``<study>-claims.csv``, its verdicts with machine, versions and commit, and
``<study>-cells.csv``, every cell that they rest on with its digests. All between the two marks of the page comes from
these, and so do its figures: no number there is typed by hand. ``questions.yaml`` says what each study asks.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import verdict_figure

from targetwise import errors
from targetwise.cells import RESULTS
from targetwise.errors import UserError
from targetwise.files import read_json, write_text
from targetwise.recipe.schema import read_yaml
from targetwise.report.words import CERTAINTY, number, probability, records, signed
from targetwise.text import counted, listed, replaced

FOLDER, PAGE, IMAGES = Path("findings"), Path("docs/findings.md"), Path("docs/images")
QUESTIONS = FOLDER / "questions.yaml"
BEGIN, END = "<!-- findings/keep.py writes from here -->", "<!-- to here -->"

#: Packages worth naming beside a finding.
PACKAGES = ("targetwise", "torch", "numpy", "scipy")

VERDICTS = ("supported", "contradicted", "open")


def main() -> None:
    """Keep the studies that are named, and write the page."""
    for study in sys.argv[1:]:
        keep(RESULTS / study)
    text = PAGE.read_text(encoding="utf-8")
    found = tables()
    write_text(PAGE, page(text, found))
    for study, svg in figures(found).items():
        write_text(IMAGES / f"findings-{study}.svg", svg)
    print(f"{PAGE}: {', '.join(found) or 'no study yet'}")


def keep(study: Path) -> None:
    """Copy a study's verdicts and cells here, with what they were made on.

    Raises:
        UserError: if it has no claims, or not all of its cells are there.
    """
    if not (study / "claims.csv").exists():
        raise UserError(
            f"{study} has no claims.csv; run a study that names claims, such as config/digits_claims.yaml"
        )
    if study.name not in read_yaml(QUESTIONS):
        raise UserError(f"{QUESTIONS} does not say what {study.name} asks; add its question and its limits there")
    claims, cells = pd.read_csv(study / "claims.csv"), pd.read_csv(study / "table.csv")
    missing = cells[cells["status"] == "missing"]
    if len(missing):
        raise UserError(f"{study}: {counted(len(missing), 'row', 'are')} missing; finish the study before it is kept")
    claims = claims.assign(**_made(study))
    write_text(FOLDER / f"{study.name}-claims.csv", claims.to_csv(index=False))
    write_text(FOLDER / f"{study.name}-cells.csv", cells.to_csv(index=False))


def tables() -> dict[str, pd.DataFrame]:
    """Return the verdicts that are kept, by study, in the order of the questions."""
    paths = {study: FOLDER / f"{study}-claims.csv" for study in read_yaml(QUESTIONS)}
    return {
        study: pd.read_csv(path, keep_default_na=False, na_values=[""])
        for study, path in paths.items()
        if path.exists()
    }


def figures(found: dict[str, pd.DataFrame]) -> dict[str, str]:
    """Return the figure of each study as SVG, where there is anything to draw."""
    shown = {study: verdict_figure.drawn(frame) for study, frame in found.items()}
    return {study: verdict_figure.draw(frame) for study, frame in shown.items() if len(frame)}


def page(text: str, found: dict[str, pd.DataFrame]) -> str:
    """Return the page with its tables written anew.

    Raises:
        UserError: if the marks are not there.
    """
    questions = read_yaml(QUESTIONS)
    sections = (line for study, frame in found.items() for line in _section(study, questions[study], frame))
    block = "\n".join([*_in_short(found), *sections])
    return replaced(text, block, PAGE, BEGIN, END)


def _made(study: Path) -> dict[str, Any]:
    """Return machines, versions, commits and the last day, over all cells."""
    facts: dict[str, dict[str, None]] = {"machine": {}, "versions": {}, "commit": {}}
    days = []
    for path in sorted(study.glob("*/*/seed*/training.json")):
        outcome = read_json(path)
        made = outcome["environment"]
        processor = f"{made['machine']['cpu']} ({made['machine']['instructions']})"
        facts["machine"][made["machine"].get("gpu") or processor] = None
        facts["versions"][", ".join(f"{name} {made['versions'][name]}" for name in PACKAGES)] = None
        facts["commit"][str(made["code"]["commit"])[:12] + ("+" if made["code"]["modified"] else "")] = None
        days.append(outcome["finished_at"])
    date = pd.Timestamp(max(days), unit="s").date().isoformat()
    jobs = [path for path in study.glob("*/*/seed*/benchmark/*.tsv") if path.stem != "manifest"]
    minutes = sum(pd.read_csv(path, sep="\t")["s"].sum() for path in jobs) / 60
    return {
        **{name: "; ".join(values) for name, values in facts.items()},
        "date": date,
        "job_minutes": round(minutes),
    }


def _in_short(found: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Say which claims got which verdict; one that is in several studies or settings may have several."""
    if not found:
        return
    frame = pd.concat(found.values())
    yield f"## {counted(len(frame), 'verdict')} in {'1 study' if len(found) == 1 else f'{len(found)} studies'}"
    yield ""
    for verdict in VERDICTS:
        own = frame[frame["verdict"] == verdict].drop_duplicates("claim")
        if len(own):
            yield f"- **{verdict.capitalize()}**, {(frame['verdict'] == verdict).sum()}:"
        for row in records(own):
            yield f"    - [{row.says}](../workflow/claims/{row.claim}.yaml)"
    yield ""


def _section(study: str, about: dict[str, Any], frame: pd.DataFrame) -> Iterator[str]:
    counts = frame["verdict"].value_counts()
    first = frame.iloc[0]
    yield f"### {about['question']}"
    yield ""
    said = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts]
    yield (
        f"Study `{study}`, {counted(len(frame), 'verdict')}: {listed(said)}. Cells and digests: "
        f"[{study}-cells.csv](../findings/{study}-cells.csv), verdicts: "
        f"[{study}-claims.csv](../findings/{study}-claims.csv)."
    )
    yield ""
    yield f"*What it cannot say.* {about['limits']}"
    yield ""
    if asked := [
        f"[{at}#{n}](https://github.com/{at}/issues/{n})" for at, ns in about.get("asked", {}).items() for n in ns
    ]:
        yield f"*Where it was asked.* {listed(asked)}."
        yield ""
    if len(shown := verdict_figure.drawn(frame)):
        yield f"![{_in_words(shown)}](images/findings-{study}.svg)"
        yield ""
        yield (
            "How to read it: the claim said that the number would lie on the blue ground, and the bar is where it "
            "lies. A claim is open where the bar is only partly there, where it does not outlast the correction for "
            f"all {counted(len(frame), 'verdict')}, and where what it takes for granted is not shown."
        )
        yield ""
    yield f"| claim | setting | compared | measured ({CERTAINTY}) | predicted | p, adjusted | seeds | verdict |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in records(frame):
        yield f"| {' | '.join(_row(row))} |"
    yield ""
    yield (
        f"Measured on {first['machine']}, {first['versions']}, {first['date']}, commit {first['commit']}; "
        f"{first['job_minutes']:,} minutes of jobs, of which as many run at a time as there are cores."
    )
    yield ""


def _in_words(shown: pd.DataFrame) -> str:
    """Return what the figure shows for those who do not see it."""
    said = [f"{row.claim} {number(row.estimate)}, {row.verdict}" for row in records(shown)]
    return f"Measured ratios with their intervals: {'; '.join(said)}"


def _row(row: Any) -> list[str]:
    differs = row.unit == "difference" and row.statistic == "mean"
    shown = [signed(each) if differs else number(each) for each in (row.estimate, row.low, row.high)]
    between = "−" if row.unit == "difference" else "/"
    compared = f"{row.quantity}: {row.left}" + (f" {between} {row.right}" if isinstance(row.right, str) else "")
    notes = "; ".join(each for each in (row.lacking, row.marks) if isinstance(each, str))
    return [
        f"[{row.says}](../workflow/claims/{row.claim}.yaml)",
        str(row.setting),
        compared + (", deviation" if row.statistic == "deviation" else ""),
        f"{shown[0]} ({shown[1]} … {shown[2]})" if row.seeds > 1 else shown[0],
        str(row.predicts),
        probability(row.p_holm) if row.p_holm == row.p_holm else "–",
        f"{row.seeds}" + (f" ({notes})" if notes else ""),
        f"**{row.verdict}**",
    ]


if __name__ == "__main__":
    errors.run(main)
