"""Read YAML strictly and hold it against the configuration's schema; what is wrong is said in one line."""

import math
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

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


class _UniqueKeyLoader(yaml.SafeLoader):
    """Reads what any safe YAML reader does, and refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in lines:
                raise UserError(f"line {line}: the key '{key.value}' stands in line {lines[name]} already")
            lines[name] = line
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        UserError: if it cannot be read, is no mapping, or a key stands twice in it.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except UserError as error:
        raise UserError(f"{path}, {error}") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run this in the project's root") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text in UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise UserError(f"{path} holds {found}, but a mapping of keys is needed")
    return content


def check_schema(config: Mapping[str, Any]) -> None:
    """Check a configuration against the closed schema.

    Raises:
        UserError: at the first thing that is wrong, with the key, the value and the nearest valid choice.
    """
    errors = violations(config, SCHEMA)
    if errors:
        # A misspelt key is often also a missing one; the misspelling is the message that helps.
        first = min(errors, key=lambda error: (error.validator != "additionalProperties", len(error.path)))
        raise UserError(_explain(first))


def violations(content: Mapping[str, Any], schema: Path) -> list[Any]:
    """Return jsonschema's errors in ``content``.

    A machine that was lent for one cell may lack jsonschema; then nothing is checked, which is said once, and whoever
    reads the results with the whole project checks them.
    """
    validator = _validator(schema.resolve())
    return [] if validator is None else list(validator.iter_errors(dict(content)))


@cache
def _validator(schema: Path) -> Any:
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.validators import extend
    except ModuleNotFoundError:
        print(f"jsonschema is not installed: nothing is held against {schema.name} here", file=sys.stderr)
        return None

    # JSON Schema takes 1000.0 for an integer, and NaN for a number above 0; neither may reach a specification.
    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: _is_finite_number(value),
        }
    )
    return extend(Draft202012Validator, type_checker=types)(read_yaml(schema))


def _is_finite_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _explain(error: Any) -> str:
    """Return one line that names the key, the value and what would be right."""
    where = ".".join(str(part) for part in error.absolute_path)
    value = error.instance
    if "propertyNames" in error.absolute_schema_path:
        return f"configuration: {where} holds the name {value!r}; {NAME_RULE}"
    match error.validator:
        case "additionalProperties":
            known = error.schema["properties"]
            key = next(key for key in value if key not in known)
            place = f" in {where}" if where else ""
            return f"configuration: unknown key {str(key)!r}{place}; {nearest(key, known)}"
        case "required":
            key = next(key for key in error.validator_value if key not in value)
            return f"configuration: {where + '.' if where else ''}{key} is missing"
        case "enum":
            return f"configuration: {where} is {value!r}; {nearest(value, map(str, error.validator_value))}"
        case "uniqueItems":
            twice = next(item for item in value if value.count(item) > 1)
            return f"configuration: {where} names {twice!r} twice; each may stand there once"
        case "pattern" | "maxLength":
            return f"configuration: {where} is {value!r}; {NAME_RULE}"
        case "minimum":
            return f"configuration: {where} is {value!r}; it must be at least {error.validator_value}"
        case "maximum":
            return f"configuration: {where} is {value!r}; it must be at most {error.validator_value}"
        case "exclusiveMinimum":
            return f"configuration: {where} is {value!r}; it must be greater than {error.validator_value}"
        case "exclusiveMaximum":
            return f"configuration: {where} is {value!r}; it must be less than {error.validator_value}"
        case "multipleOf":
            return f"configuration: {where} is {value!r}; it must be a multiple of {error.validator_value}"
        case "minItems":
            return f"configuration: {where} is {value!r}; it must hold at least {error.validator_value}"
        case "type":
            shown = "empty" if value is None else repr(value)
            return f"configuration: {where} is {shown}; it must be {_wanted(error.validator_value, value)}"
        case _:
            return f"configuration: {where}: {' '.join(error.message.split())}"


def _wanted(kind: str | list[str], value: Any) -> str:
    kinds = [kind] if isinstance(kind, str) else kind
    wanted = " or ".join(TYPE_WORDS[kind] for kind in kinds)
    if isinstance(value, str) and {"number", "integer"} & set(kinds) and _reads_as_number(value):
        return f"{wanted}, but YAML reads this as a text; write it without quotes and like 1.0e-4 or 1.0e+4"
    if "string" in kinds and isinstance(value, bool):
        return f"{wanted}; YAML reads yes, no, on and off as true or false, so put it in quotes"
    return wanted


def _reads_as_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
