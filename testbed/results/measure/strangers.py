"""Requests that came in from outside though no client of the run sent them.

Loopback keeps nobody out who is on the machine: other users and programs reach gateways and pods. What they send is
served and logged as any request is, but says nothing about the scenario.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from testbed.objects.workloads import GATEWAY


@dataclass(frozen=True, slots=True)
class Strangers:
    """`requests` of them came in, with `hops` calls in all; `own` are the hops that are left."""

    requests: int
    hops: int
    own: pa.Table


def without_strangers(requests: pa.Table, hops: pa.Table, lost: Sequence[tuple[float, float]] = ()) -> Strangers:
    """Take out of `hops` all calls of requests that are none of `requests` and came in at a gateway, or at a pod from
    no pod.

    A program in a pod that begins calls of its own, or does not pass on `x-request-id`, is no stranger. `lost` are the
    machines that were lost: from when on their records, those of clients among them, did not come home, and since when
    they were silent. What came in then is nobody's fault.
    """
    unknown = pc.invert(pc.is_in(hops["request_id"], value_set=requests["request_id"].combine_chunks()))
    outbound = pc.equal(hops["direction"], "outbound")
    at_gateway = pc.and_(outbound, pc.equal(hops["source_service"], GATEWAY))
    from_no_pod = pc.and_(pc.equal(hops["direction"], "inbound"), pc.is_null(hops["source_zone"]))
    came_in = pc.and_(unknown, pc.fill_null(pc.or_kleene(at_gateway, from_no_pod), False))
    for from_s, to_s in lost:
        unrecorded = pc.and_(pc.greater_equal(hops["start_s"], from_s), pc.less_equal(hops["start_s"], to_s))
        came_in = pc.and_(came_in, pc.invert(unrecorded))
    ids = pc.drop_null(pc.unique(hops["request_id"].filter(came_in)))
    if not len(ids):
        return Strangers(0, 0, hops)
    theirs = pc.is_in(hops["request_id"], value_set=ids)
    return Strangers(len(ids), pc.sum(theirs).as_py() or 0, hops.filter(pc.invert(theirs)))
