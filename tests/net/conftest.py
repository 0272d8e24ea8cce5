from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from ..conftest import Child


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    """The port of an echo over the native listener, in a process of its own."""
    child = Child([sys.executable, "-m", "everwire.testing.echo", "--port", "0"])
    try:
        port = int(child.line(r"^listening on ws://127\.0\.0\.1:(\d+)$")[1])
        yield port
        assert child.process.poll() is None, child
        child.signal()
        assert child.wait() == 0, child
        assert not child.err, child  # nothing that a client sends is worth a line here
    finally:
        child.stop()
