"""Where pods listen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """A TCP address, `127.20.1.3:15006`."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class PodAddress:
    """Where one pod listens. The application and its sidecar share one IP, as in a real pod."""

    app: SocketAddress
    inbound: SocketAddress
    outbound: SocketAddress
