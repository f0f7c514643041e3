"""Runs across the machines of a Ray cluster: the same measurement, nothing for strangers, and machines that die."""

from __future__ import annotations

import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import orjson
import pytest

from testbed.emulation.processes import janitor
from testbed.workloads import builtin
from tests.emulation.conftest import until
from tests.multimachine.conftest import (
    COMMAND,
    ROOT,
    RUN_TIMEOUT_S,
    STRANGER,
    Cluster,
    Result,
    run_command,
    unavailable,
)

pytestmark = [pytest.mark.live, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]

LOAD = (
    "spec.load.warmup=2s",
    "spec.load.sources=[{zone: east-a, rate: 40/s}, {zone: east-b, rate: 40/s}, {zone: east-c, rate: 10/s}]",
    "spec.expect=[]",
)
BY_HAND = (*LOAD, "spec.faults=[]")
OWN = """
cat > my.py <<END
from locust import HttpUser, constant, task

class Mine(HttpUser):
    wait_time = constant(0.1)

    @task
    def look(self):
        self.client.get("/mine")
END
env"""
"""What comes before the line for a Locust of one's own."""
CLOCK_ERROR_MS = 5.0
"""Of two clocks that are read while the machine is busy with something else it may be more."""
LONGEST_REQUEST_S = 2.5
NOBODY = "198.18.78.99"

PROBE = """
import socket, sys
address, wanted = sys.argv[1], sys.argv[2:]
for target in wanted:
    port, _, words = target.partition(" ")
    try:
        with socket.create_connection((address, int(port)), timeout=2) as connection:
            if words:
                connection.sendall(words.encode().decode("unicode_escape").encode())
            connection.settimeout(3)
            print(port, "answered", repr(connection.recv(60)), flush=True)
    except OSError as error:
        print(port, type(error).__name__, flush=True)
"""


def result_of(cluster: Cluster, before: list[Path], machine: str = "m1") -> Result:
    (run_dir,) = [run_dir for run_dir in cluster.run_dirs(machine) if run_dir not in before]
    return Result(run_dir)


def recorded_at_home(cluster: Cluster, before: list[Path], zone: str) -> int:
    """Requests sent by a zone's clients whose records are on the driver's machine, while the run goes on."""
    (run_dir,) = [run_dir for run_dir in cluster.run_dirs() if run_dir not in before]
    return sum(path.read_bytes().count(b'"e":"s"') for path in run_dir.glob(f"logs/*{zone}*.requests.jsonl"))


