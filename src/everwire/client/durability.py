"""Keeps an outbox in step with its file: see :mod:`.journal` for what may happen when."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..errors import NotStored
from ..limits import ClientLimits
from ..protocol.data import pack_data, unpack_data
from .entry import Entry, remembered
from .journal import Journal
from .link import Link
from .records import Bury, Delete, Forget, Mark, Put, SqliteOutbox
from .undelivered import Undelivered

if TYPE_CHECKING:
    from .publisher import Publisher

logger = logging.getLogger("everwire.client")


class Durability:
    """Has the file follow the outbox, and the outbox wait for the file."""

    def __init__(
        self,
        settings: SqliteOutbox,
        limits: ClientLimits,
        publisher: Publisher,
        *,
        wall: Callable[[], float],
    ) -> None:
        self._journal = Journal(settings, limits)
        self._publisher = publisher
        self._wall = wall
        self._groups: deque[tuple[Link, list[tuple[Entry, int]], bool]] = deque()
        self._ended: BaseException | None = None

    async def open(self) -> list[Entry]:
        """Open the file; return what a former process has left to send, in order.

        Cancelling gives the file free.

        Raises:
            ConfigError: it cannot be used.
        """
        rows = await self._journal.open()
        if rows:
            logger.info("the outbox holds %d messages of a former process", len(rows))
        return [self._entry(row) for row in rows]

    async def close(self) -> None:
        """Write what there is to write, and give the file free. Cancelling hastens it."""
        await self._journal.close()

    async def undelivered(self) -> list[Undelivered]:
        """Read what was given up; see :meth:`.client.Client.undelivered`. Safe to cancel."""
        return [Undelivered.of_buried(row) for row in await self._journal.undelivered()]

    def forget(self, message: Undelivered) -> None:
        """Forget one of them."""
        self._journal.write(Forget(message.number))

    def _entry(self, row: Put) -> Entry:
        loop = asyncio.get_running_loop()
        now, wall = loop.time(), self._wall()
        data = unpack_data(row.data)
        expires = now + row.expires - wall
        entry = Entry(row.id, row.channel, data, b"", expires, loop.create_future(), row.key)
        entry.encoded = None
        entry.size = row.size
        entry.firm = row.firm
        entry.place = row.place
        entry.orphan = True
        if row.first_sent is not None:
            age = wall - row.first_sent
            entry.first_sent, entry.first_wall = now - age, row.first_sent
            if age < -1.0:  # the clock was set back: nobody can say how long ago it was sent
                entry.expires = now
        return entry

    # ---- the file follows ----------------------------------------------------------

    def put(self, entry: Entry, link: Link | None) -> None:
        """An entry got in: store it."""
        now, wall = asyncio.get_running_loop().time(), self._wall()
        expires, first_sent = wall + entry.expires - now, None
        if link is not None and self._publisher.goes_out(entry):
            # It goes out at once: one commit instead of two.
            first_sent, expires = wall, self._expires_if_sent(entry, link, wall)
            entry.marked = link.number
        row = Put(entry.place, entry.id, entry.channel, entry.key, pack_data(entry.data),
                  entry.size, expires, entry.firm, first_sent)  # fmt: skip
        self._journal.write(row, partial(self._stored, entry))

    def _stored(self, entry: Entry, error: BaseException | None) -> None:
        outbox = self._publisher.outbox
        if error is not None:
            failure = NotStored(f"message {entry.id} to {entry.channel!r}: {error}")
            failure.__cause__ = error
            outbox.fail(entry, failure)
            return
        entry.stored = True
        if entry.committed is not None and not entry.committed.done():
            entry.committed.set_result(None)
        if self._ended is None:
            self._publisher.pump_soon()
        elif not entry.gone:
            outbox.keep(entry, self._ended)

    def delete(self, entry: Entry) -> None:
        """An entry is done with."""
        self._journal.write(Delete(entry.place))

    def bury(self, entry: Entry, error: Exception) -> None:
        """An entry was given up, and nobody heard of it."""
        self._journal.write(Bury(entry.place, entry.first_sent is not None, str(error)))

    def end(self, cause: BaseException) -> None:
        """The client ended: what is in the file stays there."""
        self._ended = cause
        for entry in self._publisher.outbox:
            if entry.stored:
                self._publisher.outbox.keep(entry, cause)

    # ---- the outbox waits ------------------------------------------------------------

    def mark(self, found: list[tuple[Entry, int]], link: Link) -> bool:
        """Note the time of first attempts. False if there is none to note: send at once.

        Otherwise they are sent when it is written; those that need no note as well, for
        nothing overtakes.
        """
        first = [one for one, _ in found if one.first_sent is None and one.marked != link.number]
        if not first and not self._groups:
            return False
        wall = self._wall()
        for entry in first:
            entry.marked = link.number
            mark = Mark(entry.place, wall, self._expires_if_sent(entry, link, wall))
            self._journal.write(mark, self._marked if entry is first[-1] else None)
        self._groups.append((link, found, bool(first)))
        return True

    def _marked(self, error: BaseException | None) -> None:
        """The first group is noted: send it, and those behind it that need no note."""
        link, found, _ = self._groups.popleft()
        self._publisher.send(link, found)
        while self._groups and not self._groups[0][2]:
            link, found, _ = self._groups.popleft()
            self._publisher.send(link, found)

    def _expires_if_sent(self, entry: Entry, link: Link, wall: float) -> float:
        """The wall clock's time at which an entry is given up that is sent now."""
        memory = remembered(link.dedupe_window)
        left = entry.expires - asyncio.get_running_loop().time()
        return wall + (min(left, memory) if entry.firm else memory)
