"""What a pool of sockets is made of: many cores of sockets, behaving as one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..codes import CloseCode
from .pool_life import PoolLife
from .pool_members import Member, Route
from .pool_strategies import Pick
from .socket import Socket
from .socket_core import BURST, SocketCore
from .socket_hooks import SocketStats
from .stats import together


class SocketPoolCore(PoolLife[SocketCore]):
    """Queues of what goes out, and inboxes of what came, as if they were one.

    Args:
        sockets: of the members.
        pick: the strategy.
        min_ready: members that must be connected before :meth:`open` returns.
        timeout: seconds that :meth:`open` waits; None for no end.
    """

    def __init__(
        self,
        sockets: Sequence[Socket],
        pick: Pick[Member[SocketCore]],
        *,
        min_ready: int,
        timeout: float | None,
    ) -> None:
        super().__init__(
            [_member(number, socket) for number, socket in enumerate(sockets)],
            pick,
            min_ready=min_ready,
            max_requests=1,  # nothing is answered: nobody acquires a member
            acquire_timeout=0.0,
            timeout=timeout,
        )
        self._arrived = asyncio.Event()
        self._next = 0
        self._burst = 0
        for member, socket in zip(self.members, sockets, strict=True):
            socket.on_state = partial(self.changed, member)
            socket.on_error = partial(self.failed, member)
            member.connection.on_end = partial(self.ended, member)
            member.connection.on_arrival = self._arrived.set

    async def _open_member(self, member: Member[SocketCore]) -> None:
        await member.connection.open()

    async def close(self, code: int, reason: str) -> None:
        """See :meth:`.socket_pool.SocketPool.close`. Cancelling drops all connections at once."""
        await self._close(code, reason)

    async def _close_member(self, member: Member[SocketCore], *how: Any) -> None:
        await member.connection.close(*(how or (CloseCode.NORMAL, "")))

    def _move(self, member: Member[SocketCore]) -> None:
        for item in member.connection.queue.hand_over():
            heir = item.tally.member if isinstance(item.tally, Route) else self.members.choose(None)
            core: SocketCore = heir.connection
            core.queue.adopt(item)
            core.queued(item)

    def _over(self) -> None:
        self._arrived.set()

    # ---- sending ---------------------------------------------------------------

    async def send(self, opcode: int, payload: bytes, ttl: float | None, key: str | None) -> None:
        """See :meth:`.socket_pool.SocketPool.send`. Cancelling takes back what has not left."""
        self.check()
        if key is None:
            await self.members.choose(None).connection.send(opcode, payload, ttl, None)
            return
        route = self.members.route(key)
        try:
            await route.member.connection.send(opcode, payload, ttl, key, route)
        finally:
            route.settle()

    def send_nowait(
        self, opcode: int, payload: bytes, ttl: float | None, key: str | None
    ) -> asyncio.Future[None]:
        """See :meth:`.socket_pool.SocketPool.send_nowait`."""
        self.check()
        if key is None:
            return self.members.choose(None).connection.send_nowait(opcode, payload, ttl, None)
        route = self.members.route(key)
        try:
            return route.member.connection.send_nowait(opcode, payload, ttl, key, route)
        finally:
            route.settle()

    # ---- receiving -------------------------------------------------------------

    async def receive(self) -> tuple[int, str | bytes]:
        """Return the next message that came, and its member. Cancelling loses nothing."""
        self.origin.check()
        if self._opened is None:
            self.check()
        self._burst += 1
        if self._burst >= BURST:  # who never has to wait must not keep the loop from all else
            self._burst = 0
            await asyncio.sleep(0)
        while True:
            found = self._take()
            if found is not None:
                return found
            if self._end is not None:
                raise self._end.with_traceback(None)
            self._arrived.clear()
            await self._arrived.wait()

    def _take(self) -> tuple[int, str | bytes] | None:
        """One message of the first member that has any, beginning behind the last one."""
        members = tuple(self.members)
        for member in (*members[self._next :], *members[: self._next]):
            if len(member.connection.inbox):
                self._next = (member.number + 1) % len(members)
                return member.number, member.connection.take()
        return None

    @property
    def stats(self) -> SocketStats:
        """What all of them counted."""
        return together([_stats(member.connection) for member in self.members])


def _stats(core: SocketCore) -> SocketStats:
    return replace(core.stats, attempts=core.session.number)


def _member(number: int, socket: Socket) -> Member[SocketCore]:
    core = socket._core  # noqa: SLF001  # a pool is made of what sockets stand on
    return Member(
        number,
        core,
        url=lambda: core.session.url,
        queued=lambda: (len(core.queue), core.queue.size),
        failure=lambda: core.session.failure,
        stats=lambda: _stats(core),
    )
