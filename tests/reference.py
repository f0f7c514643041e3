"""Writes docs/reference.md, every key of the language from its models: `make reference`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from testbed.scenario.reference import Key, reference

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
_HEAD = """# Every key of the language

Made from the models by `make reference`; `testbed explain PATH` shows the same in a terminal. What goes together, and
what to watch for, is in [scenario.md](scenario.md).

In a path `*` stands for a name of your own and `[]` for the items of a list. A duration is written `250ms` or `20s`, a
rate `200/s`, a bandwidth `100mbit`, a size `2kB`, a percentage `99.9%`, a price `0.01/GB`."""


def page() -> str:
    return "\n".join((_HEAD, *(line for key in reference().below if key.keys for line in _section(key)), ""))


def _section(key: Key) -> Iterator[str]:
    yield f"\n## {f'`{key.path}`' if key.path else 'The document'}\n"
    if text := " ".join(filter(None, (key.description, key.about))):
        yield f"{text}\n"
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for each in key.keys.values():
        default = "required" if each.required else each.default or ""
        yield f"| `{each.name}` | {each.type} | {default} | {each.description} |".replace("|  |", "| |")


def main() -> None:
    PAGE.write_text(page())
    print(PAGE)


if __name__ == "__main__":
    main()
