"""Commands that run once: results remembered by idempotency key (rule 6).

A retry with the key of a finished command gets its response; one with the key of a
command that still runs waits for it. Kept in this process, for as long as message ids.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any

import msgspec

from ..codes import ErrorCode
from ..errors import RequestError

MAX_RESULT = 64 * 1024  # bytes of a remembered response
MAX_KEYS = 100_000

_pack = msgspec.msgpack.Encoder(order="deterministic")


class _Entry:
    __slots__ = ("at", "digest", "future")

    def __init__(self, digest: bytes, future: asyncio.Future[Any], at: float) -> None:
        self.digest = digest
        self.future = future
        self.at = at


class CommandLog:
    """Remembers what keyed commands answered."""

    def __init__(self, window: float, clock: Callable[[], float]) -> None:
        self._window = window
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str, str, str], _Entry] = OrderedDict()

    async def run(
        self,
        scope: tuple[str, str, str, str],
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
            if len(self._entries) >= MAX_KEYS:
                raise RequestError(
                    "too many commands are remembered; later", code=ErrorCode.DEDUPE_FULL
                )
            future = asyncio.ensure_future(start())  # noqa: TID251 (held by the entry)
            future.add_done_callback(lambda done: self._finished(scope, done))
            entry = self._entries[scope] = _Entry(digest, future, self._clock())
        elif entry.digest != digest:
            raise RequestError(code=ErrorCode.KEY_REUSED)
        return await asyncio.shield(entry.future)

    def _finished(self, scope: tuple[str, str, str, str], done: asyncio.Future[Any]) -> None:
        """Forget a result that is too large to keep, and a command that was stopped."""
        if done.cancelled():
            self._entries.pop(scope, None)
        elif done.exception() is None and len(_pack.encode(done.result())) > MAX_RESULT:
            too_large = asyncio.get_running_loop().create_future()
            too_large.set_exception(
                RequestError(
                    "the command ran, and its response was too large to be kept",
                    code=ErrorCode.OUTCOME_UNKNOWN,
                )
            )
            too_large.exception()  # it is meant for a retry that may never come
            if (entry := self._entries.get(scope)) is not None:
                entry.future = too_large

    def _forget(self) -> None:
        oldest = self._clock() - self._window
        while self._entries:
            scope, entry = next(iter(self._entries.items()))
            if entry.at > oldest or not entry.future.done():
                break
            del self._entries[scope]

    async def stop(self) -> None:
        """Cancel what still runs."""
        running = [entry.future for entry in self._entries.values() if not entry.future.done()]
        for future in running:
            future.cancel()
        if running:
            await asyncio.wait(running)
        self._entries.clear()
