"""What a JSON Schema can say about several keys of one mapping, so that an editor sees it while one writes.

The same rules in words, with lines, are `checks`; a schema knows no names and no other mappings.
"""

from __future__ import annotations

from typing import Any

Rule = dict[str, Any]


_NULL: Rule = {"type": "null"}
"""A key whose value is null counts as not written."""


def exactly_one_of(*keys: str) -> Rule:
    return {"oneOf": [needs(key) for key in keys]}


def at_least_one_of(*keys: str) -> Rule:
    return {"anyOf": [needs(key) for key in keys]}


def needs(*keys: str) -> Rule:
    return {"required": list(keys), "properties": {key: {"not": _NULL} for key in keys}}


def without(*keys: str) -> Rule:
    return {"properties": dict.fromkeys(keys, _NULL)}


def empty(*keys: str) -> Rule:
    """Lists that have nothing in them, if they are there at all."""
    return {"properties": {key: {"maxItems": 0} for key in keys}}


def where(key: str, value: Rule, then: Rule, otherwise: Rule | None = None) -> Rule:
    """A rule for mappings in which a key is written with such a value, and one for all others."""
    rule = {"if": {"properties": {key: value}, "required": [key]}, "then": then}
    return rule if otherwise is None else {**rule, "else": otherwise}


def with_key(key: str, then: Rule) -> Rule:
    """A rule for mappings in which a key is written."""
    return where(key, {"not": _NULL}, then)


def all_of(*rules: Rule) -> Rule:
    return {"allOf": list(rules)}


NOT_EMPTY: Rule = {"minItems": 1, "minProperties": 1}
"""A list or mapping with something in it."""
