"""What goes wrong: links, the broker, nodes that are replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from everwire.testing import Direction, Link

from .machine import Machine

DIRECTION = st.sampled_from([Direction.TO_SERVER, Direction.TO_CLIENT, None])
INDEX = st.integers(0, 5)


class Faults(Machine):
    """Rules that break something; :meth:`~.machine.Machine.rest` mends it."""

    def call(self, function: Callable[..., Any], *args: Any, **more: Any) -> None:
        """Call a function inside the loop."""

        async def work() -> None:
            function(*args, **more)

        self.do(work())

    def link(self, index: int) -> Link | None:
        links = self.world.network.links
        return links[index % len(links)] if links else None

    # ---- links ---------------------------------------------------------------------------

    @rule(index=INDEX)
    def cut(self, index: int) -> None:
        link = self.link(index)
        if link is not None:
            self.call(link.cut)

    @rule(index=INDEX, messages=st.integers(1, 4), direction=DIRECTION)
    def cut_after(self, index: int, messages: int, direction: Direction | None) -> None:
        """Right after the server has read it; right before its answer is read; …"""
        link = self.link(index)
        if link is not None:
            link.cut_after(
                n_to_client=messages if direction is not Direction.TO_SERVER else None,
                n_to_server=messages if direction is not Direction.TO_CLIENT else None,
            )

    @rule(index=INDEX, direction=DIRECTION, lose=st.booleans())
    def freeze(self, index: int, direction: Direction | None, lose: bool) -> None:
        """Half-open, or a reader that does not read."""
        link = self.link(index)
        if link is not None:
            self.call(link.freeze, direction, drop=lose)

    @rule(index=INDEX)
    def thaw(self, index: int) -> None:
        link = self.link(index)
        if link is not None:
            self.call(link.thaw)

    @rule(on=st.booleans())
    def partition(self, on: bool) -> None:
        self.call(self.world.network.partition, on)

    # ---- the broker --------------------------------------------------------------------

    @rule(faults=st.lists(st.sampled_from(["refused", "lost", "unknown"]), min_size=1, max_size=3))
    def broker_fails(self, faults: list[str]) -> None:
        self.world.weather.faults = faults

    @rule(down=st.booleans())
    def broker_down(self, down: bool) -> None:
        self.world.weather.down = down

    @rule(deaf=st.booleans())
    def broker_tells_nothing(self, deaf: bool) -> None:
        self.world.deafen(deaf)

    @rule()
    def broker_stalls(self) -> None:
        if self.world.weather.stalled is None:
            self.world.weather.stalled = []

    @rule(stored=st.integers(0, 8), told=st.integers(0, 8))
    def broker_goes_on(self, stored: int, told: int) -> None:
        self.call(self.world.weather.release, stored, min(told, stored))

    @rule()
    def broker_forgets(self) -> None:
        """As one that was emptied, or restarted behind the back of its nodes."""
        self.call(self.world.forget)

    # ---- nodes --------------------------------------------------------------------------

    @rule(forget=st.booleans())
    def node_dies(self, forget: bool) -> None:
        """Another takes its place; with ``forget`` the broker's memory dies, too."""
        self.do(self.world.kill(forget=forget))

    @rule(forget=st.booleans(), window=st.sampled_from([0.5, 8.0]))
    def node_drains(self, forget: bool, window: float) -> None:
        """Another takes its place, while it sends its clients away."""
        self.do(self.world.roll(forget=forget, window=window))
