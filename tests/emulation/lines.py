"""A real program that speaks no HTTP: `serve` answers each line with its pod's name, `ask` asks it again and again.

`ask` prints a JSON object for each connection: how long it took to connect and be answered, and by whom or why not.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time

OWN = (os.environ["POD_IP"], int(os.environ["PORT"]))
PATIENCE_S = 0.5
PAUSE_S = 0.05


def serve() -> None:
    """Each connection until its other end closes it."""

    def answer(connection: socket.socket) -> None:
        with connection, connection.makefile("rwb", buffering=0) as lines:
            for _ in lines:
                lines.write(os.environ["POD_NAME"].encode() + b"\n")

    with socket.create_server(OWN) as server:
        while True:
            threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()


def ask() -> None:
    address = (os.environ["LINES_SERVICE_HOST"], int(os.environ["LINES_SERVICE_PORT"]))
    with socket.create_server(OWN):  # for the readiness probe
        while True:
            began_s = time.monotonic()
            answer = error = ""
            try:
                with socket.create_connection(address, PATIENCE_S) as connection:
                    connection.sendall(b"who is there?\n")
                    answer = connection.makefile().readline().strip()
            except OSError as problem:
                error = type(problem).__name__
            took_ms = (time.monotonic() - began_s) * 1e3
            print(json.dumps({"answer": answer, "error": error, "took_ms": took_ms}), flush=True)
            time.sleep(PAUSE_S)


{"serve": serve, "ask": ask}[sys.argv[1]]()
