"""Test what is built with everwire: virtual time, and a network that fails when told to.

:func:`run` runs a coroutine on a :class:`VirtualLoop`, where an hour takes no time;
:class:`Runner` runs one after the other, for tests that are not one coroutine;
:class:`Network` stands in for the real one and carries messages in memory::

    def test_a_cut_is_seen_by_both() -> None:
        async def scenario() -> None:
            network = Network(latency=0.02)
            ...
            network.links[0].cut()

        run(scenario)
"""

from __future__ import annotations

from ..net.transport import Handshake
from .clock import DeadlockError, TimeLimitError, VirtualLoop
from .link import Link
from .network import Listener, Network, Record
from .pipe import Direction
from .runner import LeftoverError, Runner, run

__all__ = [
    "DeadlockError",
    "Direction",
    "Handshake",
    "LeftoverError",
    "Link",
    "Listener",
    "Network",
    "Record",
    "Runner",
    "TimeLimitError",
    "VirtualLoop",
    "run",
]
