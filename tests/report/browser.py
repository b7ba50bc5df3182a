"""A real browser that opens a page from a file, notes what goes wrong, and never touches the network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
LAPTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


@dataclass
class Opened:
    """A page in a browser; ``wrong`` has its errors and warnings, ``requested`` all addresses that it asked for."""

    page: Any
    wrong: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)


@contextmanager
def running_browser() -> Iterator[Any]:
    """Run a headless browser of this machine, or skip the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = [path for path in map(shutil.which, NAMES) if path]
    if not found:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, file: Path, viewport: dict[str, int] = LAPTOP, scheme: str = "light") -> Iterator[Opened]:
    """Open a file in a window of some size with a light or dark theme."""
    context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    seen = Opened(page)
    page.on(
        "console", lambda message: seen.wrong.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: seen.wrong.append(str(error)))
    page.on("request", lambda request: seen.requested.append(request.url))
    page.goto(file.resolve().as_uri())
    yield seen
    context.close()
