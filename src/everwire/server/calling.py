"""Calling an application's handlers: queries, commands and events of clients.

A handler's time is counted from the request on, its waiting for others of its name
included (``concurrency``). What it raises reaches the log; the client reads it only if it
is a :exc:`~everwire.RequestError`.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from ..codes import ErrorCode
from ..errors import BadData, Outcome, RequestError, Unavailable
from ..handling.handlers import Handler
from ..protocol import messages as m
from ..protocol.data import plain_data
from ..protocol.states import ConnectionState
from .builtin import BUILTINS
from .commands import digest_of, scope_of
from .handlers import checked
from .streams import open_stream, send_stream
from .working import Work, check_room, failure, guard, is_in_flight, start

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

# ---- queries and commands ----------------------------------------------------------


def on_query(node: Node, connection: Connection, message: m.Query) -> None:
    builtin = BUILTINS.get(message.name)
    handler = node.app.handlers.queries.get(message.name)
    if builtin is not None:
        call = Call(node, connection, message)
        call.start(partial(builtin, node, connection, message))
    elif handler is None:
        known = message.name in node.app.handlers.commands
        _refuse_unknown(connection, message.id, "query", message.name, known and "a command")
    elif handler.streams:
        _on_stream(node, connection, handler, message)
    else:
        call = Call(node, connection, message, handler)
        call.start(call.run)


def on_command(node: Node, connection: Connection, message: m.Command) -> None:
    handler = node.app.handlers.commands.get(message.name)
    if handler is None:
        known = message.name in node.app.handlers.queries or message.name in BUILTINS
        _refuse_unknown(connection, message.id, "command", message.name, known and "a query")
        return
    call = Call(node, connection, message, handler)
    call.start(call.run if message.key is None else call.run_once)


def _refuse_unknown(
    connection: Connection, request_id: m.RequestId, kind: str, name: str, rather: str | bool
) -> None:
    hint = f"; it is {rather}" if rather else ""
    error = RequestError(f"there is no {kind} {name[:80]!r}{hint}", code=ErrorCode.UNKNOWN_TYPE)
    connection.refuse(request_id or None, error)


class Call:
    """A query or command, until it is answered."""

    __slots__ = ("_begun", "_connection", "_handler", "_message", "_node")

    def __init__(
        self,
        node: Node,
        connection: Connection,
        message: m.Query | m.Command,
        handler: Handler | None = None,
    ) -> None:
        self._node = node
        self._connection = connection
        self._message = message
        self._handler = handler
        self._begun = False

    def __str__(self) -> str:
        kind = "query" if isinstance(self._message, m.Query) else "command"
        return f"{kind} {self._message.name!r}"

    def start(self, work: Work[Any]) -> None:
        """Answer with what ``work`` returns, in a task of its own."""
        try:
            check_room(self._node, self._connection)
        except Unavailable as error:
            self._connection.refuse(self._message.id, error)
            return
        answer = partial(self._answer, work)
        start(self._node, self._connection, self._message.id, answer, str(self))

    @property
    def _outcome(self) -> Outcome:
        """Of a failure: a command that had begun may have done something."""
        return "unknown" if self._begun and isinstance(self._message, m.Command) else "none"

    async def _answer(self, work: Work[Any]) -> None:
        deadline = asyncio.timeout(seconds_for(self._node, self._handler, self._message.timeout))
        try:
            async with deadline:
                result = await work()
            if deadline.expired():  # the handler went on nevertheless
                self._refuse(ErrorCode.TIMEOUT)
            else:
                self._respond(result)
        except RequestError as error:
            self._connection.refuse(self._message.id, error)
        except asyncio.CancelledError:
            # Nothing follows that would need to know: this is all that the task does.
            if self._connection.state is ConnectionState.READY:
                self._refuse(ErrorCode.CANCELLED)
        except Exception as error:
            if deadline.expired():
                self._refuse(ErrorCode.TIMEOUT)
            else:
                told = failure(self._node, error, str(self), self._outcome)
                self._connection.refuse(self._message.id, told)

    def _respond(self, result: Any) -> None:
        connection, limit = self._connection, self._node.limits.message
        answer = m.Response(self._message.id, result)
        encoded = connection.dialect.encode(answer, self._node.now_ms())
        if len(encoded) <= limit:
            connection.send_payload(encoded)
            return
        text = f"the answer has {len(encoded)} bytes; a message may have {limit}"
        self._refuse(ErrorCode.TOO_BIG, text)
        log = self._node.log.log
        log(logging.WARNING, f"too big {self}", "%s: %s; its caller got too_big", self, text)

    def _refuse(self, code: ErrorCode, text: str = "") -> None:
        error = RequestError(text, code=code, outcome=self._outcome)
        self._connection.refuse(self._message.id, error)

    async def run(self) -> Any:
        """Run the handler; return what goes over the wire."""
        assert self._handler is not None
        return await self._run(self._handler)

    async def run_once(self) -> Any:
        """Run the handler of a command with a key, or wait for whoever runs it."""
        message, handler, connection = self._message, self._handler, self._connection
        assert isinstance(message, m.Command)
        assert message.key is not None
        assert handler is not None
        checked(message.payload)
        digest = digest_of(message.payload)
        scope = scope_of(connection, message.name, message.key, digest)
        # Its caller may give up, or be gone: it has a time of its own.
        seconds = handler.timeout or self._node.limits.request_timeout_max
        run = partial(self._run_within, handler, seconds)
        try:
            return await self._node.commands.run(scope, digest, run, idempotent=handler.idempotent)
        except asyncio.CancelledError:
            self._begun = True  # as far as this caller knows
            raise

    async def _run_within(self, handler: Handler, seconds: float) -> Any:
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                return await self._run(handler)
        except RequestError:
            raise
        except Exception as error:
            if deadline.expired():
                raise RequestError(code=ErrorCode.TIMEOUT, outcome=self._outcome) from None
            raise failure(self._node, error, str(self), self._outcome) from None

    async def _run(self, handler: Handler) -> Any:
        checked(self._message.payload)
        arguments = handler.arguments(self._message.payload)
        result = await self._called(handler, arguments)
        try:
            return plain_data(result)
        except BadData as error:
            kind = type(result).__name__
            raise TypeError(f"{self} returned a {kind} that {error}") from error

    async def _called(self, handler: Handler, arguments: dict[str, Any]) -> Any:
        slots = self._node.slots.of(handler)
        if slots is not None:
            await slots.acquire()
        self._begun = True
        ended = slots.release if slots is not None else None
        return await handler.call(self._connection, arguments, ended)


def seconds_for(node: Node, handler: Handler | None, asked: int | None) -> float:
    """How long a request may take that asked for so many milliseconds, or for nothing."""
    limits = node.limits
    own = handler.timeout if handler is not None else None
    if asked is None:
        return own or limits.request_timeout
    return min(asked / 1000, own or limits.request_timeout_max)


# ---- streams -----------------------------------------------------------------------


def _on_stream(node: Node, connection: Connection, handler: Handler, message: m.Query) -> None:
    if is_in_flight(node, connection, message.id):
        return
    try:
        check_room(node, connection)
        stream = open_stream(connection, handler, message)
    except RequestError as error:
        connection.refuse(message.id, error)
        return
    seconds = seconds_for(node, handler, message.timeout)
    work = partial(send_stream, node, connection, handler, message, stream, seconds)
    name = f"query {message.name!r}"
    guarded = guard(node, connection, message.id, message.id, work, name)
    stream.task = node.working.start(guarded, name)


# ---- events ------------------------------------------------------------------------


def on_event(node: Node, connection: Connection, message: m.Event) -> None:
    handler = node.app.handlers.events.get(message.name)
    if handler is None:
        node.count("unknown_events")
        return
    try:
        check_room(node, connection)
    except Unavailable as error:
        connection.refuse(None, error)
        return
    ticket = connection.internal_id()  # an event has no id, and still counts
    task = node.working.start(_event(node, connection, handler, message, ticket), "event")
    connection.begin(ticket, task)


async def _event(
    node: Node, connection: Connection, handler: Handler, message: m.Event, ticket: int
) -> None:
    slots = node.slots.of(handler)
    try:
        checked(message.data)
        arguments = handler.arguments(message.data)
        async with asyncio.timeout(handler.timeout or node.limits.request_timeout_max):
            if slots is not None:
                await slots.acquire()
            await handler.call(connection, arguments, slots.release if slots else None)
    except RequestError as error:
        connection.refuse(None, error)
    except Exception:
        node.log_defect(f"event {message.name!r}")
    finally:
        connection.end(ticket)
