"""Streams: queries whose handler yields, answered part by part as the client gives credit.

Nothing is asked of the handler before the client may be sent what it yields: so nothing
is kept here, and a reader that does not read costs no more than a generator at rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from ..codes import ErrorCode
from ..errors import BadRequest, RequestError
from ..handling.handlers import Handler
from ..limits import MAX_INTEGER, STREAM_CREDIT
from ..protocol import messages as m
from ..protocol.data import plain_data
from .handlers import checked

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

OVERHEAD = 256  # bytes that a part counts beside its own: many small ones take time, too


class Stream:
    """One that is being answered.

    Attributes:
        credit: how many parts the client may still be sent.
        task: works on it.
        deadline: of the part that the handler works on.
        closing: the handler is being closed.
    """

    __slots__ = ("_given", "closing", "credit", "deadline", "task")

    def __init__(self) -> None:
        self.credit = STREAM_CREDIT
        self.task: asyncio.Task[None] | None = None
        self.deadline: asyncio.Timeout | None = None
        self.closing = False
        self._given: asyncio.Future[None] | None = None

    def cancel(self) -> None:
        """Close the handler, unless that is being done: a second time would disturb it."""
        late = self.deadline is not None and self.deadline.expired()
        if self.task is not None and not self.closing and not late:
            self.closing = True
            self.task.cancel()

    def give(self, n: int) -> None:
        """The client takes so many more."""
        self.credit = min(self.credit + n, MAX_INTEGER)
        if n and self._given is not None and not self._given.done():
            self._given.set_result(None)

    async def wait(self) -> None:
        """Wait until there is credit. Safe to cancel."""
        while not self.credit:
            self._given = asyncio.get_running_loop().create_future()
            await self._given


def open_stream(connection: Connection, handler: Handler, message: m.Query) -> Stream:
    """Note that a stream begins.

    Raises:
        RequestError: it cannot be one, or there are as many as are allowed.
    """
    if not message.stream:
        raise BadRequest(
            f"query {handler.name!r} is answered with a stream: ask for one, with client.stream()"
        )
    limit = connection.node.limits.streams
    if len(connection.streams) >= limit:
        connection.node.count("streams_full")
        raise RequestError(
            f"{limit} streams are open, the most allowed", code=ErrorCode.RATE_LIMITED
        )
    stream = Stream()
    connection.streams = connection.streams or {}
    connection.streams[message.id] = stream
    return stream


async def send_stream(
    node: Node,
    connection: Connection,
    handler: Handler,
    message: m.Query,
    stream: Stream,
    seconds: float,
) -> None:
    """Send what the handler yields, to its end. Cancelling closes the handler.

    Each part may take so many ``seconds``, and so may waiting for others of the same handler.

    Raises:
        RequestError: what the handler raises; or it took too long for a part, or a part
            is too big.
    """
    checked(message.payload)
    arguments = handler.arguments(message.payload)
    slots = node.slots.of(handler)
    if slots is not None:
        try:
            async with asyncio.timeout(seconds):
                await slots.acquire()
        except TimeoutError:
            raise RequestError(code=ErrorCode.TIMEOUT) from None
    parts = handler.stream(connection, arguments)
    try:
        await _send_parts(node, connection, message, stream, parts, seconds)
    finally:
        stream.closing = True
        await _close(node, handler, parts)
        if slots is not None:
            slots.release()
    connection.respond(message.id, None)


async def _send_parts(
    node: Node,
    connection: Connection,
    message: m.Query,
    stream: Stream,
    parts: AsyncGenerator[Any, None],
    seconds: float,
) -> None:
    limits = node.limits
    task = asyncio.current_task()
    unwritten = 0
    while True:
        await stream.wait()
        await connection.writable()
        try:
            part = await _next_part(stream, parts, seconds)
        except StopAsyncIteration:
            return
        if task is not None and task.cancelling():  # the handler kept that to itself
            raise asyncio.CancelledError
        encoded = connection.dialect.encode(m.Response(message.id, plain_data(part), more=True))
        if len(encoded) > limits.message:
            raise RequestError(
                f"a part of {len(encoded)} bytes; a message may have {limits.message}",
                code=ErrorCode.TOO_BIG,
            )
        connection.send_payload(encoded)
        stream.credit -= 1
        unwritten += len(encoded) + OVERHEAD
        if unwritten >= limits.write_low:  # let it be written, and others have their turn
            unwritten = 0
            await asyncio.sleep(0)


async def _next_part(stream: Stream, parts: AsyncGenerator[Any, None], seconds: float) -> Any:
    deadline = stream.deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            part = await anext(parts)
    except TimeoutError:
        if not deadline.expired():  # the handler's own
            raise
        raise RequestError(code=ErrorCode.TIMEOUT) from None
    if deadline.expired():  # the handler went on nevertheless
        raise RequestError(code=ErrorCode.TIMEOUT)
    return part


async def _close(node: Node, handler: Handler, parts: AsyncGenerator[Any, None]) -> None:
    """Let a handler that was left early end in order, within the time for closing."""
    try:
        async with asyncio.timeout(node.limits.close_timeout):
            await parts.aclose()
    except Exception:
        node.log_defect(f"closing the handler of query {handler.name!r}", "closing a stream")


def on_credit(node: Node, connection: Connection, message: m.Credit) -> None:
    """The client takes more of a stream."""
    stream = connection.streams.get(message.id)
    if stream is not None:
        stream.give(message.n)
