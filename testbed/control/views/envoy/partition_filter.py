"""What finds out the partition of a request, before it is routed.

Owns the Lua that does it, the headers that it writes, and what is done to headers before. Lua costs every request CPU
(15 to 20 us where a proxy takes 60 for all else), and each of its calls adds to that: it does only what Envoy has no
words for, and sidecars go without it where their routes can match the key itself (`partition_match`). The rule in
Python, for everybody else, is `control.cells.partitions`. Every proxy goes by its own rule: what others wrote does not
count.
"""

from __future__ import annotations

import re
from typing import Any, Final

from testbed.control.cells.partitions import MAX_DIGITS
from testbed.control.views.envoy.access_log import (
    CALLER_HEADER,
    CELLS_METADATA,
    GATEWAY,
    INBOUND,
    PARTITION_HEADER,
    PEER_HEADER,
    CallKind,
)
from testbed.control.views.envoy.envoy_api import TYPES, header
from testbed.control.views.envoy.partition_match import of_key
from testbed.objects.cells import PartitionKey, PartitionMap, PartitionRule

COOKIE_CELL_HEADER: Final = "x-cell"
"""The cell that the client's cookie names. Written by gateways, for their own routes."""
ENTRY_HEADER: Final = "x-cell-entry"
"""How a gateway came to its choice: by cookie, owner, or as a first hit. Written by its routes."""
FORWARDED_HEADER: Final = "x-cell-forwarded"
"""The cell that forwarded a request: the next one that does not own it refuses. Written by its routes."""
MAP_VERSION_HEADER: Final = "x-cell-map"
"""The version of the map by which the caller's proxy chose, or by which a router answered. Written by its routes."""

SUBSET_METADATA: Final = "envoy.lb"
SUBSET_KEY: Final = "partition"
"""Envoy picks only endpoints whose metadata has the request's value of this key, where a cluster is divided by it.
Source: Envoy, "Load Balancer Subsets", and "Header-To-Metadata Filter" for a value that comes from the request."""

_OF_ROUTES: Final = (COOKIE_CELL_HEADER, ENTRY_HEADER, FORWARDED_HEADER, MAP_VERSION_HEADER)

OWN_HEADERS: Final = (*_OF_ROUTES, PARTITION_HEADER, CALLER_HEADER, PEER_HEADER)
"""What a request brings of these is taken off or written over, so that none of them can carry a key."""


def partition_filters(cell_map: PartitionMap, kind: CallKind) -> list[dict[str, Any]]:
    """What stands before the router of a listener of that kind, behind its `header_mutation`."""
    if not computes(cell_map, kind):
        return []
    filters = [_lua(_script(cell_map, kind))]
    if kind == GATEWAY and cell_map.key.kind == "path":
        filters.insert(0, _key_of_path(cell_map.key))
    return filters


def computes(cell_map: PartitionMap, kind: CallKind) -> bool:
    """Whether the partition has to be written down: gateways tell the client."""
    return kind == GATEWAY or of_key(cell_map) is None


def header_mutation(cell_map: PartitionMap, kind: CallKind, pod: str) -> dict[str, Any]:
    """What a listener of that kind does with headers before all else. `pod` is whose calls it takes.

    But for gateways it also writes that pod into the header that names the caller: so routes are alike for all pods of
    a cell, and are made once.
    """
    removed, written = [CALLER_HEADER], []
    if computes(cell_map, kind):
        removed.append(PARTITION_HEADER)
    if kind == INBOUND:
        # For the line of the call. What goes on from here to another cell is this pod's.
        written.append(header(CALLER_HEADER, f"%REQ({PEER_HEADER})%"))
    else:
        # What a client or an application sends on of these is nobody's word.
        removed += _OF_ROUTES
    if kind != GATEWAY:
        written.append(header(PEER_HEADER, pod))
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": TYPES + "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [*({"remove": name} for name in removed), *({"append": each} for each in written)],
        },
    }


def _lua(script: str) -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": TYPES + "envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": script},
        },
    }


