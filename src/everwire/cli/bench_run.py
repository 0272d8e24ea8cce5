"""One run of ``bench``: connect, load, settle, count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random, SystemRandom

from ..client.connect import connect_network
from ..client.target import Target
from ..client.tokens import Tokens
from ..errors import EverwireError, RequestError
from ..limits import ClientLimits
from ..net.attempts import Attempts
from ..net.tasks import TaskOwner
from ..protocol.dialects import dialect as find_dialect
from .bench_load import REMEDIES, Load, Peer, Totals
from .bench_publisher import Publisher
from .bench_subscriber import Subscriber
from .linking import explain, trusting
from .running import Failed, Interrupt, spare_the_collector

QUIET = 3.0  # seconds without anything coming after which nothing more is expected
SETTLE = 30.0  # seconds for which stragglers are waited for, at most
LOOK = 0.02  # seconds between two looks at whether all has come
PER_CONNECTION = 200  # channels: as many as fit into one subscribe


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is to be done; see the command's help. Durations are seconds."""

    url: str
    token: str | None
    ca: str | None
    dialect: str
    connections: int
    publishers: int
    channels: int
    channel: str
    rate: float
    window: int | None
    size: int
    duration: float
    warmup: float
    connect_at_once: int
    timeout: float


@dataclass(slots=True)
class Mark:
    """Where things stood."""

    at: float
    cpu: float
    totals: Totals


@dataclass(slots=True)
class Result:
    """What became of it.

    Attributes:
        connected: of all connections, publishers included.
        connecting: seconds that it took.
        begin: where the measured part began, None if it never came to that.
        end: and where it ended.
        unsent: messages that were due and found no room.
        unanswered: publishes whose fate is not known.
    """

    settings: Settings
    connected: int = 0
    connecting: float = 0.0
    failed_attempts: int = 0
    begin: Mark | None = None
    end: Mark | None = None
    unsent: int = 0
    unanswered: int = 0
    lost: int = 0
    doubled: int = 0
    misordered: int = 0
    interrupted: bool = False
    load: Load = field(init=False)

    @property
    def good(self) -> bool:
        """Everything that was published was delivered once, in order, to everybody."""
        load = self.load
        return not (
            self.lost or self.doubled or self.misordered or self.unanswered or load.totals.refused
        )


