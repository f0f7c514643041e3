"""The text of a file that people write: YAML to plain data with the line and column of every key and value; overrides.

Knows nothing of what the keys mean. Scalars follow YAML 1.2's core schema: only `true`, `false`, `null`, integers and
floats are typed, so that `on`, `12:30` and `2024-01-01` stay the text that they are.
"""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Literal

import yaml
from yaml._yaml import CParser
from yaml.composer import Composer, ComposerError
from yaml.emitter import Emitter
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.representer import SafeRepresenter
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner
from yaml.serializer import Serializer

from testbed.documents.problems import Path, Problem, ScenarioError, path_text

SCENARIO_BEGINS_WITH = "apiVersion: testbed/v1"
STANDARD_INPUT = FilePath("-")
MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_VALUES = 50_000
"""Counted after aliases are expanded: a file of a few lines can otherwise stand for billions of values."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    f"{_TAG}null": re.compile("(?:~|null|Null|NULL|)"),
    f"{_TAG}bool": re.compile("(?:true|True|TRUE|false|False|FALSE)"),
    f"{_TAG}int": re.compile("[-+]?[0-9]{1,30}"),
    f"{_TAG}float": re.compile("[-+]?(?:[.][0-9]{1,30}|[0-9]{1,30}(?:[.][0-9]{0,30})?)(?:[eE][-+]?[0-9]{1,2})?"),
}
_SURROGATE = re.compile("[\ud800-\udfff]")


class CoreResolver(BaseResolver):
    """Resolves plain scalars by YAML 1.2's core schema instead of PyYAML's 1.1."""


for _tag, _pattern in _SCALARS.items():
    CoreResolver.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern.pattern})$"), None)


class _ShallowComposer(Composer):
    _depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            here = self.peek_event().start_mark  # type: ignore[attr-defined] # of the parser that it is mixed with
            raise ComposerError(None, None, f"nested deeper than {MAX_DEPTH} levels", here)
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Loader(_ShallowComposer, Reader, Scanner, Parser, CoreResolver):
    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        CoreResolver.__init__(self)


class _FastLoader(_ShallowComposer, CParser, CoreResolver):
    """libyaml, five times as fast. It says less well what is wrong."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        CoreResolver.__init__(self)


def _root(text: str) -> Node | None:
    """The one document's. Raises what PyYAML raises."""
    with suppress(yaml.YAMLError, ValueError, OverflowError):
        return _FastLoader(text).get_single_node()
    return _Loader(text).get_single_node()


@dataclass(frozen=True, slots=True)
class Mark:
    """A position in the file, counted from 1; or, with line 0, an override."""

    file: str
    line: int
    column: int


@dataclass(slots=True)
class Source:
    """Plain data of a file and where each of its paths is written; overrides change both."""

    file: str
    data: Any = None
    problems: list[Problem] = field(default_factory=list)
    _values: dict[Path, Mark] = field(default_factory=dict)
    _keys: dict[Path, Mark] = field(default_factory=dict)
    _taken_away: dict[Path, Mark] = field(default_factory=dict)

    def exists(self, path: Path) -> bool:
        return path in self._values

    def value(self, path: Path) -> Any:
        """What is written at a path that exists."""
        node = self.data
        for part in path:
            node = node[part]
        return node

    def report(
        self, path: Path, message: str, *, at_key: bool = False, severity: Literal["error", "warning"] = "error"
    ) -> None:
        """Add a problem with the value at `path` or with its key; if that is not written, with what took it away, or
        with what is around it."""
        marks = self._keys if at_key else self._values
        around = path
        while around not in self._values and around not in self._taken_away:
            around, marks = around[:-1], self._keys
        mark = marks.get(around) or self._values.get(around) or self._taken_away[around]
        one_line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in message)
        self.problems.append(Problem(mark.file, mark.line, mark.column, path_text(path), one_line, severity))

    def put(self, path: Path, value: Any, mark: Mark) -> None:
        """Set a value and mark it and all below it as written at `mark`. What leads there must exist."""
        self._forget(path)
        if path:
            self.value(path[:-1])[path[-1]] = value
            self._keys[path] = mark
        else:
            self.data = value
        self._mark_all(path, value, mark)

    def remove(self, path: Path, mark: Mark) -> None:
        """Take away a key or a list item that exists, and note that it was done at `mark`. Later items move up."""
        around, part = path[:-1], path[-1]
        self._forget(path)
        del self.value(around)[part]
        if isinstance(part, int):
            self._values, self._keys, self._taken_away = (
                {_moved_up(known, around, part): its for known, its in marks.items()}
                for marks in (self._values, self._keys, self._taken_away)
            )
        else:
            self._taken_away[path] = mark

    def _forget(self, path: Path) -> None:
        for marks in (self._values, self._keys, self._taken_away):
            for stale in [known for known in marks if known[: len(path)] == path]:
                del marks[stale]

    def graft(self, path: Path, other: Source, its_path: Path = ()) -> None:
        """Set a value that another text holds, with the marks that it has there."""
        depth = len(its_path)
        self.put(path, other.value(its_path), other._values[its_path])
        for ours, theirs in ((self._values, other._values), (self._keys, other._keys)):
            ours.update({(*path, *at[depth:]): mark for at, mark in theirs.items() if at[:depth] == its_path})

    def _mark_all(self, path: Path, value: Any, mark: Mark) -> None:
        self._values[path] = mark
        if isinstance(value, dict | list):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                self._mark_all((*path, key), item, mark)

    def add(self, node: Node, path: Path = ()) -> Any:
        """Plain data of a composed node, entering the marks of all paths below `path`."""
        if len(self._values) >= MAX_VALUES or len(path) > MAX_DEPTH:
            raise ComposerError(None, None, "too large once its aliases are expanded", node.start_mark)
        self._values[path] = self._mark(node)
        match node:
            case MappingNode():
                mapping: dict[str, Any] = {}
                for key_node, value_node in node.value:
                    self._add_entry(mapping, key_node, value_node, path)
                return mapping
            case SequenceNode():
                return [self.add(item, (*path, i)) for i, item in enumerate(node.value)]
            case ScalarNode():
                return self._scalar(node, path)
        raise AssertionError(f"YAML has no node like {node}")

    def _add_entry(self, mapping: dict[str, Any], key_node: Node, value_node: Node, path: Path) -> None:
        mark = self._mark(key_node)
        if not isinstance(key_node, ScalarNode) or _SURROGATE.search(key_node.value):
            message = "a key must be text; a value with braces or brackets in it needs quotes"
            self.problems.append(Problem(mark.file, mark.line, mark.column, path_text(path), message))
            return
        key = key_node.value
        if key in mapping:
            first = self._keys[*path, key]
            message = f"written twice, first in line {first.line}; keep one of them"
            self.problems.append(Problem(mark.file, mark.line, mark.column, path_text((*path, key)), message))
            return
        self._keys[*path, key] = mark
        mapping[key] = self.add(value_node, (*path, key))

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix(_TAG)
        if kind not in ("str", "null", "bool", "int", "float"):
            self.report(path, f"tags such as {node.tag[:40]!r} have no meaning here; remove it")
            return None
        if _SURROGATE.search(text):
            self.report(path, "holds half of a surrogate pair, which is no character")
            return None
        if kind == "str":
            return text
        if not _SCALARS[node.tag].fullmatch(text):
            self.report(path, f"is tagged as {kind} but is {text[:40]!r}")
            return None
        match kind:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text)
        return float(text)

    def _mark(self, node: Node) -> Mark:
        return Mark(self.file, node.start_mark.line + 1, node.start_mark.column + 1)


