"""What a node does with each message of a client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ..codes import ErrorCode
from ..errors import RequestError
from ..handling.handlers import Handler
from ..protocol import messages as m
from ..protocol.data import plain_data
from ..protocol.states import ConnectionState
from . import subscribing
from .asking import on_answer
from .auth import on_auth
from .builtin import BUILTINS
from .commands import digest_of, scope_of
from .handlers import checked
from .publishing import on_publish
from .streams import on_credit, open_stream, send_stream
from .turns import Turn

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

T = TypeVar("T")
Work: TypeAlias = Callable[[], Coroutine[Any, Any, T]]

# ---- channels --------------------------------------------------------------------


def on_subscribe(node: Node, connection: Connection, message: m.Subscribe) -> None:
    try:
        subscribing.check_request(node.limits, message.channels)
    except RequestError as error:
        _reject(connection, message.id, error)
        return
    turn = Turn(connection, [request.channel for request in message.channels])
    work = partial(_subscribe, node, connection, message, turn)
    _start(node, connection, message.id, work, "subscribe", cancellable=False)


async def _subscribe(node: Node, connection: Connection, message: m.Subscribe, turn: Turn) -> None:
    async with turn:
        await _subscribe_now(node, connection, message)


async def _subscribe_now(node: Node, connection: Connection, message: m.Subscribe) -> None:
    results, begun = await subscribing.subscribe(node, connection, message.channels)
    if connection.dialect.acknowledges:
        connection.respond(
            message.id,
            {"subscriptions": [subscribing.result_payload(result) for result in results]},
        )
    else:
        for result in results:
            _confirm(connection, result)
    subscribing.follow(node, connection, begun)


def _confirm(connection: Connection, result: m.ChannelResult) -> None:
    """The answer where there are no request ids."""
    error = result.error
    if error is not None:
        connection.send(
            m.Error(
                None, error.code, error.name, error.message, error.temporary, channel=result.channel
            )
        )
    else:
        connection.send(
            m.Subscribed(result.channel, result.sid or 0, result.epoch, result.offset, result.id)
        )


def on_unsubscribe(node: Node, connection: Connection, message: m.Unsubscribe) -> None:
    if connection.operations and not connection.operations.keys().isdisjoint(message.channels):
        turn = Turn(connection, message.channels)
        work = partial(_unsubscribe, node, connection, message, turn)
        _start(node, connection, message.id, work, "unsubscribe", cancellable=False)
    else:
        _unsubscribe_now(node, connection, message)


async def _unsubscribe(
    node: Node, connection: Connection, message: m.Unsubscribe, turn: Turn
) -> None:
    async with turn:
        _unsubscribe_now(node, connection, message)


def _unsubscribe_now(node: Node, connection: Connection, message: m.Unsubscribe) -> None:
    for channel in message.channels:
        subscribing.unsubscribe(node, connection, channel)
        if not connection.dialect.acknowledges:
            connection.send(m.Unsubscribed(0, 0, channel=channel))
    if connection.dialect.acknowledges:
        connection.respond(message.id, {})


# ---- queries, commands, events ------------------------------------------------------


def on_query(node: Node, connection: Connection, message: m.Query) -> None:
    builtin = BUILTINS.get(message.name)
    handler = node.app.handlers.queries.get(message.name)
    if builtin is not None:
        work = partial(builtin, node, connection, message)
    elif handler is not None:
        if handler.streams:
            _on_stream(node, connection, handler, message)
            return
        work = partial(_call, connection, handler, message.payload)
    else:
        known = message.name in node.app.handlers.commands
        _reject(connection, message.id, _unknown("query", message.name, known and "a command"))
        return
    answer = partial(_answer, node, connection, message, work)
    _start(node, connection, message.id, answer, message.name)


def _on_stream(node: Node, connection: Connection, handler: Handler, message: m.Query) -> None:
    if message.id in connection.inflight or message.id in connection.streams:
        node.violation(connection, f"the id {message.id!r} is in flight")
        return
    try:
        stream = open_stream(connection, handler, message)
    except RequestError as error:
        _reject(connection, message.id, error)
        return
    work = partial(send_stream, node, connection, handler, message, stream)
    guarded = _guard(node, connection, message.id, message.id, work)
    stream.task = node.tasks.start(guarded, message.name)


def on_command(node: Node, connection: Connection, message: m.Command) -> None:
    handler = node.app.handlers.commands.get(message.name)
    if handler is None:
        known = message.name in node.app.handlers.queries or message.name in BUILTINS
        _reject(connection, message.id, _unknown("command", message.name, known and "a query"))
        return
    if message.key is None:
        work = partial(_call, connection, handler, message.payload)
    else:
        work = partial(_call_once, node, connection, handler, message)
    answer = partial(_answer, node, connection, message, work)
    _start(node, connection, message.id, answer, message.name)


def _unknown(kind: str, name: str, rather: str | bool) -> RequestError:
    hint = f"; it is {rather}" if rather else ""
    return RequestError(f"there is no {kind} {name[:80]!r}{hint}", code=ErrorCode.UNKNOWN_TYPE)


def on_event(node: Node, connection: Connection, message: m.Event) -> None:
    handler = node.app.handlers.events.get(message.name)
    if handler is None:
        node.count("unknown_events")
        return
    ticket = connection.internal_id()  # an event has no id, and still counts
    task = node.tasks.start(_event(node, connection, handler, message, ticket), "event")
    connection.begin(ticket, task)


async def _event(
    node: Node, connection: Connection, handler: Handler, message: m.Event, ticket: int
) -> None:
    try:
        await _call(connection, handler, message.data)
    except RequestError as error:
        connection.refuse(None, error)
    except Exception:
        node.log_defect(f"the handler of event {message.name!r}")
    finally:
        connection.end(ticket)


async def _call(connection: Connection, handler: Handler, payload: Any) -> Any:
    checked(payload)
    return plain_data(await handler.call(connection, handler.arguments(payload)))


async def _call_once(
    node: Node, connection: Connection, handler: Handler, message: m.Command
) -> Any:
    assert message.key is not None
    checked(message.payload)
    digest = digest_of(message.payload)
    scope = scope_of(connection, message.name, message.key, digest)
    return await node.commands.run(
        scope, digest, lambda: _call(connection, handler, message.payload)
    )


async def _answer(
    node: Node,
    connection: Connection,
    message: m.Query | m.Command,
    work: Work[Any],
) -> None:
    """Answer a request with what ``work`` returns, within its time."""
    limit = node.limits.request_timeout if message.timeout is None else message.timeout / 1000
    try:
        async with asyncio.timeout(limit):
            result = await work()
        connection.respond(message.id, result)
    except TimeoutError:
        connection.refuse(message.id, RequestError(code=ErrorCode.TIMEOUT))


def _start(
    node: Node,
    connection: Connection,
    request_id: m.RequestId,
    work: Work[None],
    name: str,
    *,
    cancellable: bool = True,
) -> None:
    """Work on a request in a task of its own."""
    answer_to: m.RequestId | None = request_id
    if request_id == "":  # the plain dialect's channel actions have no id to answer to
        answer_to, request_id = None, connection.internal_id()
    if request_id in connection.inflight or (
        connection.streams and request_id in connection.streams
    ):
        node.violation(connection, f"the id {request_id!r} is in flight")
        return
    task = node.tasks.start(_guard(node, connection, request_id, answer_to, work), name)
    connection.begin(request_id, task)
    if not cancellable:
        connection.uncancellable = connection.uncancellable or {}
        connection.uncancellable[request_id] = None


async def _guard(
    node: Node,
    connection: Connection,
    request_id: m.RequestId,
    answer_to: m.RequestId | None,
    work: Work[None],
) -> None:
    """See to it that a request is answered, whatever happens."""
    try:
        await work()
    except RequestError as error:
        connection.refuse(answer_to, error)
    except asyncio.CancelledError:
        if connection.state is ConnectionState.READY:
            connection.refuse(answer_to, RequestError(code=ErrorCode.CANCELLED))
        raise
    except Exception:
        node.log_defect(f"request {request_id!r}", "request")
        connection.refuse(answer_to, RequestError(code=ErrorCode.INTERNAL))
    finally:
        connection.end(request_id)


def on_cancel(node: Node, connection: Connection, message: m.Cancel) -> None:
    # Not before it has begun: a task that never ran would leave the request unanswered.
    later = asyncio.get_running_loop().call_soon
    task = connection.inflight.get(message.id)
    if task is not None and message.id not in connection.uncancellable:
        later(task.cancel)
    elif message.id in connection.streams:
        later(connection.streams[message.id].cancel)


def _reject(connection: Connection, request_id: m.RequestId, error: RequestError) -> None:
    connection.refuse(request_id or None, error)


# ---- the table ------------------------------------------------------------------------


def on_ping(node: Node, connection: Connection, message: m.Ping) -> None:
    connection.send(m.Pong(message.time))


def on_pong(node: Node, connection: Connection, message: m.Pong) -> None:
    """That it came was noted already."""


HANDLERS: dict[type[m.Message], Callable[[Any, Any, Any], None]] = {
    m.Auth: on_auth,
    m.Subscribe: on_subscribe,
    m.Unsubscribe: on_unsubscribe,
    m.Publish: on_publish,
    m.Query: on_query,
    m.Command: on_command,
    m.Event: on_event,
    m.Cancel: on_cancel,
    m.Credit: on_credit,
    m.Response: on_answer,
    m.Error: on_answer,
    m.Ping: on_ping,
    m.Pong: on_pong,
}

BEFORE_AUTH = (m.Auth, m.Ping, m.Pong)
