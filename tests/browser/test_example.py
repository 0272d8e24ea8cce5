"""The page of examples/fastapi_chat.py in Chromium: the cookie of its sign-in is all there is."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import Child

pytestmark = pytest.mark.slow

SCRIPTS = {"test_the_page": "example.mjs"}
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def page(start: Callable[..., Child]) -> str:
    uvicorn = [sys.executable, "-m", "uvicorn", "examples.fastapi_chat:app", "--port", "0"]
    child = start(*uvicorn, cwd=ROOT)
    return child.line(r"running on (http://127\.0\.0\.1:\d+)", stream="err")[1] + "/"


def test_the_page(check: str, passes: Callable[..., None], page: str) -> None:
    chromium = shutil.which("chromium")
    assert chromium, "these tests need Chromium (on Debian: apt-get install chromium)"
    passes("example.mjs", check, page, chromium)
