"""Every key of the language with its type, default and meaning, for people: the JSON Schema of the models, read once.

The models own all of it; here are only the words for kinds of values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from testbed.documents.quantities import BANDWIDTH, DURATION, PERCENTAGE, PRICE, RATE, SIZE
from testbed.objects.places import DNS_LABEL
from testbed.scenario.schema import json_schema
from testbed.scenario.wording import nearest

Schema = Mapping[str, Any]

_NO_DEFAULT_OF_ITS_OWN = re.compile(r"(?:^|\s)Default(?:,[^:.]*)?:? (?P<default>[^.]*(?:\.\d[^.]*)*)\.(?=\s|$)")
"""How a model says what a key stands for that it leaves open."""
_PATTERNS = {
    f"^{DNS_LABEL}$": "name",
    **{
        quantity.json_schema(positive)["pattern"]: quantity.noun.split()[-1] + (" > 0" if positive else "")
        for quantity in (DURATION, RATE, BANDWIDTH, SIZE, PERCENTAGE, PRICE)
        for positive in (False, True)
    },
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key, with those below it in the order of the models. In `path` `*` is for any name, `[]` for any item."""

    name: str
    path: str
    type: str
    required: bool
    default: str | None
    """As it is written, or in words; None where there is none."""
    description: str
    about: str = ""
    """The mapping that it holds, or each of the mappings."""
    examples: tuple[str, ...] = ()
    keys: Mapping[str, Key] = field(default_factory=dict)

    @property
    def below(self) -> Iterator[Key]:
        """This one and all below it, depth first."""
        yield self
        for key in self.keys.values():
            yield from key.below


class UnknownKey(Exception):
    """There is no such key; says what is there."""


def reference() -> Key:
    """The document, whose path is empty."""
    schema = json_schema()
    about = _one_line(schema["description"])
    return Key("", "", "mapping", True, None, about, keys=_keys(schema, schema["$defs"], ""))


def find(root: Key, path: str) -> Key:
    """The key at a path such as `spec.services.workload`: names of one's own and numbers of items are left out, or
    `*` and `[]`. Raises UnknownKey."""
    key = root
    for part in filter(None, re.sub(r"\[[^]]*\]", "", path).split(".")):
        if part == "*":
            continue
        if part not in key.keys:
            where = key.path or "the document"
            hint = nearest(part, key.keys) if key.keys else "it holds no keys"
            raise UnknownKey(f"there is no key {part!r} in {where}; {hint}")
        key = key.keys[part]
    return key


def _keys(schema: Schema, models: Schema, path: str) -> dict[str, Key]:
    required = schema.get("required", ())
    return {
        name: _key(name, value, models, f"{path}.{name}".removeprefix("."), name in required)
        for name, value in schema.get("properties", {}).items()
    }


def _key(name: str, schema: Schema, models: Schema, path: str, required: bool) -> Key:
    description = _one_line(schema.get("description", ""))
    default = None if required else _default(schema)
    if default is None and not required and (told := _NO_DEFAULT_OF_ITS_OWN.search(description)):
        default = told["default"]
        description = (description[: told.start()] + description[told.end() :]).strip()
    about, keys, suffix = "", {}, ""
    for deeper, model in _models(schema, models):
        about, suffix = _one_line(model.get("description", "")), deeper
        keys.update(_keys(model, models, f"{path}{deeper}"))
    kinds = [_kind(choice, models) for choice in _choices(schema)]
    return Key(
        name,
        f"{path}{suffix}" if keys else path,
        " or ".join(dict.fromkeys(kinds)),
        required,
        default,
        description,
        "" if about == description else about,
        tuple(dict.fromkeys(str(each) for choice in _choices(schema) for each in choice.get("examples", ()))),
        keys,
    )


def _models(schema: Schema, models: Schema, suffix: str = "") -> Iterator[tuple[str, Schema]]:
    """The mappings that may stand there, and the way to them."""
    for choice in _choices(schema):
        if "$ref" in choice:
            yield suffix, models[choice["$ref"].removeprefix("#/$defs/")]
        elif "items" in choice:
            yield from _models(choice["items"], models, f"{suffix}[]")
        else:
            for value in choice.get("patternProperties", {}).values():
                yield from _models(value, models, f"{suffix}.*")


def _choices(schema: Schema) -> Sequence[Schema]:
    """What may stand there besides nothing."""
    return [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]


def _kind(schema: Schema, models: Schema) -> str:
    if "$ref" in schema:
        return "mapping"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if (named := _PATTERNS.get(schema.get("pattern", ""))) is not None:
        return named
    match schema.get("type"):
        case "array":
            items = " or ".join(dict.fromkeys(_kind(choice, models) for choice in _choices(schema["items"])))
            return f"list of {_plural(items)}"
        case "object":
            values = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
            value = next(each for each in values if isinstance(each, dict))
            return f"mapping by name of {_plural(_kind(value, models))}"
        case "integer" | "number" as number:
            low, high = schema.get("minimum"), schema.get("maximum")
            if low is not None and high is not None:
                return f"{number} {low} to {high}"
            return number if low is None else f"{number} from {low}"
        case "boolean":
            return "boolean"
        case list() as types:
            return " or ".join(_TYPES[each] for each in types if each != "null")
    return "text"


_TYPES = {"string": "text", "integer": "integer", "number": "number"}


def _plural(kind: str) -> str:
    if kind.startswith("`") or " or " in kind or " " in kind:
        return f"({kind})" if " or " in kind else kind
    return kind if kind == "text" else f"{kind}s"


def _default(schema: Schema) -> str | None:
    match schema.get("default"):
        case None:
            return None
        case bool() as value:
            return str(value).lower()
        case "":
            return '""'
        case dict() | list():
            return None
        case value:
            return str(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())
