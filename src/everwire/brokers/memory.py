"""``memory://``: one process, nothing to install; the default.

An acknowledgement survives what the process survives. Each channel gets a new epoch at
each start, so that a client of an earlier process is told of the gap.

Several nodes of one process and event loop may share a memory: ``MemoryBroker(beside=first)``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from secrets import token_hex
from time import time as wall_time

from ..codes import ErrorCode
from ..errors import BrokerUnavailable, RequestError
from ..limits import Limits
from ..protocol.messages import Member, Position
from ..protocol.positions import NOWHERE
from .base import (
    Broker,
    BrokerEvents,
    ChannelOptions,
    Claim,
    Completion,
    Members,
    Page,
    Publication,
    Published,
    PublishOutcome,
    Record,
)
from .store import Memory
from .stream import DedupeWindow


class MemoryBroker(Broker):
    """A node's access to a memory, which is its own or that of the broker ``beside`` it."""

    url = "memory://"

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        wall: Callable[[], float] = wall_time,
        new_epoch: Callable[[], str] = lambda: token_hex(8),
        beside: MemoryBroker | None = None,
    ) -> None:
        self.memory: Memory = (
            beside.memory if beside is not None else Memory(limits or Limits(), wall, new_epoch)
        )
        self._events: BrokerEvents | None = None
        self._node = ""

    async def start(self, events: BrokerEvents) -> None:
        self._events, self._node = events, events.id
        self.memory.join(events)

    async def stop(self) -> None:
        if self._events is not None:
            self._events = None
            self.memory.leave(self._node)

    def publish(self, publication: Publication, done: Completion) -> PublishOutcome:
        memory = self.memory
        now = memory.clock()
        channel = publication.channel
        stream = memory.streams.get(channel)
        if stream is None:
            try:
                stream = memory.open(channel, now)
            except BrokerUnavailable as error:
                return error
        offset = stream.top + 1
        message_id = publication.id
        if message_id:
            dedupe = stream.dedupe
            if dedupe is None:
                limits = memory.limits
                dedupe = DedupeWindow(limits.dedupe_window, limits.dedupe_max, now)
                stream.dedupe = dedupe
            scope = publication.scope
            key = f"{len(scope)}:{scope}{message_id}"
            known = dedupe.claim(key, offset, now)
            if known > 0:
                return Published(Position(stream.epoch, known, message_id), True)
            if known < 0:
                return RequestError(code=ErrorCode.DEDUPE_FULL)
        else:
            message_id = f"{stream.epoch[:8]}-{offset}"
        record = Record(
            stream.epoch,
            offset,
            message_id,
            int(memory.wall() * 1000),
            publication.payload,
            None,
            publication.publisher,
            publication.trace,
        )
        grown = stream.append(record, now, publication.options)
        if grown:
            memory.held += grown
            if not stream.listed:
                stream.listed = True
                memory.holding[stream] = now
            if memory.held > memory.limits.history_total:
                memory.evict()
        for events in stream.listeners:
            events.on_record(channel, record)
        return Published(Position(stream.epoch, offset, message_id))

    async def subscribe(self, channels: Sequence[str]) -> None:
        for channel in channels:
            self.memory.note(channel, self._node, self._events)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        for channel in channels:
            self.memory.note(channel, self._node, None)

    async def read(
        self,
        channel: str,
        since: Position | None,
        *,
        limit: int,
        limit_bytes: int,
        options: ChannelOptions,
    ) -> Page:
        return self.memory.fresh(channel, options).read(since, limit, limit_bytes)

    async def latest(self, channel: str, *, limit: int, options: ChannelOptions) -> Page:
        return self.memory.fresh(channel, options).latest(limit)

    async def tops(self, channels: Sequence[str]) -> Sequence[Position]:
        streams = self.memory.streams
        found = (streams.get(channel) for channel in channels)
        return [NOWHERE if stream is None else stream.position for stream in found]

    async def restart(self, channel: str, epoch: str) -> None:
        stream = self.memory.streams.get(channel)
        if stream is not None and stream.epoch == epoch:
            stream.restart(self.memory.new_epoch())

    async def presence_add(
        self, channel: str, member: Member, instance: str = "", instead: str | None = None
    ) -> None:
        memory = self.memory
        memory.leases.setdefault(self._node, memory.clock())  # who never renews it has no members
        change = memory.rosters.add(self._node, channel, member, instance, instead)
        memory.tell([(channel, change)])

    async def presence_remove(self, channel: str, connection: str, grace: float = 0.0) -> None:
        memory = self.memory
        until = memory.clock() + grace if grace else None
        memory.tell([(channel, memory.rosters.remove(channel, connection, until))])

    async def presence(self, channel: str, limit: int) -> Members:
        return self.memory.rosters.read(channel, limit)

    async def presence_versions(self, channels: Sequence[str]) -> Sequence[int]:
        return [self.memory.rosters.version(channel) for channel in channels]

    async def renew(self, lease: float) -> bool:
        return self.memory.renew(self._node, lease)

    async def nodes(self) -> Sequence[str]:
        memory = self.memory
        return [node for node in memory.leases if memory.alive(node)]

    async def signal(self, node: str | None, payload: bytes) -> None:
        soon = asyncio.get_running_loop().call_soon
        for name, events in self.memory.nodes.items():
            if name == node or (node is None and name != self._node):
                soon(events.on_signal, payload)

    async def claim(
        self, owner: str, key: str, digest: bytes, *, attempt: str, again: bool
    ) -> Claim:
        memory = self.memory
        return memory.claims.claim(self._node, owner, key, digest, attempt, again, memory.clock())

    async def finish(self, owner: str, key: str, attempt: str, answer: bytes | None) -> None:
        memory = self.memory
        memory.claims.finish(owner, key, attempt, answer, memory.clock())

    async def watch(self, prefixes: Sequence[str]) -> None:
        self.memory.watch(self._node, set(prefixes), set())

    async def unwatch(self, prefixes: Sequence[str]) -> None:
        self.memory.watch(self._node, set(), set(prefixes))
