"""Answers that come in parts, as fast as the application takes them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ..codes import ErrorCode
from ..errors import (
    BadData,
    ConnectionClosed,
    ProtocolError,
    RequestError,
    RequestTimeout,
    StreamInterrupted,
)
from ..limits import MAX_INTEGER, STREAM_CREDIT, ClientLimits
from ..protocol import messages as m
from ..protocol.answers import answer_error, convert_result
from .link import Answer, Link

T = TypeVar("T")

REPLENISH = STREAM_CREDIT // 2  # a credit is sent for so many parts at a time


class Inflow:
    """A stream on its link: what came of it and was not taken yet.

    Attributes:
        link: where it comes from.
        received: parts that came.
        ended: nothing more comes.
    """

    __slots__ = ("_allowed", "_bytes", "_id", "_largest", "_limit", "_loop", "_parts", "_streams",
                 "_waiter", "ended", "error", "link", "name", "received")  # fmt: skip

    def __init__(self, streams: Streams, link: Link, request_id: int, name: str) -> None:
        self.link = link
        self.name = name
        self.received = 0
        self.ended = False
        self.error: Exception | None = None
        self._id = request_id
        self._streams = streams
        self._limit = streams.limits.stream_bytes
        self._loop = asyncio.get_running_loop()
        self._parts: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._largest = 1
        self._allowed = STREAM_CREDIT  # parts that may come still
        self._waiter: asyncio.Future[None] | None = None

    def answered(self, answer: Answer) -> None:
        """Something came."""
        if isinstance(answer, m.Error):
            error = answer_error(answer)
            late = error.code == ErrorCode.TIMEOUT
            self.end(RequestTimeout(f"stream {self.name!r}: {error}") if late else error)
        elif answer.more:
            if self._allowed == 0:
                self.cancel()
                self.error = ProtocolError(f"stream {self.name!r}: the server sent unasked")
                return
            self._allowed -= 1
            self._take(answer.payload)
        else:
            if answer.payload is not None:  # answered once, by one that does not stream
                self._take(answer.payload)
            self.end(None)

    def _take(self, payload: Any) -> None:
        size = self.link.answer_size
        self.received += 1
        self._bytes += size
        self._largest = max(self._largest, size)
        self._parts.append((payload, size))
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self, error: Exception | None) -> None:
        """Nothing more comes; ``error`` is raised after the parts that came."""
        if not self.ended:
            self.ended = True
            self.error = error
            self._streams.forget(self)
            self._wake()

    def interrupt(self, cause: Exception) -> None:
        """The link, or the client, ended."""
        if isinstance(cause, ConnectionClosed):
            cause = StreamInterrupted(cause.code, cause.reason, parts=self.received)
        self.end(cause)

    def cancel(self) -> None:
        """Nobody wants the rest."""
        if self.ended:
            return
        self._parts.clear()
        self.link.forget(self._id)
        self.link.send(m.Cancel(self._id))
        self.end(None)

    def abandon(self) -> None:
        """The same, from whatever thread."""
        if not self.ended:
            with suppress(RuntimeError):  # the loop is closed, and with it the link
                self._loop.call_soon_threadsafe(self.cancel)

    async def next(self, seconds: float) -> Any:
        """Take a part. Cancelling cancels the stream.

        Raises:
            StopAsyncIteration: there is none any more.
            RequestTimeout: none came in time.
            EverwireError: why it ended.
        """
        if self._waiter is not None:
            raise RuntimeError(f"stream {self.name!r} is read by somebody else already")
        if not self._parts:
            await self._wait(seconds)
        if not self._parts:
            error, self.error = self.error, None
            raise error or StopAsyncIteration
        payload, size = self._parts.popleft()
        self._bytes -= size
        if not self.ended:
            self._replenish()
        return payload

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not self._parts and not self.ended:
                    self._waiter = self._loop.create_future()
                    await self._waiter
        except TimeoutError:
            self.cancel()
            text = (
                f"stream {self.name!r}: nothing within {seconds:g} s, after {self.received} parts"
            )
            raise RequestTimeout(text) from None
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:
            self._waiter = None

    def _replenish(self) -> None:
        """Let more come: in parts as one credit has, and in bytes as the limit has."""
        room = STREAM_CREDIT - self._allowed - len(self._parts)
        fits = (self._limit - self._bytes) // self._largest - self._allowed
        more = min(room, fits)
        nothing_left = not self._allowed and not self._parts
        if nothing_left:
            more = max(more, 1)
        if more >= REPLENISH or nothing_left:
            self._allowed += more
            self.link.send(m.Credit(self._id, more))


class Streams:
    """The streams under way."""

    def __init__(self, limits: ClientLimits) -> None:
        self.limits = limits
        self._open: dict[Inflow, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, link: Link, name: str, payload: Any, seconds: float) -> Inflow:
        """Ask for a stream.

        Raises:
            RequestError: too big.
        """
        request_id = link.next_id()
        milliseconds = min(max(1, round(seconds * 1000)), MAX_INTEGER)
        encoded = link.encode(m.Query(request_id, name, payload, milliseconds, stream=True))
        if len(encoded) > link.message_limit:
            text = (
                f"stream {name!r} has {len(encoded)} bytes; the server takes {link.message_limit}"
            )
            raise RequestError(text, code=ErrorCode.TOO_BIG)
        inflow = Inflow(self, link, request_id, name)
        self._open[inflow] = None
        link.ask(request_id, encoded, Inflow.answered, inflow, timed=False)
        return inflow

    def forget(self, inflow: Inflow) -> None:
        """It ended."""
        self._open.pop(inflow, None)

    def lost(self, error: ConnectionClosed) -> None:
        """A link ended: what came on it ends, and is not begun anew."""
        for inflow in list(self._open):
            if inflow.link.error is not None:
                inflow.interrupt(error)

    def end(self, cause: Exception) -> None:
        """The client ended."""
        for inflow in list(self._open):
            inflow.interrupt(cause)


class Stream(Generic[T]):
    """The parts of an answer: ``async for part in client.stream("ticks")``.

    It begins when it is first iterated over, or entered with ``async with``. The server is
    asked for no more than 16 parts ahead of what was taken here. Leaving, by whatever way,
    cancels the handler on the server: at the end of ``async with`` at once, otherwise when
    Python lets go of the stream.

    Attributes:
        name: of the query.
    """

    def __init__(
        self, begin: Callable[[], Awaitable[Inflow]], name: str, kind: Any, seconds: float
    ) -> None:
        self.name = name
        self._begin = begin
        self._kind = kind
        self._seconds = seconds
        self._inflow: Inflow | None = None
        self._closed = False

    @property
    def received(self) -> int:
        """How many parts came so far, also those that were not taken yet."""
        return self._inflow.received if self._inflow is not None else 0

    async def __aenter__(self) -> Self:
        """Ask for it. Cancelling before that asks for nothing.

        Raises:
            NotSent: there was no connection in time.
            RequestError: too big.
            ConnectionClosed: the client ended.
        """
        await self._opened()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _opened(self) -> Inflow:
        if self._inflow is None:
            self._inflow = await self._begin()
        return self._inflow

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Take the next part. Cancelling ends the stream, and cancels the handler.

        Raises:
            StopAsyncIteration: that was all.
            StreamInterrupted: the connection was lost; ``parts`` says how many came.
            RequestError: the server refuses, or its handler failed.
            RequestTimeout: no part in time.
            BadData: a part is no ``type``; that ends the stream.
            NotSent: there was no connection in time.
        """
        if self._closed:
            raise StopAsyncIteration
        inflow = await self._opened()
        part = await inflow.next(self._seconds)
        try:
            return convert_result(part, self._kind, f"stream {self.name!r}")  # type: ignore[no-any-return]
        except BadData:
            inflow.cancel()
            raise

    async def aclose(self) -> None:
        """End it, and cancel the handler on the server. Nothing to wait for, or to cancel."""
        self._closed = True
        if self._inflow is not None:
            self._inflow.cancel()

    def __del__(self) -> None:
        if self._inflow is not None:
            self._inflow.abandon()

    def __repr__(self) -> str:
        ended = self._closed or (self._inflow is not None and self._inflow.ended)
        return f"<Stream {self.name!r} received={self.received}{' ended' if ended else ''}>"
