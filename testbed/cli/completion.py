"""What a shell offers when the tab key is pressed: scenario files, result folders, keys of the language."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

_SCENARIOS = (".yaml", ".yml")
_RUNS = Path("runs")


def complete_scenario(incomplete: str) -> list[str]:
    """YAML files, and folders on the way to them."""
    return list(_paths(incomplete, lambda path: path.suffix in _SCENARIOS and path.is_file()))


def complete_run(incomplete: str) -> list[str]:
    """Folders that hold a run, and folders on the way to them; without anything typed, those in `runs/`."""
    return list(
        _paths(incomplete or (f"{_RUNS}/" if _RUNS.is_dir() else ""), lambda path: (path / "facts.json").exists())
    )


def complete_key(incomplete: str) -> list[str]:
    """Keys of the language below what is typed up to the last dot."""
    from testbed.scenario.reference import UnknownKey, find, reference

    before, _, begun = incomplete.rpartition(".")
    try:
        keys = find(reference(), before).keys
    except UnknownKey:
        return []
    return [f"{before}.{name}".removeprefix(".") for name in keys if name.startswith(begun)]


def _paths(incomplete: str, wanted: Callable[[Path], bool]) -> Iterator[str]:
    folder, separator, begun = incomplete.rpartition("/")
    try:
        found = sorted(Path(f"{folder}{separator}" or ".").expanduser().iterdir())
    except OSError:
        return
    for path in found:
        if path.name.startswith(begun) and (begun.startswith(".") or not path.name.startswith(".")):
            if wanted(path):
                yield f"{folder}{separator}{path.name}"
            elif path.is_dir():
                yield f"{folder}{separator}{path.name}/"
