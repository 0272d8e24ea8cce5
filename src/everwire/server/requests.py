"""What a node does with each message of a client."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..protocol import messages as m
from . import subscribing
from .asking import on_answer
from .auth import on_auth
from .calling import on_command, on_event, on_query
from .publishing import on_publish
from .streams import on_credit
from .turns import Turn
from .working import check_room, on_cancel, start

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

# ---- channels --------------------------------------------------------------------


def on_subscribe(node: Node, connection: Connection, message: m.Subscribe) -> None:
    try:
        subscribing.check_request(node.limits, message.channels)
        check_room(node, connection)
    except RequestError as error:
        channel = message.channels[0].channel if message.channels else None
        connection.refuse(message.id or None, error, channel)
        return
    turn = Turn(connection, [request.channel for request in message.channels])
    work = partial(_subscribe, node, connection, message, turn)
    start(node, connection, message.id, work, "subscribe", cancellable=False, ended=turn.end)


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
        start(node, connection, message.id, work, "unsubscribe", cancellable=False, ended=turn.end)
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
