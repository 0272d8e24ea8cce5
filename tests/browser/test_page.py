"""The demo page in Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = {"test_the_page": "page.mjs"}


def test_the_page(check: str, node: Callable[..., Any], demo: Any) -> None:
    chromium = shutil.which("chromium")
    assert chromium, "these tests need Chromium (on Debian: apt-get install chromium)"
    child = node("page.mjs", check, demo.page, chromium)
    assert child.wait(55) == 0, child
