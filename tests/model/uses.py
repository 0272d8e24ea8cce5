"""What applications and peers do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from everwire import BrokerUnavailable, Position, RequestError
from everwire.protocol import messages as m

from .actors import Raw
from .machine import CHANNEL, WHO, Machine
from .weather import position_of

RAW = st.sampled_from(["raw", "raw-2", "nobody", "nobody-2"])
SIZE = st.sampled_from([0, 0, 700, 3_000])


class Uses(Machine):
    """Rules that use the world; none of them waits longer than for a few seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.by_the_server = 0

    # ---- publishing ------------------------------------------------------------------------

    @rule(who=WHO, channel=CHANNEL, size=SIZE, ttl=st.sampled_from([None, 5.0, 200.0]))
    def publish(self, who: str, channel: str, size: int, ttl: float | None) -> None:
        self.do(self._publish(who, channel, 1, size, ttl))

    @rule(who=WHO, channel=CHANNEL, times=st.integers(2, 12), size=SIZE)
    def publish_many(self, who: str, channel: str, times: int, size: int) -> None:
        self.do(self._publish(who, channel, times, size, None))

    async def _publish(
        self, who: str, channel: str, times: int, size: int, ttl: float | None
    ) -> None:
        for _ in range(times):
            self.actors[who].publish(channel, size, ttl)

    @rule(channel=CHANNEL, message_id=st.sampled_from(["", "raw-1", "app-1", "app-2"]))
    def publish_for_the_application(self, channel: str, message_id: str) -> None:
        self.do(self._publish_for_the_application(channel, message_id, ""))

    @rule(channel=CHANNEL)
    def flood(self, channel: str) -> None:
        """More than a reader that does not read may have under way."""
        self.do(self._flood(channel))

    async def _flood(self, channel: str) -> None:
        for _ in range(60):
            await self._publish_for_the_application(channel, "", "x" * 2_500)
            await asyncio.sleep(0.001)
            self.world.check_links()

    async def _publish_for_the_application(self, channel: str, name: str, more: str) -> None:
        self.by_the_server += 1
        world, data = self.world, ["server", self.by_the_server, more]
        if world.weather.stalled is not None:
            return
        try:
            position = await world.wire.publish(channel, data, id=name)
        except (BrokerUnavailable, RequestError):
            return
        world.note("answered_itself", channel=channel, position=position_of(position), data=data)

    # ---- reading ----------------------------------------------------------------------------

    @rule(who=WHO, channel=CHANNEL, presence=st.booleans())
    def subscribe(self, who: str, channel: str, presence: bool) -> None:
        self.do(self.actors[who].subscribe(channel, None, presence))

    @rule(who=WHO, channel=CHANNEL, data=st.data())
    def subscribe_since(self, who: str, channel: str, data: st.DataObject) -> None:
        since = data.draw(self._positions(channel), "since")
        self.do(self.actors[who].subscribe(channel, since, False))

    def _positions(self, channel: str) -> st.SearchStrategy[Position]:
        """Places that are there, were there, or never were."""
        logs = self.world.model.logs.get(channel, ())
        known = [
            Position(*log.position(offset))
            for log in logs
            for offset in range(max(0, len(log.entries) - 12), len(log.entries) + 1)
        ]
        forged = [
            Position(log.epoch, max(1, len(log.entries) + past), "forged")
            for log in logs
            for past in (-2, -1, 0, 2**40)
        ]
        ancient = Position("0.0", 3, "of another epoch")
        return st.sampled_from([*known[::-1], *forged, ancient])

    @rule(who=WHO, channel=CHANNEL)
    def unsubscribe(self, who: str, channel: str) -> None:
        self.do(self.actors[who].unsubscribe(channel))

    @rule(who=WHO, channel=CHANNEL, reads=st.booleans())
    def application_reads(self, who: str, channel: str, reads: bool) -> None:
        reader = self.actors[who].readers.get(channel)
        if reader is not None:
            reader.gate.set() if reads else reader.gate.clear()

    @rule(channel=CHANNEL)
    def read_history(self, channel: str) -> None:
        self.do(self.world.read_history(channel))

    # ---- requests -------------------------------------------------------------------------

    @rule(who=WHO, key=st.sampled_from(["", "k1", "k1", "k2", "none"]), variant=st.integers(0, 1),
          seconds=st.sampled_from([0.0, 0.3, 2.0]), times=st.sampled_from([1, 1, 10]))  # fmt: skip
    def command(self, who: str, key: str, variant: int, seconds: float, times: int) -> None:
        """With a key of its own, with one that others use as well, or without."""
        self.do(self._command(who, key, variant, seconds, times))

    async def _command(self, who: str, key: str, variant: int, seconds: float, times: int) -> None:
        for _ in range(times):
            self.actors[who].command(key, variant, seconds)

    @rule(who=WHO, seconds=st.sampled_from([0.0, 0.3, 2.0]))
    def query(self, who: str, seconds: float) -> None:
        self.do(self._query(who, seconds))

    async def _query(self, who: str, seconds: float) -> None:
        self.actors[who].query(seconds)

    @rule(who=WHO)
    def cancel_a_call(self, who: str) -> None:
        self.do(self._cancel(who))

    async def _cancel(self, who: str) -> None:
        self.actors[who].cancel()

    @rule(user=st.sampled_from(["ann", "cyd"]), welcome=st.booleans())
    def allow(self, user: str, welcome: bool) -> None:
        """Who may use the guarded channel; a subscriber hears of it when its token is renewed."""
        self.world.allow(user, welcome)

    # ---- peers that speak for themselves ---------------------------------------------------------

    @rule(who=RAW, channel=CHANNEL, ids=st.lists(st.integers(1, 4), min_size=1, max_size=3),
          variant=st.integers(0, 1), run=st.integers(0, 2))  # fmt: skip
    def raw_publish(self, who: str, channel: str, ids: list[int], variant: int, run: int) -> None:
        self.do(self._raw(who, lambda raw: raw.publish_some(channel, ids, variant, run)))

    @rule(who=RAW, channel=CHANNEL, data=st.data(), presence=st.booleans())
    def raw_subscribe(self, who: str, channel: str, data: st.DataObject, presence: bool) -> None:
        since = data.draw(st.none() | self._positions(channel), "since")
        request = [m.ChannelRequest(channel, since, presence=presence)]
        self.do(self._raw(who, lambda raw: raw.ask(m.Subscribe(raw.next_id(), request))))

    @rule(who=RAW, channel=CHANNEL)
    def raw_unsubscribe(self, who: str, channel: str) -> None:
        self.do(self._raw(who, lambda raw: raw.ask(m.Unsubscribe(raw.next_id(), [channel]))))

    async def _raw(self, who: str, act: Callable[[Raw], Awaitable[Any]]) -> None:
        raw = self.raws.get(who)
        if raw is None or not raw.usable:
            raw = Raw(self.world, who, "json" if who.startswith("raw") else "msgpack")
            if not await raw.start():
                return
            self.raws[who] = raw
        await act(raw)
