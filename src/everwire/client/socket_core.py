"""What a :class:`~everwire.Socket` is made of, and how it lives."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from random import Random
from typing import Any

from ..codes import CloseCode
from ..errors import (
    ClosedError,
    ClosedOK,
    ConfigError,
    ConnectionClosed,
    EverwireError,
    OutboxFull,
)
from ..limits import ClientLimits
from ..net.tasks import TaskOwner
from ..net.transport import Network
from ..protocol.frames import Opcode
from ..protocol.states import ConnectionState
from .forks import Origin
from .hooks import call_hook
from .inbox import Inbox
from .overflow import Overflow
from .queue import Outgoing, SendQueue
from .socket_hooks import Hooks, SocketStats
from .socket_link import SocketLink
from .socket_session import SocketSession, SocketTarget
from .tally import Tally

logger = logging.getLogger("everwire.socket")

BURST = 64  # messages that a task may send or take before others have their turn
QUIET = (CloseCode.NORMAL, CloseCode.GOING_AWAY)


class SocketCore:
    """A session, a queue of what goes out, and one of what came.

    Attributes:
        end: why it ended for good, None while it lasts.
        stats: what was counted.
        on_arrival: is called when there is something to receive; in a pool.
        on_end: is called when it ends for good, before what waits is given up for it.
    """

    def __init__(
        self,
        target: SocketTarget,
        limits: ClientLimits,
        hooks: Hooks,
        *,
        overflow: Overflow,
        ttl: float,
        network: Network,
        random: Random,
        wall: Callable[[], float],
        timeout: float,
    ) -> None:
        self.end: Exception | None = None
        self.stats = SocketStats()
        self.on_arrival: Callable[[], None] | None = None
        self.on_end: Callable[[Exception], None] | None = None
        self.origin = Origin("socket")
        self.session = SocketSession(
            target, limits, self,
            network=network, random=random, wall=wall, traffic=self.stats,
        )  # fmt: skip
        self.queue = SendQueue(
            messages=limits.outbox_messages, size=limits.outbox_bytes, lost=self._lost
        )
        self.inbox: Inbox[str | bytes] = Inbox(items=limits.queue_messages, size=limits.queue_bytes)
        self._limits = limits
        self._hooks = hooks
        self._overflow: Overflow = overflow
        self._ttl = ttl
        self._timeout = timeout
        self._tasks = TaskOwner("everwire socket", on_error=self._failed)
        self._opened: asyncio.Future[None] | None = None
        self._link: SocketLink | None = None  # that is open
        self._in_open_hook = False
        self._full = False
        self._burst = 0
        self._expires_at = math.inf
        self._expiry: asyncio.TimerHandle | None = None
        self._closing = False
        self._closed = asyncio.Event()

    def check(self) -> None:
        """Raise unless something may be begun."""
        self.origin.check()
        if self.end is not None:
            raise self.end.with_traceback(None)
        if self._closing:
            raise ClosedOK(CloseCode.NORMAL, "the socket is being closed")
        if self._opened is None:
            raise ConfigError('open the socket first: "async with Socket(...)" or "await"')

    # ---- life ------------------------------------------------------------------

    async def open(self) -> None:
        """See :meth:`.socket.Socket.__aenter__`. Cancelling ends the socket."""
        if self._opened is not None:
            if not self._opened.done():
                raise ConfigError("this socket is being opened already; await it once")
            self.check()
            return
        self.origin = Origin("socket")
        self._opened = asyncio.get_running_loop().create_future()
        self._tasks.start(self._run(), "session")
        if self._timeout <= 0:
            self._opened.cancel()  # nobody waits for it
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._opened
        except TimeoutError:
            last = self.session.failure
            await self._stop()
            gave_up = f"not connected to {self.session.url} within {self._timeout:g} s"
            if last is None:
                raise ClosedError(CloseCode.ABNORMAL, gave_up) from None
            last.add_note(f"{gave_up}; is the server running there?")
            raise last from None
        except BaseException:
            await self._stop()
            raise

    async def _run(self) -> None:
        try:
            await self.session.run()
        except (EverwireError, OSError) as error:
            self._finish(error)

    def _failed(self, task: asyncio.Task[Any], error: BaseException) -> None:
        """A defect: end rather than pretend to be connected."""
        self._finish(ClosedError(CloseCode.ABNORMAL, f"the socket failed: {error!r}"))

    async def close(self, code: int, reason: str) -> None:
        """See :meth:`.socket.Socket.close`. Cancelling drops the connection at once."""
        self.origin.check()
        if self._closing:
            await self._closed.wait()
            return
        self._closing = True
        try:
            if self.end is None and self._opened is not None:
                try:
                    async with asyncio.timeout(self._limits.close_timeout):
                        await self.queue.drained()
                except TimeoutError:
                    logger.warning("closing with %r", self.queue)
                if self.end is None:
                    await self.session.close(code, reason)
        finally:
            await self._stop()

    async def _stop(self) -> None:
        """End at once."""
        self._closing = True
        self._tasks.cancel_all()
        self._finish(ClosedOK(CloseCode.NORMAL, "the socket was closed"))
        try:
            await self._tasks.wait_closed()
        finally:
            self._closed.set()

    def _finish(self, error: Exception) -> None:
        """The socket ended, for good: tell everybody who waits."""
        if self.end is not None:
            return
        self.end = error
        if self._expiry is not None:
            self._expiry.cancel()
        if self.session.link is not None:
            self.session.link.abort()
        if self.on_end is not None:
            self.on_end(error)
        self.queue.end(error)
        self.inbox.wake()
        self.session.ended()
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)

    # ---- sending ---------------------------------------------------------------

    async def send(
        self,
        opcode: int,
        payload: bytes,
        ttl: float | None,
        key: str | None,
        tally: Tally | None = None,
    ) -> None:
        """See :meth:`.socket.Socket.send`. Cancelling takes back what has not begun to leave."""
        self.check()
        self._burst += 1
        if self._burst >= BURST:
            await self._let_others()
            self.check()
        written = self._write_now(opcode, payload, ttl)
        if written is True:
            return
        item = written or self._new(opcode, payload, ttl, key)
        if not written:
            with item.counted(tally):
                if not self.queue.offer(item, self._overflow):
                    await self.queue.room.wait(item, self._limits.outbox_block)
            self.queued(item)
        try:
            await item.future
        except asyncio.CancelledError:
            if item.queue is not None:
                item.queue.take_back(item)
            raise

    def send_nowait(
        self,
        opcode: int,
        payload: bytes,
        ttl: float | None,
        key: str | None,
        tally: Tally | None = None,
    ) -> asyncio.Future[None]:
        """See :meth:`.socket.Socket.send_nowait`."""
        self.check()
        written = self._write_now(opcode, payload, ttl)
        item = written if isinstance(written, Outgoing) else self._new(opcode, payload, ttl, key)
        if written is True:
            item.future.set_result(None)
        elif not written:
            with item.counted(tally):
                if not self.queue.offer(item, self._overflow):
                    self.queue.offer(item, "reject")
            self.queued(item)
        return item.future

    async def _let_others(self) -> None:
        """Who never has to wait must not keep the loop from all else."""
        self._burst = 0
        await asyncio.sleep(0)

    def _new(self, opcode: int, payload: bytes, ttl: float | None, key: str | None) -> Outgoing:
        now = asyncio.get_running_loop().time()
        expires = now + (self._ttl if ttl is None else ttl)
        return Outgoing(opcode, payload, key=key, expires=expires, own=self._in_open_hook)

    def _write_now(self, opcode: int, payload: bytes, ttl: float | None) -> Outgoing | bool:
        """Write a message that nothing is ahead of.

        Returns:
            True if all of it has left, False if it was not written, and itself if the rest
            is still to leave.
        """
        link = self._link
        if link is None or not link.writable or not self.queue.idle:
            return False
        if len(payload) > self._limits.outbox_bytes:
            raise OutboxFull(
                f"a message of {len(payload)} bytes; all that wait may have "
                f"{self._limits.outbox_bytes}"
            )
        if link.write(opcode, payload):
            self.stats.sent += 1
            return True
        item = self._new(opcode, payload, ttl, None)
        self.queue.begin(item)
        return item

    def queued(self, item: Outgoing) -> None:
        """A message got into the queue."""
        if item.expires < self._expires_at and not item.gone:
            self._expire_at(item.expires)
        self._pump()

    def _pump(self) -> None:
        """Write what waits, as long as all that was written has left."""
        while (link := self._link) is not None and link.writable and not self._in_open_hook:
            item = self.queue.head()
            if item is None:
                return
            if not item.started:
                item.started = True
                if not link.write(item.opcode, item.payload):
                    return
            self.queue.sent(item)
            self.stats.sent += 1

    def _expire_at(self, moment: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._expires_at = moment
        if moment < math.inf:
            self._expiry = asyncio.get_running_loop().call_at(moment, self._expire)

    def _expire(self) -> None:
        self._expires_at = math.inf
        self.queue.expire(asyncio.get_running_loop().time())
        self._expire_at(self.queue.next_expiry())

    def _lost(self, item: Outgoing, error: Exception) -> None:
        self.stats.dropped += 1
        if self._hooks.on_drop is not None:
            data = item.payload.decode() if item.opcode == Opcode.TEXT else item.payload
            call_hook(self._hooks.on_drop, data, error)

    # ---- receiving -------------------------------------------------------------

    async def receive(self) -> str | bytes:
        """See :meth:`.socket.Socket.recv`. Cancelling loses nothing."""
        self.origin.check()
        if self._opened is None:
            self.check()
        self._burst += 1
        if self._burst >= BURST:
            await self._let_others()
        while not len(self.inbox):
            if self.end is not None:
                raise self.end.with_traceback(None)
            await self.inbox.wait()
        return self.take()

    def take(self) -> str | bytes:
        """Take the first message of the inbox; there must be one."""
        message = self.inbox.take()
        if self._full and self._below(0.5):
            self._full = False
            if self._link is not None:
                self._link.resume_reading()
        return message

    def ended_quietly(self) -> bool:
        """Whether it ended as was wanted, by us or by the server."""
        return isinstance(self.end, ConnectionClosed) and self.end.code in QUIET

    def _below(self, part: float) -> bool:
        limits = self._limits
        return (
            len(self.inbox) <= part * limits.queue_messages
            and self.inbox.size <= part * limits.queue_bytes
        )

    # ---- SocketSessionOwner --------------------------------------------------------

    def link_message(self, link: SocketLink, message: str | bytes, size: int) -> None:
        self.stats.received += 1
        if self._hooks.on_message is not None:
            call_hook(self._hooks.on_message, message)
            return
        self.inbox.put(message, size)
        if not self._full and not self._below(1.0):
            self._full = True
            link.pause_reading()
        if self.on_arrival is not None:
            self.on_arrival()

    def link_writable(self, link: SocketLink) -> None:
        self._pump()

    def link_suspect(self, link: SocketLink, suspect: bool) -> None:
        self.session.suspect(suspect)

    def link_ended(self, link: SocketLink, error: ConnectionClosed) -> None:
        self.session.lost()
        if self._link is not link:
            return  # it was never open
        self._link = None
        head = self.queue.head()
        if head is not None and head.started and link.unsure:
            self.queue.sent(head)
            self.stats.sent += 1
        if self.queue.unlink() is not None:
            self.stats.repeated += 1
        self._expire_at(self.queue.next_expiry())
        call_hook(self._hooks.on_close, error)

    def session_open(self, link: SocketLink) -> None:
        self.stats.opened += 1
        self._link = link
        if self._full:
            link.pause_reading()
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)
        self._in_open_hook = True
        call_hook(self._hooks.on_open)
        self._in_open_hook = False
        self._pump()

    def session_failed(self, error: Exception) -> None:
        call_hook(self._hooks.on_error, error)

    def session_state(self, state: ConnectionState) -> None:
        call_hook(self._hooks.on_state, state)
