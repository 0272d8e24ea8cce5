"""Who acts in the world: applications with a client each, and peers that speak for themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from everwire import ClientLimits, Gap, Position, connect
from everwire.client import Ack, Subscription, Token
from everwire.errors import ConnectionClosed, DeliveryUnknown, EverwireError, NotSent, RequestError
from everwire.protocol import messages as m

from ..server.peer import Peer
from .weather import position_of
from .world import URL, World

LIMITS = ClientLimits(
    first_retry=0.5, backoff_base=0.5, backoff_cap=4.0, stable_after=5.0, queue_messages=6,
    ping_grace=5.0, probe=2.0, connect_timeout=5.0, auth_timeout=5.0,
)  # fmt: skip
TOKEN_LIFE = 15.0  # seconds, of a peer that never asks for another


class Reader:
    """An application that reads one channel, as fast as it is let."""

    def __init__(
        self,
        world: World,
        name: str,
        room: Subscription,
        *,
        since: Position | None,
        presence: bool,
    ) -> None:
        self.world = world
        self.name = name
        self.room = room
        self.presence = presence
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = False
        self.over = False
        world.note("reads", name=name, channel=room.channel, since=position_of(since))
        self.task = world.loop.create_task(self._read(), name=name)

    async def _read(self) -> None:
        try:
            await self.room.__aenter__()
            self.began = True
            self._note("began", position=position_of(self.room.position))
            while True:
                await self.gate.wait()
                item = await anext(self.room)
                if self.over:
                    raise AssertionError(f"{item} was handed over after the end")
                about = {"position": position_of(item.position)}
                if isinstance(item, Gap):
                    self._note("gap", reason=item.reason, from_=item.from_, **about)
                else:
                    self._note("handed", data=item.data, publisher=item.publisher, **about)
        except (RequestError, ConnectionClosed, StopAsyncIteration) as error:
            if not self.over:
                self._end(error)

    async def leave(self) -> None:
        self._end(None)
        self.gate.set()
        await self.room.unsubscribe()

    def _end(self, error: BaseException | None) -> None:
        self.over = True
        self._note("over", error=repr(error))

    def _note(self, kind: str, **about: Any) -> None:
        self.world.note(kind, name=self.name, **about)


class Actor:
    """An application with a client."""

    def __init__(self, world: World, who: str, dialect: str, life: float | None) -> None:
        self.world = world
        self.who = who
        self.user = world.model.users[who]
        self.life = life
        self.published = 0
        self.readings = 0
        self.readers: dict[str, Reader] = {}
        self.called = 0
        self.calls: dict[int, asyncio.Task[None]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.client = connect(
            URL,
            token=self._token,
            dialect=dialect,
            network=world.network,
            random=world.loop.random,
            wall=world.loop.wall,
            limits=LIMITS,
        )

    async def _token(self) -> Token:
        if self.life is None:
            return Token(self.user)
        ends = self.world.loop.wall() + self.life
        return Token(f"{self.user}@{ends}", ends)

    def publish(self, channel: str, size: int, ttl: float | None) -> None:
        """Publish without waiting; note how it ends."""
        self.published += 1
        n = self.published
        self.world.note("published", who=self.who, n=n, channel=channel)
        future = self.client.publish_nowait(channel, [self.who, n, "x" * size], ttl=ttl)
        future.add_done_callback(lambda done: self._settled(n, done))

    def _settled(self, n: int, done: asyncio.Future[Ack]) -> None:
        outcome, position = "acknowledged", None
        try:
            position = position_of(done.result().position)
        except NotSent:
            outcome = "not sent"
        except DeliveryUnknown:
            outcome = "unknown"
        except EverwireError as error:
            outcome = f"refused: {error!r}"
        self.world.note("settled", who=self.who, n=n, outcome=outcome, position=position)

    async def subscribe(self, channel: str, since: Position | None, presence: bool) -> None:
        await self.unsubscribe(channel)
        room = self.client.subscribe(channel, since=since, presence=presence)
        self.readings += 1
        name = f"{self.who} {channel} {self.readings}"
        self.readers[channel] = Reader(self.world, name, room, since=since, presence=presence)

    async def unsubscribe(self, channel: str) -> None:
        reader = self.readers.pop(channel, None)
        if reader is not None:
            await reader.leave()
            self.tasks.add(reader.task)

    # ---- requests -------------------------------------------------------------------

    def command(self, key: str, variant: int, seconds: float) -> None:
        """Call the command; without a key it takes one of its own, with ``none`` it has none."""
        self.called += 1
        own = f"{self.who} {self.called}"
        given: Any = {"": own, "none": False}.get(key, key)
        named = own if key in ("", "none") else key
        job = own if key in ("", "none") else f"{variant} {seconds}"
        payload = {"key": named, "job": job, "seconds": seconds}
        self._call(
            self.client.command("run", payload, key=given, timeout=8),
            kind_="command" if given else "once",
            key=named,
            job=job,
        )

    def query(self, seconds: float) -> None:
        self.called += 1
        payload = {"value": self.called, "seconds": seconds}
        call = self.client.query("echo", payload, timeout=8)
        self._call(call, kind_="query", key="", job=self.called)

    def cancel(self) -> None:
        """Cancel the call that has been under way for longest."""
        for task in self.calls.values():
            task.cancel()
            return

    def _call(self, call: Coroutine[Any, Any, Any], **about: Any) -> None:
        n = self.called
        self.world.note("called", who=self.who, user=self.user, n=n, **about)
        task = self.world.loop.create_task(self._await(n, call), name=f"{self.who} calls {n}")
        self.calls[n] = task
        task.add_done_callback(lambda _: self.calls.pop(n))

    async def _await(self, n: int, call: Coroutine[Any, Any, Any]) -> None:
        outcome, result = "answered", None
        try:
            result = await call
        except asyncio.CancelledError:
            outcome = "cancelled"
        except NotSent:
            outcome = "not sent"
        except RequestError as error:
            outcome = error.name
        except EverwireError as error:
            outcome = type(error).__name__
        self.world.note("returned", who=self.who, n=n, outcome=outcome, result=result)

    async def close(self) -> None:
        for channel in list(self.readers):
            await self.unsubscribe(channel)
        await self.client.close()
        self.tasks.update(self.calls.values())
        if self.tasks:
            await asyncio.wait(self.tasks)
            for task in self.tasks:
                task.result()


class Raw(Peer):
    """A peer that asks what it likes, and waits only for a while."""

    def __init__(self, world: World, who: str, dialect: str) -> None:
        super().__init__(world.network, dialect)
        self.world = world
        self.who = who
        self.user = world.model.users[who]
        self.serial = 0
        self.unanswered: set[m.RequestId] = set()

    async def open(self) -> Raw:
        protocol = self.dialect.subprotocol
        assert protocol is not None
        self.transport = await self.network.connect(
            self.url, self, subprotocols=(protocol,), max_message=1 << 20
        )
        return self

    async def start(self) -> bool:
        """Connect and authenticate; tell whether that came about."""
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(3):
                ends = self.world.loop.wall() + TOKEN_LIFE
                await self.auth(token=f"{self.user}@{ends}" if self.user else None)
                return True
        return False

    @property
    def usable(self) -> bool:
        return self.close_code is None

    async def ask(self, *requests: Any) -> None:
        """Send requests at once, and wait until all are answered, or for three seconds."""
        ids = [request.id for request in requests]
        self.unanswered.update(ids)
        for request in requests:
            self.send(request)
        with suppress(TimeoutError):
            async with asyncio.timeout(3):
                while self.usable and not self.unanswered.isdisjoint(ids):
                    await asyncio.sleep(0.01)

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        super().received(opcode, payload)
        answer = self.inbox[-1]
        if isinstance(answer, (m.Response, m.Error)) and answer.request_id is not None:
            self.unanswered.discard(answer.request_id)

    def next_id(self) -> int:
        self.serial += 1
        return self.serial + 1

    async def publish_some(self, channel: str, ids: list[int], variant: int, run: int) -> None:
        await self.ask(
            *(
                m.Publish(f"raw-{n}", channel, [self.who, 10 * n + variant, ""], run=run)
                for n in dict.fromkeys(ids)
                if f"raw-{n}" not in self.unanswered  # in flight: that breaks the protocol
            )
        )
