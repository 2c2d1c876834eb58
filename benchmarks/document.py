"""Write what the benchmark records say into docs/performance.md and docs/images/bench-<record>.svg.

    python benchmarks/document.py

Everything between the two marks of the page comes from benchmarks/results/*.json, so nothing there is typed by hand.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import figure

from targetwise import errors
from targetwise.files import write_text
from targetwise.operations.rates import RECORDS, describe, read_record
from targetwise.text import replaced

PAGE = Path("docs/performance.md")
IMAGES = Path("docs/images")
BEGIN, END = "<!-- benchmarks/document.py writes from here -->", "<!-- to here -->"

#: What one unit of a comparison is.
UNITS = {"distance": "distances"}

#: fp32 weights that a step reads or writes at least: AdamW 7 (weight, gradient, two moments), EMA 3.
WEIGHTS_MOVED, BYTES = 10, 4

#: Packages worth naming beside a number.
PACKAGES = ("python", "torch", "diffusers", "accelerate", "denoising-diffusion-pytorch", "clean-fid")

Record = Mapping[str, Any]


def main() -> None:
    """Write the page and the figures."""
    records = load(RECORDS)
    write_text(PAGE, replaced(PAGE.read_text(encoding="utf-8"), page(records), PAGE, BEGIN, END))
    for name, drawing in figures(records).items():
        write_text(IMAGES / name, drawing)
    print(f"{PAGE}: {len(records)} records")


def load(folder: Path) -> dict[str, Record]:
    """Return all records by the stem of their file."""
    return {path.stem: read_record(path) for path in sorted(folder.glob("*.json"))}


def figures(records: Mapping[str, Record]) -> dict[str, str]:
    """Return the SVG of each record in which anything was compared, by the name of its file."""
    groups = {stem: figure.rows(record) for stem, record in records.items()}
    return {f"bench-{stem}.svg": figure.draw(each) for stem, each in groups.items() if each}


def page(records: Mapping[str, Record]) -> str:
    """Return the Markdown of all records."""
    if not records:
        return "No record yet: `make bench` writes one.\n"
    return "\n".join(_of_record(stem, record) for stem, record in records.items())


def _of_record(stem: str, record: Record) -> str:
    sections = record["sections"]
    parts = [
        f"### {record['name']}",
        f"![Ratios of every comparison, with their spread](images/bench-{stem}.svg)" if figure.rows(record) else "",
        _sizes(sections),
        _ours(sections),
        _choice(_timed(sections).get("choice")),
        _comparisons(sections),
        _limits(sections),
        _memory(sections.get("train")),
        _switches(sections.get("switches")),
        _host(sections.get("host")),
        _skipped(sections),
        _conditions(sections),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _timed(sections: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the section that says which network was timed, and with which switches."""
    section: Mapping[str, Any] = sections.get("train") or sections.get("sample") or {}
    return section


def _sizes(sections: Mapping[str, Any]) -> str:
    words = []
    if network := _timed(sections):
        words.append(
            f"Scale {network['scale']}: {network['parameters'] / 1e6:.3f} million parameters, images: "
            f"{network['images']}"
        )
    if train := sections.get("train"):
        words.append(f"training {train['steps']} steps a run in batches of {train['batch']} (or as the row says)")
    if sample := sections.get("sample"):
        words.append(f"sampling {sample['sampling_batch']} images in {sample['steps']} steps")
    if "metric_images" in (metric := sections.get("metric", {})):
        words.append(f"the metric on folders of {metric['metric_images']} images")
    return "; ".join(words) + "."


def _ours(sections: Mapping[str, Any]) -> str:
    """Return which switches each of our entries runs with."""
    comparisons = _timed(sections).get("comparisons", [])
    settings = {comparison["ours"]["name"]: comparison["ours"]["settings"] for comparison in comparisons}
    return "; ".join(f"*{name}*: {describe(each)}" for name, each in settings.items())


def _choice(choice: Mapping[str, Any] | None) -> str:
    """Return the measurement by which ``auto`` was decided."""
    if not choice:
        return ""
    turns = "; then ".join(
        ", ".join(f"{name.replace(',', '')} {seconds:.2g} s" for name, seconds in turn.items())
        for turn in choice["compared"]
    )
    return f"What `auto` rests on, a training step of {choice['images']} images: {turns}."


def _comparisons(sections: Mapping[str, Any]) -> str:
    rows = [
        [
            _what(comparison),
            comparison["ours"]["name"],
            _rate(comparison, "ours"),
            comparison["theirs"]["name"],
            _rate(comparison, "theirs"),
            f"**{comparison['ratio']['median']:.2f}**",
            _spread(comparison["ratio"]),
            str(comparison["pairs"]),
        ]
        for comparison in compared(sections)
    ]
    heading = ["", "ours", "per s", "against", "per s", "ratio", "pairs from … to", "pairs"]
    return _table(heading, rows)


