"""``everwire.js`` under node: the rules of the protocol, and running servers."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

SCRIPTS = {
    "test_it_keeps_the_rule": "rules.mjs",
    "test_with_a_server": "module.mjs",
    "test_with_a_server_that_is_replaced": "restart.mjs",
}


def test_it_keeps_the_rule(check: str, node: Callable[..., Any]) -> None:
    """Against a scripted server, on a clock that is moved by hand: exact, in milliseconds."""
    child = node("rules.mjs", check)
    assert child.wait(20) == 0, child


def test_with_a_server(check: str, node: Callable[..., Any], demo: Any) -> None:
    child = node("module.mjs", check, demo.url)
    assert child.wait(40) == 0, child


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
def test_with_a_server_that_is_replaced(
    number: signal.Signals, check: str, node: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    first = serve("demo")
    child = node("restart.mjs", check, first.url)
    child.line("^ready$")
    first.child.signal(number)
    first.child.wait()
    serve("demo", port=first.port)
    assert child.wait(40) == 0, child