def wait_for_line(process: subprocess.Popen[str], words: str) -> str:
    """All output up to the line with these words; fails when the program ends without."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if words in line:
            return seen
    pytest.fail(f"never said {words!r}:\n{seen}")


def exposed_on(cluster: Cluster, machine: str) -> list[tuple[str, int, str]]:
    """Address, port and owner of all that listens there beyond loopback."""
    _, listening = cluster.run(machine, "ss -Hltunp")
    rows = [line.split(maxsplit=6) for line in listening.splitlines()]
    found = [(*row[4].rsplit(":", 1), row[6] if len(row) > 6 else "") for row in rows]
    # An address in brackets may be followed by the name of a card.
    return [
        (address, int(port), owner)
        for address, port, owner in found
        if not address.startswith(("127.", "[::ffff:127.", "[::1]"))
    ]


def documented_ports(where: str) -> set[int]:
    """Those of the table in the README that the head (`head`) or every machine (`all`) opens."""
    ports: set[int] = set()
    for written, on in re.findall(r"^\| ([\d, -]+) \| (\w+) \|", (ROOT / "README.md").read_text(), re.MULTILINE):
        if on in ("all", where):
            for each in written.split(", "):
                first, _, last = each.partition("-")
                ports |= set(range(int(first), int(last or first) + 1))
    return ports


def sets(*overrides: str) -> str:
    return " ".join(f"--set {shlex.quote(override)}" for override in overrides)


def up_command(*options: str) -> str:
    file = "testbed/scenarios/zone-outage.yaml"
    return f"testbed up {file} --address auto --machines 4 --hosting node {' '.join(options)} {sets(*BY_HAND)}"


def typed(cluster: Cluster, machine: str, script: str) -> str:
    """What commands say that all do what they should."""
    code, output = cluster.run(machine, f"set -e\n{script}")
    assert code == 0, output
    assert "Traceback" not in output
    return output


def what_runs(cluster: Cluster, machine: str) -> str:
    """How many processes of runs there are on a machine, and the folders that they have there."""
    names = ("envoy", "locust", builtin.__name__, janitor.__name__)
    # Brackets, so that the command does not find itself.
    processes = "|".join(f"[{name[0]}]{name[1:]}" for name in names)
    _, output = cluster.run(machine, f"pgrep -fc '{processes}'; ls -d /tmp/testbed-[0-9a-f]* 2>/dev/null")
    return " ".join(output.split())


def test_an_outage_measured_across_machines_is_the_one_of_a_single_machine(cluster: Cluster) -> None:
    before = cluster.run_dirs()
    fault = "spec.faults=[{name: lose-east-a, at: 5s, for: 5s, crash: {zone: east-a}}]"
    running = cluster.start("m1", run_command(*LOAD, "spec.load.duration=15s", fault))
    seen = wait_for_line(running, "sending load")

    # Nothing but what the README names can be reached, and one port of the run's.
    ingresses = {}
    machines = ("m1", "m2", "m3", "m4")
    with ThreadPoolExecutor() as looking:  # side by side, as the run does not last
        found = list(looking.map(partial(exposed_on, cluster), machines))
    for machine, exposed in zip(machines, found, strict=True):
        known = documented_ports("head" if machine == "m1" else "all")
        assert {22, 6380} <= {port for _, port, _ in exposed} & known
        ((address, ingresses[machine], owner),) = [each for each in exposed if each[1] not in known]
        assert address == cluster.address(machine)
        assert ("testbed" if machine == "m1" else "Machine") in owner

    # Meanwhile a stranger tries what there is on the machine of east-b, whose places all listen by now.
    _, listening = cluster.run("m3", "ss -Hltnp")
    assert "envoy" in listening
    ingress = ingresses["m3"]
    # Ray lets anybody write into its own folders, which are not in /tmp for that reason.
    _, folders = cluster.run("m3", "stat -c %a ~/.testbed-ray; ls ~/.testbed-ray; ls -d /tmp/ray")
    assert folders.split()[:2] == ["700", "ray"]
    assert "No such file" in folders
    head = r"CONNECT 127.0.0.1:15006 HTTP/1.1\r\n{}\r\n"
    guessed = r"proxy-authorization: Bearer " + "0" * 64 + r"\r\n"
    tries = ["15006", "15001", "8080", "20000", "22000"]
    tries += [f"{ingress} {head.format(authorization)}" for authorization in ("", guessed)]
    quoted = " ".join(shlex.quote(each) for each in tries)
    script = f"python3 -c {shlex.quote(PROBE)} {cluster.address('m3')} {quoted}"
    _, answers = cluster.run(STRANGER, script)
    lines = answers.splitlines()
    assert [line.split()[1] for line in lines[:5]] == ["ConnectionRefusedError"] * 5, answers
    assert all("407" in line for line in lines[5:]), answers

    output, _ = running.communicate(timeout=RUN_TIMEOUT_S)
    result = result_of(cluster, before)
    summary = result.summary
    requests = summary["requests"]
    rows = result.rows("requests")
    assert requests["sent"] == len(rows) == summary["locust"]["requests"], seen + output
    assert requests["sent"] == requests["ok"] + requests["failed"] + requests["unknown"]
    assert requests["unknown"] > 0
    assert summary["hops"]["ok_requests_without_hops"] == summary["hops"]["explained_by_killed_proxies"]
    assert summary["same_zone_share_by_phase"]["steady"] > 0.85
    assert summary["faults"][0]["recovered_s"] is not None
    assert {machine["name"]: machine["places"] for machine in summary["machines"]} == {
        "m1": ["control-plane"],
        "m2": ["east-a-1", "clients/east-a"],
        "m3": ["east-b-1", "clients/east-b"],
        "m4": ["east-c-1", "clients/east-c"],
    }
    # Machines' clocks are a thousand seconds apart: only when they are corrected does a call lie within its request.
    assert summary["clock_error_ms"] > 0
    gateways = {
        row["request_id"]: row
        for row in result.rows("hops")
        if row["source_service"] == "gateway" and row["direction"] == "outbound"
    }
    tolerance_s = 2 * max(CLOCK_ERROR_MS, summary["clock_error_ms"]) / 1e3
    answered = [row for row in rows if row["outcome"] == "ok" and row["request_id"] in gateways]
    assert len(answered) > 1000
    for row in answered:
        start_s = gateways[row["request_id"]]["start_s"]
        assert row["sent_s"] - tolerance_s <= start_s <= row["finished_s"] + tolerance_s
    assert {sample["machine"] for sample in result.rows("machines")} == {"m1", "m2", "m3", "m4"}


def test_what_cannot_run_is_told_at_once_and_leaves_nothing(cluster: Cluster) -> None:
    zone = run_command(
        "spec.topology.regions.east.zones={west-x: {nodes: 1}}",
        "spec.load.sources=[{zone: west-x, rate: 1/s}]",
        "spec.services.orders.zones=[]",
        "spec.faults=[]",
        "spec.expect=[]",
    )
    nowhere = run_command(options=f"--address {NOBODY}:6379")
    no_label = "zone west-x: no machine has the label testbed.zone=west-x"
    # As from a laptop: a job that brings its scenario along, and tells what the command said and how it ended.
    _, home = cluster.run("m1", "pwd")
    command = shlex.split(zone.replace("--address auto", f"--address auto --out {home.strip()}/runs"))
    command[2] = "zone-outage.yaml"
    job = cluster.submit(ROOT / "scenarios", command)
    refused = [
        (cluster.start("m1", script), words) for script, words in ((zone, no_label), (nowhere, "cannot be used"))
    ]
    for process, words in refused:
        output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        assert (process.returncode, words in output, "Traceback" in output) == (2, True, False), output
    output, _ = job.communicate(timeout=RUN_TIMEOUT_S)
    assert (job.returncode != 0, no_label in output, "exit code 2" in output) == (True, True, True), output
    assert what_runs(cluster, "m1") == "0"


def test_a_machine_that_is_none_of_the_clusters_is_told_what_to_do_instead(cluster: Cluster) -> None:
    scenario, address = str(ROOT / "scenarios" / "zone-outage.yaml"), f"{cluster.address('m1')}:6379"
    done = subprocess.run(
        [*COMMAND, "run", scenario, "--address", address, "--out", str(cluster.home)],
        env=cluster.env,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
    )
    assert (done.returncode, done.stdout) == (2, f"▸ connecting to Ray at {address}\n")
    assert done.stderr.startswith(f"Ray at {address} cannot be used: no Ray node runs on this machine; ")


def test_waiting_for_machines_that_do_not_come_can_be_broken_off(cluster: Cluster) -> None:
    waiting = run_command(machines=9)
    # It says first that it connects, and then who has joined, each time that there are more.
    told = "until [[ $REPLY == *'4 of 9'* ]]; do read -ru3 || break; done"
    script = f"coproc {waiting} 2>&1; pid=$COPROC_PID; exec 3<&${{COPROC[0]}}; {told}; kill $pid; cat <&3; wait $pid"
    code, output = cluster.run("m1", f'{script}; code=$?; echo "$REPLY"; exit $code')
    # Where leaving Ray takes seconds, it says in between what it is at.
    lines = [line for line in output.splitlines() if not line.startswith("  ")]
    assert (code, lines) == (130, ["interrupted", "▸ 4 of 9 machines have joined Ray: m1, m2, m3, m4"])


def test_a_cluster_that_stays_up_is_driven_across_machines_as_on_one(cluster: Cluster) -> None:
    before = cluster.run_dirs()
    typed(cluster, "m1", up_command("--detach", "--load"))
    (there,) = orjson.loads(typed(cluster, "m1", "testbed status --json"))["clusters"]
    assert {pod["proxy"] for pod in there["pods"]} == {"in sync"}
    assert {zone: locust["machine"] for zone, locust in there["locust"].items()} == {
        "east-a": "m2",
        "east-b": "m3",
        "east-c": "m4",
    }
    # Clients of a zone are on its machine, and so is a Locust of one's own, which ends with the cluster.
    guest = cluster.start("m2", f"{OWN} {there['locust']['east-a']['line']} --headless --users 2 2>&1")
    driven = f"""
      testbed apply testbed/scenarios/zone-outage.yaml {sets(*BY_HAND, "spec.services.orders.replicas=1")}
      until {{ testbed logs orders-1; testbed logs orders-2; }} 2>&1 | grep ENVOY_SIGTERM; do sleep 0.1; done
      echo '{{name: gone, crash: {{zone: east-a}}}}' | testbed inject -
      testbed heal gone
      until grep --quiet '"/mine"' {there["run_dir"]}/logs/east-a.requests.jsonl; do sleep 0.1; done
      testbed down
    """
    said = typed(cluster, "m1", driven)
    guest.communicate(timeout=RUN_TIMEOUT_S)
    assert "gone: hit east-a-1" in said
    assert "apply: all is as declared" in said
    assert "caught ENVOY_SIGTERM" in said, "of the pod that is gone"
    result = result_of(cluster, before)
    assert f"results in /root/runs/{result.run_dir.name}" in said, said
    paths = {row["path"] for row in result.rows("requests")}
    assert {"/", "/mine"} <= paths
    assert [fault["name"] for fault in result.summary["faults"]] == ["gone", "apply"]
    assert result.summary["requests"]["sent"] == result.summary["locust"]["requests"]


def test_a_killed_command_leaves_nothing_on_any_machine(cluster: Cluster) -> None:
    running = cluster.start("m1", up_command("--load"))
    wait_for_line(running, "sending load")
    assert what_runs(cluster, "m2") != "0"
    cluster.run("m1", "pkill -9 -f '[t]estbed up'")
    running.communicate(timeout=RUN_TIMEOUT_S)
    assert until(lambda: [what_runs(cluster, machine) for machine in ("m1", "m2", "m3", "m4")] == ["0"] * 4)
    assert "zone-outage is gone: its process" in cluster.run("m1", "testbed status")[1]


def test_a_machine_powered_off_by_a_fault_is_measured_and_one_that_dies_unasked_ends_the_run_with_what_there_is(
    cluster: Cluster,
) -> None:
    before = cluster.run_dirs()
    fault = "spec.faults=[{name: m4-dies, at: 4s, machine: m4, powerOff: {}}]"
    # The other run is with an actor for every pod, this one with pods hosted by their nodes.
    hosted = "--address auto --hosting node"
    running = cluster.start("m1", run_command(*LOAD, "spec.load.duration=60s", fault, options=hosted))
    seen = wait_for_line(running, "m4-dies: applied")
    # East-a's clients send 40 a second.
    assert until(lambda: recorded_at_home(cluster, before, "east-a") > 40 * 12)
    cluster.lab("kill", "m3")
    output, _ = running.communicate(timeout=RUN_TIMEOUT_S)
    assert running.returncode == 3, seen + output
    assert "machine m3 was lost" in output
    result = result_of(cluster, before)
    summary = result.summary
    assert summary["verdict"] == "invalid"
    lost = [reason for reason in summary["invalid_reasons"] if "was lost" in reason]
    assert len(lost) == 1
    assert "machine m3 was lost" in lost[0]
    machines = {machine["name"]: machine for machine in summary["machines"]}
    off, died = machines["m4"], machines["m3"]
    (impact,) = summary["faults"]
    assert (off["powered_off"], died["powered_off"]) == (True, False)
    assert 4.0 <= impact["applied_s"] == off["lost_s"] < 8.0
    assert impact["control_path"]["detected_s"] is not None
    sent = result.rows("requests")
    ended = max(row["sent_s"] for row in sent if row["origin_zone"] == "east-c")
    # Records come home twice a second, and later from a machine that is busy.
    assert off["lost_s"] - 3.0 < ended < off["lost_s"] + 0.5
    others = [
        row
        for row in sent
        if row["origin_zone"] != "east-c" and ended + 4.0 < row["intended_s"] < died["lost_s"] - LONGEST_REQUEST_S
    ]
    assert len(others) > 50, (ended, died)
    assert {load["zone"]: load["machine"] for load in summary["missing_load"]} == {"east-b": "m3", "east-c": "m4"}
    assert sum(row["outcome"] == "ok" for row in others) > 0.9 * len(others)


@pytest.mark.soak
def test_a_head_that_dies_leaves_a_partial_result_where_the_run_was_started(cluster: Cluster) -> None:
    one_zone = (
        "spec.topology.regions.east.zones={east-a: {nodes: 1}}",
        "spec.load.sources=[{zone: east-a, rate: 40/s}]",
        "spec.services.orders.zones=[]",
        "spec.faults=[]",
    )
    options = f"--address {cluster.address('m1')}:6379"
    # `ray up` does not wait for workers.
    assert until(lambda: cluster.run("m2", "pgrep raylet && ls testbed/scenarios/zone-outage.yaml")[0] == 0)
    running = cluster.start("m2", run_command(*LOAD, *one_zone, "spec.load.duration=60s", machines=2, options=options))
    seen = wait_for_line(running, "sending load")
    cluster.lab("kill", "m1")
    output, _ = running.communicate(timeout=RUN_TIMEOUT_S)
    assert running.returncode == 3, seen + output
    summary = result_of(cluster, [], "m2").summary
    assert summary["requests"]["sent"] > 100
    assert summary["hops"]["calls"] > 100
    assert any("machine m1 was lost" in reason for reason in summary["invalid_reasons"])
    assert until(lambda: what_runs(cluster, "m2") == "0")
