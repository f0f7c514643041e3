"""Pydantic's errors in words for people, who have a file before them and no models; and what would be right.

Owns the words for values that are wrong by themselves. No text of Pydantic's own gets through.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from itertools import chain, islice, repeat
from typing import Any

from pydantic_core import ErrorDetails

from testbed.documents.quantities import shown

LISTED_MAX = 20


def in_words(details: ErrorDetails) -> str:
    """What is wrong with one value, and what it has to be."""
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    match kind:
        case "value_error":
            return str(context["error"])
        case "missing":
            return "is required but not written"
        case "literal_error" | "enum":
            words = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            close = difflib.get_close_matches(value, words, n=1) if isinstance(value, str) else []
            hint = f"; did you mean {close[0]!r}?" if close else ""
            return f"must be {' or '.join(words)}, not {shown(value)}{hint}"
        case "string_type":
            quoted = isinstance(value, int | float)
            return f"must be text, not {shown(value)}" + (f'; write "{shown(value)}" in quotes' if quoted else "")
        case "int_type" | "int_from_float" | "int_parsing" | "int_parsing_size":
            return f"must be a whole number, not {shown(value)}"
        case "float_type" | "float_parsing":
            return f"must be a number, not {shown(value)}"
        case "bool_type" | "bool_parsing":
            return f"must be true or false, not {shown(value)}"
        case "list_type" | "tuple_type":
            hint = f"; write [{value}]" if isinstance(value, str) and value and len(shown(value)) < 60 else ""
            return f"must be a list, not {shown(value)}{hint}"
        case "model_type" | "dict_type":
            return f"must be a mapping of keys to values, not {shown(value)}"
        case "none_required":
            return f"must be nothing, not {shown(value)}"
        case "greater_than_equal":
            return f"must be at least {context['ge']}, not {shown(value)}"
        case "less_than_equal":
            return f"must be at most {context['le']}, not {shown(value)}"
        case "too_short":
            return f"must have at least {_entries(context['min_length'])}, but has {len(value)}"
        case "too_long":
            return f"must have at most {_entries(context['max_length'])}, but has {len(value)}"
        case "string_too_short":
            return "must not be empty"
        case "string_too_long":
            return f"must have at most {context['max_length']} characters, but has {len(value)}"
    raise AssertionError(f"no words for {kind}")


def nearest(wanted: str, known: Iterable[str]) -> str:
    """What would be right instead of an unknown name: the closest known one, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(wanted, names, n=1)
    return f"did you mean {close[0]!r}?" if close else choice(names)


def choice(names: Collection[str]) -> str:
    """All that can be written instead."""
    return f"known here: {listed(names)}" if names else "there is none"


def listed(names: Iterable[str]) -> str:
    """As many of them as can be read."""
    *first, more = islice(chain(names, repeat(None)), LISTED_MAX + 1)
    return ", ".join(filter(None, first)) + (", ..." if more is not None else "")


def _entries(count: Any) -> str:
    return "one entry" if count == 1 else f"{count} entries"
