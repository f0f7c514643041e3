"""The file that a Locust loads first which somebody else drives (`-f guest_plugin.py[,my.py]`): makes a guest of it.

TESTBED_LOAD names the settings that `testbed up` has written for one origin zone. As for `plugin`, Locust loads it by
its path. Without user classes of one's own, users send the requests that the scenario declares.
"""

import os
import resource
import sys
import time
from pathlib import Path
from random import Random
from secrets import token_hex
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # Locust was given a file: its package may not be installed

from locust import events
from locust.env import Environment

from loadgen.directed import Router
from loadgen.entry import Resolver
from loadgen.guest import Guest
from loadgen.operations import OperationDraw
from loadgen.recorder import Recorder
from loadgen.sessions import IdDraw
from loadgen.settings import ENVIRONMENT_VARIABLE, load
from loadgen.users import DeclaredUser, recorded

try:
    _settings = load(Path(os.environ[ENVIRONMENT_VARIABLE]))
except (KeyError, OSError, ValueError):
    sys.exit(f"{ENVIRONMENT_VARIABLE} must name the settings that `testbed up` has written, as the line that it prints")
if _settings.guests_socket is None:
    sys.exit(f"{os.environ[ENVIRONMENT_VARIABLE]}: is of a load process of testbed's own")
_resolver = Resolver(_settings.entry_file, _settings.entry_ttl_s, time.monotonic())
_recorder = Recorder(_settings.records_file, _resolver, events.request, Random(), _settings.partition_header)
_guest = Guest(_settings.guests_socket, _recorder, events.request)
_draw = None if _settings.ids is None else IdDraw(_settings.ids)
_operations = None
if _settings.operations is not None:
    # Guests come and go, and none may write what another has written.
    _operations = OperationDraw(_settings.operations, f"{_settings.origin_zone}-guest-{token_hex(4)}", Random())
_router = None
if _settings.directed is not None and _settings.ids is not None:
    _router = Router(_settings, _settings.directed, _settings.ids, _resolver)

# A hanging entry keeps rate x time-out connections open.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

if _settings.requests:

    class Declared(DeclaredUser):
        settings = _settings
        draw = _draw
        operations = _operations
        router = _router
        think_time_s = next((source.think_time_s for source in _settings.closed_sources), DeclaredUser.think_time_s)


def _on_init(environment: Environment, **_: Any) -> None:
    own = [each for each in environment.user_classes if not issubclass(each, DeclaredUser)]
    now = [recorded(each, _recorder) for each in own or environment.user_classes]
    environment.host = _resolver.resolve(time.monotonic()).url
    for each in now:
        # Where the field for it is left empty on the page, users have no other.
        each.host = each.host or environment.host
    environment.user_classes[:] = now
    if environment.available_user_classes:
        environment.available_user_classes = {each.__name__: each for each in now}
    _guest.join(environment)


def _on_quitting(environment: Environment, **_: Any) -> None:
    _guest.finish(environment)


events.init.add_listener(_on_init)
events.quitting.add_listener(_on_quitting)
