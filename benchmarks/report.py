"""What is left to do when a long run has ended: raw records and logs -> tables, analysis and page.

The records are made up, in the forms and the number of ten minutes at 2,000 requests/s; everything after them is the
real path. `python -m benchmarks.report DIR [SECONDS]` keeps the folder, to look into it or to profile.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil

from benchmarks.row import Row
from benchmarks.testbed_run import temporary_folder
from testbed.control.dry_run import DryRun
from testbed.emulation.actors.reports import Push, Recorded
from testbed.emulation.driver.cluster import ClusterRecords
from testbed.emulation.driver.recording import record
from testbed.emulation.processes.sampler import MachineSample
from testbed.network.addresses.loopback import LoopbackNetwork
from testbed.network.links import LinkSample
from testbed.results.show.summarize import summarize
from testbed.results.tables.facts import AppliedFault, LocustCount, RunFacts
from testbed.results.tables.schemas import SCHEMAS, Clock
from testbed.scenario import Scenario, load_scenario

SCENARIO = Path(__file__).parent / "report.yaml"
SECONDS = 600
RATE_PER_S = 2000
FAULT_S, HEAL_S, SUFFERED_S = 0.3, 0.5, 0.004
"""As shares of the run: a zone is lost, comes back, and clients suffer for the first part of that."""
CLOCK = Clock(t0_monotonic_s=600.0, epoch_minus_monotonic_s=1_795_750_000.0)
MEMORY_PERIOD_S = 0.05
_ZONES = ("east-a", "east-b", "east-c")


@dataclass(frozen=True, slots=True)
class Measured:
    tables_s: float
    summary_s: float
    memory_bytes: int
    """The largest sum of what the processes of the report had for themselves."""
    page_bytes: int


def measure() -> Iterator[Row]:
    folder = temporary_folder() / "run"
    requests, hops = write_logs(folder, SECONDS)
    found = measured(folder)
    size = f"{requests / 1e6:.1f} M requests, {hops / 1e6:.1f} M hops"
    parts = f"tables {found.tables_s:.1f} s, analysis and page {found.summary_s:.1f} s"
    yield Row(f"report of {size}", f"{found.tables_s + found.summary_s:.1f} s", parts, "", "<= 40 s")
    yield Row("its memory", f"{found.memory_bytes / 2**30:.2f} GiB", "", "", "<= 2 GiB")
    yield Row("its page", f"{found.page_bytes / 1e6:.2f} MB", "", "", "<= 3 MB")


def measured(folder: Path) -> Measured:
    """In a process of its own, so that its memory is what it takes."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_report, args=(folder, theirs))
    process.start()
    most = 0
    while not ours.poll(MEMORY_PERIOD_S):
        if not process.is_alive():
            raise RuntimeError(f"the report of {folder} ended with code {process.exitcode}")
        most = max(most, _memory_bytes(process.pid))
    tables_s, summary_s = ours.recv()
    process.join()
    return Measured(tables_s, summary_s, most, (folder / "report.html").stat().st_size)


def _memory_bytes(pid: int | None) -> int:
    found = 0
    try:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            found += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return found


def _report(folder: Path, answer: multiprocessing.connection.Connection) -> None:
    scenario = load_scenario(SCENARIO)
    records, samples = _records(scenario, (folder / "seconds").read_text())
    began_s = time.perf_counter()
    written = record(folder, CLOCK, lambda _: CLOCK, scenario.topology, records, samples)
    assert not written.unread, f"lines of the made-up logs are in no table: {written.unread}"
    tables_s = time.perf_counter() - began_s
    _facts(scenario, folder).save(folder)
    began_s = time.perf_counter()
    summary = summarize(folder)
    answer.send((tables_s, time.perf_counter() - began_s))
    assert summary.valid, summary.invalid_reasons


# --- what a run would have left -------------------------------------------------------------------------------------


