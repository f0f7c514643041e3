"""`report.html` in the browser that Debian has: it renders, complains of nothing, and fits a desk and a telephone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.results.show.summarize import summarize
from tests.browser import CHROMIUM, Browser, chromium
from tests.results.compared import compared

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")

TOO_WIDE = """
[...document.querySelectorAll("main *, header *")].filter(each => {
  const box = each.getBoundingClientRect();
  return box.width && box.right > innerWidth + 1 && !each.closest(".scroll");
}).map(each => each.outerHTML.slice(0, 120))
"""
OPEN_ALL = "document.querySelectorAll('details').forEach(each => each.open = true)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def test_the_page_renders_without_complaint_and_fits_every_width(run_dir: Path, browser: Browser) -> None:
    summarize(run_dir)
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            browser.open(run_dir / "report.html", width, scheme=scheme)  # type: ignore[arg-type]
            for unfold in ("0", OPEN_ALL):
                browser.evaluate(unfold)
                assert browser.evaluate("document.documentElement.scrollWidth") == width
                assert browser.evaluate(TOO_WIDE) == []
            dark = browser.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
            assert dark == (scheme == "dark")
    assert browser.complaints == []


def test_pointing_at_a_plot_shows_its_figures_and_a_search_finds_events(run_dir: Path, browser: Browser) -> None:
    summarize(run_dir)
    browser.open(run_dir / "report.html", 1280)
    browser.evaluate("document.querySelector('#course-plots .chart:not(.lanes)').scrollIntoView({block: 'center'})")
    browser.settle()
    where = "document.querySelector('#course-plots .chart:not(.lanes) svg.plot').getBoundingClientRect()"
    x, y = browser.evaluate(f"(box => [box.left + box.width * 6.3 / 18, box.top + 30])({where})")
    browser.point_at(x, y)
    shown = browser.evaluate("tip.hidden ? '' : tip.textContent")
    assert shown.splitlines()[0] == "6 to 6.5 s"
    assert shown.splitlines()[1:3] == ["150.0 requests/s, 66.67 % ok", "13 failed, 12 unknown"]
    browser.evaluate("filter.value = 'notready'; filter.dispatchEvent(new Event('input'))")
    assert browser.evaluate("filtered.textContent") == "1 of 6"
    assert browser.complaints == []


def test_a_comparison_renders_without_complaint_and_fits_every_width(tmp_path: Path, browser: Browser) -> None:
    page = compared(tmp_path)
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            browser.open(page, width, scheme=scheme)  # type: ignore[arg-type]
            for unfold in ("0", OPEN_ALL):
                browser.evaluate(unfold)
                assert browser.evaluate("document.documentElement.scrollWidth") == width
                assert browser.evaluate(TOO_WIDE) == []
    browser.open(page, 1280)
    browser.evaluate("document.querySelector('circle.run').scrollIntoView({block: 'center'})")
    browser.settle()
    where = "document.querySelector('circle.run').getBoundingClientRect()"
    browser.point_at(*browser.evaluate(f"(box => [box.left + box.width / 2, box.top + box.height / 2])({where})"))
    assert browser.evaluate("tip.textContent") in ("A: 2.22 s", "median of A: 2.26 s")
    assert browser.evaluate("document.querySelectorAll('img, b.evil').length") == 0
    assert "<img src=x" in browser.evaluate("document.querySelector('#left-out').textContent")
    assert browser.complaints == []
