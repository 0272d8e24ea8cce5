"""The durable outbox: what the file is told, when, and what may be done before it knows.

**Nothing is sent before the row that holds it is committed.** Were it sent first, a crash
in between would leave a message with the server that the file knows nothing of. The
application, whose ``publish`` never returned, would publish it again, with another id: stored
twice. And had the ids been counted in the file, the next process would give the same id to
another message: the server would take that for a repetition, acknowledge it, and it would
be lost. This second danger is excluded once more, for files that lost commits already made (a
power cut with ``synchronous="NORMAL"``, a backup put back): every process draws a new
instance of 96 random bits for its new messages, and a row keeps the whole id of its message. So
a message that is sent again has the id that it had, and no other message ever has it.

**The time of the first attempt is committed before that attempt.** The server remembers an
id for a while (the window that it announces) from then on. Were it noted later, a crash in
between would leave a row that looks unsent, and a process that starts after the window would
send it: stored twice. Noted too early it does no harm: the message is given up a little
sooner, as one of which nobody knows.

**A row is deleted after its acknowledgement, at leisure.** If a crash comes first, the row is
sent again within the window, and the server answers ``duplicate``; after the window it is
given up and reported, never sent.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeAlias

from ..errors import ConfigError, NotStored
from ..limits import ClientLimits
from .records import Buried, Change, Put, SqliteOutbox
from .store import Store

logger = logging.getLogger("everwire.client")

GROUP = 128  # changes at most in one commit
GATHER = 0.005  # seconds for which deletions wait for others to be committed with
RETRY = 1.0  # seconds until a change that nobody waits for is tried again

Written: TypeAlias = Callable[[BaseException | None], None]
"""Is told that a change is committed, or why it is not, and never will be."""


class _Wanted(NamedTuple):
    change: Change
    written: Written | None


class Journal:
    """Writes changes in groups, by a thread of its own, in the order in which they came.

    What piles up while a group is being written is the next group.
    """

    def __init__(self, settings: SqliteOutbox, limits: ClientLimits) -> None:
        self._settings = settings
        self._limits = limits
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="everwire outbox")
        self._store: Store | None = None
        self._changes: list[_Wanted] = []
        self._writing = False
        self._closing = False
        self._soon = False
        self._timer: asyncio.Handle | None = None
        self._waiting: list[asyncio.Future[None]] = []

    # ---- life ------------------------------------------------------------------

    async def open(self) -> list[Put]:
        """Open the file; return what a former process has left to send, in order.

        Cancelling gives it free again.

        Raises:
            ConfigError: it cannot be used; the text says why and what to do.
        """
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(self._pool, self._open)
        try:
            return await asyncio.shield(opening)
        except BaseException:
            self._closing = True
            self._pool.submit(self._close)
            self._pool.shutdown(wait=False)
            raise

    def _open(self) -> list[Put]:
        limits = self._limits
        self._store = store = Store(
            self._settings,
            undelivered=limits.outbox_undelivered,
            undelivered_bytes=limits.outbox_bytes,
        )
        try:
            return store.entries()
        except sqlite3.Error as error:
            raise ConfigError(f"outbox {str(store.path)!r} cannot be read: {error}") from error

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()

    async def close(self) -> None:
        """Write what there is to write, and give the file free.

        Cancelling leaves out what is not written yet: it is sent again, and de-duplicated.
        """
        if self._closing or self._store is None:
            return
        self._closing = True
        try:
            while self._changes or self._writing:
                await self._written_out()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            closing = asyncio.get_running_loop().run_in_executor(self._pool, self._close)
            self._pool.shutdown(wait=False)
            await asyncio.shield(closing)

    # ---- writing ---------------------------------------------------------------

    def write(self, change: Change, written: Written | None = None) -> None:
        """Have a change written; if that fails, again and again.

        Args:
            change: what.
            written: is called once it is committed. A :class:`~.store.Put` is tried once:
                this is given the error then.
        """
        self._changes.append(_Wanted(change, written))
        if not self._writing:
            self._schedule(soon=written is not None or len(self._changes) >= GROUP)

    def _schedule(self, *, soon: bool, delay: float = GATHER) -> None:
        if self._timer is not None:
            if self._soon or not soon:
                return
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._soon = soon
        # What is published in this turn of the loop becomes one group.
        self._timer = loop.call_soon(self._write) if soon else loop.call_later(delay, self._write)

    def _write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing or not self._changes:
            return
        group, self._changes = self._changes[:GROUP], self._changes[GROUP:]
        self._writing = True
        job = asyncio.get_running_loop().run_in_executor(
            self._pool, self._apply, [wanted.change for wanted in group]
        )
        job.add_done_callback(lambda done: self._group_ended(group, done))

    def _apply(self, changes: list[Change]) -> int:
        assert self._store is not None
        return self._store.apply(changes)

    def _group_ended(self, group: list[_Wanted], done: asyncio.Future[int]) -> None:
        self._writing = False
        error = done.exception()
        if error is not None:
            logger.error("the outbox %r cannot be written: %s", self._settings.path, error)
            if not self._closing:  # what is repeated then does no harm
                self._changes[:0] = [one for one in group if not isinstance(one.change, Put)]
        elif done.result():
            logger.warning("the outbox forgot %d undelivered messages: too many", done.result())
        for wanted in group:
            if wanted.written is not None and (error is None or isinstance(wanted.change, Put)):
                wanted.written(error)
        if self._changes:
            soon = any(isinstance(wanted.change, Put) for wanted in self._changes)
            if error is None:
                soon = soon or any(wanted.written is not None for wanted in self._changes)
            self._schedule(soon=soon, delay=GATHER if error is None else RETRY)
        if error is not None or not self._changes:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    async def _written_out(self) -> None:
        """Wait until all is written, or until something could not be."""
        self._write()
        if self._writing:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    # ---- what was given up -------------------------------------------------------

    async def undelivered(self) -> list[Buried]:
        """Read what was given up while nobody heard of it. Safe to cancel.

        Raises:
            NotStored: the file cannot be read.
        """
        await self._written_out()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, self._undelivered)
        except sqlite3.Error as error:
            raise NotStored(
                f"the outbox {self._settings.path!r} cannot be read: {error}"
            ) from error

    def _undelivered(self) -> list[Buried]:
        assert self._store is not None
        return self._store.undelivered()