def write_logs(folder: Path, seconds: int) -> tuple[int, int]:
    """A new folder with the raw records of a run; returns how many requests and hops it has."""
    shutil.rmtree(folder, ignore_errors=True)
    logs = folder / "logs"
    logs.mkdir(parents=True)
    (folder / "seconds").write_text(str(seconds))
    with _Logs(logs) as written:
        random = Random(1)
        number = seconds * RATE_PER_S
        for index in range(number):
            _one_request(written, random, index, number)
        (folder / "counts").write_text(
            "\n".join(f"{zone} {written.sent[zone]} {written.lost[zone]}" for zone in _ZONES)
        )
        return number, written.hops


class _Logs:
    """The files of all clients and proxies."""

    def __init__(self, logs: Path) -> None:
        self._files = {zone: (logs / f"{zone}.requests.jsonl").open("w", buffering=1 << 20) for zone in _ZONES}
        for number, zone in enumerate(_ZONES, start=1):
            for pod in (f"gateway-{zone}-1", f"web-{number}", f"orders-{number}"):
                self._files[pod] = (logs / f"{pod}.access.jsonl").open("w", buffering=1 << 20)
        self.addresses = _addresses()
        self.sent = dict.fromkeys(_ZONES, 0)
        self.lost = dict.fromkeys(_ZONES, 0)
        self.hops = 0

    def __enter__(self) -> _Logs:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def client(self, zone: str, line: str) -> None:
        self._files[zone].write(line)

    def call(
        self, kind: str, pod: str, peer: str, cluster: str, host: str, request_id: str, start_s: float, ms: float
    ) -> None:
        self.hops += 1
        sent_bytes = 2000 if "orders" in (cluster[-6:], pod[:6]) else 0
        self._files[pod].write(
            f'{{"attempts":1,"bytes_received":0,"bytes_sent":{sent_bytes},"duration_ms":{int(ms)},'
            f'"duration_us":{int(ms * 1e3)},"flags":"-","kind":"{kind}","peer":"{peer}","pod":"{pod}",'
            f'"request_bytes":310,"request_id":"{request_id}","response_bytes":{sent_bytes + 78},'
            f'"start":"{_epoch(start_s)}","status":200,"upstream_cluster":"{cluster}","upstream_host":"{host}"}}\n'
        )

    def failed_try(self, pod: str, cluster: str, host: str, request_id: str, start_s: float) -> None:
        self._files[pod].write(
            f'{{"duration_ms":500,"flags":"UF","kind":"attempt","pod":"{pod}","request_id":"{request_id}",'
            f'"start":"{_epoch(start_s)}","status":503,"upstream_cluster":"{cluster}","upstream_host":"{host}"}}\n'
        )


def _one_request(logs: _Logs, random: Random, index: int, number: int) -> None:
    zone_number = index % 3
    zone = _ZONES[zone_number]
    digits = f"{random.getrandbits(128):032x}"
    request_id = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
    intended_s, took_s = index / RATE_PER_S, 0.004 + random.random() * 0.004
    at = index / number
    dead = zone == "east-a" and FAULT_S <= at < HEAL_S
    lost = dead and at < FAULT_S + SUFFERED_S
    orders = index // 3 % 3 != 1
    path = "/orders" if orders else "/"
    from_s = CLOCK.t0_monotonic_s + intended_s
    logs.sent[zone] += 1
    logs.client(
        zone,
        f'{{"e":"s","id":"{request_id}","t":"GET","u":"{path}","n":"GET {path}","i":{from_s!r},'
        f'"s":{from_s + 2e-4!r},"z":"{"east-b" if dead and not lost else zone}"}}\n',
    )
    if lost:
        logs.lost[zone] += 1
        logs.client(
            zone,
            f'{{"e":"f","id":"{request_id}","f":{from_s + 3.0!r},"c":null,"o":"unknown","m":"timed out","a":null,'
            f'"b":null,"p":null}}\n',
        )
        return
    server = zone_number + 1 + dead
    gateway, web, order = f"gateway-{_ZONES[server - 1]}-1", f"web-{server}", f"orders-{server}"
    to_web, to_orders = (f"{logs.addresses[pod]}:15006" for pod in (web, order))
    if index % 997 == 0:
        logs.failed_try(gateway, "outbound|80||web", to_web, request_id, intended_s + 3e-4)
    logs.call("gateway", gateway, gateway, "outbound|80||web", to_web, request_id, intended_s + 3e-4, took_s * 900)
    if orders:
        logs.call("outbound", web, web, "outbound|80||orders", to_orders, request_id, intended_s + 1e-3, took_s * 500)
        inside = f"{logs.addresses[order]}:8080"
        logs.call("inbound", order, web, "inbound|8080||", inside, request_id, intended_s + 1.2e-3, took_s * 400)
    inside = f"{logs.addresses[web]}:8080"
    logs.call("inbound", web, gateway, "inbound|8080||", inside, request_id, intended_s + 6e-4, took_s * 800)
    logs.client(
        zone,
        f'{{"e":"f","id":"{request_id}","f":{from_s + took_s!r},"c":200,"o":"ok","m":null,"a":0,"b":0,"p":null}}\n',
    )


