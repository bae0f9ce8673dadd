"""A real Chromium without a window, for tests and measurements of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
MISSING = f"no browser: install Debian's chromium, or put one of {', '.join(_NAMES)} on the PATH"


def chromium_path() -> str | None:
    """The browser that this machine has, `None` without one."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, running. Do not use it beside a running event loop: Playwright's synchronous interface has its own.

    Raises:
        LookupError: there is none.
    """
    path = chromium_path()
    if path is None:
        raise LookupError(MISSING)
    # Without Chromium's sandbox, which containers and root cannot have: only pages of our own are opened.
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, chromium_sandbox=False) as browser,
    ):
        yield browser
