"""Groups of an asynchronous store that change hands in one step: who is to be told what of it, and when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from testbed.control.cells.operations import Change
from testbed.control.cells.promotion import ShardedStore
from testbed.control.cells.store_orders import Forbid, Lead, StoreOrder, forbids, leads


@dataclass(slots=True)
class Handover:
    """Who is to lead the groups, which writes are forbidden meanwhile, and who is `waiting` to be told, as its proxy
    does not have the map yet."""

    store: ShardedStore
    leads: tuple[Lead, ...]
    forbidden: tuple[Forbid, ...]
    waiting: list[str]
    lifted: bool = False

    def orders(self, replicas: Iterable[str], what: Sequence[Lead | Forbid]) -> list[StoreOrder]:
        return [StoreOrder(self.store.service, name, each) for name in replicas for each in what]

    def leave_forbidden(self, later: Handover) -> None:
        """What that one has forbidden is its own to allow: who is told of this one last must not be."""
        if self.store == later.store:
            theirs = {each.group for each in later.forbidden}
            self.forbidden = tuple(each for each in self.forbidden if each.group not in theirs)

    @property
    def first(self) -> list[str]:
        """Of those waiting, who is to be told at the next opportunity. Where nobody writes meanwhile, two may lead, and
        for reads one has to: new leaders come first."""
        leaders = [name for name in self.waiting if name in {each.leader for each in self.leads}]
        return leaders if self.forbidden and leaders else self.waiting

    @property
    def everybody(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.store.replicas)

    @property
    def allowed(self) -> tuple[Forbid, ...]:
        return tuple(Forbid(each.group) for each in self.forbidden)


def handovers(stores: Iterable[ShardedStore], change: Change, version: int, forbidden_of: str | None) -> list[Handover]:
    """Of all asynchronous stores that the change to the map of that version concerns; writes are forbidden of the
    service named. Raises GroupSplit."""
    found = []
    for store in stores:
        if store.mode == "async" and (leads_now := leads(store, change, version)):
            forbidden = forbids(store, change) if store.service == forbidden_of else ()
            found.append(Handover(store, leads_now, forbidden, [name for name, _ in store.replicas]))
    return found
