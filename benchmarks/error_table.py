"""Write what benchmarks/results/errors/*.json say into docs/errors.md.

    python benchmarks/error_table.py

Everything between the two marks of the page comes from the records, so nothing there is typed by hand.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fid_error import FORMAT, RECORDS

from targetwise import errors
from targetwise.errors import UserError
from targetwise.files import read_json, write_text
from targetwise.text import replaced

PAGE = Path("docs/errors.md")
BEGIN, END = "<!-- benchmarks/error_table.py writes from here -->", "<!-- to here -->"
HEADING = (
    "samples",
    "n",
    "distance",
    "sets",
    "spread over sets",
    "predicted",
    "predicted / spread",
    "V(n) / spread",
)


def main() -> None:
    """Write the page's tables."""
    records = [read_json(path) for path in sorted(RECORDS.glob("*.json"))]
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8"), records))
    print(f"{PAGE}: {len(records)} records")


def page(text: str, records: Sequence[Mapping[str, Any]]) -> str:
    """Return the page ``text`` with the tables of ``records`` between its marks."""
    return replaced(text, "\n".join(map(table, records)), PAGE, BEGIN, END)


def table(record: Mapping[str, Any]) -> str:
    """Return the Markdown of one record."""
    if record.get("format") != FORMAT:
        raise UserError(f"{RECORDS} holds a record of another format than {FORMAT}; measure it again")
    lines = [f"| {' | '.join(HEADING)} |", "|" + "---|" * len(HEADING)]
    for entry in sorted(record["entries"], key=lambda each: (each["population"], each["n"])):
        observed, off = entry["observed"], entry["observed_error"] / entry["observed"]
        ratio, jackknife = (entry[name] / observed for name in ("predicted", "jackknife"))
        cells = (
            entry["population"],
            f"{entry['n']:,}",
            f"{entry['value']:.3g}",
            str(entry["sets"]),
            f"{observed:.3g} ± {100 * off:.0f} %",
            f"{entry['predicted']:.3g}",
            f"**{ratio:.2f}** ± {ratio * off:.2f}",
            f"{jackknife:.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    first = record["entries"][0]
    conditions = (
        f"{first['machine']['cpu']}, NumPy {first['versions'].get('numpy', '?')}, {first['measured_at'][:10]}"
    )
    title = f"Features of {record['reference']} ({record['n']:,} images), {record['dimensions']:,} dimensions:"
    return "\n".join([title, "", *lines, "", f"Measured on {conditions}.", ""])


if __name__ == "__main__":
    errors.run(main)
