"""From plain data to models, and Pydantic's errors in words for people.

Owns what is wrong with single keys and values; what concerns several is `checks`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from itertools import count, islice
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from testbed.scenario.models import ScenarioModel
from testbed.scenario.problems import Path
from testbed.scenario.quantities import shown
from testbed.scenario.source import Source


def validate(source: Source) -> tuple[ScenarioModel | None, frozenset[Path]]:
    """The model of what is valid in the source, and the paths that were dropped for that, each a noted problem.

    Dropping what is wrong lets the rest be checked in the same go: one wrong unit does not hide a wrong reference.
    """
    dropped: set[Path] = set()
    first = True
    while True:
        try:
            return ScenarioModel.model_validate(_without(source.data, dropped)), frozenset(dropped)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                path, at_key, message = _explain(details, source, dropped)
                # Later rounds only meet the gaps that the first has torn: they are no problems of the file.
                if first:
                    source.report(path, message, at_key=at_key)
                path = _nearest_kept(path, source, dropped)
                if not path:
                    return None, frozenset(dropped)
                dropped.add(path)
        first = False


def written_path(location: Iterable[str | int], dropped: Collection[Path]) -> Path:
    """The path in the file of a location in the model, where the items of a list that were dropped do not count."""
    path: Path = ()
    for part in location:
        if isinstance(part, int):
            kept = (index for index in count() if (*path, index) not in dropped)
            part = next(islice(kept, part, None))
        path = (*path, part)
    return path


def nearest(wanted: str, known: Iterable[str]) -> str:
    """What would be right instead of an unknown name: the closest known one, or all of them."""
    names = list(known)
    if close := difflib.get_close_matches(wanted, names, n=1):
        return f"did you mean {close[0]!r}?"
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"known here: {listed}" if listed else "there is none"


def _without(data: Any, dropped: set[Path], path: Path = ()) -> Any:
    match data:
        case dict():
            return {k: _without(v, dropped, (*path, k)) for k, v in data.items() if (*path, k) not in dropped}
        case list():
            return [_without(v, dropped, (*path, i)) for i, v in enumerate(data) if (*path, i) not in dropped]
    return data


def _nearest_kept(path: Path, source: Source, dropped: set[Path]) -> Path:
    while path and (not source.exists(path) or path in dropped):
        path = path[:-1]
    return path


def _explain(details: ErrorDetails, source: Source, dropped: set[Path]) -> tuple[Path, bool, str]:
    """Path in the file, whether its key is meant, and the message."""
    location, kind, value = details["loc"], details["type"], details["input"]
    if location[-1:] == ("[key]",):
        return written_path(location[:-1], dropped), True, str(details["ctx"]["error"])
    path = written_path(location, dropped)
    if kind == "missing":
        return path, True, "is required but not written"
    if kind == "extra_forbidden":
        return path, True, f"unknown key; {nearest(str(path[-1]), _keys_at(location[:-1]))}"
    # A value may be written short (`work: 2ms`) and be wrong in its long form only: `work.mean`.
    while not source.exists(path):
        path = path[:-1]
    return path, False, _message(kind, value, details.get("ctx", {}))


def _message(kind: str, value: Any, context: dict[str, Any]) -> str:
    match kind:
        case "value_error":
            return str(context["error"])
        case "literal_error":
            words = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            close = difflib.get_close_matches(value, words, n=1) if isinstance(value, str) else []
            hint = f"; did you mean {close[0]!r}?" if close else ""
            return f"must be {' or '.join(words)}, not {shown(value)}{hint}"
        case "string_type":
            quoted = isinstance(value, int | float)
            return f"must be text, not {shown(value)}" + (f'; write "{shown(value)}" in quotes' if quoted else "")
        case "int_type" | "int_from_float":
            return f"must be a whole number, not {shown(value)}"
        case "bool_type":
            return f"must be true or false, not {shown(value)}"
        case "list_type":
            return f"must be a list, not {shown(value)}"
        case "model_type" | "dict_type":
            return f"must be a mapping of keys to values, not {shown(value)}"
        case "greater_than_equal":
            return f"must be at least {context['ge']}, not {shown(value)}"
        case "less_than_equal":
            return f"must be at most {context['le']}, not {shown(value)}"
        case "too_short":
            return f"must have at least {context['min_length']} entries, but has {len(value)}"
        case "too_long":
            return f"must have at most {context['max_length']} entries, but has {len(value)}"
        case "string_too_short":
            return "must not be empty"
        case "string_too_long":
            return f"must have at most {context['max_length']} characters, but has {len(value)}"
    raise AssertionError(f"no words for {kind}")


def _keys_at(location: Iterable[str | int]) -> list[str]:
    """The keys that the model at a location knows, as they are written."""
    kind: Any = ScenarioModel
    for part in location:
        kind = _plain(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = next(f.annotation for name, f in kind.model_fields.items() if (f.alias or name) == part)
        else:
            kind = get_args(kind)[-1]
    model = _plain(kind)
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    return [field.alias or name for name, field in model.model_fields.items()]


def _plain(annotation: Any) -> Any:
    """The type inside Annotated and Optional."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation
