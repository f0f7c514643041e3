"""Names, namespaces and labels: what every declared object has, and how one is called by them."""

from __future__ import annotations

from typing import Final

DEFAULT_NAMESPACE: Final = "default"


Labels = tuple[tuple[str, str], ...]
"""Labels of an object, or a selector that asks for some: pairs of key and value."""


def selects(selector: Labels, labels: Labels) -> bool:
    """Whether all that is asked for is there. An empty selector selects nothing, as a Service's does."""
    return bool(selector) and set(selector) <= set(labels)


def host_of(name: str, namespace: str) -> str:
    """What a Service is called from anywhere: `web` in the namespace `default`, else `web.other`.

    `name` is how somebody in `namespace` calls it: `web`, or `web.other`, with or without `.svc.cluster.local`.
    """
    short, _, elsewhere = name.partition(".")
    found_in = elsewhere.removesuffix(".svc.cluster.local").removesuffix(".svc") or namespace
    return short if found_in == DEFAULT_NAMESPACE else f"{short}.{found_in}"
