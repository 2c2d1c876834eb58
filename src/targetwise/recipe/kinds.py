"""What a researcher adds: one Python file in ``workflow/<kind>/``, known by its name there and by its digest.

docs/extending.md says for each kind which functions its file must define. Nothing heavy is imported here, because
Snakemake asks for names and files in every job; a file's own imports run when it is loaded.
"""

import ast
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from targetwise.errors import UserError, in_one_line, nearest

WORKFLOW = Path("workflow")

#: A weighting may also be a table of numbers, which is read and not run.
TABLE = ".csv"

#: The functions that a file must define, by the folder that it is in.
KINDS: dict[str, tuple[str, ...]] = {
    "parameterizations": ("compute_training_target", "predict_x0"),
    "paths": ("coefficients",),
    "weightings": ("weight",),
    "times": ("density",),
    "samplers": ("step",),
    "networks": ("build",),
    "metrics": ("measure",),
    "errors": ("contributions",),
    "probes": ("measure",),
}


@dataclass(frozen=True)
class Source:
    """A loaded file of a kind.

    Attributes:
        kind: the folder below ``workflow/``.
        name: the file's, without its ending.
        digest: SHA-256 of the file.
        functions: those that its kind asks for, and others that it defines, by name.
    """

    kind: str
    name: str
    digest: str
    functions: dict[str, Callable[..., Any]]

    def __getitem__(self, function: str) -> Callable[..., Any]:
        """Return one of its functions."""
        return self.functions[function]

    def call(self, function: str, *arguments: Any, **options: Any) -> Any:
        """Call one of its functions.

        Raises:
            UserError: if it fails, in one line.
        """
        try:
            return self.functions[function](*arguments, **options)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{file_of(self.kind, self.name)}: {function} fails: {in_one_line(error)}") from error

    def get(self, function: str, default: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that its kind does not ask for, or ``default`` where the file defines none."""
        return self.functions.get(function, default)


def file_of(kind: str, name: str) -> Path:
    """Return the path of the file that defines ``name``; of a weighting it may be a table."""
    path = Path(WORKFLOW, kind, f"{name}.py")
    table = path.with_suffix(TABLE)
    return table if kind == "weightings" and table.is_file() else path


def known(kind: str) -> list[str]:
    """Return the names of all files of a kind."""
    endings = [".py", TABLE] if kind == "weightings" else [".py"]
    return sorted(path.stem for ending in endings for path in (WORKFLOW / kind).glob(f"*{ending}"))


def require_known(kind: str, name: str, where: str, *built_in: str) -> None:
    """Make sure that a name of the configuration has a file, or is one of those ``built_in`` that need none.

    Raises:
        UserError: naming the nearest one that there is; or if a weighting is both a formula and a table.
    """
    if name not in built_in and not file_of(kind, name).is_file():
        near = nearest(name, [*known(kind), *built_in])
        raise UserError(f"configuration: {where} is '{name}', but there is no {file_of(kind, name)}; {near}")
    if known(kind).count(name) > 1:
        table = file_of(kind, name)
        raise UserError(f"configuration: {where} is '{name}', but there are {table.with_suffix('.py')} and {table}")


def constant(kind: str, name: str, field: str, default: Any) -> Any:
    """Return a constant that a file sets at its top level, or ``default``; the file is read and not run.

    Raises:
        UserError: if the file is not Python, or its constant is no plain value such as a string.
    """
    path = file_of(kind, name)
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path} does not run: {in_one_line(error)}") from error
    found = default
    for node in body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == field for target in targets):
            try:
                found = ast.literal_eval(node.value)
            except (TypeError, ValueError) as error:
                raise UserError(f"{path}: {field} must be a plain value, read without running the file") from error
    return found


def load(kind: str, name: str) -> Source:
    """Load ``workflow/<kind>/<name>.py``.

    Raises:
        UserError: if the file is missing, fails to run, or lacks a function of its kind.
    """
    return load_file(kind, file_of(kind, name))


def load_file(kind: str, path: Path) -> Source:
    """Load a file of a kind from anywhere; see :func:`load`."""
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"{path} is not a Python file")
    # Not by import: its cache goes by a file's date and size, and would run what another digest belongs to.
    source = path.read_bytes()
    module = ModuleType(f"targetwise_{kind}_{path.stem}")
    module.__file__ = str(path)
    try:
        exec(compile(source, path, "exec"), vars(module))  # noqa: S102 (as an import would)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} does not run: {in_one_line(error)}") from error
    for function in KINDS[kind]:
        if not callable(getattr(module, function, None)):
            raise UserError(f"{path} must define {' and '.join(KINDS[kind])}; {function} is missing")
    found = {name: each for name, each in vars(module).items() if callable(each) and not name.startswith("_")}
    return Source(kind, path.stem, hashlib.sha256(source).hexdigest(), found)
