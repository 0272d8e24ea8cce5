"""The demo page in Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = {"test_the_page": "page.mjs"}


def test_the_page(check: str, passes: Callable[..., None], demo: re.Match[str]) -> None:
    chromium = shutil.which("chromium")
    assert chromium, "these tests need Chromium (on Debian: apt-get install chromium)"
    passes("page.mjs", check, demo["page"], chromium)
