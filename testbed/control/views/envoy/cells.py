"""Routes between cells: who a call goes to by its partition, and what a cell does with what it does not own.

Owns the routes for services that are spread over cells or cities, and their names, which say in the log why a call
went where it went. What a partition is comes from `partition_filter`; the other parts of a route are `routes`'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from testbed.control.cells.ownership import Owned, runs
from testbed.control.cells.subsets import groups_of
from testbed.control.views.envoy.access_log import (
    CELLS_METADATA,
    CROSS_CELL,
    DIRECTED,
    FIRST_HIT,
    GLOBAL,
    MAP_VERSION,
    NAMED_BY_COOKIE,
    OWN,
    OWNER,
    OWNER_CELL,
    PARTITION_HEADER,
    PER_CITY,
    REFUSED,
    STALE_COOKIE,
    STALE_MAP,
    UNKEYED,
)
from testbed.control.views.envoy.envoy_api import header
from testbed.control.views.envoy.partition_filter import (
    COOKIE_CELL_HEADER,
    ENTRY_HEADER,
    FORWARDED_HEADER,
    MAP_VERSION_HEADER,
)
from testbed.control.views.envoy.partition_match import COMPUTED, PartitionMatch, of_key
from testbed.objects.cells import NEAREST, REFUSE, PartitionMap, ServiceClass

Match = Mapping[str, Any]
To = Callable[[str], dict[str, Any]]
"""The route action for a subset of the service, `` for all of it."""

OK: Final = 200
MISDIRECTED: Final = 421
BAD_REQUEST: Final = 400

_STALE: Final[Mapping[str | None, str]] = {
    FIRST_HIT: FIRST_HIT,
    NAMED_BY_COOKIE: STALE_COOKIE,
    OWNER: STALE_MAP,
    None: STALE_MAP,
}
"""Why a request is at the wrong cell, by how it entered; None: it came from another service."""


@dataclass(frozen=True, slots=True)
class CellRoutes:
    """The routes of one proxy by one version of the map. `cell` is that of its pod, empty where it is in none."""

    cell_map: PartitionMap
    zone: str
    cell: str = ""

    def called(self, service_class: ServiceClass, match: Match, to: To) -> list[dict[str, Any]]:
        """How a pod calls a service: whoever owns the key."""
        if service_class != "sharded":
            return [self._unsharded(service_class, match, to)]
        owners = [
            self._to_cell(cell, within, to, self._reason(cell)) for cell, within in self._owned(match, self._at_pods)
        ]
        return [*owners, self._unkeyed(match, to)]

    def entered(self, service_class: ServiceClass, match: Match, to: To) -> list[dict[str, Any]]:
        """How a gateway calls a service: the cell of the cookie, else as the map says of first hits.

        The cookie of a cell that owns nothing is void: it may have been given up.
        """
        if service_class != "sharded":
            return [self._unsharded(service_class, match, to)]
        by_cookie = [
            self._to_cell(cell.name, _where(match, _is(COOKIE_CELL_HEADER, cell.name)), to, NAMED_BY_COOKIE)
            for cell in self.cell_map.cells
            if cell.name in self.cell_map.owners
        ]
        if self.cell_map.first_hit == "owner":
            others = [self._to_cell(cell, within, to, OWNER) for cell, within in self._owned(match, COMPUTED)]
        else:
            keyed = _where(match, {"name": PARTITION_HEADER, "present_match": True})
            others = [self._route(FIRST_HIT, keyed, {"route": to("")})]
        entries = [*by_cookie, *others]
        for each in entries:
            each["request_headers_to_add"].append(header(ENTRY_HEADER, each["name"]))
        if self.cell_map.unkeyed != REFUSE:
            return [*entries, self._unkeyed(match, to)]
        # Before all, as a cookie alone is no key.
        absent = {"name": PARTITION_HEADER, "present_match": True, "invert_match": True}
        return [self._refused_unkeyed(_where(match, absent)), *entries]

    def asked(self) -> list[dict[str, Any]]:
        """How a router answers: with the owner of the key as the cookie, to be kept for a while.

        Who has no key and belongs to no cell in particular gets no cookie.
        """
        match: Match = {"prefix": "/"}
        answers = [self._answer(DIRECTED, within, cell) for cell, within in self._owned(match, COMPUTED)]
        fate = self.cell_map.unkeyed
        if fate == REFUSE:
            return [*answers, self._refused_unkeyed(match)]
        return [*answers, self._answer(UNKEYED, match, None if fate == NEAREST else fate)]

    def received(self, local: Mapping[str, Any], to: To) -> list[dict[str, Any]]:
        """What a pod of a cell does with a call: `local` where it owns the partition, else by the map's word."""
        match = {"prefix": "/"}
        # Directed clients go by the router's word, until they ask it anew.
        told = self.cell_map.entry == "gateway"
        by_owner = list(self._owned(match, self._at_pods))
        found = []
        for within in (within for cell, within in by_owner if cell == self.cell):
            for entry in (FIRST_HIT, OWNER) if told else ():
                by_entry = _where(within, _is(ENTRY_HEADER, entry))
                found.append(self._route(OWN, by_entry, {"route": local}, self.cell, cookie=self.cell))
            found.append(self._route(OWN, within, {"route": local}, self.cell))
        for owner, within in ((cell, within) for cell, within in by_owner if cell != self.cell):
            forwarded = _where(within, {"name": FORWARDED_HEADER, "present_match": True})
            found.append(self._refusal(REFUSED, forwarded, owner))
            for came_by, reason in _STALE.items():
                by_entry = within if came_by is None else _where(within, _is(ENTRY_HEADER, came_by))
                cookie = None if came_by is None or not told else owner
                if self.cell_map.misdirected == "refuse":
                    found.append(self._refusal(REFUSED, by_entry, owner, cookie))
                else:
                    found.append(self._forward(reason, by_entry, owner, to, cookie))
        if self.cell_map.unkeyed == REFUSE:
            return [*found, self._refused_unkeyed(match)]
        return [*found, self._route(UNKEYED, match, {"route": local})]

    @property
    def _at_pods(self) -> PartitionMatch:
        """How their proxies find out the partition; at gateways and routers it is computed."""
        return of_key(self.cell_map) or COMPUTED

    def _owned(self, match: Match, by: PartitionMatch) -> Iterator[tuple[str, Match]]:
        """Each owner with what matches what it owns; several times where one match cannot say it."""
        by_cell: dict[str, list[Owned]] = {}
        for run in runs(self.cell_map.owners):
            by_cell.setdefault(run.cell, []).append(run)
        for cell, owned in by_cell.items():
            for headers in by.any_of(owned):
                yield cell, _where(match, *headers)

    def _reason(self, owner: str) -> str:
        if not self.cell:
            return OWNER
        return OWN if owner == self.cell else CROSS_CELL

    def _unsharded(self, service_class: ServiceClass, match: Match, to: To) -> dict[str, Any]:
        if service_class == "global":
            return self._route(GLOBAL, match, {"route": to("")})
        city = next((city.name for city in self.cell_map.cities if self.zone in city.zones), "")
        return self._route(PER_CITY, match, {"route": to(city)})

    def _refused_unkeyed(self, match: Match) -> dict[str, Any]:
        answer = {"status": BAD_REQUEST, "body": {"inline_string": f"no key: {self.cell_map.key.name}\n"}}
        return self._route(UNKEYED, match, {"direct_response": answer})

    def _unkeyed(self, match: Match, to: To) -> dict[str, Any]:
        """After all keyed routes, for what is left."""
        fate = self.cell_map.unkeyed
        if fate == REFUSE:
            return self._refused_unkeyed(match)
        if fate == NEAREST:
            return self._route(UNKEYED, match, {"route": to("")})
        return self._to_cell(fate, match, to, UNKEYED)

    def _to_cell(self, cell: str, match: Match, to: To, name: str) -> dict[str, Any]:
        return self._route(name, match, {"route": self._cell_action(cell, to)}, cell)

    def _cell_action(self, cell: str, to: To) -> dict[str, Any]:
        groups = list(groups_of(self.cell_map.cell(cell)))
        if len(groups) == 1:
            return to(groups[0][0])
        action = to(groups[0][0])
        del action["cluster"]
        clusters = [{"name": to(name)["cluster"], "weight": weight} for name, _, weight in groups]
        return {**action, "weighted_clusters": {"clusters": clusters}}

    def _forward(self, name: str, match: Match, owner: str, to: To, cookie: str | None) -> dict[str, Any]:
        route = self._to_cell(owner, match, to, name)
        route["request_headers_to_add"].append(header(FORWARDED_HEADER, self.cell))
        route["request_headers_to_remove"] = [ENTRY_HEADER]
        return {**route, **self._set_cookie(cookie)}

    def _refusal(self, name: str, match: Match, owner: str, cookie: str | None = None) -> dict[str, Any]:
        """Both versions are named: who was asked goes by one map, who asked may go by another."""
        text = (
            f"misdirected: owner {owner}, this is {self.cell}, map version {self.cell_map.version}, "
            f"caller's map version %REQ({MAP_VERSION_HEADER})%\n"
        )
        answer = {"status": MISDIRECTED, "body_format": {"text_format_source": {"inline_string": text}}}
        return self._route(name, match, {"direct_response": answer}, owner, cookie=cookie)

    def _answer(self, name: str, match: Match, cell: str | None) -> dict[str, Any]:
        route = self._route(name, match, {"direct_response": {"status": OK}}, cell or "", cookie=cell)
        del route["request_headers_to_add"]  # it goes nowhere
        version = header(MAP_VERSION_HEADER, str(self.cell_map.version))
        return {**route, "response_headers_to_add": [*route.get("response_headers_to_add", ()), version]}

    def _route(
        self, name: str, match: Match, does: Mapping[str, Any], owner: str = "", cookie: str | None = None
    ) -> dict[str, Any]:
        known: dict[str, Any] = {MAP_VERSION: self.cell_map.version}
        if owner:
            known[OWNER_CELL] = owner
        return {
            "name": name,
            "match": dict(match),
            **does,
            "metadata": {"filter_metadata": {CELLS_METADATA: known}},
            "request_headers_to_add": [header(MAP_VERSION_HEADER, str(self.cell_map.version))],
            **self._set_cookie(cookie),
        }

    def _set_cookie(self, cell: str | None) -> dict[str, Any]:
        if cell is None:
            return {}
        kept = f"; Max-Age={self.cell_map.answer_ttl_s}" if self.cell_map.entry == "directed" else ""
        value = f"{self.cell_map.cookie}={cell}; Path=/; HttpOnly{kept}"
        return {
            "response_headers_to_add": [
                {"header": {"key": "set-cookie", "value": value}, "append_action": "APPEND_IF_EXISTS_OR_ADD"}
            ]
        }


def _where(match: Match, *headers: dict[str, Any]) -> Match:
    """Envoy looks at headers in this order, and at none behind the first that does not match."""
    return {**match, "headers": [*headers, *match.get("headers", ())]}


def _is(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "string_match": {"exact": value}}
