"""Whatever clients do and whatever fails, the delivery contract holds; see :mod:`.checks`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from everwire import BrokerUnavailable, Position, RequestError
from everwire.protocol import messages as m
from everwire.testing import Direction, Link, Runner

from . import checks
from .actors import Actor, Raw
from .world import CHANNELS, World

T = TypeVar("T")
USERS = {"ann": "ann", "ann-2": "ann", "bob": "bob", "cyd": "cyd", "raw": "raw", "raw-2": "raw",
         "nobody": "", "nobody-2": ""}  # fmt: skip
WHO = st.sampled_from(["ann", "ann-2", "bob", "cyd"])
RAW = st.sampled_from(["raw", "raw-2", "nobody", "nobody-2"])
CHANNEL = st.runner().flatmap(lambda machine: st.sampled_from(machine.channels))
SIZE = st.sampled_from([0, 0, 700, 3_000])
DIRECTION = st.sampled_from([Direction.TO_SERVER, Direction.TO_CLIENT, None])
CALM = 400.0  # seconds within which everything has come to rest, once nothing fails


class Contract(RuleBasedStateMachine):
    """Drives the world; every rule leaves it as it is in the middle of something."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = Runner(limit=1e6)
        self.runner.__enter__()
        self.broken = False
        self.actors: dict[str, Actor] = {}
        self.raws: dict[str, Raw] = {}
        self.app_published = 0
        self.seen: dict[str, list[Position]] = {}

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work``, with all that goes on meanwhile."""
        try:
            result = self.runner.run(work)
        except BaseException:
            self.broken = True
            raise
        self.look()
        return result

    @initialize(
        channels=st.lists(st.sampled_from([*CHANNELS]), min_size=1, max_size=2, unique=True),
        latency=st.sampled_from([0.0, 0.01, 0.2]),
        token_life=st.sampled_from([None, 40.0]),
    )
    def begin(self, channels: list[str], latency: float, token_life: float | None) -> None:
        self.channels = channels
        self.world = World(self.runner.loop, dict(USERS))
        self.world.network.latency = latency
        self.do(self.world.start())
        for n, who in enumerate(("ann", "ann-2", "bob", "cyd")):
            dialect = ("msgpack", "json")[n % 2]
            actor = Actor(self.world, who, dialect, token_life if n % 2 else None)
            self.actors[who] = actor
            self.do(actor.client.__aenter__())
            self.do(actor.subscribe(channels[0], None, n == 0))

    def look(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.world.model.digest()
            assert not self.runner.reported, self.runner.reported
        except BaseException:
            self.broken = True
            raise

    # ---- time ---------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.005, 0.05, 0.5, 3.0, 20.0, 70.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds) if seconds else self.runner.loop.settle())

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
        self.app_published += 1
        data = ["server", self.app_published, ""]
        self.do(self._publish_for_the_application(channel, data, message_id))

    async def _publish_for_the_application(
        self, channel: str, data: list[Any], message_id: str
    ) -> None:
        broker = self.world.broker
        if broker.stalled is not None:
            return
        try:
            position = await self.world.wire.publish(channel, data, id=message_id)
        except (BrokerUnavailable, RequestError):
            return
        self.seen.setdefault(channel, []).append(position)

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
        known = [
            Position(*log.position(offset))
            for log in self.world.model.logs.get(channel, ())
            for offset in range(len(log.entries) + 1)
        ]
        forged = [
            Position("0.1", 1, "forged"),
            Position("0.0", 3, "of another epoch"),
            Position("0.1", 2**40, "ahead"),
        ]
        return st.sampled_from([*known[::-1], *forged])

    @rule(who=WHO, channel=CHANNEL)
    def unsubscribe(self, who: str, channel: str) -> None:
        self.do(self.actors[who].unsubscribe(channel))

    @rule(who=WHO, channel=CHANNEL, reads=st.booleans())
    def application_reads(self, who: str, channel: str, reads: bool) -> None:
        reader = self.actors[who].readers.get(channel)
        if reader is not None:
            reader.gate.set() if reads else reader.gate.clear()

    # ---- what fails ---------------------------------------------------------------------------

    def _link(self, index: int) -> Link | None:
        links = self.world.network.links
        return links[index % len(links)] if links else None

    @rule(index=st.integers(0, 5))
    def cut(self, index: int) -> None:
        link = self._link(index)
        if link is not None:
            self.do(self._call(link.cut))

    async def _call(self, function: Any, *args: Any, **more: Any) -> None:
        function(*args, **more)

    @rule(index=st.integers(0, 5), to_client=st.integers(1, 4), either=st.booleans())
    def cut_after(self, index: int, to_client: int, either: bool) -> None:
        link = self._link(index)
        if link is not None:
            link.cut_after(*((None, to_client) if either else (to_client, None)))

    @rule(index=st.integers(0, 5), direction=DIRECTION, lose=st.booleans())
    def freeze(self, index: int, direction: Direction | None, lose: bool) -> None:
        link = self._link(index)
        if link is not None:
            self.do(self._call(link.freeze, direction, drop=lose))

    @rule(index=st.integers(0, 5))
    def thaw(self, index: int) -> None:
        link = self._link(index)
        if link is not None:
            self.do(self._call(link.thaw))

    @rule(on=st.booleans())
    def partition(self, on: bool) -> None:
        self.do(self._call(self.world.network.partition, on))

    @rule(faults=st.lists(st.sampled_from(["refused", "lost", "unknown"]), min_size=1, max_size=3))
    def broker_fails(self, faults: list[str]) -> None:
        self.world.broker.faults = faults

    @rule(down=st.booleans())
    def broker_down(self, down: bool) -> None:
        self.world.broker.down = down

    @rule()
    def broker_stalls(self) -> None:
        if self.world.broker.stalled is None:
            self.world.broker.stalled = []

    @rule(stored=st.integers(0, 8), told=st.integers(0, 8))
    def broker_goes_on(self, stored: int, told: int) -> None:
        self.do(self._call(self.world.broker.release, stored, min(told, stored)))

    @rule(forget=st.booleans(), window=st.sampled_from([None, 3.0]))
    def restart(self, forget: bool, window: float | None) -> None:
        self.do(self._restart(forget, window))

    async def _restart(self, forget: bool, window: float | None) -> None:
        self.world.broker.release(100, 100)
        await self.world.restart(forget=forget, window=window)

    # ---- peers that speak for themselves ---------------------------------------------------------

    @rule(who=RAW, channel=CHANNEL, ids=st.lists(st.integers(1, 4), min_size=1, max_size=3),
          variant=st.integers(0, 1), run=st.integers(0, 2))  # fmt: skip
    def raw_publish(self, who: str, channel: str, ids: list[int], variant: int, run: int) -> None:
        self.do(self._raw(who, lambda raw: raw.publish_raw(channel, ids, variant, run)))

    @rule(who=RAW, channel=CHANNEL, data=st.data())
    def raw_subscribe(self, who: str, channel: str, data: st.DataObject) -> None:
        since = data.draw(st.none() | self._positions(channel), "since")
        request = [m.ChannelRequest(channel, since, presence=True)]
        self.do(
            self._raw(who, lambda raw: raw.ask_for_a_while(m.Subscribe(raw.next_id(), request)))
        )

    @rule(who=RAW, channel=CHANNEL)
    def raw_unsubscribe(self, who: str, channel: str) -> None:
        self.do(
            self._raw(who, lambda raw: raw.ask_for_a_while(m.Unsubscribe(raw.next_id(), [channel])))
        )

    async def _raw(self, who: str, act: Any) -> None:
        raw = self.raws.get(who)
        if raw is None or not raw.usable:
            raw = Raw(self.world, who, "json" if who.startswith("raw") else "msgpack")
            if not await raw.start():
                return
            self.raws[who] = raw
        await act(raw)

    # ---- rest ----------------------------------------------------------------------------------

    @precondition(lambda self: hasattr(self, "world"))
    @rule()
    def rest(self) -> None:
        """Nothing fails any more: everything comes to its end."""
        self.do(self._rest())
        self.look()

    async def _rest(self) -> None:
        world, network = self.world, self.world.network
        network.partition(False)
        for link in network.links:
            link.thaw()
        world.broker.down = False
        world.broker.faults = []
        world.broker.release(100, 100)
        for actor in self.actors.values():
            for reader in actor.readers.values():
                reader.gate.set()
        deadline = self.runner.loop.time() + CALM
        while True:
            await asyncio.sleep(5)
            world.model.digest()
            try:
                self._at_rest()
            except AssertionError:
                if self.runner.loop.time() > deadline:
                    raise
            else:
                return

    def _at_rest(self) -> None:
        model = self.world.model
        checks.check_every_publish_ends(model)
        for actor in self.actors.values():
            for reader in actor.readers.values():
                assert reader.began or reader.over, f"{reader.name} never began"
                if not reader.over:
                    checks.check_everything_arrives(model, model.readings[reader.name])

    def teardown(self) -> None:
        try:
            if hasattr(self, "world") and not self.broken:
                self.rest()
                self.do(self._end())
                self.look()
        except BaseException as error:
            self.runner.__exit__(type(error), error, None)
            raise
        failure = AssertionError("told already") if self.broken else None
        self.runner.__exit__(type(failure) if failure else None, failure, None)

    async def _end(self) -> None:
        for actor in self.actors.values():
            await actor.close()
        for raw in self.raws.values():
            if raw.usable:
                raw.transport.close()
        await asyncio.sleep(1)
        await self.world.stop()


# The same examples in every run. EVERWIRE_EXAMPLES=2000 looks for new ones instead.
MORE = int(os.environ.get("EVERWIRE_EXAMPLES", "0"))

TestContract = pytest.mark.timeout(0 if MORE else 60)(Contract.TestCase)
TestContract.settings = settings(
    max_examples=MORE or 60,
    stateful_step_count=50,
    derandomize=not MORE,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
