"""The page of a run that goes on, in the browser that Debian has: what comes is shown, at any width, until the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.results.show.live.run import policy
from testbed.results.show.live.server import PageServer
from tests.browser import CHROMIUM, Browser, chromium
from tests.results.live.feed import Played
from tests.results.test_html_in_chromium import TOO_WIDE

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
TIME = "document.querySelector('#tiles dd')?.textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def test_what_happens_is_shown_as_it_comes_at_any_width_and_so_is_the_end(tmp_path: Path, browser: Browser) -> None:
    played = Played(tmp_path)
    seconds = iter(range(40))
    with PageServer(played.live.page(), policy()) as server:
        for width, upto in ((1280, 18), (390, 30)):
            server.publish(played.live.pieces())
            browser.open(server.url, width)
            browser.wait_for("document.querySelector('#state .running') !== null")
            for second in seconds:
                played.second(second)
                server.publish(played.live.pieces())
                if second + 1 == upto:
                    break
            browser.wait_for(f"{TIME} === '{upto} s'")
            assert browser.evaluate("document.querySelectorAll('#map svg .flow').length") > 3
            assert browser.evaluate("document.querySelectorAll('#course svg.plot').length") == 4
            assert browser.evaluate("document.querySelectorAll('#recovery rect.entered').length") >= 1
            assert browser.evaluate("document.querySelectorAll('#events tbody tr').length") == 3
            assert browser.evaluate("document.documentElement.scrollWidth") == width
            assert browser.evaluate(TOO_WIDE) == []
        browser.evaluate("document.querySelector('#course .chart:not(.lanes)').scrollIntoView({block: 'center'})")
        browser.settle()
        where = "document.querySelector('#course .chart:not(.lanes) svg.plot').getBoundingClientRect()"
        x, y = browser.evaluate(f"(box => [box.left + box.width * 13.2 / 40, box.top + 30])({where})")
        browser.point_at(x, y)
        assert browser.evaluate("tip.textContent").startswith("13 to 13.5 s\n60.0 requests/s, 66.67 % ok")
        played.live.doing("the run has ended; its report is /runs/x/report.html", "passed")
        server.publish(played.live.pieces())
    browser.wait_for("document.querySelector('#state .passed') !== null")
    assert browser.evaluate("document.getElementById('doing').textContent").endswith("/runs/x/report.html")
    browser.settle()
    assert browser.evaluate("document.getElementById('connection').hidden")
    assert browser.complaints == []


def test_markup_is_text_there_and_no_other_page_can_read_it(tmp_path: Path, browser: Browser) -> None:
    played = Played(tmp_path / "logs")
    played.live.doing("<img src=x onerror='document.title=1'>", "running")
    played.live.applied("<script>document.title=1</script>", 0.5, (), instant=True)
    for second in range(3):
        played.second(second)
    with PageServer(played.live.page(), policy()) as server:
        server.publish(played.live.pieces())
        browser.open(server.url, 1280)
        browser.wait_for("document.querySelector('#recovery rect, #recovery text') !== null")
        assert browser.evaluate("document.title") == "zone-outage: live"
        assert browser.evaluate("document.querySelectorAll('main img, main script').length") == 0
        assert browser.complaints == []
        other = tmp_path / "other.html"
        other.write_text("<title>other</title>")
        browser.open(other, 1280)
        for attempt in (f"fetch('{server.url}')", f"fetch('{server.url}events')"):
            assert browser.evaluate(f"{attempt}.then(() => 'read', () => 'refused')") == "refused"
        browser.complaints.clear()
