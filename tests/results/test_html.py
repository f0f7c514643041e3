"""`report.html` as text: what is in it, what in it is shown and not run, and how large it can become."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from testbed.cli import app
from testbed.results.measure.phases import Phase
from testbed.results.show.figures import seconds
from testbed.results.show.html import counted
from testbed.results.show.html.svg import Linear, Log, tag
from testbed.results.show.summarize import summarize
from testbed.results.tables.columns import Requests
from testbed.results.tables.facts import AppliedFault, RunFacts
from testbed.results.tables.run import Run
from testbed.results.tables.writer import TableWriter
from testbed.scenario import Expectation
from tests.results.conftest import FACTS, write_run

SECTIONS = ("verdict", "map", "course", "recovery", "zones", "latency", "pushes", "links", "validity", "events")
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"
MOST_BYTES = 3_000_000
_VOID = {"meta", "br", "input"}


class Page(HTMLParser):
    """The elements of a page; fails where they are not closed in the order in which they were opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.text += data

    def titled(self, class_: str) -> int:
        return sum(class_ in (attributes.get("class") or "").split() for _, attributes in self.elements)


def report(run_dir: Path) -> Page:
    summarize(run_dir)
    return Page((run_dir / "report.html").read_text())


def test_every_section_is_there_with_its_pictures_its_tables_and_its_definition(run_dir: Path) -> None:
    page, summary = report(run_dir), summarize(run_dir)
    ids = [attributes["id"] for name, attributes in page.elements if name == "section"]
    assert tuple(ids) == SECTIONS
    html = (run_dir / "report.html").read_text()
    for part, section in zip(SECTIONS, html.split("<section ")[1:], strict=True):
        assert "How it is measured" in section, part
        assert part == "links" or "<table" in section, part
    for picture in ("map", "chart", "bars", "heat", "line"):
        assert page.titled(picture), picture
    text = " ".join(page.text.split())
    for figure in (
        "98.333%",
        "timed out",
        "lose-east-a",
        seconds(summary.faults[0].time_to_recover_s),
        "2,700",
        "NodeNotReady",
    ):
        assert figure in text


