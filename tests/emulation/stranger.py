"""What a run answers to another user of the machine: a program that is started as root and becomes that user.

It is given JSON: `uid`, `ports` (on 127.0.0.1), `sockets`, `folders` and `files`. It prints what it could do, as lines.
"""

from __future__ import annotations

import http.client
import importlib
import json
import os
import pkgutil
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import ray.core.generated

WITHIN_S = 30.0
PAGES = (("/", None), ("/metrics", None), ("/api/jobs/", None), ("/api/job_agent/jobs/", b'{"entrypoint": "id"}'))


def ray_methods() -> list[str]:
    """All calls that Ray's servers know, by their full names."""
    modules = [
        importlib.import_module(f"ray.core.generated.{module.name}")
        for module in pkgutil.iter_modules(ray.core.generated.__path__)
        if module.name.endswith("_pb2")
    ]
    services = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    return [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]


def try_calls(port: int, methods: list[str], token: str | None = None) -> list[str]:
    """Calls that were not refused."""
    answered = []
    metadata = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in methods:
            try:
                channel.unary_unary(method)(b"", timeout=WITHIN_S, metadata=metadata)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAVAILABLE:
                    break  # another protocol is spoken there, or nobody is
                if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED):
                    continue
                answered.append(f"{port} {method} {error.code()}")
            else:
                answered.append(f"{port} {method}")
    return answered


def try_pages(port: int) -> list[str]:
    answered = []
    for path, data in PAGES:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, WITHIN_S) as response:
                answered.append(f"{port} {path} {response.status}")
        except urllib.error.HTTPError as error:
            if error.code not in (401, 403):
                answered.append(f"{port} {path} {error.code}")
        except (OSError, ValueError, http.client.HTTPException):
            break  # nobody, or no HTTP
    return answered


def try_files(sockets: list[str], folders: list[str], files: list[str]) -> list[str]:
    opened = []
    for path in sockets:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(path)
                opened.append(path)
            except PermissionError:
                pass
    for path in folders:
        try:
            os.listdir(path)
            opened.append(path)
        except PermissionError:
            pass
    for path in files:
        try:
            Path(path).read_bytes()
            opened.append(path)
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            pass  # a process that is asked for may have ended since
    return opened


def main() -> None:
    task = json.load(sys.stdin)
    methods = ray_methods()
    # What is imported late has to be there before: the interpreter's own files may be closed to the user, too.
    try_calls(1, methods)
    try_pages(1)
    os.setgroups([])
    os.setgid(task["uid"])
    os.setuid(task["uid"])
    for port in task["ports"]:
        for line in try_calls(port, methods) + try_pages(port):
            print(line)
    for line in try_files(task["sockets"], task["folders"], task["files"]):
        print(line)


if __name__ == "__main__":
    main()
