"""docs/scenario.md has every key of the language with its default, every metric and every fault, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from pydantic.alias_generators import to_camel

from testbed.documents.quantities import DURATION, RATE, Quantity
from testbed.scenario import json_schema
from testbed.scenario.defaults import DEFAULT_RTT_S, profile_timings
from testbed.scenario.models.metrics import METRICS, MetricName

PAGE = (Path(__file__).parents[2] / "docs" / "scenario.md").read_text()
SCHEMA = json_schema()


class Key(NamedTuple):
    required: bool
    default: Any
    leaf: bool
    words: tuple[str, ...]


def _model(node: dict[str, Any]) -> dict[str, Any]:
    return SCHEMA["$defs"][node["$ref"].removeprefix("#/$defs/")] if "$ref" in node else node


def _words(kind: dict[str, Any]) -> list[str]:
    return kind.get("enum", []) or kind.get("items", {}).get("enum", [])


def _below(node: dict[str, Any], path: str) -> Iterator[tuple[str, Key]]:
    """All keys of what may stand at a path."""
    for choice in map(_model, node.get("anyOf", [node])):
        if choice.get("type") == "array":
            yield from _below(choice["items"], f"{path}[]")
        for value in choice.get("patternProperties", {}).values():
            yield from _below(value, f"{path}.*")
        for name, value in choice.get("properties", {}).items():
            here = f"{path}.{name}".removeprefix(".")
            deeper = dict(_below(value, here))
            words = (word for kind in value.get("anyOf", [value]) for word in _words(kind))
            yield here, Key(name in choice.get("required", []), value.get("default"), not deeper, tuple(words))
            yield from deeper.items()


KEYS = dict(_below(SCHEMA, ""))


def _tables(first: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Heading and cells by column of every row of the tables whose first column is called that."""
    heading, columns = "", []
    for line in PAGE.splitlines():
        if line.startswith("#"):
            heading = line
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            columns = []
        elif not columns:
            columns = cells
        elif columns[0] == first and not set(line) <= set("|-"):
            yield heading, dict(zip(columns, cells, strict=True))


ROWS = {
    f"{prefix}.{key}".removeprefix("."): row
    for heading, row in _tables("key")
    for prefix in re.findall("`([^`]+)`", heading) or [""]
    for key in re.findall("^`([^`]+)`$", row["key"])
}


def test_every_key_has_a_row_and_every_row_is_a_key() -> None:
    assert sorted(path for path, key in KEYS.items() if key.leaf and path not in ROWS) == []
    assert sorted(path for path in ROWS if path not in KEYS) == []
    assert len(ROWS) > 150


@pytest.mark.parametrize("path", [path for path in ROWS if "default" in ROWS[path]])
def test_a_row_says_what_is_required_and_what_the_default_is(path: str) -> None:
    key, told = KEYS[path], ROWS[path]["default"]
    if key.required:
        assert "required" in told
    elif isinstance(key.default, bool):
        assert told == f"`{str(key.default).lower()}`"
    elif isinstance(key.default, str | int):
        assert told == f"`{key.default or (0 if key.default == 0 else chr(34) * 2)}`"
    else:
        assert told != "required"


def test_the_timings_of_both_profiles_are_as_they_are_told() -> None:
    for fast, column in ((False, "kubernetes"), (True, "fast")):
        for name, value in profile_timings(fast).items():
            row = ROWS[f"spec.controlPlane.timings.{to_camel(name)}"]
            told = row[column].strip("`")
            kinds: dict[str, Quantity] = {"rate": RATE}
            found = int(told) if row["type"].startswith("integer") else kinds.get(row["type"], DURATION).parse(told)
            assert found == value, name


def test_the_round_trips_of_the_classes_of_links_are_as_they_are_told() -> None:
    told = ROWS["spec.topology.links.sameZone.rtt"]["default"]
    found = {name: DURATION.parse(rtt) for name, rtt in re.findall("(\\w+) `([^`]+)`", told) if name != "in"}
    assert found == {to_camel(name): rtt_s for name, rtt_s in DEFAULT_RTT_S.items()}


def test_every_metric_is_told_with_its_unit() -> None:
    told = {metric: row["unit"] for _, row in _tables("metric") for metric in re.findall("`([^`]+)`", row["metric"])}
    assert sorted(told) == sorted(get_args(MetricName))
    for metric, unit in told.items():
        kind = METRICS[metric]  # type: ignore[index]
        assert unit == (kind.noun.split()[-1] if isinstance(kind, Quantity) else "integer")


WORDY = [path for path, key in KEYS.items() if key.leaf and key.words and path != "spec.expect[].metric"]


@pytest.mark.parametrize("path", WORDY)
def test_every_word_that_a_key_can_have_is_told(path: str) -> None:
    told = ROWS[path]["type"] + ROWS[path]["meaning"]
    assert [word for word in KEYS[path].words if f"`{word}`" not in told] == []
