"""The edge between plain dicts and protobuf: a resource of `control.views.envoy.xds` as the message that Envoy takes.

Apart from `envoy`, because only the master encodes, and the messages' modules are slow to import. Which of
them are needed, the resources themselves say.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, TypeVar

import orjson
from google.protobuf import any_pb2, json_format
from google.protobuf.message import Message

from testbed.control.views.envoy.envoy_api import ENDPOINT_TYPE, TYPES

M = TypeVar("M", bound=Message)


class InvalidResource(ValueError):
    """A resource that is not the JSON form of its protobuf message."""


def to_any(resource: Mapping[str, Any]) -> bytes:
    """A resource with `@type` as a serialised google.protobuf.Any.

    Equal resources give equal bytes within one process; between processes protobuf may order the entries of a map
    inside of a nested Any differently, which Envoy does not take for a change. Raises InvalidResource, naming the
    field, when the resource is not the JSON form of its message.
    """
    name = resource.get("name", resource.get("cluster_name", "?"))
    try:
        if resource.get("@type") == ENDPOINT_TYPE:
            return _assignment(resource).SerializeToString()
        return _parsed(resource, any_pb2.Any()).SerializeToString()
    except json_format.ParseError as error:
        # The lines after the first list every field that the message does have.
        problem = str(error).splitlines()[0]
        raise InvalidResource(f"{resource.get('@type', 'resource without @type')} {name!r}: {problem}") from error


def _parsed(resource: Mapping[str, Any], message: M) -> M:
    # ParseDict takes `@type` out of what it reads and puts it back last: it gets a copy.
    copy = orjson.loads(orjson.dumps(resource))
    _import_types(copy)
    return json_format.ParseDict(copy, message)


def _assignment(resource: Mapping[str, Any]) -> any_pb2.Any:
    """A ClusterLoadAssignment, made of what was encoded before: one endpoint more is no reason to read all of them."""
    from envoy.config.endpoint.v3 import endpoint_pb2

    groups = resource.get("endpoints", ())
    rest = {name: value for name, value in resource.items() if name not in ("@type", "endpoints")}
    message = _parsed(rest, endpoint_pb2.ClusterLoadAssignment())
    for group in groups:
        encoded = message.endpoints.add()
        _parsed({name: value for name, value in group.items() if name != "lb_endpoints"}, encoded)
        encoded.MergeFromString(b"".join(_lb_endpoint(orjson.dumps(each)) for each in group.get("lb_endpoints", ())))
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


@lru_cache(maxsize=32768)
def _lb_endpoint(endpoint: bytes) -> bytes:
    """Given as JSON, as the LocalityLbEndpoints that has no other: these can be joined."""
    from envoy.config.endpoint.v3 import endpoint_components_pb2

    alone = {"lb_endpoints": [orjson.loads(endpoint)]}
    encoded: bytes = _parsed(alone, endpoint_components_pb2.LocalityLbEndpoints()).SerializeToString()
    return encoded


def _import_types(value: Any) -> None:
    """A message can only be read from JSON once its module is imported, also inside a google.protobuf.Any."""
    if isinstance(value, dict):
        if isinstance(type_url := value.get("@type"), str):
            _import_package(type_url.removeprefix(TYPES).rpartition(".")[0])
        for each in value.values():
            _import_types(each)
    elif isinstance(value, list):
        for each in value:
            _import_types(each)


@cache
def _import_package(name: str) -> None:
    """All messages of a package of Envoy's API. One that is not there is left to whoever reads the message."""
    with contextlib.suppress(ModuleNotFoundError):
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{name}.{module.name}")


SHARED = 8192
"""How many resources are remembered: enough for what some hundred proxies share."""


class Same:
    """A resource as a key: equal to nothing but itself. Who keeps it keeps its id from another resource."""

    __slots__ = ("resource",)

    def __init__(self, resource: Mapping[str, Any]) -> None:
        self.resource = resource

    def __hash__(self) -> int:
        return id(self.resource)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.resource is other.resource


@lru_cache(maxsize=SHARED)
def _encoded(same: Same) -> bytes:
    return _of_content(orjson.dumps(same.resource))


@lru_cache(maxsize=SHARED)
def _of_content(content: bytes) -> bytes:
    """Resources are made anew for a proxy that connects anew, and mostly are what they were."""
    return to_any(orjson.loads(content))


def shared_to_any(resource: Mapping[str, Any]) -> bytes:
    """As `to_any`, once for a resource that many proxies are told, or one proxy again and again; it must not be changed
    any more."""
    return _encoded(Same(resource))
