"""What can be told of a locustfile without running it: whether it compiles, and whether it can have users at all."""

from __future__ import annotations

import ast
import builtins
import sys
import warnings
from collections.abc import Iterator

from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.experiment import ScenarioModel

_NO_USERS = {"TaskSet", "SequentialTaskSet", "LoadTestShape"}
"""Locust's own bases of what is no user."""
_MAKERS = {"type", "exec", "eval", "globals", "locals", "vars", "setattr", "__import__", "import_module"}
"""Whoever calls them can define classes that are written nowhere."""


def check_locustfile(model: ScenarioModel, findings: Findings) -> None:
    """Report a locustfile that is there and of no use."""
    name = model.spec.load.locustfile
    if name is None:
        return
    try:
        content = (findings.folder / name).read_bytes()
    except (OSError, ValueError):
        return  # said elsewhere
    where = ("spec", "load", "locustfile")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(content, name, "exec", dont_inherit=True)
            tree = ast.parse(content)
    except SyntaxError as error:
        findings.report(where, f"{name} is no Python: line {error.lineno or 1}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        findings.report(where, f"{name} is no Python: {error}")
    else:
        if not may_have_users(tree):
            message = f"{name} defines no Locust user: it needs a class with HttpUser or FastHttpUser as its base"
            findings.report(where, message)


def may_have_users(tree: ast.Module) -> bool:
    """False only where there surely is none: users can also be imported, made by calls, or be pytest's tests."""
    foreign = set(_foreign_modules(tree))
    harmless = _NO_USERS | set(dir(builtins)) | set(_of_the_standard_library(tree))
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=module, level=level):
                if level or not _is_known(module or ""):
                    return True
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if name.startswith("test"):
                    return True
            case ast.ClassDef():
                if node.name.startswith("Test") or node.decorator_list or node.keywords:
                    return True
                if not _is_abstract(node):
                    if not all(_name(base) in harmless for base in node.bases):
                        return True
                    harmless.add(node.name)
            case ast.Name(id=name) | ast.Attribute(attr=name):
                if name in _MAKERS or (name in foreign and not isinstance(node, ast.Attribute)):
                    return True
    return False


def _is_known(module: str) -> bool:
    """Whether a module is Locust, whose users are all abstract, or of the standard library, which has none."""
    root = module.partition(".")[0]
    return root == "locust" or root in sys.stdlib_module_names


def _foreign_modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if not _is_known(alias.name):
                    yield alias.asname or alias.name.partition(".")[0]


def _of_the_standard_library(tree: ast.Module) -> Iterator[str]:
    """Names imported from it, as they are used: `Enum`, `enum.Enum`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in sys.stdlib_module_names:
            yield from (alias.asname or alias.name for alias in node.names)


def _is_abstract(node: ast.ClassDef) -> bool:
    """Whether it is only there for others to derive from, which then count themselves."""
    return any(
        isinstance(line, ast.Assign)
        and any(_name(target) == "abstract" for target in line.targets)
        and isinstance(line.value, ast.Constant)
        and line.value.value is True
        for line in node.body
    )


def _name(node: ast.expr) -> str | None:
    """Of a plain name, or of what Locust exports: `locust.TaskSet`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "locust":
        return node.attr
    return node.id if isinstance(node, ast.Name) else None
