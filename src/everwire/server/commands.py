"""Commands that run once: claimed at the broker by idempotency key, and answered from there (rule 6).

A retry, at whichever node, gets the answer of the first one, or waits for it; and where the
node that ran it is no more, nobody knows (``outcome_unknown``), unless the handler was declared
to be idempotent: then it runs again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import msgspec

from ..codes import ErrorCode
from ..errors import BrokerUnavailable, RequestError, Unavailable
from ..net.tasks import TaskOwner
from .signals import Failure, error_of, failure_of

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

FIRST_LOOK, LAST_LOOK = 0.05, 1.0  # seconds between looks whether another node has finished
LAST_WORDS = 0.5  # seconds that commands are left when the node stops

_pack = msgspec.msgpack.Encoder(order="deterministic")


class Scope(msgspec.Struct, frozen=True, gc=False):
    """Whose command it is, and which: as :meth:`everwire.brokers.Broker.claim` wants it."""

    owner: str
    key: str


def scope_of(connection: Connection, name: str, key: str, digest: bytes) -> Scope:
    """The scope of a command.

    The anonymous have no name, and their keys may be guessed by each other. With what is to be
    done in the scope, a retry still finds itself, and nobody can take a key away from others.
    """
    user = connection.user or f"\x00{digest.hex()}"
    tenant = connection.identity.tenant
    return Scope(f"{len(tenant)}:{tenant}{user}", f"{len(name)}:{name}{key}")


def digest_of(payload: Any) -> bytes:
    """What tells one payload from another."""
    return blake2b(_pack.encode(payload), digest_size=16).digest()


class Answered(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a command answered, as it is remembered."""

    result: Any = None
    failure: Failure | None = None


_unpack = msgspec.msgpack.Decoder(Answered)


class _Running:
    """A command that this node runs, or waits for."""

    __slots__ = ("digest", "task", "waiting")

    def __init__(self, digest: bytes, task: asyncio.Task[Answered]) -> None:
        self.digest = digest
        self.task = task
        self.waiting = 0


class CommandLog:
    """Runs keyed commands. A retry to the node that runs the command does not ask the broker."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._running: dict[Scope, _Running] = {}
        self._tasks = TaskOwner(f"node {node.id} command")

    def __len__(self) -> int:
        return len(self._tasks)

    async def run(
        self,
        scope: Scope,
        digest: bytes,
        start: Callable[[], Awaitable[Any]],
        *,
        idempotent: bool = False,
    ) -> Any:
        """Run a command, or return what it answered when it ran.

        Args:
            scope: whose it is, and which.
            digest: of the payload; the same key with another payload is refused.
            start: runs it.
            idempotent: it may run again where nobody knows whether it ran.

        Cancelling stops waiting; the command goes on, and its answer is remembered.

        Raises:
            RequestError: ``key_reused``, ``outcome_unknown``, ``dedupe_full``; ``unavailable``:
                the broker does not answer, and it was not run; or what the command raised.
        """
        running = self._running.get(scope)
        if running is None:
            work = self._run(scope, digest, start, idempotent)
            running = self._running[scope] = _Running(digest, self._tasks.start(work, scope.key))
        elif running.digest != digest:
            raise RequestError(code=ErrorCode.KEY_REUSED)
        running.waiting += 1
        try:
            answered = await asyncio.shield(running.task)
        finally:
            running.waiting -= 1
        if answered.failure is not None:
            raise error_of(answered.failure)
        return answered.result

    async def _run(
        self, scope: Scope, digest: bytes, start: Callable[[], Awaitable[Any]], idempotent: bool
    ) -> Answered:
        try:
            return await self._claim(scope, digest, start, idempotent)
        finally:
            del self._running[scope]  # in the step that decides, so that nobody joins after it

    async def _claim(
        self, scope: Scope, digest: bytes, start: Callable[[], Awaitable[Any]], idempotent: bool
    ) -> Answered:
        broker, attempt = self._node.broker, token_hex(8)
        pause = FIRST_LOOK
        while True:
            try:
                claim = await broker.claim(
                    scope.owner, scope.key, digest, attempt=attempt, again=idempotent
                )
            except RequestError as error:
                return _failed(error)
            except BrokerUnavailable as error:
                self._node.broker_failed()
                self._finish(scope, attempt, None)  # it may have been claimed
                return _failed(Unavailable(f"the command was not run: {error}"))
            if claim.state == "claimed":
                return await self._run_here(scope, attempt, start)
            if claim.state == "done":
                return _unpack.decode(claim.answer)
            if claim.state == "reused":
                return _failed(RequestError(code=ErrorCode.KEY_REUSED))
            if claim.state == "lost" or not self._running[scope].waiting:
                return _failed(RequestError(code=ErrorCode.OUTCOME_UNKNOWN))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_LOOK)

    async def _run_here(
        self, scope: Scope, attempt: str, start: Callable[[], Awaitable[Any]]
    ) -> Answered:
        try:
            answered = Answered(await start())
        except RequestError as error:
            if error.temporary and error.outcome == "none":  # nothing happened: it may run yet
                await self._finished(scope, attempt, None)
                return _failed(error)
            answered = _failed(error)
        except Exception:
            self._node.log_defect(f"command {scope.key!r}", "command")
            answered = _failed(RequestError(code=ErrorCode.INTERNAL))
        await self._finished(scope, attempt, self._packed(answered))
        return answered

    def _packed(self, answered: Answered) -> bytes:
        """What is remembered."""
        try:
            packed = _pack.encode(answered)
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):
            why = "its response cannot be kept"  # the details of an error are anything
        else:
            if len(packed) <= self._node.limits.command_answer:
                return packed
            why = "its response was too large to be kept"
        unknown = RequestError(f"the command ran, and {why}", code=ErrorCode.OUTCOME_UNKNOWN)
        return _pack.encode(_failed(unknown))

    async def _finished(self, scope: Scope, attempt: str, answer: bytes | None) -> None:
        try:
            await self._node.broker.finish(scope.owner, scope.key, attempt, answer)
        except BrokerUnavailable as error:
            self._node.broker_failed()
            log = self._node.log
            log.log(logging.WARNING, "commands", "an answer is not remembered yet: %s", error)
            self._finish(scope, attempt, answer)

    def _finish(self, scope: Scope, attempt: str, answer: bytes | None) -> None:
        """Have it noted as soon as the broker answers."""
        finish = self._node.broker.finish
        self._node.chores.add(attempt, lambda: finish(scope.owner, scope.key, attempt, answer))

    async def stop(self) -> None:
        """Let what runs come to its end for a moment, then cancel it: nobody knows its outcome."""
        running = [one.task for one in self._running.values()]
        if running:
            await asyncio.wait(running, timeout=LAST_WORDS)
        self._tasks.cancel_all()
        await self._node.finish(self._tasks)


def _failed(error: Exception) -> Answered:
    return Answered(failure=failure_of(error))
