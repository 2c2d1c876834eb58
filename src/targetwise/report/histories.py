"""Records that only grow, beside a study's results: what was looked at, and what was declared when.

No rule names them: they trigger nothing, and no failed or forced job deletes them. They cannot be made again, so
nothing takes the place of a damaged one by itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targetwise.errors import UserError
from targetwise.files import read_json


def entries(path: Path, fields: Mapping[str, type], noun: str, forgotten: str) -> list[dict[str, Any]]:
    """Return the entries of a record, the first one first; none where there is no file.

    Args:
        path: of the file, a list in JSON.
        fields: what an entry must say, and of which kind it is.
        noun: what an entry is called.
        forgotten: what nobody knows any more once the file is deleted, as in "that … is forgotten".

    Raises:
        UserError: if the record is damaged.
    """
    if not path.exists():
        return []

    def damaged(why: str) -> UserError:
        return UserError(
            f"{path} is damaged ({why}); bring it back from a copy, or delete it, and that {forgotten} is forgotten"
        )

    try:
        content = read_json(path)
    except UserError:
        raise damaged("it is not JSON") from None
    if not isinstance(content, list):
        raise damaged("it is no list")
    for number, entry in enumerate(content, 1):
        for name, kind in fields.items():
            if not isinstance(entry, dict) or not isinstance(entry.get(name), kind):
                raise damaged(f"{noun} {number} does not say {name}")
    return content
