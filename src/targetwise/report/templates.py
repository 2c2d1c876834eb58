"""The templates of pages, in ``workflow/report``."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path("workflow/report")


def environment() -> Environment:
    """Return what renders the templates: text is escaped, and a name that nothing has is an error."""
    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
