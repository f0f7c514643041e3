"""The folder of a sweep: what belongs to it, what of that has been run, and how that went.

sweep.json           what belongs to it
variants/A.yaml      each variant, resolved: what its runs are runs of
runs/A-seed-1/       what the tries of a run left: a result folder each, and what the command printed
runs.jsonl           a line for each try that ended
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from testbed.results.compare.runs import ComparedRun, read_run, settings_of
from testbed.sweep.plan import Ended, Run, due
from testbed.sweep.variants import Variant

FORMAT = 1
_PLAN, _ENDED, _LOCK = "sweep.json", "runs.jsonl", ".lock"
_DIFFERENCES = 6


class SweepRefused(Exception):
    """The folder cannot be used for this sweep."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`name` is that of the scenario; `repeat` seeds from `first_seed` on."""

    name: str
    variants: tuple[Variant, ...]
    first_seed: int
    repeat: int

    @property
    def names(self) -> list[str]:
        return [variant.name for variant in self.variants]

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.repeat)


class SweepFolder:
    """Made by `begun` or `read`. A context manager: until its end nobody else can run in a folder that was begun."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.plan = plan
        self.ended = _read_ended(path / _ENDED)
        self._lock: int | None = None

    @classmethod
    def begun(cls, path: Path, plan: Plan, scenarios: Mapping[str, str]) -> SweepFolder:
        """The folder to run in from now on, which nobody else does. `scenarios` are the variants, resolved, as YAML.

        What was run there already counts if the folder is of the same variants of the same scenario with the same first
        seed; there may be more seeds than there were. Raises SweepRefused.
        """
        try:
            path.mkdir(0o700, parents=True, exist_ok=True)
            with ExitStack() as unless_begun:
                lock = _locked(path)
                unless_begun.callback(os.close, lock)
                if (path / _PLAN).exists():
                    _require_same(path, plan, scenarios)
                elif any(each.name != _LOCK for each in path.iterdir()):
                    raise SweepRefused(f"{path}: has files, but no {_PLAN}: it is no folder of a sweep; name another")
                _write(path, plan, scenarios)
                folder = cls(path, plan)
                unless_begun.pop_all()
        except OSError as error:
            raise SweepRefused(f"{error.filename or path}: {error.strerror}") from error
        folder._lock = lock
        return folder

    @classmethod
    def read(cls, path: Path) -> SweepFolder:
        """To compare its runs. Raises SweepRefused."""
        return cls(path, _read_plan(path))

    def __enter__(self) -> SweepFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def due(self) -> list[Run]:
        return due(self.plan.names, self.plan.seeds, self.ended)

    def scenario_file(self, variant: str) -> Path:
        return _scenario_file(self.path, variant)

    def tries(self, run: Run) -> Path:
        """Where the tries of a run leave what they leave."""
        return self.path / "runs" / f"{run.variant}-seed-{run.seed}"

    def record(self, ended: Ended) -> None:
        """Raises OSError."""
        with (self.path / _ENDED).open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.write(b"\n")  # behind a line that was torn
            file.write(orjson.dumps(ended, option=orjson.OPT_APPEND_NEWLINE))
        self.ended.append(ended)

    def compared_runs(self) -> list[ComparedRun]:
        """All tries that were not interrupted, by variant and seed. Raises BadRunFolder."""
        order = {name: number for number, name in enumerate(self.plan.names)}
        tries = [each for each in self.ended if each.verdict != "interrupted" and each.run.variant in order]
        tries.sort(key=lambda each: (order[each.run.variant], each.run.seed))
        return [self._compared(each) for each in tries]

    def _compared(self, ended: Ended) -> ComparedRun:
        run = ended.run
        if ended.folder is not None and ended.verdict != "none":
            return read_run(self.path / ended.folder, run.variant)
        settings = settings_of(yaml.safe_load(self.scenario_file(run.variant).read_bytes()))
        where = self.path / ended.folder if ended.folder is not None else self.tries(run)
        return ComparedRun(where, run.seed, "none", (ended.why,), settings, {}, variant=run.variant)


def is_sweep(path: Path) -> bool:
    return (path / _PLAN).is_file()


def _scenario_file(path: Path, variant: str) -> Path:
    return path / "variants" / f"{variant}.yaml"


def _write(path: Path, plan: Plan, scenarios: Mapping[str, str]) -> None:
    (path / "variants").mkdir(exist_ok=True)
    for name, text in scenarios.items():
        _scenario_file(path, name).write_text(text)
    written = {"format": FORMAT, "testbed": importlib.metadata.version("testbed"), **asdict(plan)}
    # It is whole, or not there.
    fresh = path / f"{_PLAN}.tmp"
    fresh.write_bytes(orjson.dumps(written, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    fresh.replace(path / _PLAN)


def _locked(path: Path) -> int:
    """Raises SweepRefused where another sweep goes on in this folder."""
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise SweepRefused(f"{path}: another sweep is going on in this folder") from None
    return lock


def _read_plan(path: Path) -> Plan:
    file = path / _PLAN
    try:
        written = orjson.loads(file.read_bytes())
        if written["format"] != FORMAT:
            raise SweepRefused(
                f"{file}: format {written['format']}, of testbed {written['testbed']}; this testbed reads {FORMAT}"
            )
        variants = tuple(
            Variant(each["name"], tuple(each["overrides"]), tuple(each["varied"])) for each in written["variants"]
        )
        return Plan(written["name"], variants, written["first_seed"], written["repeat"])
    except OSError as error:
        raise SweepRefused(f"{file}: {error.strerror}") from error
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise SweepRefused(f"{file}: cannot be read: {error!r}") from error


def _require_same(path: Path, plan: Plan, scenarios: Mapping[str, str]) -> None:
    """Raises SweepRefused with what is another than when the sweep began."""
    before = _read_plan(path)
    problems: list[str] = []
    if [each.overrides for each in before.variants] != [each.overrides for each in plan.variants]:
        problems.append(f"its variants were {_listed(before.variants)}, and are now {_listed(plan.variants)}")
    else:
        for name, text in scenarios.items():
            problems += _changes(name, yaml.safe_load(_scenario_file(path, name).read_bytes()), yaml.safe_load(text))
    if before.first_seed != plan.first_seed:
        problems.append(f"its seeds began with {before.first_seed}, and would begin with {plan.first_seed}")
    if plan.repeat < before.repeat:
        problems.append(f"it has {before.repeat} seeds, and --repeat says {plan.repeat}: there can only be more")
    if problems:
        more = [f"and {len(problems) - _DIFFERENCES} more"] if len(problems) > _DIFFERENCES else []
        lines = "\n".join(f"  {each}" for each in (*problems[:_DIFFERENCES], *more))
        raise SweepRefused(f"{path}: is the folder of another sweep; name another one with --out\n{lines}")


def _listed(variants: Sequence[Variant]) -> str:
    texts = [f"{each.name} ({', '.join(each.varied or each.overrides) or 'as it is'})" for each in variants]
    return ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")


def _changes(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    were, are = settings_of(before), settings_of(now)
    nothing = "not there"
    found = [
        f"variant {name}: {path} was {were.get(path, nothing)}, is now {are.get(path, nothing)}"
        for path in dict.fromkeys([*were, *are])
        if were.get(path, nothing) != are.get(path, nothing)
    ]
    if not found and before["spec"].get("expect") != now["spec"].get("expect"):
        found = [f"variant {name}: spec.expect was another (`testbed report --expect` judges runs by a new one)"]
    return found


def _read_ended(file: Path) -> list[Ended]:
    """Without the line that a full disk or a kill has torn, and runs whose folder is gone: they are run again."""
    found: list[Ended] = []
    if not file.exists():
        return found
    for line in file.read_bytes().splitlines():
        with suppress(orjson.JSONDecodeError, KeyError, TypeError):
            each = orjson.loads(line)
            run = Run(each["run"]["variant"], each["run"]["seed"])
            ended = Ended(
                run, each["verdict"], each["folder"], each["took_s"], each["why"], tuple(each.get("machines", ()))
            )
            if not ended.is_complete or (ended.folder and (file.parent / ended.folder / "summary.json").exists()):
                found.append(ended)
    return found
