from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from ..conftest import Child


def start_echo(*options: str) -> Iterator[Child]:
    """An echo over the native listener, in a process of its own."""
    child = Child([sys.executable, "-m", "everwire.testing.echo", "--port", "0", *options])
    try:
        yield child
        assert child.process.poll() is None, child
        child.signal()
        assert child.wait() == 0, child
        assert not child.err, child  # nothing that a client sends is worth a line here
    finally:
        child.stop()


def port_of(child: Child) -> int:
    return int(child.line(r"^listening on ws://127\.0\.0\.1:(\d+)$")[1])


@pytest.fixture(scope="module")
def echo_child() -> Iterator[Child]:
    yield from start_echo()


@pytest.fixture(scope="module")
def echo(echo_child: Child) -> int:
    """The port of an echo."""
    return port_of(echo_child)