def _moved_up(path: Path, items: Path, gone: int) -> Path:
    """What a path is once the item `gone` of the list at `items` is no more."""
    depth = len(items)
    if path[:depth] == items and len(path) > depth and isinstance(index := path[depth], int) and index > gone:
        return (*items, index - 1, *path[depth + 1 :])
    return path


def read_source(path: FilePath, begins_with: str = SCENARIO_BEGINS_WITH) -> Source:
    """Read a file, `-` for standard input. Raises ScenarioError if it is not one YAML document; smaller faults are
    noted in `problems`.

    `begins_with` is what somebody is told whose file is empty.
    """

    def refuse(message: str, line: int = 1, column: int = 1) -> ScenarioError:
        return ScenarioError([Problem(str(path), line, column, "", message)])

    try:
        with nullcontext(sys.stdin.buffer) if path == STANDARD_INPUT else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise refuse(f"cannot be read: {reason or error}") from error
    if len(content) > MAX_BYTES:
        raise refuse(f"is larger than {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise refuse(f"is not UTF-8 text: {error.reason}", line) from error
    return parse_source(str(path), text, begins_with)


def parse_source(file: str, text: str, begins_with: str = SCENARIO_BEGINS_WITH) -> Source:
    """Parse text as one YAML document. Raises ScenarioError as `read_source` does."""
    source = Source(file)
    line, column = 1, 1
    try:
        node = _root(text)
        if node is not None:
            source.data = source.add(node)
            return source
        message = f"is empty; such a file begins with `{begins_with}`"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark is not None:
            line, column = mark.line + 1, mark.column + 1
        message = f"is not valid YAML: {' '.join(filter(None, (error.context, error.problem)))}"
        if error.context == "expected a single document in the stream":
            message = "holds more than one YAML document; keep one in a file"
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        message = f"is not valid YAML: the character #x{error.character:04x} is not allowed"
    except (ValueError, OverflowError) as error:
        # PyYAML lets escapes and directives with absurd numbers through to chr() and int().
        message = f"is not valid YAML: {error}"
    raise ScenarioError([Problem(file, line, column, "", " ".join(message.split()))])


class _Dumper(Emitter, Serializer, SafeRepresenter, CoreResolver):
    """Writes what `_Loader` reads back as it was: quotes are decided by the same rules."""

    def __init__(self, stream: Any, **_: Any) -> None:
        Emitter.__init__(self, stream, width=120, allow_unicode=True)
        Serializer.__init__(self)
        SafeRepresenter.__init__(self, sort_keys=False)
        CoreResolver.__init__(self)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def yaml_text(data: dict[str, Any]) -> str:
    """Plain data as YAML, in the order of its keys."""
    text: str = yaml.dump(data, Dumper=_Dumper)
    return text
