"""The file that Locust loads first (`-f plugin.py[,locustfile.py]`): puts the process together.

Locust loads it by its path, outside of its package, and runs the user classes that it finds here: the built-in ones,
unless the settings name a locustfile of the user's own.
"""

import atexit
import os
import resource
import sys
import time
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # Locust was given a file: its package may not be installed

import gevent
from locust import events
from locust.env import Environment

from loadgen.complaint import complaint
from loadgen.conductor import Conductor
from loadgen.directed import Router
from loadgen.entry import Resolver
from loadgen.operations import OperationDraw
from loadgen.recorder import Recorder
from loadgen.sessions import IdDraw
from loadgen.settings import ENVIRONMENT_VARIABLE, load
from loadgen.users import ClosedUser, OpenUser, recorded

_settings = load(Path(os.environ[ENVIRONMENT_VARIABLE]))
_resolver = Resolver(_settings.entry_file, _settings.entry_ttl_s, time.monotonic())
_recorder = Recorder(
    _settings.records_file,
    _resolver,
    events.request,
    Random(f"{_settings.seed_text}/request ids"),
    _settings.partition_header,
)
_draw = None if _settings.ids is None else IdDraw(_settings.ids)
_operations = None
if _settings.operations is not None:
    _name = f"{_settings.origin_zone}-{_settings.turn}"
    _operations = OperationDraw(_settings.operations, _name, Random(f"{_settings.seed_text}/keys"))
_router = None
if _settings.directed is not None and _settings.ids is not None:
    _router = Router(_settings, _settings.directed, _settings.ids, _resolver)
_conductor = Conductor(_settings, _recorder)

# A hanging entry keeps rate x time-out connections open.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

if _settings.locustfile is None:
    gevent.config.resolver = "block"  # entries are addresses: nothing to look up, so no thread is needed for it

    if _settings.open_sources:

        class Open(OpenUser):
            fixed_count = 1
            settings = _settings
            conductor = _conductor
            draw = _draw
            operations = _operations
            router = _router

    if _settings.closed_users:

        class Closed(ClosedUser):
            fixed_count = _settings.closed_users
            settings = _settings
            conductor = _conductor
            draw = _draw
            operations = _operations
            router = _router


def _on_init(environment: Environment, **_: Any) -> None:
    environment.user_classes[:] = [recorded(user_class, _recorder) for user_class in environment.user_classes]
    environment.host = _resolver.resolve(time.monotonic()).url
    _conductor.wait_for_start(environment)


def _on_quitting(environment: Environment, **_: Any) -> None:
    _conductor.finish(environment)


def _on_crash(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """Nothing catches what a locustfile raises while it is loaded."""
    if _settings.locustfile is not None:
        _conductor.give_up_unless_ready(complaint(_settings.locustfile, error, at))
    sys.__excepthook__(kind, error, at)


def _on_exit() -> None:
    """Locust leaves in good order where it finds no user."""
    if _settings.locustfile is not None:
        _conductor.give_up_unless_ready(f"{_settings.locustfile}: defines no Locust user, or ended Locust by itself")


sys.excepthook = _on_crash
atexit.register(_on_exit)
events.init.add_listener(_on_init)
events.quitting.add_listener(_on_quitting)