class Bench:
    """A run. Interrupt ``stop`` to end it early, ``hasten`` to wait for no stragglers."""

    def __init__(self, settings: Settings, *, random: Random | None = None) -> None:
        self.settings = settings
        self.result = Result(settings)
        self.stop, self.hasten = Interrupt(), Interrupt()
        self.begun = 0.0  # when publishing began, 0.0 before
        self._tasks = TaskOwner("everwire bench")
        random = random or SystemRandom()
        tag = random.getrandbits(32)
        self.pairs = list(_pairs(settings.connections, settings.channels))
        readers = [0] * settings.channels
        for _, channel in self.pairs:
            readers[channel] += 1
        limits = ClientLimits()
        self.load = self.result.load = Load(
            target=Target(
                url=settings.url,
                dialect=find_dialect(settings.dialect),
                tokens=Tokens(settings.token),
                credentials=None,
                name="everwire bench",
                headers=None,
                ssl=trusting(settings.url, settings.ca),
                proxy=None,
                connect_timeout=limits.connect_timeout,
            ),
            limits=limits,
            network=connect_network(Attempts(None)),  # it is here to come all at once
            random=random,
            channels=[f"{settings.channel}-{tag:08x}-{n}" for n in range(settings.channels)],
            readers=readers,
            publishers=settings.publishers,
            tag=tag,
            size=settings.size,
        )
        self._subscribers: list[Subscriber] = []
        self._publishers: list[Publisher] = []

    async def run(self, shown: Callable[[], None] = lambda: None) -> Result:
        """See it through. Cancelling drops all connections.

        Args:
            shown: called once when connecting is over.

        Raises:
            Failed: not all could connect, or subscribe.
        """
        try:
            await self.stop.run(self._connect_and_load(shown))
            self._end_load()
            await self.hasten.run(self._settle())
            self.result.interrupted = self.stop.called
            self._count()
        finally:
            await self._close()
        return self.result

    async def _connect_and_load(self, shown: Callable[[], None]) -> None:
        await self._connect()
        shown()
        spare_the_collector()
        await self._load()

    # ---- connecting

    async def _connect(self) -> None:
        settings, load = self.settings, self.load
        interval = settings.publishers / settings.rate if settings.rate else 0.0
        # Closed loops have a window; an open one is bounded by what the server works on.
        window = settings.window or (1 << 30 if settings.rate else 16)
        mine: list[list[int]] = [[] for _ in range(settings.connections)]
        for connection, channel in self.pairs:
            mine[connection].append(channel)
        self._subscribers = [Subscriber(load, channels) for channels in mine]
        self._publishers = [
            Publisher(load, index, window=window, interval=interval)
            for index in range(settings.publishers)
        ]
        peers: Sequence[Peer] = [*self._subscribers, *self._publishers]
        waiting = iter(peers)
        began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(settings.connect_at_once, len(peers))):
                    group.create_task(self._connect_each(waiting))
        except BaseExceptionGroup as error:
            first = error.exceptions[0]
            raise first from None
        finally:
            self.result.connecting = time.monotonic() - began
            self.result.failed_attempts = sum(
                max(0, peer.session.number - 1) for peer in peers if peer.session.number
            )

    async def _connect_each(self, waiting: Iterator[Peer]) -> None:
        for peer in waiting:
            self._tasks.start(peer.run(), "connection")
            try:
                async with asyncio.timeout(self.settings.timeout):
                    await peer.ready
            except TimeoutError:
                raise self._not_connected(peer.session.failure) from None
            except (EverwireError, OSError) as error:
                raise self._not_connected(error) from None
            self.result.connected += 1

    def _not_connected(self, why: BaseException | None) -> Failed:
        settings = self.settings
        wanted = settings.connections + settings.publishers
        text = explain(settings.url, why) if why else f"{settings.url}: no answer"
        if isinstance(why, RequestError) and (remedy := REMEDIES.get(f"{why.code} {why.name}")):
            text += f"; {remedy}"
        if self.result.connected:
            text = f"{self.result.connected} of {wanted} connected; then: {text}"
        return Failed(text)

    # ---- loading

    async def _load(self) -> None:
        settings, load = self.settings, self.load
        self.begun = time.monotonic()
        begin = load.clock()
        for index, publisher in enumerate(self._publishers):
            # Spread: otherwise all publishers would send at the same moments.
            publisher.start(begin + int(index * 1e9 / settings.rate) if settings.rate else begin)
        await asyncio.sleep(settings.warmup)
        self.result.begin = self._mark()
        load.since = load.clock()
        await asyncio.sleep(settings.duration)

    def _end_load(self) -> None:
        self.result.end = self._mark()
        self.result.unsent = sum(publisher.stop() for publisher in self._publishers)

    def _mark(self) -> Mark:
        return Mark(time.monotonic(), time.process_time(), replace(self.load.totals))

    async def _settle(self) -> None:
        """Wait for what is still to come, as long as something does."""
        load = self.load
        began = moved = time.monotonic()
        before = (-1, -1, -1)
        while any(publisher.pending for publisher in self._publishers) or self._missing():
            now = time.monotonic()
            state = (load.totals.delivered, load.totals.acknowledged, load.totals.refused)
            if state != before:
                before, moved = state, now
            if now - moved >= QUIET or now - began >= SETTLE:
                return
            await asyncio.sleep(LOOK)

    def _missing(self) -> int:
        """Whether deliveries are missing; counted only where the sum does not tell."""
        return self.load.unique < self.load.expected or self._lost()

    # ---- the end

    def _lost(self) -> int:
        number = {name: index for index, name in enumerate(self.load.channels)}
        return sum(
            reader.checker.lost(index, publisher.numbers[number[name]],
                                publisher.excused[number[name]])
            for subscriber in self._subscribers
            for name, reader in subscriber.readers.items()
            for index, publisher in enumerate(self._publishers)
        )  # fmt: skip

    def _count(self) -> None:
        result = self.result
        result.unanswered = sum(publisher.give_up() for publisher in self._publishers)
        result.lost = self._lost()
        for subscriber in self._subscribers:
            for reader in subscriber.readers.values():
                result.doubled += reader.checker.doubled
                result.misordered += reader.checker.misordered

    async def _close(self) -> None:
        peers: list[Peer] = [*self._subscribers, *self._publishers]
        with suppress(TimeoutError):
            async with asyncio.timeout(self.load.limits.close_timeout):
                async with asyncio.TaskGroup() as group:
                    for peer in peers:
                        group.create_task(peer.close())
        self._tasks.cancel_all()
        await self._tasks.wait_closed()


def _pairs(connections: int, channels: int) -> Iterator[tuple[int, int]]:
    """Which connection subscribes to which channels: evenly, and each to at least one."""
    if connections:
        for index in range(max(connections, channels)):
            yield index % connections, index % channels