def test_it_fetches_nothing_and_runs_nothing_but_its_own_script(run_dir: Path) -> None:
    page = report(run_dir)
    for name, attributes in page.elements:
        assert not {"src", "srcset", "action", "data", "poster"} & attributes.keys(), name
        assert not [key for key in attributes if key.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
        assert name not in ("link", "iframe", "object", "embed", "image", "use")
    policy = next(attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes)
    assert policy is not None
    assert re.fullmatch(
        r"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-[A-Za-z0-9+/]{43}='", policy
    )
    assert "url(" not in (run_dir / "report.html").read_text()


def test_markup_in_names_and_errors_is_shown_and_not_run(tmp_path: Path) -> None:
    faults = (AppliedFault(MARKUP, 6.0, 6.001, 12.0, victims=(MARKUP,)),)
    expectation = Expectation("success_rate", "all", None, None, 0.9, None, MARKUP)
    facts = replace(FACTS, name=MARKUP, profile=MARKUP, faults=faults, expectations=(expectation,), broken=MARKUP)
    run_dir = write_run(tmp_path / "run", facts)
    plain = len(Page(report_of(write_run(tmp_path / "plain"))).elements)
    with TableWriter(run_dir, "requests", "more") as requests:
        row = {"origin_zone": MARKUP, "entry_zone": MARKUP, "outcome": "failed", "error": MARKUP}
        requests.append({"request_id": "m", "intended_s": 3.0, "sent_s": 3.0, "finished_s": 3.1, **row})
    with TableWriter(run_dir, "hops", "more") as hops:
        ends = {"source_zone": MARKUP, "destination_zone": MARKUP, "source_cell": MARKUP, "destination_cell": MARKUP}
        hops.append({"request_id": "m", "direction": "outbound", "start_s": 3.0, "destination_node": MARKUP, **ends})
    with TableWriter(run_dir, "events", "more") as events:
        names = dict.fromkeys(("source", "kind", "object", "reason", "details"), MARKUP)
        events.append({"t_s": 3.0, **names})
    with TableWriter(run_dir, "pushes", "more") as pushes:
        pushes.append({"proxy": MARKUP, "type": MARKUP, "version": MARKUP, "sent_s": 3.0, "error": MARKUP})
        pushes.append({"proxy": MARKUP, "type": MARKUP, "version": MARKUP, "sent_s": 3.0, "acked_s": 3.5})
    with TableWriter(run_dir, "links", "more") as links:
        times = {"declared_ms": 1.0, "expected_p50_ms": 1.0, "achieved_p50_ms": 1.1, "achieved_p99_ms": 2.0}
        links.append({"second_s": 1.0, "source": MARKUP, "destination": MARKUP, "bytes": 1, "dropped": 0, **times})
    with TableWriter(run_dir, "pods", "more") as pods:
        pods.append(dict.fromkeys(("pod", "service", "node", "zone", "region", "cell"), MARKUP))
    with TableWriter(run_dir, "machines", "more") as machines:
        machines.append({"t_s": 1.0, "machine": MARKUP, "cpu_percent": 1.0, "lateness_ms": 0.1})
    html = report_of(run_dir)
    page = Page(html)
    scripts = [attributes for name, attributes in page.elements if name == "script"]
    assert scripts == [{"type": "application/json", "id": "course-data"}, {}]
    assert "img" not in [name for name, _ in page.elements]
    assert "<script>alert" not in html
    assert page.text.count("<script>alert(1)</script>") > 30
    assert len(page.elements) > plain


def report_of(run_dir: Path) -> str:
    summarize(run_dir)
    return (run_dir / "report.html").read_text()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(FACTS, faults=()), "Nothing was broken in this run."),
        (replace(FACTS, interrupted=True, end_s=7.0), "The run was interrupted"),
        (replace(FACTS, expectations=()), "The scenario expects nothing."),
        (replace(FACTS, faults=(AppliedFault("kill", 6.0, 6.0, instant=True),)), "kill"),
        (replace(FACTS, faults=(AppliedFault("late", 17.9, 17.9, 30.0),)), "late"),
        (replace(FACTS, warmup_s=18.0, faults=()), "The warm-up lasts until 18.00 s."),
    ],
    ids=["no faults", "interrupted", "no expectations", "an instant", "healed after the load", "all of it warm-up"],
)
def test_runs_that_lack_something_have_a_page_that_says_so(tmp_path: Path, facts: RunFacts, said: str) -> None:
    assert said in report(write_run(tmp_path / "run", facts)).text


def test_a_run_that_left_nothing_but_facts_has_a_page(tmp_path: Path) -> None:
    RunFacts("empty", 0, "fast", 1.0, 0.0, 0.0, interrupted=True).save(tmp_path)
    text = report(tmp_path).text
    for line in (
        "No calls were recorded.",
        "No requests were recorded.",
        "No request was ok.",
        "No events were recorded",
    ):
        assert line in text


