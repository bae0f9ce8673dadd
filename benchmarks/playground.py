"""How soon the playground is there, and how soon a move of its slider is a new decision.

    python -m benchmarks.playground

Both are read from the page itself, in a real Chromium: its first contentful paint, each time with an empty cache, and
from the slider's event to the frame after the one in which the new decision stands. Each move changes the model, and
each decision is the dispatcher's own, with a prediction of the scorer.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

from playwright.sync_api import Browser, Page

from benchmarks import machine
from tests.browsers import chromium
from tests.playgrounds import playground
from tests.processes import eventually

FIRST_PAINT_MS = 2000
DECISION_MS = 200

_PAINT = "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)"
_MOVES = "performance.getEntriesByName('slider to decision').map(entry => entry.duration)"


def main(argv: Sequence[str]) -> int:
    """Measure and print; returns the exit code: 1 without a browser, whether or not the targets are met."""
    parser = argparse.ArgumentParser(description="First paint, and slider to decision, of the playground.")
    parser.add_argument("--loads", type=int, default=10)
    parser.add_argument("--moves", type=int, default=50)
    given = parser.parse_args(argv)
    try:
        with chromium() as browser, playground() as url:
            paints = [_first_paint(browser, url) for _ in range(given.loads)]
            moves = _moves(browser, url, given.moves)
    except LookupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{machine.description()}; load average {machine.load():.1f} at the end")
    _report("first paint", paints, FIRST_PAINT_MS)
    _report("slider to decision", moves, DECISION_MS)
    return 0


def _first_paint(browser: Browser, url: str) -> float:
    page = _opened(browser, url)
    [paint] = _measured(page, _PAINT, 1)
    page.context.close()
    return paint


def _moves(browser: Browser, url: str, count: int) -> list[float]:
    page = _opened(browser, url)
    measured: list[float] = []
    slider = page.get_by_label("Cost threshold α")
    for number in range(count):
        slider.press("Home" if number % 2 else "End")
        measured = _measured(page, _MOVES, number + 1)
    page.context.close()
    return measured


def _measured(page: Page, what: str, count: int) -> list[float]:
    """The page's measurements once there are `count` of them."""
    # Asked from here: the page's content security policy lets nobody wait inside it.
    for _ in eventually():
        found: list[float] = page.evaluate(what)
        if len(found) == count:
            return found
    raise AssertionError  # `eventually` raises


def _opened(browser: Browser, url: str) -> Page:
    """The page in a context of its own, with its first decision."""
    page = browser.new_context().new_page()
    page.goto(url)
    page.wait_for_selector("#decision[data-tier]")
    return page


def _report(what: str, milliseconds: Sequence[float], target: float) -> None:
    median, longest = statistics.median(milliseconds), max(milliseconds)
    met = "yes" if longest <= target else "no"
    print(
        f"{what:<20} median {median:6.1f} ms  longest {longest:6.1f} ms  of {len(milliseconds):>3}  "
        f"to reach ≤ {target} ms: {met}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