def _key_of_path(key: PartitionKey) -> dict[str, Any]:
    """Lua has no regular expressions: the id is what Envoy leaves of the path, all of it where nothing matches."""
    return {
        "name": "envoy.filters.http.header_to_metadata",
        "typed_config": {
            "@type": TYPES + "envoy.extensions.filters.http.header_to_metadata.v3.Config",
            "request_rules": [
                {
                    "header": ":path",
                    "on_header_present": {
                        "metadata_namespace": CELLS_METADATA,
                        "key": "key",
                        "type": "STRING",
                        "regex_value_rewrite": {
                            "pattern": {"regex": f"^(?:{key.name})(?:\\?.*)?$"},
                            "substitution": "\\1",
                        },
                    },
                }
            ],
        },
    }


def _script(cell_map: PartitionMap, kind: CallKind) -> str:
    key = cell_map.key
    lines = ["local headers = handle:headers()"]
    if kind == GATEWAY:
        lines += [
            'local cookies = "; " .. (headers:get("cookie") or "")',
            f'local cell = cookies:match("; *{_literal(cell_map.cookie)}=([^;]+)")',
            f'if cell then headers:add("{COOKIE_CELL_HEADER}", cell) end',
            *_key_lines(key),
        ]
    lines += [
        f'local key = headers:get("{key.header}")',
        "local found = key and partition(key)",
        f'if found then headers:add("{PARTITION_HEADER}", string.format("%d", found)) end',
        *_shard_lines(cell_map),
        "handle:clearRouteCache()",
    ]
    body = "\n".join(f"  {line}" for line in lines)
    return f"{_partition(cell_map.rule, len(cell_map.owners))}\nfunction envoy_on_request(handle)\n{body}\nend\n"


def _shard_lines(cell_map: PartitionMap) -> list[str]:
    """The partition where Envoy looks for subsets of endpoints: for services with shuffle shards."""
    if not cell_map.shards:
        return []
    value = f'"{SUBSET_METADATA}", "{SUBSET_KEY}", string.format("%d", found)'
    return [f"if found then handle:streamInfo():dynamicMetadata():set({value}) end"]


def _key_lines(key: PartitionKey) -> list[str]:
    """At a gateway: the key from where it is into its header."""
    match key.kind:
        case "header":
            return []
        case "cookie":
            found = f'cookies:match("; *{_literal(key.name)}=([^;]+)")'
        case "query":
            found = f'(headers:get(":path") or ""):match("[?&]{_literal(key.name)}=([^&#]+)")'
        case "path":
            found = f'(handle:streamInfo():dynamicMetadata():get("{CELLS_METADATA}") or {{}}).key'
    lines = [f"local written = {found}", f'headers:remove("{key.header}")']
    nothing = ' and written ~= headers:get(":path")' if key.kind == "path" else ""
    return [*lines, f'if written{nothing} then headers:add("{key.header}", written) end']


def _partition(rule: PartitionRule, partitions: int) -> str:
    if rule.kind == "hash":
        # One multiplication by 0x01000193 = 2^24 + 403 would be more than a double holds.
        return f"""local function partition(key)
  if #key == 0 then return nil end
  local hash = 2166136261
  for at = 1, #key do
    hash = bit.bxor(hash, key:byte(at)) % 4294967296
    hash = (hash * 403 + (hash % 256) * 16777216) % 4294967296
  end
  return hash % {partitions}
end"""
    match rule.kind:
        case "digits":
            digits = " .. ".join(f"digit(key, {at})" for at in rule.digits)
            found = f"return tonumber({digits})"
            before = """local function digit(key, at)
  return at <= #key and key:sub(-at, -at) or "0"
end
"""
        case "modulo":
            found, before = f"return tonumber(key) % {partitions}", ""
        case "ranges":
            before = f"local bounds = {{{', '.join(map(str, rule.bounds))}}}\n"
            found = """local id = tonumber(key)
  local low, high = 0, #bounds
  while low < high do
    local middle = math.ceil((low + high) / 2)
    if bounds[middle] <= id then low = middle else high = middle - 1 end
  end
  if low == 0 then return nil end
  return low - 1"""
    return f"""{before}local function partition(key)
  if #key > {MAX_DIGITS} or not key:match("^%d+$") then return nil end
  {found}
end"""


def _literal(text: str) -> str:
    """Text in a Lua pattern, inside of quotes."""
    return re.sub("([^A-Za-z0-9_])", r"%\1", text)
