"""``everwire.js`` under node: the rules of the protocol, and running servers."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODULE = Path(__file__).parents[2] / "src/everwire/web/everwire.js"

SCRIPTS = {
    "test_it_keeps_the_rule": "rules.mjs",
    "test_with_a_server": "module.mjs",
    "test_with_a_server_that_is_replaced": "restart.mjs",
}


def test_it_is_small_and_needs_nothing() -> None:
    text = MODULE.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) < 300
    assert max(map(len, lines)) <= 100
    assert not re.search(r"^import\b|\bimport\(|\brequire\(", text, re.MULTILINE)


def test_it_keeps_the_rule(check: str, passes: Callable[..., None]) -> None:
    """Against a scripted server, on a clock that is moved by hand: exact, in milliseconds."""
    passes("rules.mjs", check)


def test_with_a_server(check: str, passes: Callable[..., None], demo: re.Match[str]) -> None:
    passes("module.mjs", check, demo["url"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
def test_with_a_server_that_is_replaced(
    number: signal.Signals, check: str, node: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    first, up = serve()
    child = node("restart.mjs", [check], up["url"])
    child.line("^ready$")
    first.signal(number)
    first.wait()
    serve(up["port"])
    assert child.wait(40) == 0, child
