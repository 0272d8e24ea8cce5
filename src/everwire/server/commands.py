"""Commands that run once: results remembered by idempotency key (rule 6).

A retry with the key of a finished command gets its response; one with the key of a
command that still runs waits for it. Kept in this process, for as long as message ids.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any

import msgspec

from ..codes import ErrorCode
from ..errors import RequestError

MAX_RESULT = 64 * 1024  # bytes of a remembered response
MAX_KEYS = 100_000
MAX_KEYS_OF_A_USER = 10_000
MAX_BYTES = 64 * 1024 * 1024  # of all remembered responses

Scope = tuple[str, str, str, str]

_pack = msgspec.msgpack.Encoder(order="deterministic")


class _Entry:
    __slots__ = ("at", "digest", "future", "size")

    def __init__(self, digest: bytes, future: asyncio.Future[Any], at: float) -> None:
        self.digest = digest
        self.future = future
        self.at = at
        self.size = 0


class CommandLog:
    """Remembers what keyed commands answered."""

    def __init__(self, window: float, clock: Callable[[], float]) -> None:
        self._window = window
        self._clock = clock
        self._entries: OrderedDict[Scope, _Entry] = OrderedDict()
        self._owners: Counter[tuple[str, str]] = Counter()
        self._bytes = 0

    async def run(
        self,
        scope: Scope,
        payload: Any,
        start: Callable[[], Awaitable[Any]],
    ) -> Any:
        """Run a command, or return what it answered when it ran.

        Args:
            scope: tenant, user, name and key.
            payload: the same key with another payload is refused.
            start: runs it.

        Cancelling stops waiting; the command goes on, and its answer is remembered.

        Raises:
            RequestError: ``key_reused``; or what the command itself raised.
        """
        self._forget()
        digest = blake2b(_pack.encode(payload), digest_size=16).digest()
        entry = self._entries.get(scope)
        if entry is None:
            self._check_room(scope[:2])
            future = asyncio.ensure_future(start())  # noqa: TID251 (held by the entry)
            future.add_done_callback(lambda done: self._finished(scope, done))
            entry = self._entries[scope] = _Entry(digest, future, self._clock())
            self._owners[scope[:2]] += 1
        elif entry.digest != digest:
            raise RequestError(code=ErrorCode.KEY_REUSED)
        return await asyncio.shield(entry.future)

    def _finished(self, scope: Scope, done: asyncio.Future[Any]) -> None:
        """Keep what a retry is to be answered, and nothing that hangs on to more than that."""
        entry = self._entries.get(scope)
        if entry is None:
            return
        if done.cancelled():
            self._drop(scope, entry)
            return
        error = done.exception()
        if error is None:
            size = len(_pack.encode(done.result()))
            if size <= MAX_RESULT:
                entry.size = size
                self._bytes += size
                return
            error = RequestError(
                "the command ran, and its response was too large to be kept",
                code=ErrorCode.OUTCOME_UNKNOWN,
            )
        elif not isinstance(error, RequestError):
            error = RequestError(code=ErrorCode.INTERNAL)
        # Without the traceback, whose frames hold the payload.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        kept: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        kept.set_exception(error)
        kept.exception()  # it is meant for a retry that may never come
        entry.future = kept

    def _drop(self, scope: Scope, entry: _Entry) -> None:
        del self._entries[scope]
        self._bytes -= entry.size
        owner = scope[:2]
        self._owners[owner] -= 1
        if not self._owners[owner]:
            del self._owners[owner]

    def _forget(self) -> None:
        oldest = self._clock() - self._window
        while self._entries:
            scope, entry = next(iter(self._entries.items()))
            if entry.at > oldest:
                break
            if entry.future.done():
                self._drop(scope, entry)
            else:  # it still runs: look again after another window
                entry.at = self._clock()
                self._entries.move_to_end(scope)

    def _check_room(self, owner: tuple[str, str]) -> None:
        if (
            len(self._entries) >= MAX_KEYS
            or self._bytes >= MAX_BYTES
            or self._owners[owner] >= MAX_KEYS_OF_A_USER
        ):
            raise RequestError(
                "too many commands are remembered; later", code=ErrorCode.DEDUPE_FULL
            )

    async def stop(self) -> None:
        """Cancel what still runs."""
        running = [entry.future for entry in self._entries.values() if not entry.future.done()]
        for future in running:
            future.cancel()
        if running:
            await asyncio.wait(running)
        self._entries.clear()
