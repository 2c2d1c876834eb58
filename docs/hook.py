"""What MkDocs asks beside mkdocs.yml: where the links of the pages lead that leave docs/.

The pages are plain Markdown, with links that work in the repository. In the site README.md is the home page, and a
file of the project to which a page links is there too: as a page if it is text to be read, else as it is. A link to a
file that does not exist stays as it is, which ends a strict build. The demo's report is part of the site if `make
demo` has made it before.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
DOCS, HOME = ROOT / "docs", ROOT / "README.md"
REPORT = ROOT / "results/digits/report.html"

#: Between "](" and ")" or "#": a path, not an address and not a place on the same page.
LINK = re.compile(r"(?<=\]\()(?![a-z]+:)[^)#\s]+")

#: Files that become pages, and the language in which they are shown.
SHOWN = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".cff": "yaml", ".smk": "python", "": "text"}

#: The page of a file; what is found in it comes after what the documents say.
FILE = """---
search: {{boost: 0.5}}
---
# {title}

`{name}`

````{language}
{code}
````
"""

DEMO = """# The demo's report

`make demo` trains 3 parameterizations with 3 seeds on handwritten digits and ends with this page, `{path}`.

{where}

[![The report of the demo](images/report.png)]({link})
"""
HERE = "[Open it]({path}): it is the one that was here when this site was built."
ABSENT = "There was none here when this site was built. After `make demo`, `make docs` adds it. A picture of it:"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the home page, the demo's report, and every file of the project that a page links to."""
    files.append(File.generated(config, "index.md", abs_src_path=str(HOME)))
    linked = {path for page in files.documentation_pages() for path in _outside(Path(str(page.abs_src_path)))}
    for path in sorted(linked):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix in SHOWN:
            code = path.read_text(encoding="utf-8")
            text = FILE.format(title=path.name, name=name, language=SHOWN[path.suffix], code=code)
            files.append(File.generated(config, _uri(path), content=text, inclusion=InclusionLevel.NOT_IN_NAV))
        else:
            files.append(File.generated(config, _uri(path), abs_src_path=str(path)))
    for path in [REPORT, *REPORT.parent.glob("*/*/seed*/manifest.json")] if REPORT.exists() else []:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    report = REPORT.relative_to(ROOT).as_posix()
    where, link = (HERE.format(path=report), report) if REPORT.exists() else (ABSENT, "images/report.png")
    files.append(File.generated(config, "demo.md", content=DEMO.format(path=report, where=where, link=link)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with links that hold in the site."""
    if page.file.abs_src_path is None:
        return markdown
    source = Path(page.file.abs_src_path)
    return LINK.sub(lambda link: _in_site(source, link[0]), markdown)


def _in_site(source: Path, link: str) -> str:
    path = (source.parent / link).resolve()
    if not path.is_file():
        return link
    return posixpath.relpath(_uri(path), source.relative_to(DOCS).parent.as_posix() if source != HOME else ".")


def _outside(source: Path) -> Iterator[Path]:
    """Find the files outside docs/ to which a page links."""
    for link in LINK.findall(source.read_text(encoding="utf-8")):
        path = (source.parent / link).resolve()
        if path.is_file() and path != HOME and not path.is_relative_to(DOCS):
            yield path


def _uri(path: Path) -> str:
    """Return where MkDocs has a file of the project."""
    if path == HOME:
        return "index.md"
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return f"files/{path.relative_to(ROOT).as_posix()}{'.md' if path.suffix in SHOWN else ''}"