def test_a_run_without_an_ok_request_has_no_latencies(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", replace(FACTS, faults=()))
    for file in (run_dir / "requests").iterdir():
        file.unlink()
    with TableWriter(run_dir, "requests", "all") as requests:
        for number in range(100):
            row = {"request_id": str(number), "origin_zone": "east-a", "outcome": "failed", "error": "refused"}
            requests.append({**row, "intended_s": number / 10, "sent_s": number / 10, "finished_s": None})
    page = report(run_dir)
    assert "No request was ok." in page.text
    assert page.titled("area")


def test_a_damaged_folder_gets_no_page(run_dir: Path) -> None:
    file = run_dir / "pushes" / "control-plane.parquet"
    file.write_bytes(file.read_bytes()[:100])
    result = CliRunner().invoke(app, ["report", str(run_dir)])
    assert result.exit_code == 2
    assert not (run_dir / "report.html").exists()


def test_the_page_is_made_again_by_the_report(run_dir: Path) -> None:
    first = report_of(run_dir)
    (run_dir / "report.html").unlink()
    assert CliRunner().invoke(app, ["report", str(run_dir)]).exit_code == 0
    assert (run_dir / "report.html").read_text() == first


def test_a_page_that_cannot_be_written_is_said(run_dir: Path) -> None:
    (run_dir / "report.html").mkdir()
    result = CliRunner().invoke(app, ["report", str(run_dir)])
    assert result.exit_code == 2
    assert result.stderr == f"{run_dir / 'report.html'}: cannot be written: Is a directory\n"


def test_no_run_makes_the_page_large(tmp_path: Path) -> None:
    faults = tuple(
        AppliedFault(f"{'f' * 400}-{number}", 100.0 * number + 50, 100.0 * number + 50, 100.0 * number + 60)
        for number in range(60)
    )
    expectations = tuple(Expectation("success_rate", "all", None, None, 0.9, None, "e" * 5000) for _ in range(20))
    facts = replace(FACTS, end_s=7200.0, faults=faults, expectations=expectations)
    run_dir = write_run(tmp_path / "run", facts)
    zones = [f"zone-{'z' * 50}-{number}" for number in range(60)]
    with TableWriter(run_dir, "hops", "more") as hops:
        for second in range(0, 7200, 50):
            for number in range(45):
                a, b = zones[(second // 50 + number) % 60], zones[(second // 50 * 7 + number * 13) % 60]
                hops.append(
                    {"direction": "outbound", "start_s": float(second), "source_zone": a, "destination_zone": b}
                )
    with TableWriter(run_dir, "requests", "more") as requests:
        for number in range(7200):
            row = {"request_id": f"r{number}", "origin_zone": zones[number % 60], "entry_zone": zones[number % 59]}
            error = f"{number}: " + "x" * 2000
            requests.append({**row, "intended_s": float(number), "outcome": "failed", "error": error})
    with TableWriter(run_dir, "events", "more") as events:
        for number in range(5000):
            names = dict.fromkeys(("source", "kind", "object", "reason"), "n" * 300)
            events.append({"t_s": float(number), **names, "details": "<" * 2000})
    with TableWriter(run_dir, "links", "more") as links:
        for number in range(2000):
            row = {"second_s": 1.0, "source": zones[number % 60], "destination": f"{'d' * 60}-{number}"}
            times = {"declared_ms": 1.0, "expected_p50_ms": 1.0, "achieved_p50_ms": 1.5, "achieved_p99_ms": 2.0}
            links.append({**row, **times, "bytes": 1, "dropped": 0})
    with TableWriter(run_dir, "pods", "more") as pods:
        for number in range(1000):
            row = {"pod": f"p{number}", "service": "web", "node": f"node-{number}", "zone": zones[number % 60]}
            pods.append({**row, "region": f"region-{number % 60 // 4}", "cell": "", "started_s": 0.0})
    assert len(report_of(run_dir).encode()) < MOST_BYTES


def test_the_course_counts_every_request_once_and_agrees_with_the_summary(run_dir: Path) -> None:
    run, summary = Run.read(run_dir), summarize(run_dir)
    course = counted.course(Requests.of(run.requests, run.facts.faults), run.facts.end_s)
    for outcome in ("sent", "ok", "failed", "unknown"):
        assert sum(getattr(each, outcome) for each in course.bins) == getattr(summary.requests, outcome)
    assert course.width_s == 0.5
    quiet = course.bins[8]
    assert quiet.sent == 75
    assert (quiet.p50_ms, quiet.p99_ms) == (pytest.approx(3.4, abs=0.11), pytest.approx(3.9))


def test_traffic_agrees_with_the_matrix_and_names_what_failed(run_dir: Path) -> None:
    with TableWriter(run_dir, "attempts", "more") as attempts:
        attempts.append({"start_s": 7.0, "source_zone": "east-b", "destination_zone": "east-b"})
    run, summary = Run.read(run_dir), summarize(run_dir)
    requests = Requests.of(run.requests, run.facts.faults)
    found = counted.traffic(run, requests, [phase for phase in summary.phases if phase.name != "warmup"])
    for each in found:
        matrix: dict[str, dict[str, int]] = {}
        for flow in sorted(each.calls, key=lambda flow: (flow.source, flow.destination)):
            matrix.setdefault(flow.source, {})[flow.destination] = flow.calls
        assert matrix == summary.call_matrix_by_phase[each.phase.name]
    during = next(each for each in found if each.phase.name == "during lose-east-a")
    assert [(flow.source, flow.failed_tries) for flow in during.calls if flow.failed_tries] == [("east-b", 1)]
    entries = {(flow.source, flow.destination): flow for flow in during.entries}
    assert (entries["east-a", "east-a"].calls, entries["east-a", "east-a"].failed) == (40, 40)
    assert entries["east-a", "east-b"].failed == 0
    assert during.calls_by_node["east-b-1"] > 0


def test_a_call_without_an_answer_or_with_a_server_error_failed(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run")
    with TableWriter(run_dir, "hops", "more") as hops:
        for status in (None, 200, 404, 499, 500, 503):
            row = {"direction": "outbound", "start_s": 3.0, "source_zone": "x", "destination_zone": "y"}
            hops.append({**row, "status": status})
    run = Run.read(run_dir)
    (found,) = counted.traffic(run, Requests.of(run.requests), [Phase("steady", 2.0, 6.0)])
    (flow,) = [flow for flow in found.calls if flow.source == "x"]
    assert (flow.calls, flow.failed) == (6, 3)


def test_percentiles_rise_and_end_at_the_slowest(run_dir: Path) -> None:
    run = Run.read(run_dir)
    requests = Requests.of(run.requests, run.facts.faults)
    (found,) = counted.percentiles(requests, [Phase("steady", 2.0, 6.0)])
    shares, values = zip(*found.points, strict=True)
    assert list(shares) == sorted(shares)
    assert list(values) == sorted(values)
    assert values[0] == pytest.approx(3.0)
    assert shares[-1] == pytest.approx(1 - 1 / found.requests)


def test_the_slowest_acks_are_those_since_the_load_began_where_there_were_any(run_dir: Path) -> None:
    with TableWriter(run_dir, "pushes", "more") as pushes:
        row = {"type": "a.b.Cluster", "version": "1"}
        pushes.append({**row, "proxy": "early", "sent_s": -5.0, "acked_s": -1.0})
        pushes.append({**row, "proxy": "dead", "sent_s": 7.0})
        pushes.append({**row, "proxy": "slow", "sent_s": 7.0, "acked_s": 8.0})
    found = counted.deliveries(Run.read(run_dir).pushes, 2)
    assert (found.pushes, found.acked, found.before_load) == (8, 7, False)
    assert [(each.proxy, each.type, each.took_ms) for each in found.slowest[:1]] == [("slow", "Cluster", 1000.0)]
    assert [each.proxy for each in found.unacked] == ["dead"]


def test_links_are_medians_of_their_seconds_the_furthest_off_first(run_dir: Path) -> None:
    with TableWriter(run_dir, "links", "more") as links:
        for second, (off_ms, p99_ms) in enumerate(((0.0, 2.0), (0.1, 9.0), (8.0, 3.0))):
            row = {"second_s": float(second), "declared_ms": 1.0, "expected_p50_ms": 1.0, "bytes": 10, "dropped": 1}
            ends = {"achieved_p50_ms": 1.0 + off_ms, "achieved_p99_ms": p99_ms}
            links.append({**row, **ends, "source": "a", "destination": "b"})
            links.append({**row, **ends, "expected_p50_ms": None, "source": "b", "destination": "a"})
        links.append({**row, **ends, "source": "a", "destination": "c"})
    first, second_, third = counted.links(Run.read(run_dir).links)
    assert (first.source, first.destination, first.off_ms) == ("a", "c", 8.0)
    assert (second_.achieved_ms, second_.p99_ms, second_.bytes, second_.dropped) == (1.1, 9.0, 30, 3)
    assert (third.destination, third.expected_ms, third.off_ms) == ("a", None, 0.0)


def test_events_since_the_load_began_come_before_those_of_bring_up(run_dir: Path) -> None:
    events = Run.read(run_dir).events
    assert [each.t_s for each in counted.happenings(events, 5)] == [6.4, 6.41, 6.55, 12.3, 12.6]
    assert [each.t_s for each in counted.happenings(events, 99)] == [-3.0, 6.4, 6.41, 6.55, 12.3, 12.6]


def test_scales_have_round_ticks_and_text_is_escaped() -> None:
    assert Linear(0.0, 40.0).ticks(8) == [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0]
    assert Linear(0.9, 1.0).ticks(4) == pytest.approx([0.9, 0.95, 1.0])
    assert (Log.around([3.0, 700.0]).low, Log.around([3.0, 700.0]).high) == (2.0, 1000.0)
    assert Log.around([]).ticks() == [1.0, 2.0, 5.0, 10.0]
    assert Log(1.0, 100.0).share(10.0) == pytest.approx(0.5)
    assert str(tag("a", "<b>", class_='"', x=1.0)) == '<a class="&#34;" x="1">&lt;b&gt;</a>'
