"""The README's and docs/playground.md's pictures of the playground, taken again.

    python -m tests.playground_screenshots

Starts the page with everything behind it, uses it as a person would, and writes apps/playground/pictures/*.png.
"""

import io
import sys
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page

from tests.browsers import chromium
from tests.playgrounds import playground
from tests.processes import ROOT

PICTURES = ROOT / "apps" / "playground" / "pictures"
_PROMPTS = ("Write a Python function", "Make this politer", "Find the bug", "Prove that", "Hi! How")
_COMPARED = "What does HTTP status"
_MILLISECONDS = 120_000
_COLOURS = 64


def main() -> int:
    """Take them; returns the exit code."""
    PICTURES.mkdir(exist_ok=True)
    with chromium() as browser, playground() as url:
        wide = _used(browser, url, viewport={"width": 1120, "height": 720})
        _take(wide, "desktop")
        # What is seen first on a telephone, in the dark.
        narrow = _used(browser, url, viewport={"width": 360, "height": 740}, color_scheme="dark", answers=False)
        _take(narrow, "phone")
    for picture in sorted(PICTURES.glob("*.png")):
        sys.stdout.write(f"{picture.relative_to(ROOT)}  {picture.stat().st_size // 1000} kB\n")
    return 0


def _used(browser: Browser, url: str, *, answers: bool = True, **look: Any) -> Page:
    """The page after some use: a session of prompts and, with `answers`, both answers to one and a vote."""
    page = browser.new_context(**look).new_page()
    page.set_default_timeout(_MILLISECONDS)
    page.goto(url)
    page.wait_for_selector("#decision[data-tier]")
    page.get_by_label("Longest answer, in tokens").fill("60")
    page.get_by_role("button", name="Add our sample prompts").click()
    page.wait_for_selector("#sample[aria-disabled=false]")
    for start in (*_PROMPTS, _COMPARED) if answers else ():
        _pick(page, start)
        page.get_by_role("button", name="Ask both models").click()
        page.wait_for_selector("#vote:not([hidden])")
    if answers:
        page.get_by_role("button", name="The strong model's is better").click()
        page.wait_for_selector("button[aria-pressed=true]")
    page.get_by_label("Cost threshold α").fill("0.7")
    page.wait_for_timeout(500)
    return page


def _pick(page: Page, start: str) -> None:
    options = page.get_by_label("Pick one of ours").locator("option").all_inner_texts()
    page.get_by_label("Pick one of ours").select_option(next(text for text in options if text.startswith(start)))


def _take(page: Page, name: str) -> None:
    """The whole page, in as few colours as it has: a checkout should not carry more."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    sys.exit(main())
