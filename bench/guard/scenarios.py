"""The exchanges whose instructions are counted, on a server that is as users run it."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec
from harness.servers import token

from .client import Client, Dialect, Json, Msgpack, Plain
from .still import StillLoop

if TYPE_CHECKING:
    from everwire.server.running import Server

MANY = 200  # connections
BATCH = 16  # messages that arrive at once
RECOVERED = 100  # messages: what history keeps
TURNS = 100  # of the loop, until something is wrong
PATIENT = 10  # turns, then the kernel is given time to bring what was sent
TAG_PING, TAG_PONG = 17, 18


class Scenario(ABC):
    """One exchange, repeated.

    Args:
        server: runs in this very loop.
        toggle: begins and ends the counting.
    """

    title: str
    units: int
    """of work in one :meth:`exchange`"""
    repeat: int
    """exchanges that are counted together"""

    def __init__(self, server: Server, toggle: Callable[[], object]) -> None:
        self._server = server
        self._toggle = toggle
        self._numbers = 0
        self._clients: list[Client] = []

    @abstractmethod
    async def prepare(self) -> None:
        """Make what :meth:`exchange` needs."""

    @abstractmethod
    async def exchange(self) -> None:
        """Do it once. Only what the server does is counted."""

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()

    # ---- for the above ---------------------------------------------------------

    async def serve(self, wanted: Callable[[Client], bool], clients: Iterable[Client]) -> None:
        """Let the server work, and count that, until all ``clients`` have what they want."""
        waiting = list(clients)
        for turn in range(TURNS):
            if turn >= PATIENT:
                time.sleep(0.01)  # noqa: ASYNC251 - nothing else is to be done
            self._toggle()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self._toggle()
            waiting = [client for client in waiting if not wanted(client)]
            if not waiting:
                return
        raise RuntimeError(f"{self.title}: {len(waiting)} clients did not get what was sent")

    async def receive(self, wanted: Mapping[Client, int]) -> None:
        """Serve until each client has received so many messages."""
        missing = dict(wanted)

        def got_all(client: Client) -> bool:
            missing[client] -= len(client.receive())
            return missing[client] <= 0

        await self.serve(got_all, wanted)
        if any(missing.values()):
            raise RuntimeError(f"{self.title}: more was received than was sent")

    def connect(self, dialect: Dialect, count: int) -> list[Client]:
        clients = [Client(self._server.port, dialect) for _ in range(count)]
        self._clients += clients
        return clients

    async def open(self, clients: Iterable[Client]) -> None:
        """Serve until the handshakes are answered, and who greets has greeted."""

        def opened(client: Client) -> bool:
            greeted = client.receive() or not client.dialect.greets
            return client.is_open and bool(greeted)

        await self.serve(opened, clients)

    def number(self) -> int:
        self._numbers += 1
        return self._numbers


class FanOut(Scenario):
    """Messages of one publisher to all subscribers of a channel."""

    repeat = 4

    def __init__(
        self, server: Server, toggle: Callable[[], object], *, dialect: Dialect, batch: int
    ) -> None:
        super().__init__(server, toggle)
        self._dialect, self._batch = dialect, batch
        self.units = MANY * batch

    async def prepare(self) -> None:
        self._readers = self.connect(self._dialect, MANY)
        (self._publisher,) = self.connect(self._dialect, 1)
        await self.open([*self._readers, self._publisher])
        for reader in self._readers:
            reader.send(self._dialect.opening("fanout", None))
        await self.receive(dict.fromkeys(self._readers, 1))
        if self._dialect.greets:
            self._publisher.send(self._dialect.opening(None, None))
            await self.receive({self._publisher: 1})

    async def exchange(self) -> None:
        messages = [self._dialect.publish("fanout", self.number()) for _ in range(self._batch)]
        self._publisher.send(*messages)
        answers = {self._publisher: self._batch} if self._dialect.answers else {}
        await self.receive({**dict.fromkeys(self._readers, self._batch), **answers})


class Pairs(Scenario):
    """Each message to another channel, with one subscriber; each is acknowledged."""

    repeat = 4

    def __init__(
        self, server: Server, toggle: Callable[[], object], *, dialect: Dialect, batch: int
    ) -> None:
        super().__init__(server, toggle)
        self._dialect, self.units = dialect, batch
        self.repeat = 64 // batch

    async def prepare(self) -> None:
        self._readers = self.connect(self._dialect, 64)
        (self._publisher,) = self.connect(self._dialect, 1)
        await self.open([*self._readers, self._publisher])
        for number, reader in enumerate(self._readers):
            reader.send(self._dialect.opening(f"pairs:{number}", None))
        self._publisher.send(self._dialect.opening(None, None))
        await self.receive(dict.fromkeys([*self._readers, self._publisher], 1))

    async def exchange(self) -> None:
        numbers = [self.number() for _ in range(self.units)]
        messages = [self._dialect.publish(f"pairs:{one % 64}", one) for one in numbers]
        self._publisher.send(*messages)
        readers = [self._readers[one % 64] for one in numbers]
        await self.receive({**dict.fromkeys(readers, 1), self._publisher: self.units})


class Storm(Scenario):
    """Connections are made: handshake, ``auth`` with an HS256 token, one subscription."""

    units = 16
    repeat = 2
    answers = 1

    async def prepare(self) -> None:
        self._token = token()
        self._epoch = ""
        self._keeper = self.connect(Msgpack(), 1)  # so that the channel stays
        await self.open(self._keeper)
        self._keeper[0].send(Msgpack().opening("storm", self._token))
        await self.receive(dict.fromkeys(self._keeper, 1))

    async def exchange(self) -> None:
        clients = self.connect(Msgpack(), self.units)
        await self.open(clients)
        for client in clients:
            client.send(client.dialect.opening("storm", self._token, self._epoch))
        await self.receive(dict.fromkeys(clients, self.answers))
        for client in clients:  # their end is not counted
            client.close()
            self._clients.remove(client)
        for _ in range(8):
            await asyncio.sleep(0)


class Recovery(Storm):
    """The same, and each is sent the messages that it missed."""

    answers = 1 + RECOVERED
    units = 4

    async def prepare(self) -> None:
        await super().prepare()
        (keeper,) = self._keeper
        (probe,) = self.connect(Msgpack(), 1)
        await self.open([probe])
        messages = [Msgpack().publish("storm", self.number()) for _ in range(RECOVERED)]
        keeper.send(*messages)
        await self.receive({keeper: 2 * RECOVERED})
        probe.send(Msgpack().opening("storm", self._token))
        answers: list[bytes] = []

        def answered(client: Client) -> bool:
            answers.extend(client.receive())
            return bool(answers)

        await self.serve(answered, [probe])
        granted = msgspec.msgpack.decode(answers[0])[2]
        self._epoch = granted["subscriptions"][0]["epoch"]


class Idle(Scenario):
    """Connections that do nothing: their heartbeats, as time goes by."""

    units = MANY
    repeat = 1

    async def prepare(self) -> None:
        self._readers = self.connect(Msgpack(), MANY)
        await self.open(self._readers)
        for reader in self._readers:
            reader.send(reader.dialect.opening("idle", None))
        await self.receive(dict.fromkeys(self._readers, 1))

    async def exchange(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StillLoop)
        interval = int(self._server.node.limits.ping_interval)
        beats = 0
        for _ in range(interval):
            self._toggle()
            loop.advance(1.0)
            self._toggle()
            await self.serve(lambda _: True, [])
            for reader in self._readers:
                for ping in reader.receive():
                    if ping[1] != TAG_PING:
                        raise RuntimeError(f"{self.title}: {ping!r} is no ping")
                    reader.send(bytes((ping[0], TAG_PONG)) + ping[2:])
                    beats += 1
            await self.serve(lambda _: True, [])
        if beats != self.units:
            raise RuntimeError(f"{self.title}: {beats} heartbeats")


Make = Callable[["Server", Callable[[], object]], Scenario]


def _of(title: str, kind: type[Scenario], **options: object) -> tuple[str, Make]:
    def make(server: Server, toggle: Callable[[], object]) -> Scenario:
        scenario = kind(server, toggle, **options)
        scenario.title = title
        return scenario

    return title, make


SCENARIOS: dict[str, Make] = dict(
    [
        _of("fan-out, each alone", FanOut, dialect=Plain(), batch=1),
        _of("fan-out, under load", FanOut, dialect=Msgpack(), batch=BATCH),
        _of("one to one, each alone", Pairs, dialect=Msgpack(), batch=1),
        _of("one to one, under load", Pairs, dialect=Msgpack(), batch=BATCH),
        _of("one to one, JSON", Pairs, dialect=Json(), batch=BATCH),
        _of("connect, auth, subscribe", Storm),
        _of("the same, and recover", Recovery),
        _of("idle", Idle),
    ]
)
