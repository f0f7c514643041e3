"""Is run on the head: logs in to the workers from there, as Ray will, and prints in one line of JSON what came of it.

Takes a line of JSON: `workers` (addresses), `at_once`, `key` (its text or null), `options` of ssh, the `command` to run
there, and `within_s` for all of a login. Gives `exit_code` (null if that was too short), `stdout` and `stderr` of each.
The head need not have this package. The key, which `ray up` will leave there in a file, is only ever in memory.
"""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

task = json.loads(sys.stdin.readline())
key: list[str] = []
if task["key"] is not None:
    # ssh takes a file that nobody else may read.
    descriptor = os.memfd_create("key")
    os.fchmod(descriptor, 0o600)
    os.write(descriptor, task["key"].encode("latin-1"))
    key = ["-i", f"/proc/{os.getpid()}/fd/{descriptor}"]


def log_in(worker: str) -> dict[str, object]:
    try:
        # Ray looks addresses up by itself: names that only ssh's configuration knows are none.
        way = ["ssh", *key, *task["options"], "--", socket.gethostbyname(worker), task["command"]]
        done = subprocess.run(way, stdin=subprocess.DEVNULL, capture_output=True, timeout=task["within_s"])
    except subprocess.TimeoutExpired:
        return {"exit_code": None, "stdout": "", "stderr": ""}
    except (OSError, ValueError) as error:
        return {"exit_code": 255, "stdout": "", "stderr": f"Could not resolve hostname {worker}: {error}"}
    printed, said = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    return {"exit_code": done.returncode, "stdout": printed, "stderr": said}


with ThreadPoolExecutor(task["at_once"]) as pool:
    answers = dict(zip(task["workers"], pool.map(log_in, task["workers"]), strict=True))
print("\n" + json.dumps({"testbed_preflight": answers}))