def _epoch(t_s: float) -> str:
    return f"{t_s + CLOCK.t0_monotonic_s + CLOCK.epoch_minus_monotonic_s:.6f}"


def _pods(scenario: Scenario) -> DryRun:
    network = LoopbackNetwork(1, [place.name for place in scenario.topology.places])
    return DryRun(scenario.cluster, network.allocate_pod, network.relay_listener)


def _addresses() -> dict[str, str]:
    found = {}
    for pod in _pods(load_scenario(SCENARIO)).pods():
        assert pod.address is not None
        found[pod.name] = pod.address.app.ip
    return found


def _records(scenario: Scenario, seconds: str) -> tuple[ClusterRecords, list[MachineSample]]:
    t0_s, last_s = CLOCK.t0_monotonic_s, int(seconds)
    pods = tuple((pod, t0_s - 5.0) for pod in _pods(scenario).pods())
    places = [place.name for place in scenario.topology.places]
    links = [
        LinkSample(t0_s + second, source, destination, 1.0, 1.0, 1.1, 1.3, 20_000, 0)
        for second in range(last_s)
        for source in places
        for destination in places
        if source != destination
    ]
    events = [
        Recorded(t0_s + second, "control-plane", "EndpointSlice", "web", "EndpointsChanged", {})
        for second in range(0, last_s, 2)
    ]
    pushes = [
        Push(pod.name, "", f"type.googleapis.com/{kind}", str(second), t0_s + second, acked_s=t0_s + second + 0.01)
        for second in range(0, last_s, 2)
        for pod, _ in pods
        for kind in ("Cluster", "ClusterLoadAssignment")
    ]
    samples = [MachineSample(t0_s + half / 2, "machine", 40.0, 4 << 30, half, 0.1) for half in range(-4, 2 * last_s)]
    return ClusterRecords(events, pushes, links, pods), samples


def _facts(scenario: Scenario, folder: Path) -> RunFacts:
    seconds = float((folder / "seconds").read_text())
    counts = [line.split() for line in (folder / "counts").read_text().splitlines()]
    return RunFacts(
        name=scenario.name,
        seed=1,
        profile="fast",
        warmup_s=5.0,
        end_s=seconds,
        ready_s=8.0,
        sources=scenario.load.sources,
        faults=(AppliedFault("lose-east-a", FAULT_S * seconds, FAULT_S * seconds, HEAL_S * seconds),),
        expectations=scenario.expectations,
        prices=scenario.prices,
        locust={zone: LocustCount(int(sent), int(lost)) for zone, sent, lost in counts},
    )


def main() -> None:
    folder = Path(sys.argv[1])
    if not (folder / "logs").is_dir():
        write_logs(folder, int(sys.argv[2]) if len(sys.argv) > 2 else SECONDS)
    for table in SCHEMAS:
        shutil.rmtree(folder / table, ignore_errors=True)
    print(measured(folder))


if __name__ == "__main__":
    main()
