"""`testbed explain`: what a key of a scenario is, as `kubectl explain` tells it of Kubernetes' objects."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli.completion import complete_key
from testbed.cli.terminal import EXIT_BAD_INPUT, console, fail

if TYPE_CHECKING:
    from testbed.scenario.reference import Key

_INDENT = 4


def explain(
    path: Annotated[
        str,
        typer.Argument(
            metavar="[PATH]", help="Such as spec.services.workload; none: the document.", autocompletion=complete_key
        ),
    ] = "",
    recursive: Annotated[bool, typer.Option("--recursive", help="All keys below it, with their types only.")] = False,
) -> None:
    """Explain a key of scenario files: type, unit, default, meaning, examples, and the keys below it."""
    from testbed.scenario.reference import UnknownKey, find, reference

    try:
        key = find(reference(), path)
    except UnknownKey as error:
        fail(str(error), EXIT_BAD_INPUT)
    print("\n".join(_explained(key, console().width, recursive)))


def _explained(key: Key, width: int, recursive: bool) -> Iterator[str]:
    yield f"KEY: {key.path or 'the document'} <{key.type}>{_required(key) if key.path else ''}"
    for title, text in (
        ("DESCRIPTION", key.description),
        ("", key.about),
        ("DEFAULT", key.default or ""),
        ("EXAMPLES", ", ".join(key.examples)),
    ):
        if text:
            yield from ("", f"{title}:") if title else ()
            yield from _wrapped(text, width, 1)
    if key.keys:
        yield from ("", "KEYS:")
    for each in key.keys.values():
        yield from _tree(each, 1) if recursive else _entry(each, width)


def _entry(key: Key, width: int) -> Iterator[str]:
    default = f"  default {key.default}" if key.default is not None else ""
    yield from _wrapped(f"{key.name}  <{key.type}>{_required(key)}{default}", width, 1)
    yield from _wrapped(key.description, width, 2)


def _tree(key: Key, depth: int) -> Iterator[str]:
    yield f"{' ' * _INDENT * depth}{key.name}  <{key.type}>{_required(key)}"
    for each in key.keys.values():
        yield from _tree(each, depth + 1)


def _required(key: Key) -> str:
    return "  -required-" if key.required else ""


def _wrapped(text: str, width: int, depth: int) -> Iterator[str]:
    around = " " * _INDENT * depth
    yield from wrap(text, width, initial_indent=around, subsequent_indent=around, break_on_hyphens=False)
