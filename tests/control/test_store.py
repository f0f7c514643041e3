from dataclasses import replace

import pytest

from testbed.control.store import Change, Store
from testbed.objects.core import EndpointSlice, Pod, Service
from testbed.objects.workloads import PodTemplate

WEB = Service("web")
ORDERS = Service("orders")


def test_a_put_returns_what_it_changed_at_which_version() -> None:
    store = Store()
    changed = replace(WEB, port=81)
    assert store.put(WEB) == Change(None, WEB, 1)
    assert store.put(changed) == Change(WEB, changed, 2)
    assert store.delete(Service, "web") == Change(changed, None, 3)


def test_a_put_of_an_equal_object_is_no_change() -> None:
    store = Store()
    store.put(WEB)
    assert store.put(Service("web")) is None
    assert store.delete(Service, "orders") is None
    assert store.version == 1


def test_objects_are_listed_in_the_order_of_creation_also_after_an_update() -> None:
    store = Store()
    store.put(WEB)
    store.put(ORDERS)
    store.put(replace(WEB, port=81))
    assert [service.name for service in store.list(Service)] == ["web", "orders"]


def test_kinds_have_names_and_versions_of_their_own() -> None:
    store = Store()
    store.put(WEB)
    store.put(EndpointSlice("web"))
    assert store.get(EndpointSlice, "web") == EndpointSlice("web")
    assert (store.kind_version(Service), store.kind_version(EndpointSlice), store.kind_version(Pod)) == (1, 2, 0)


def test_get_names_what_is_missing_and_what_there_is() -> None:
    store = Store()
    store.put(WEB)
    with pytest.raises(KeyError, match="no Service 'wbe': there are web"):
        store.get(Service, "wbe")
    assert store.find(Service, "wbe") is None


def test_generated_names_are_never_reused() -> None:
    store = Store()
    store.put(Pod(store.generate_name("web-"), "web", PodTemplate("web", None)))
    store.delete(Pod, "web-1")
    assert [store.generate_name("web-"), store.generate_name("orders-")] == ["web-2", "orders-1"]
