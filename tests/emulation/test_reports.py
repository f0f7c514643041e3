"""What is left of the messages that waited behind a cut of the control path."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from testbed.control.messages import LeaseRenewed, NodeRegistered, PodReadinessChanged, StartPod, StopPod
from testbed.emulation.actors.reports import NodeCommand, Reported, latest_lease_only, latest_only
from testbed.emulation.processes.master_messages import EncodedPush
from testbed.objects.core import Pod
from testbed.objects.workloads import PodTemplate

PODS = ("cart-0", "cart-1")

pushes = st.builds(
    EncodedPush,
    place=st.just("n"),
    proxy=st.sampled_from(PODS),
    type_url=st.sampled_from(["clusters", "endpoints"]),
    version=st.integers(1, 9).map(str),
    resources=st.just(()),
)
starts = st.sampled_from(PODS).map(lambda name: StartPod("n", Pod(name, "cart", PodTemplate("cart", None))))
stops = st.sampled_from(PODS).map(lambda name: StopPod("n", name))
commands = st.lists(pushes | starts | stops, max_size=20)

leases = st.just(LeaseRenewed("n"))
others = st.just(NodeRegistered("n")) | st.builds(
    PodReadinessChanged, node=st.just("n"), pod=st.sampled_from(PODS), ready=st.booleans()
)
reports = st.lists(st.builds(Reported, event=leases | others, at_s=st.floats(0, 100)), max_size=20)


def pushes_of(messages: list[NodeCommand], proxy: str, type_url: str) -> list[NodeCommand]:
    return [
        message
        for message in messages
        if isinstance(message, EncodedPush) and (message.proxy, message.type_url) == (proxy, type_url)
    ]


@given(commands)
def test_of_the_pushes_of_one_type_to_one_proxy_the_last_is_left(messages: list[NodeCommand]) -> None:
    left = latest_only(messages)
    for proxy in PODS:
        for type_url in ("clusters", "endpoints"):
            assert pushes_of(left, proxy, type_url) == pushes_of(messages, proxy, type_url)[-1:]


@given(commands)
def test_starts_and_stops_of_pods_are_all_left_in_their_order(messages: list[NodeCommand]) -> None:
    assert [message for message in latest_only(messages) if not isinstance(message, EncodedPush)] == [
        message for message in messages if not isinstance(message, EncodedPush)
    ]


@given(commands)
def test_commands_that_are_left_keep_their_order(messages: list[NodeCommand]) -> None:
    rest = iter(messages)
    assert all(any(message is left for message in rest) for left in latest_only(messages))


@given(commands)
def test_thinning_out_commands_twice_changes_nothing(messages: list[NodeCommand]) -> None:
    once = latest_only(messages)
    assert latest_only(once) == once


@given(reports)
def test_of_several_lease_renewals_the_newest_is_left(messages: list[Reported]) -> None:
    renewals = [message for message in messages if isinstance(message.event, LeaseRenewed)]
    left = [message for message in latest_lease_only(messages) if isinstance(message.event, LeaseRenewed)]
    assert left == renewals[-1:]


@given(reports)
def test_reports_of_anything_else_are_all_left_in_their_order(messages: list[Reported]) -> None:
    assert [message for message in latest_lease_only(messages) if not isinstance(message.event, LeaseRenewed)] == [
        message for message in messages if not isinstance(message.event, LeaseRenewed)
    ]
