"""How a person sends load by Locust itself, in words: its pages, and the line for a Locust of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def guest_lines(
    lines: Mapping[str, str], pages: Mapping[str, str | None], machines: Mapping[str, str | None]
) -> Iterator[str]:
    """By origin zone: the line, the page if there is one, and the machine of both if it is not the driver's."""
    for zone, page in pages.items():
        if page is not None:
            on = f" (on loopback of {machine})" if (machine := machines.get(zone)) else ""
            yield f"Locust's page for clients of {zone}: {page}{on}"
    for machine in dict.fromkeys(machines.get(zone) for zone in lines):
        # Those of the same machine differ in the name of the file of settings only.
        zone, *others = (each for each in lines if machines.get(each) == machine)
        on = f" on {machine}" if machine else ""
        also = f" (or of {', '.join(others)}, by their files)" if others else ""
        yield f"a Locust of your own{on}, clients of {zone}{also}: {lines[zone]}"
