"""Shuffle shards in Envoy: clusters that are divided by partition, and endpoints that say which ones they serve.

Source: Envoy, "Load Balancer Subsets" and `config.cluster.v3.Cluster.LbSubsetConfig`. Which partition a request has is
`partition_filter`'s word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from testbed.control.views.envoy.partition_filter import SUBSET_KEY, SUBSET_METADATA
from testbed.objects.cells import WORKER
from testbed.objects.core import Endpoint

DIVIDED: Final[Mapping[str, Any]] = {
    # Who has no key, where that is allowed, goes to any worker.
    "fallback_policy": "ANY_ENDPOINT",
    # A shard whose workers are all down is down: what killed them must not get at others.
    "subset_selectors": [{"keys": [SUBSET_KEY], "fallback_policy": "NO_FALLBACK"}],
    "list_as_any": True,
}
"""`lb_subset_config` of a cluster."""


def served_partitions(endpoint: Endpoint, by_worker: tuple[tuple[int, ...], ...]) -> dict[str, Any]:
    """`filter_metadata` of an endpoint, given what each worker serves. A pod that is no worker serves nobody."""
    worker = dict(endpoint.labels).get(WORKER, "")
    served = by_worker[int(worker)] if worker.isdecimal() and int(worker) < len(by_worker) else ()
    return {SUBSET_METADATA: {SUBSET_KEY: [str(partition) for partition in served]}}
