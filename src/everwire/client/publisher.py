"""From ``publish`` to the acknowledgement: fills the outbox, and empties it into links."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from ..codes import ErrorCode
from ..errors import ConfigError, Dropped, NotSent, RequestError, Superseded
from ..instrumentation import LimitedLog
from ..limits import ClientLimits
from ..net.backoff import Backoff
from ..protocol import messages as m
from ..protocol.answers import answer_error
from ..protocol.channels import check_channel
from ..protocol.data import plain_data
from ..protocol.dialects import Dialect
from ..protocol.messages import Position
from .entry import Ack, Entry, remembered
from .hooks import call_hook
from .link import Answer, Link
from .observations import PublishDropped
from .outbox import Lane, Outbox
from .overflow import Overflow, checked_overflow
from .records import SqliteOutbox
from .stats import Counters
from .tally import Tally
from .undelivered import Undelivered

if TYPE_CHECKING:
    from .durability import Durability

logger = logging.getLogger("everwire.client")

RETRY_BASE, RETRY_CAP, RETRY_FLOOR = 0.2, 5.0, 0.05  # seconds between runs of a channel
GATHERED = 32  # messages that wait for others of their turn; then the server may begin with them
JOINED = 64 * 1024  # bytes that are handed to the link at once; then it may say that it is full


class _Accepted(msgspec.Struct):
    epoch: str
    offset: int
    duplicate: bool = False


class Publisher:
    """Sends what the outbox holds, in order, whenever there is a link that takes it.

    What is published in one turn of the loop goes out together, at its end: a write costs more
    than a message, on both sides and in between.

    Attributes:
        on_drop: see :class:`.client.Client`.
        on_undelivered: see :class:`.client.Client`.
        durability: keeps the outbox in a file, None without one.
    """

    def __init__(
        self,
        dialect: Dialect,
        limits: ClientLimits,
        counters: Counters,
        *,
        wall: Callable[[], float],
        random: Random,
        overflow: Overflow | None = None,
        durable: SqliteOutbox | None = None,
    ) -> None:
        self.instance = base64.urlsafe_b64encode(
            random.getrandbits(96).to_bytes(12, "big")
        ).decode()
        self.on_drop: Callable[[Undelivered], None] | None = None
        self.on_undelivered: Callable[[Undelivered], None] | None = None
        self.outbox = Outbox(messages=limits.outbox_messages, size=limits.outbox_bytes, owner=self)
        self.durability: Durability | None = None
        if durable is not None:
            from .durability import Durability  # and SQLite, which others need not load

            self.durability = Durability(durable, limits, self, wall=wall)
        self._overflow = overflow
        self._dialect = dialect
        self._limits = limits
        self._counters = counters
        self._wall = wall
        self._random = random
        self._numbers = count(1)
        self._link: Link | None = None
        self._message_limit = limits.message
        self._retries: dict[str, asyncio.TimerHandle] = {}
        self._expiry: asyncio.TimerHandle | None = None
        self._pumping = False
        self._alone = True
        self._left: list[Undelivered] = []
        self._log = LimitedLog(logger, wall)

    # ---- for the application -----------------------------------------------------

    def publish_nowait(
        self,
        channel: str,
        data: Any,
        *,
        ttl: float | None = None,
        key: str | None = None,
        overflow: Overflow | None = None,
        tally: Tally | None = None,
    ) -> asyncio.Future[Ack]:
        """Put a message into the outbox; see :meth:`.client.Client.publish_nowait`."""
        if overflow == "block":
            raise ConfigError('publish_nowait cannot block: "await publish(...)" does')
        policy = (
            checked_overflow(overflow) if overflow is not None else self._overflow
        ) or "reject"
        entry = self._entry(channel, data, ttl, key)
        with entry.counted(tally):
            self.outbox.put(entry, policy)
        return entry.future

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        ttl: float | None = None,
        key: str | None = None,
        overflow: Overflow | None = None,
        stored: bool = False,
        tally: Tally | None = None,
    ) -> Ack:
        """Put a message into the outbox and wait; see :meth:`.client.Client.publish`."""
        policy = (checked_overflow(overflow) if overflow is not None else self._overflow) or "block"
        entry = self._entry(channel, data, ttl, key)
        if stored:
            if self.durability is None:
                raise ConfigError('wait="stored" needs a durable outbox: connect(..., outbox=…)')
            entry.orphan = True
            entry.committed = asyncio.get_running_loop().create_future()
        with entry.counted(tally):
            if not self.outbox.offer(entry, policy):
                await self.outbox.wait(entry, self._limits.outbox_block)
        if entry.committed is None:
            return await entry.future
        await entry.committed
        return Ack(None, False, entry.id)

    def drain_queued(self) -> list[Undelivered]:
        """Take back what was not sent; see :meth:`.client.Client.drain_queued`."""
        queued, self._left = self._left, []
        for entry in list(self.outbox.unsent()):
            queued.append(Undelivered.of_entry(entry, "taken back"))
            error = NotSent(f"message {entry.id} to {entry.channel!r} was taken back")
            self.outbox.take_back(entry, error)
        return queued

    def _entry(self, channel: str, data: Any, ttl: float | None, key: str | None) -> Entry:
        if self._dialect.acknowledges:
            check_channel(channel)
        data = plain_data(data)
        loop = asyncio.get_running_loop()
        entry_id = f"{self.instance}-{next(self._numbers)}"
        encoded = self._encode(entry_id, channel, data, 0)
        if len(encoded) > self._message_limit:
            raise _too_big(channel, len(encoded), self._message_limit)
        expires = loop.time() + (self._limits.outbox_ttl if ttl is None else ttl)
        entry = Entry(entry_id, channel, data, encoded, expires, loop.create_future(), key)
        entry.firm = ttl is not None
        entry.stored = self.durability is None
        return entry

    def _encode(self, entry_id: str, channel: str, data: Any, run: int) -> bytes:
        message = m.Publish(entry_id, channel, data, run=run)
        return self._dialect.encode(message, int(self._wall() * 1000))

    # ---- OutboxOwner -------------------------------------------------------------

    def taken(self, entry: Entry, replaced: Entry | None) -> None:
        if self._expiry is None or entry.expires < self._expiry.when():
            self._watch(entry.expires)
        if self.durability is not None and not entry.stored:
            self.durability.put(entry, self._link)
        elif self.outbox.ready >= GATHERED:
            self.pump()
        elif self._alone and not self._pumping and not self.outbox.in_flight:
            self.pump()  # most likely there will be nothing to join it with this time either
        else:
            self.pump_soon()

    def ended(self, entry: Entry, error: Exception | None, told: bool) -> None:
        if error is None and self.durability is None:
            return
        if error is not None:
            self._counters.tell(PublishDropped(channel=entry.channel, id=entry.id, cause=error))
        if self.durability is not None and entry.taken and not isinstance(error, Superseded):
            if error is None or told:
                self.durability.delete(entry)
            else:
                self.durability.bury(entry, error)
                self._log.log(logging.WARNING, "undelivered", "undelivered: %s", error)
                call_hook(self.on_undelivered, Undelivered.of_entry(entry, error))
        if isinstance(error, Superseded):
            self._counters.superseded += 1
        elif isinstance(error, Dropped):
            self._counters.dropped += 1
            self._log.log(logging.WARNING, "dropped", "%s", error)
        else:
            return
        call_hook(self.on_drop, Undelivered.of_entry(entry, error))

    # ---- for the session ---------------------------------------------------------

    async def open(self) -> None:
        """Take what a former process has left, if the outbox is durable.

        Cancelling leaves it where it is.

        Raises:
            ConfigError: the file cannot be used.
        """
        if self.durability is not None:
            self.outbox.restore(await self.durability.open())
            self._expire()

    async def close(self) -> None:
        """Leave the durable outbox's file in order. Cancelling leaves it as it is."""
        if self.durability is not None:
            await self.durability.close()

    def attached(self, link: Link) -> None:
        """A link is ready: what is not acknowledged goes out again, then what is new."""
        self.lost()
        self._link = link
        self._message_limit = link.message_limit
        self.outbox.relink()
        self.pump()

    def lost(self) -> None:
        """The link is gone."""
        self._link = None
        for timer in self._retries.values():
            timer.cancel()
        self._retries.clear()

    def end(self, cause: BaseException) -> None:
        """The client ended: give up what is left, or leave it in the file."""
        self.lost()
        if self.durability is None:
            reason = "the client ended"
            self._left += [Undelivered.of_entry(e, reason) for e in self.outbox.unsent()]
            self.outbox.end(cause)
        else:
            self.outbox.refuse_waiting()
            self.durability.end(cause)
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    # ---- sending -----------------------------------------------------------------

    def pump_soon(self) -> None:
        """Send what may be sent, at the end of this turn of the loop."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump_now)

    def _pump_now(self) -> None:
        self._pumping = False
        self.pump()

    def pump(self) -> None:
        """Send what may be sent."""
        link = self._link
        while link is not None and link is self._link and link.writable and link.error is None:
            found = None if link.held else self.outbox.take_ready(link.window, JOINED)
            if not found:
                return
            self._alone = len(found) == 1
            if self.durability is None or not self.durability.mark(found, link):
                self.send(link, found)

    def goes_out(self, entry: Entry) -> bool:
        """Whether an entry that just got in will be sent as soon as it may."""
        link, outbox = self._link, self.outbox
        return (
            link is not None
            and link.writable
            and not link.held
            and len(outbox) <= link.window
            and not outbox.is_held(entry.channel)
        )

    def send(self, link: Link, found: list[tuple[Entry, int]]) -> None:
        """Send entries that are in flight, with their runs, unless the link is a former one."""
        if link is not self._link:
            return
        payloads: list[bytes] = []
        for entry, run in found:
            payload = None if entry.gone else self._payload(link, entry, run)
            if payload is None:
                continue
            payloads.append(payload)
            if self._dialect.acknowledges:
                link.expect(entry.id, self._answered, entry)
        self._counters.sent += len(payloads)
        link.send_many(payloads)
        if not self._dialect.acknowledges:
            for entry, _ in found:
                self._acknowledge(entry, Ack(None, False, entry.id))

    def _payload(self, link: Link, entry: Entry, run: int) -> bytes | None:
        """What to send of an entry now; None if it is given up instead."""
        now, wall = asyncio.get_running_loop().time(), self._wall()
        memory = remembered(link.dedupe_window)
        if entry.first_sent is None:
            entry.first_sent, entry.first_wall = now, wall
            if self.durability is not None:
                entry.expires = min(entry.expires, now + memory) if entry.firm else now + memory
                self._watch(entry.expires)
        else:
            age = max(now - entry.first_sent, wall - entry.first_wall)
            if age > memory:
                why = f"and the server remembers {link.dedupe_window:g} s"
                self.outbox.give_up(entry, f"first sent {age:.0f} s ago, {why}")
                return None
        payload, entry.encoded = entry.encoded, None
        if payload is None or run:
            payload = self._encode(entry.id, entry.channel, entry.data, run)
        if len(payload) > self._message_limit:
            self.outbox.fail(entry, _too_big(entry.channel, len(payload), self._message_limit))
            return None
        return payload

    # ---- answers -----------------------------------------------------------------

    def _answered(self, entry: Entry, answer: Answer) -> None:
        if isinstance(answer, m.Response):
            accepted = msgspec.convert(answer.payload, _Accepted)
            position = Position(accepted.epoch, accepted.offset, entry.id)
            self._acknowledge(entry, Ack(position, accepted.duplicate, entry.id))
        else:
            error = answer_error(answer)
            if error.temporary or error.outcome == "unknown":
                self.outbox.hold(entry, error, error.retry_after)
            else:
                self.outbox.fail(entry, error)
        if self.outbox.ready:
            self.pump_soon()

    def _acknowledge(self, entry: Entry, ack: Ack) -> None:
        if self.outbox.acknowledge(entry, ack):
            self._counters.acknowledged += 1

    def settled(self, channel: str, lane: Lane) -> None:
        pause = Backoff(
            base=RETRY_BASE, cap=RETRY_CAP, floor=RETRY_FLOOR, first=0.0, random=self._random
        )
        pause.attempts = lane.failures - 1
        delay = pause.delay(hint=lane.hint)
        logger.info("publishing to %r is held; again in %.2f s", channel, delay)
        if channel in self._retries:
            self._retries[channel].cancel()
        loop = asyncio.get_running_loop()
        self._retries[channel] = loop.call_later(delay, self._release, channel)

    def _release(self, channel: str) -> None:
        self._retries.pop(channel, None)
        self.outbox.release(channel)
        self.pump()

    # ---- time to live ------------------------------------------------------------

    def _watch(self, expires: float) -> None:
        if self._expiry is not None:
            if self._expiry.when() <= expires:
                return
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_at(expires, self._expire)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        # The timer of one entry serves all: most were acknowledged long ago.
        self.outbox.expire(loop.time() + 1e-6)
        when = self.outbox.next_expiry()
        if when is not None:
            self._watch(when)
        self.pump()


def _too_big(channel: str, size: int, limit: int) -> RequestError:
    text = f"a message of {size} bytes to {channel!r}; the server takes {limit}"
    return RequestError(text, code=ErrorCode.TOO_BIG)
