"""The figures of a report as files for papers: each as the page has it, in light colours."""

import json
import re
from html import unescape
from pathlib import Path

import vl_convert

from targetwise.errors import UserError
from targetwise.files import atomic

#: Of a column of a paper, in pixels; figures are vector graphics, so it decides how large their text is.
WIDTH = 400

FIGURE = re.compile(r'data-name="([^"]*)"><script type="application/json">(.*?)</script>', re.DOTALL)
COLOUR = re.compile(r"(--[\w-]+): light-dark\(([^,)]+),")
ODD = re.compile(r"[^\w.-]+")

CONVERT = {
    "pdf": vl_convert.vegalite_to_pdf,
    "png": lambda specification: vl_convert.vegalite_to_png(specification, scale=3),
    "svg": lambda specification: vl_convert.vegalite_to_svg(specification).encode(),
}


def write(page: Path, folder: Path, kind: str) -> list[Path]:
    """Write every figure of a report, and return the files.

    Args:
        page: the report.
        folder: to write into; made if it is not there.
        kind: ``pdf``, ``svg`` or ``png``.

    Raises:
        UserError: if the page has no figures.
    """
    text = page.read_text()
    colours = dict(COLOUR.findall(text))
    found = {unescape(name): specification for name, specification in FIGURE.findall(text)}
    found.pop("explore", None)  # is nothing before a reader has chosen
    if not found:
        raise UserError(f"{page} has no figures; nothing of the study is measured or trained yet")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, specification in found.items():
        coloured = re.sub(r"var\((--[\w-]+)\)", lambda match: colours[match[1]].strip(), specification)
        chart = {**json.loads(coloured), "width": WIDTH, "background": "white"}
        chart["config"] = {**chart["config"], "font": "DejaVu Sans, Arial, sans-serif"}
        path = folder / f"{ODD.sub('-', name)}.{kind}"
        with atomic(path) as temporary:
            temporary.write_bytes(CONVERT[kind](chart))
        written.append(path)
    return written
