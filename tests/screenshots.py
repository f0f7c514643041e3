"""Takes the pictures that the docs show, of a report, of the page of a run that goes on and of a comparison (both of
made-up records): `make screenshots RUN=runs/<run>`, with Debian's chromium."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from testbed.results.show.live.run import policy
from testbed.results.show.live.server import PageServer
from testbed.results.show.summarize import summarize
from tests.browser import Browser, chromium
from tests.results.compared import compared
from tests.results.live.feed import Played

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDTH = 1280
PHONE_WIDTH = 390


def _from_to(browser: Browser, first: str, last: str, width: int) -> dict[str, float]:
    """From the top of one section to the end of another."""
    top, bottom = browser.evaluate(
        f"[document.querySelector('{first}').getBoundingClientRect().top + scrollY,"
        f" document.querySelector('{last}').getBoundingClientRect().bottom + scrollY]"
    )
    return {"x": 0, "y": max(0.0, top - 8), "width": width, "height": bottom - top + 16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a result folder")
    run_dir = parser.parse_args().run
    summarize(run_dir)
    IMAGES.mkdir(exist_ok=True)
    # Chromium may still write into its profile when it has ended.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, chromium(Path(profile)) as browser:
        for name, scheme, width, first, last in (
            ("report-light", "light", WIDTH, "#map", "#recovery"),
            ("report-dark", "dark", WIDTH, "#latency", "#pushes"),
            ("report-phone", "light", PHONE_WIDTH, "#course", "#recovery"),
        ):
            browser.open(run_dir / "report.html", width, scheme=scheme)  # type: ignore[arg-type]
            _keep(name, browser.screenshot(_from_to(browser, first, last, width)))
        _keep("live", _live(browser))
        _keep("comparison", _comparison(browser))


def _comparison(browser: Browser) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        browser.open(compared(Path(folder)), WIDTH)
        return browser.screenshot(_from_to(browser, "#overview", "#m0 ~ .bars", WIDTH))


def _keep(name: str, picture: bytes) -> None:
    file = IMAGES / f"{name}.png"
    file.write_bytes(picture)
    print(f"{file}: {len(picture) / 1e3:.0f} kB")


def _live(browser: Browser) -> bytes:
    """Soon after clients have found another gateway."""
    with tempfile.TemporaryDirectory() as logs:
        played = Played(Path(logs))
        for second in range(16):
            played.second(second)
        with PageServer(played.live.page(), policy()) as server:
            server.publish(played.live.pieces())
            browser.open(server.url, WIDTH)
            browser.wait_for("document.querySelector('#course svg') !== null")
            return browser.screenshot(_from_to(browser, "header", "#recovery-so-far", WIDTH))


if __name__ == "__main__":
    main()
