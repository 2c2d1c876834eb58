"""Read YAML strictly and hold it against the configuration's schema; what is wrong is said in one line."""

import math
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.error import MarkedYAMLError
from yaml.reader import ReaderError

from targetwise.errors import UserError, nearest

SCHEMA = Path("workflow/schemas/config.schema.yaml")

#: JSON Schema's types in the words of the messages.
TYPE_WORDS = {
    "object": "a mapping of keys",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a finite number",
    "boolean": "true or false",
    "null": "null",
}

NAME_RULE = "a name is at most 64 lower-case letters, digits and _, and begins with a letter"


class _StrictLoader(yaml.SafeLoader):
    """Reads what any safe YAML reader does, and refuses a key that is there twice and a mapping that holds itself."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=True)  # at once: so what holds itself is refused
        except ValueError as error:  # as of a date in month 13, which would not say where
            raise ConstructorError(None, None, str(error), node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in lines:
                raise UserError(f"line {line}: the key '{key.value}' is on line {lines[name]} already")
            lines[name] = line
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        UserError: naming file and line, if it cannot be read, is no mapping, or a key is there twice.
    """
    try:
        content = yaml.load(path.read_bytes().decode(), Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except UserError as error:
        raise UserError(f"{path}, {error}") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(" ".join(each.split()) for each in (error.context, error.problem) if each)
        hint = "; YAML indents with spaces, never with tabs" if r"'\t'" in what else ""
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML: {what}{hint}") from None
    except ReaderError as error:
        line = path.read_bytes().decode().count("\n", 0, error.position) + 1
        raise UserError(f"{path}, line {line}: not valid YAML: {error.reason}") from None
    except RecursionError:
        raise UserError(f"{path} is not valid YAML: it is nested too deeply") from None
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise UserError(f"{path} holds {found}, but a mapping of keys is needed")
    return content


def effects(section: str) -> dict[str, str]:
    """Return what each field of a section of the recipe decides: ``result``, ``rounding`` or ``speed``."""
    schema = _read(SCHEMA.resolve())
    fields = {**schema["properties"], **schema["$defs"]}[section]["properties"]
    return {name: field["effect"] for name, field in fields.items()}


def check_schema(config: Mapping[str, Any]) -> None:
    """Check a configuration against the closed schema.

    Raises:
        UserError: at the first thing that is wrong, with the key, the value and the nearest valid choice.
    """
    found = fault(config, SCHEMA)
    if found:
        raise UserError(f"configuration: {found}")


def fault(content: Any, schema: Path) -> str | None:
    """Return in words the first thing that is wrong in ``content``, with what would be right; None if nothing is."""
    if not isinstance(content, Mapping):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        return f"it holds {found}; it must be {TYPE_WORDS['object']}"
    errors = violations(content, schema)
    if not errors:
        return None
    # A misspelt key is often also a missing one; the misspelling is the message that helps.
    first = min(errors, key=lambda error: (error.validator != "additionalProperties", len(error.path)))
    return _explain(first)


def violations(content: Mapping[str, Any], schema: Path) -> list[Any]:
    """Return jsonschema's errors in ``content``.

    A machine that was lent for one cell may lack jsonschema; then nothing is checked, which is said once. The results
    are checked when they are read with the whole project.
    """
    validator = _validator(schema.resolve())
    return [] if validator is None else list(validator.iter_errors(dict(content)))


@cache
def _validator(schema: Path) -> Any:
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.validators import extend
    except ModuleNotFoundError:
        print(f"jsonschema is not installed: nothing is checked against {schema.name} here", file=sys.stderr)
        return None

    # JSON Schema takes 1000.0 for an integer, and NaN for a number above 0; neither may reach a specification.
    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: _is_finite_number(value),
        }
    )
    return extend(Draft202012Validator, type_checker=types)(_read(schema))


@cache
def _read(schema: Path) -> dict[str, Any]:
    return read_yaml(schema)


def _is_finite_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _explain(error: Any) -> str:
    """Return one line that names the key, the value and what would be right."""
    where = ".".join(str(part) for part in error.absolute_path)
    value = error.instance
    if "propertyNames" in error.absolute_schema_path:
        return f"{where} holds the name {value!r}; {NAME_RULE}"
    match error.validator:
        case "additionalProperties":
            known = error.schema["properties"]
            key = next(key for key in value if key not in known)
            place = f" in {where}" if where else ""
            return f"unknown key {str(key)!r}{place}; {nearest(key, known)}"
        case "required":
            key = next(key for key in error.validator_value if key not in value)
            described = error.schema.get("properties", {}).get(key)  # or plainly true, where another branch says what
            meaning = described.get("description") if isinstance(described, dict) else None
            return f"{where + '.' if where else ''}{key} is missing{f' ({meaning})' if meaning else ''}"
        case "enum":
            return f"{where} is {value!r}; {nearest(value, map(_as_yaml, error.validator_value))}"
        case "uniqueItems":
            twice = next(item for item in value if value.count(item) > 1)
            return f"{where} names {twice!r} twice; each may appear once"
        case "pattern" | "maxLength":
            meaning = error.schema.get("description")
            return f"{where} is {value!r}; {f'it must be {meaning}' if meaning else NAME_RULE}"
        case "minimum":
            return f"{where} is {value!r}; it must be at least {error.validator_value}"
        case "maximum":
            return f"{where} is {value!r}; it must be at most {error.validator_value}"
        case "exclusiveMinimum":
            return f"{where} is {value!r}; it must be greater than {error.validator_value}"
        case "exclusiveMaximum":
            return f"{where} is {value!r}; it must be less than {error.validator_value}"
        case "multipleOf":
            return f"{where} is {value!r}; it must be a multiple of {error.validator_value}"
        case "minItems":
            return f"{where} is {value!r}; it must hold at least {error.validator_value}"
        case "type":
            shown = "empty" if value is None else repr(value)
            return f"{where} is {shown}; it must be {_wanted(error.validator_value, value)}"
        case _:
            return f"{where}: {' '.join(error.message.split())}"


def _wanted(kind: str | list[str], value: Any) -> str:
    kinds = [kind] if isinstance(kind, str) else kind
    wanted = " or ".join(TYPE_WORDS[kind] for kind in kinds)
    if isinstance(value, str) and {"number", "integer"} & set(kinds) and _reads_as_number(value):
        return f"{wanted}, but YAML reads this as text; write it without quotes, like 1.0e-4 or 1.0e+4"
    if "string" in kinds and isinstance(value, bool):
        return f"{wanted}; YAML reads yes, no, on and off as true or false, so put it in quotes"
    return wanted


def _as_yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _reads_as_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
