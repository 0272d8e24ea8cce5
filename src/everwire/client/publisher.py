"""From ``publish`` to the acknowledgement: fills the outbox, and empties it into links."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

import msgspec

from ..codes import ErrorCode
from ..errors import OutboxFull, RequestError
from ..limits import ClientLimits
from ..net.backoff import Backoff
from ..protocol import messages as m
from ..protocol.channels import check_channel
from ..protocol.data import plain_data
from ..protocol.dialects import Dialect
from ..protocol.messages import Position
from .link import Answer, Link
from .outbox import Ack, Entry, Lane, Outbox
from .requests import answer_error
from .stats import Counters

logger = logging.getLogger("everwire.client")

DEDUPE_MARGIN = 30.0  # seconds before the end of the server's memory: for clocks and transit
RETRY_BASE, RETRY_CAP, RETRY_FLOOR = 0.2, 5.0, 0.05  # seconds between runs of a channel


class _Accepted(msgspec.Struct):
    epoch: str
    offset: int
    duplicate: bool = False


class Publisher:
    """Sends what the outbox holds, in order, whenever there is a link that takes it."""

    def __init__(
        self,
        dialect: Dialect,
        limits: ClientLimits,
        counters: Counters,
        *,
        wall: Callable[[], float],
        random: Random,
    ) -> None:
        self.instance = base64.urlsafe_b64encode(
            random.getrandbits(96).to_bytes(12, "big")
        ).decode()
        self.outbox = Outbox(
            messages=limits.outbox_messages, size=limits.outbox_bytes, settled=self._hold
        )
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

    # ---- for the application -----------------------------------------------------

    def publish_nowait(self, channel: str, data: Any, ttl: float | None) -> asyncio.Future[Ack]:
        """Put a message into the outbox; see :meth:`.client.Client.publish_nowait`."""
        entry = self._entry(channel, data, ttl)
        self.outbox.put(entry)
        self._taken(entry)
        return entry.future

    async def publish(self, channel: str, data: Any, ttl: float | None) -> Ack:
        """Put a message into the outbox and wait; see :meth:`.client.Client.publish`."""
        entry = self._entry(channel, data, ttl)
        try:
            self.outbox.put(entry)
        except OutboxFull:
            await self._wait_for_room(entry)
        else:
            self._taken(entry)
        return await entry.future

    async def _wait_for_room(self, entry: Entry) -> None:
        seconds = self._limits.outbox_block
        try:
            async with asyncio.timeout(seconds):
                await self.outbox.put_when_room(entry)
        except TimeoutError:
            if not entry.taken:
                raise OutboxFull(
                    f"no room in the outbox within {seconds:g} s: the server acknowledges "
                    "too slowly, or there is no connection"
                ) from None
        finally:
            if entry.taken:
                self._taken(entry)

    def _entry(self, channel: str, data: Any, ttl: float | None) -> Entry:
        if self._dialect.acknowledges:
            check_channel(channel)
        data = plain_data(data)
        loop = asyncio.get_running_loop()
        entry_id = f"{self.instance}-{next(self._numbers)}"
        encoded = self._encode(entry_id, channel, data, 0)
        if len(encoded) > self._message_limit:
            raise _too_big(channel, len(encoded), self._message_limit)
        expires = loop.time() + (self._limits.outbox_ttl if ttl is None else ttl)
        return Entry(entry_id, channel, data, encoded, expires, loop.create_future())

    def _encode(self, entry_id: str, channel: str, data: Any, run: int) -> bytes:
        message = m.Publish(entry_id, channel, data, run=run)
        return self._dialect.encode(message, int(self._wall() * 1000))

    def _taken(self, entry: Entry) -> None:
        if self._expiry is None or entry.expires < self._expiry.when():
            self._expire_at(entry.expires)
        self.pump()

    # ---- for the session ---------------------------------------------------------

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
        """The client ended: give up what is left."""
        self._link = None
        self.outbox.end(cause)
        self.lost()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def pump(self) -> None:
        """Send what may be sent."""
        link = self._link
        while link is not None and link is self._link and link.writable and link.error is None:
            found = self.outbox.next(link.window)
            if found is None:
                return
            self._send(link, *found)

    def _send(self, link: Link, entry: Entry, run: int) -> None:
        now, wall = asyncio.get_running_loop().time(), self._wall()
        if entry.first_sent is None:
            entry.first_sent, entry.first_wall = now, wall
        else:
            age = max(now - entry.first_sent, wall - entry.first_wall)
            window = link.dedupe_window
            if age > window - min(DEDUPE_MARGIN, window / 2):
                self.outbox.give_up(
                    entry, f"first sent {age:.0f} s ago, and the server remembers {window:g} s"
                )
                return
        payload, entry.encoded = entry.encoded, None
        if payload is None or run:
            payload = self._encode(entry.id, entry.channel, entry.data, run)
        if len(payload) > self._message_limit:
            self.outbox.fail(entry, _too_big(entry.channel, len(payload), self._message_limit))
            return
        self._counters.sent += 1
        if self._dialect.acknowledges:
            link.ask(entry.id, payload, self._answered, entry)
        else:
            link.send_bytes(payload)
            self._acknowledge(entry, Ack(None, False, entry.id))

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
        self.pump()

    def _acknowledge(self, entry: Entry, ack: Ack) -> None:
        if self.outbox.acknowledge(entry, ack):
            self._counters.acknowledged += 1

    def _hold(self, channel: str, lane: Lane) -> None:
        """All that was sent of a channel is answered, not all accepted: again, in a while."""
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

    def _expire_at(self, when: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_at(when, self._expire)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._expiry = None
        # The timer of one entry serves all: most were acknowledged long ago.
        self.outbox.expire(loop.time() + 1e-6)
        when = self.outbox.next_expiry()
        if when is not None:
            self._expire_at(when)
        self.pump()


def _too_big(channel: str, size: int, limit: int) -> RequestError:
    return RequestError(
        f"a message of {size} bytes to {channel!r}; the server takes {limit}",
        code=ErrorCode.TOO_BIG,
    )