def compared(sections: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the comparisons with others that took place."""
    return [
        comparison
        for name in ("train", "sample", "metric")
        for comparison in sections.get(name, {}).get("comparisons", [])
        if "skipped" not in comparison
    ]


def _limits(sections: Mapping[str, Any]) -> str:
    """Return the distance from the limit: the peaks were measured in the same minutes as the rates."""
    rows = []
    for name, what in (("train", "training"), ("sample", "sampling")):
        if name not in sections:
            continue
        section = sections[name]
        ours = section["comparisons"][0]["ours"]
        flops = section["training_flops"] if name == "train" else section["forward_flops"] * section["steps"]
        precision = ours["settings"]["precision"]
        reached, peak = median(ours["rates"]) * flops / 1e12, section["peaks"][f"{precision}_tflops"]
        rows.append(
            [
                f"{what}, {describe(ours['settings'])}",
                f"{flops / 1e9:.2f}",
                f"{reached:.3g}",
                f"{peak:.3g} ({precision})",
                f"{reached / peak:.0%}",
            ]
        )
    if not rows:
        return ""
    heading = ["distance from the hardware", "GFLOP per image", "TFLOP/s", "peak of a matrix product", "share"]
    return _table(heading, rows)


def _memory(train: Mapping[str, Any] | None) -> str:
    if train is None:
        return ""
    moved = WEIGHTS_MOVED * BYTES * train["parameters"]
    copied = train["peaks"]["copy_gb_per_s"]
    step = train["batch"] / median(train["comparisons"][0]["ours"]["rates"])
    least = moved / (copied * 1e9)
    return (
        f"AdamW and the EMA move at least {moved / 1e6:,.0f} MB a step; at the {_figures(copied)} GB/s of a copy "
        f"that is {1000 * least:.2g} ms, {least / step:.1%} of the {1000 * step:,.0f} ms that a step takes. What the "
        "network's layers read and write is not counted."
    )


def _switches(section: Mapping[str, Any] | None) -> str:
    if section is None:
        return ""
    found: dict[str, dict[str, str]] = {}
    for column in ("train", "sample"):
        for comparison in section[column]:
            ratio = comparison["ratio"]
            row = found.setdefault(comparison["ours"]["name"], {})
            row[column] = f"{ratio['median']:.2f} ({_spread(ratio)})"
    rows = [[name, row.get("train", ""), row.get("sample", "")] for name, row in found.items()]
    return _table(["each switch, with it over without it", "training", "sampling"], rows)


def _host(section: Mapping[str, Any] | None) -> str:
    """Return what the host does for a cell, and how far that is from what any code must do."""
    if section is None:
        return ""
    rows = []
    for part in section["parts"]:
        bound = part["bound_seconds"]
        least = f"{part['bound']}: {_duration(part['per_cell'] * bound)}" if bound else "nothing to tell apart"
        cell = _duration(part["per_cell"] * part["seconds"])
        each = 1000 * part["seconds"]
        rows.append([part["name"], f"{part['per_cell']:,}", _figures(each), cell, least])
    heading = [f"on the host, for a cell of scale {section['scale']}", "times", "ms each", "together", "the least"]
    return _table(heading, rows)


def _duration(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.2g} min"


def _skipped(sections: Mapping[str, Any]) -> str:
    words = [
        f"{comparison['theirs']['name']} ({comparison['skipped']})"
        for section in sections.values()
        for comparison in section.get("comparisons", [])
        if "skipped" in comparison
    ]
    words += [f"{name} ({section['skipped']})" for name, section in sections.items() if "skipped" in section]
    return f"Not measured: {'; '.join(words)}." if words else ""


def _conditions(sections: Mapping[str, Any]) -> str:
    """Return when and with what it was measured; the sections may be of different days."""
    told: dict[str, list[str]] = {}
    for name, section in sections.items():
        versions, code = section["versions"], section["code"]
        packages = ", ".join(f"{package} {versions[package]}" for package in PACKAGES if package in versions)
        commit = (
            f"commit {code['commit'][:12]}{' with changes' if code['modified'] else ''}" if code["commit"] else ""
        )
        machine = section["machine"]
        words = [section["measured_at"][:10], commit, machine["system"], machine.get("instructions", "")]
        words += [f"{section['cores']} threads"]
        told.setdefault(", ".join([*filter(None, words), packages]), []).append(name)
    return "\n".join(f"Measured ({', '.join(names)}): {words}." for words, names in told.items())


def _what(comparison: Mapping[str, Any]) -> str:
    unit = UNITS.get(comparison["what"], "images")
    batch = comparison["ours"]["settings"].get("batch")
    return f"{comparison['what']}{f', batch {batch}' if batch else ''} ({unit})"


def _rate(comparison: Mapping[str, Any], side: str) -> str:
    return _figures(median(comparison[side]["rates"]))


def _figures(number: float) -> str:
    """Return three figures of a number, or all before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _spread(ratio: Mapping[str, float]) -> str:
    return f"{ratio['min']:.2f} … {ratio['max']:.2f}"


def _table(heading: list[str], rows: Iterable[list[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    errors.run(main)
