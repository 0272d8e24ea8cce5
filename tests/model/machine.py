"""The life of the machine: how it begins, how time passes, and how everything comes to rest."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from everwire.testing import Runner

from . import checks, checks_calls
from .actors import Actor, Raw
from .world import CHANNELS, World

T = TypeVar("T")
USERS = {"ann": "ann", "ann-2": "ann", "bob": "bob", "cyd": "cyd", "raw": "raw", "raw-2": "raw",
         "nobody": "", "nobody-2": ""}  # fmt: skip
WHO = st.sampled_from(["ann", "ann-2", "bob", "cyd"])
CHANNEL = st.runner().flatmap(lambda machine: st.sampled_from(machine.channels))
# What differs in nothing but what becomes of a slow reader is one of them, now and then.
OFTEN = [*CHANNELS, "log", "short", "brief", "narrow", "guarded", "value"]
CALM = 400.0  # seconds within which everything has come to rest, once nothing fails


class Machine(RuleBasedStateMachine):
    """Drives a world; every rule leaves it in the middle of something."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = Runner(limit=1e6)
        self.runner.__enter__()
        self.broken = False
        self.began = False
        self.actors: dict[str, Actor] = {}
        self.raws: dict[str, Raw] = {}
        self.channels: list[str] = []
        self.pace = 0.0
        self.world: World

    @initialize(
        channels=st.lists(st.sampled_from(OFTEN), min_size=1, max_size=2, unique=True),
        latency=st.sampled_from([0.0, 0.01, 0.2]),
        token_life=st.sampled_from([None, 40.0]),
        pace=st.sampled_from([0.0, 0.005, 0.05, 0.3]),
    )
    def begin(
        self, channels: list[str], latency: float, token_life: float | None, pace: float
    ) -> None:
        """Four clients, two of them of one user, each with a subscription.

        After each rule ``pace`` seconds pass.
        """
        self.channels = channels
        self.world = World(self.runner.loop, dict(USERS))
        self.world.network.latency = latency
        self.began = True
        self.do(self.world.start())
        for n, who in enumerate(("ann", "ann-2", "bob", "cyd")):
            dialect = ("msgpack", "json")[n % 2]
            actor = Actor(self.world, who, dialect, token_life)
            self.actors[who] = actor
            self.do(actor.client.__aenter__())
            self.do(actor.subscribe(channels[0], None, n == 0))
        self.pace = pace

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work``, with all that goes on meanwhile; look at what has happened."""
        try:
            result = self.runner.run(work)
            if self.pace:
                self.runner.run(asyncio.sleep, self.pace)
            self.world.digest()
            assert not self.runner.reported, self.runner.reported
        except BaseException:
            self.broken = True
            raise
        return result

    @rule(seconds=st.sampled_from([0.0, 0.005, 0.05, 0.5, 3.0, 7.0, 20.0, 70.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds) if seconds else self.runner.loop.settle())

    # ---- rest ----------------------------------------------------------------------------

    @rule()
    def rest(self) -> None:
        """Nothing fails any more: everything comes to its end."""
        self.do(self._rest())

    async def _rest(self) -> None:
        world, loop = self.world, self.runner.loop
        world.calm()
        world.note("calm", calm=True)
        for actor in self.actors.values():
            for reader in actor.readers.values():
                reader.gate.set()
        deadline = loop.time() + CALM
        while True:
            await asyncio.sleep(1)
            world.digest()
            try:
                await self._check_rest()
            except AssertionError:
                if loop.time() > deadline:
                    raise
            else:
                world.note("calm", calm=False)
                return

    async def _check_rest(self) -> None:
        world, model = self.world, self.world.model
        checks.check_every_publish_ends(model)
        checks_calls.check_every_call_ends(model)
        checks_calls.check_keyed_commands_run_to_their_end(model)
        for actor in self.actors.values():
            for reader in actor.readers.values():
                assert reader.began or reader.over, f"{reader.name} never began"
                if not reader.over:
                    checks.check_everything_arrives(model, model.readings[reader.name])
        assert not [task for task in world.retiring if not task.done()]
        live = world.live_links()
        for link in live:
            assert link in model.wire.conns, f"nothing was ever said on link {link}"
            checks.check_everything_is_sent(model, model.wire.conns[link])
        for channel in self.channels:
            members = [member.user for member in await world.wire.presence(channel)]
            checks_calls.check_presence_converges(model, channel, live, members)
            for actor in self.actors.values():
                room = actor.readers.get(channel)
                if room is not None and room.presence and not room.over:
                    told = [member.user for member in room.room.members.values()]
                    checks_calls.check_presence_is_told(members, told, room.room.member_count)

    def teardown(self) -> None:
        failure: BaseException | None = AssertionError("told already") if self.broken else None
        try:
            if self.began and not self.broken:
                self.rest()
                self.do(self._end())
        except BaseException as error:
            failure = error
            raise
        finally:
            if self.began:  # or it would not be garbage when the runner collects that
                self.actors, self.raws = {}, {}
                del self.world
            self.runner.__exit__(type(failure) if failure else None, failure, None)

    async def _end(self) -> None:
        for actor in self.actors.values():
            await actor.close()
        for raw in self.raws.values():
            if raw.usable:
                raw.transport.close()
        await asyncio.sleep(1)
        await self.world.stop()
