"""The lines that a load process records about requests: JSON objects, with keys of one letter because there are many.

Owns kinds and keys; `recorder` writes them, `testbed.results.tables.ingest` reads them. It imports neither Locust nor
gevent. Times are monotonic seconds.

At send, before the first byte leaves, a line of kind SENT: ID, METHOD, PATH, NAME, INTENDED_S, SENT_S, ENTRY_ZONE.
At finish, one of kind FINISHED: ID, FINISHED_S, STATUS, OUTCOME, ERROR, SENT_BYTES, RECEIVED_BYTES, PARTITION; of a
client that is directed also ENTRY_ZONE, CELL, MAP_VERSION, QUESTIONS and ROUTER_MS, since it knows them only then. And
where a locustfile fired Locust's request event itself, for what it did not send through a recorded client (a step of
another protocol, a user's whole journey), one of kind OWN: TYPE, NAME, FIRED_S, RESPONSE_TIME_MS, ERROR. That is no
request, and counted apart.
"""

from __future__ import annotations

from typing import Final, Literal

Outcome = Literal["ok", "failed", "unknown"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("ok", "failed", "unknown")

KIND: Final = "e"
SENT: Final = "s"
FINISHED: Final = "f"
OWN: Final = "o"

ID: Final = "id"
NAME: Final = "n"
ERROR: Final = "m"
"""Null where there was none."""

METHOD: Final = "t"
PATH: Final = "u"
INTENDED_S: Final = "i"
SENT_S: Final = "s"
ENTRY_ZONE: Final = "z"
"""Null where the request left the cluster, or was sent to no gateway."""

FINISHED_S: Final = "f"
STATUS: Final = "c"
"""Null without an answer."""
OUTCOME: Final = "o"
SENT_BYTES: Final = "a"
"""Of the request's body; null where it was a stream or was not kept."""
RECEIVED_BYTES: Final = "b"
"""Of the answer's body; null without an answer."""
PARTITION: Final = "p"
"""As the answer names it; null where it does not."""

CELL: Final = "k"
"""To which a router directed the client; null if to none."""
MAP_VERSION: Final = "v"
"""By which the router did."""
QUESTIONS: Final = "q"
"""How often the request asked a router."""
ROUTER_MS: Final = "r"
"""How long that took; null where it did not ask."""

PROCESS: Final = "w"
"""Of an operation on a store, at send: the client that does one thing after the other."""
KEY: Final = "y"
VALUE: Final = "x"
"""At send what is written, null for a read; at finish what was read, null for a write and where nothing was."""
OWNER: Final = "g"
"""Who says that it took the write; null where nobody does."""

TYPE: Final = "t"
"""Locust's `request_type`, whatever the locustfile says."""
FIRED_S: Final = "f"
RESPONSE_TIME_MS: Final = "d"
