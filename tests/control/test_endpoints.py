from dataclasses import replace

from testbed.control.kubernetes import endpoints
from testbed.control.messages import RecordEvent
from testbed.control.store import Store
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.core import Endpoint, EndpointSlice, Node, Pod, Service
from testbed.objects.places import Locality
from testbed.objects.workloads import PodTemplate

EAST_A = Locality("east", "east-a")
ADDRESS = PodAddress(*(SocketAddress("127.20.1.3", port) for port in (8080, 15006, 15001)))
WEB_2 = Pod("web-2", "web", PodTemplate("web", None), "a", "Running", ready=True, address=ADDRESS)
WEB_1 = replace(WEB_2, name="web-1")


def store_with(*pods: Pod) -> Store:
    store = Store()
    store.put(Service("web", selector=(("app", "web"),)))
    store.put(Node("a", EAST_A, ready="True"))
    for pod in pods:
        store.put(pod)
    return store


def ready_pods(store: Store) -> list[str]:
    endpoints.reconcile(store, 0.0)
    return [endpoint.pod for endpoint in store.get(EndpointSlice, "web").endpoints]


def test_ready_pods_are_endpoints_at_their_inbound_listener_ordered_by_name() -> None:
    store = store_with(WEB_2, WEB_1)
    commands = endpoints.reconcile(store, 0.0)
    assert store.list(EndpointSlice) == (
        EndpointSlice("web", tuple(Endpoint(name, "a", EAST_A, ADDRESS.inbound) for name in ("web-1", "web-2"))),
    )
    details = {"service": "web", "added": ["web-1", "web-2"], "removed": [], "ready": 2}
    assert commands == [RecordEvent("EndpointSlice", "web", "EndpointsChanged", details)]
    assert endpoints.reconcile(store, 0.0) == []


def test_pods_that_cannot_serve_are_no_endpoints() -> None:
    assert ready_pods(store_with(replace(WEB_1, ready=False), replace(WEB_2, phase="Terminating"))) == []
    assert ready_pods(store_with(replace(WEB_1, node=None, address=None))) == []


def test_pods_of_an_unknown_node_leave_at_once() -> None:
    store = store_with(WEB_1)
    assert ready_pods(store) == ["web-1"]
    store.put(Node("a", EAST_A, ready="Unknown"))
    (command,) = endpoints.reconcile(store, 0.0)
    assert isinstance(command, RecordEvent)
    assert command.details["removed"] == ["web-1"]


def test_a_service_without_ready_pods_has_an_empty_slice_and_one_without_pods_makes_no_noise() -> None:
    store = store_with()
    assert endpoints.reconcile(store, 0.0) == []
    assert store.get(EndpointSlice, "web") == EndpointSlice("web")


def test_a_pod_of_no_declared_service_is_nobodys_endpoint() -> None:
    store = store_with(replace(WEB_1, template=PodTemplate("gateway", None, role="gateway")))
    assert ready_pods(store) == []


def test_without_a_mesh_callers_connect_to_the_application_itself() -> None:
    store = store_with(replace(WEB_1, template=PodTemplate("web", None, mesh_mode="none")))
    endpoints.reconcile(store, 0.0)
    assert store.get(EndpointSlice, "web").endpoints == (Endpoint("web-1", "a", EAST_A, ADDRESS.app),)
