"""Subscriptions that the application makes for a connection: server-side subscriptions.

No permission is asked for: what the application subscribes a connection to, that connection
may subscribe to by itself as well, so that a client which comes back can say from where it
goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from ..codes import ErrorCode
from ..errors import ConfigError, NotSent, RequestError, request_error
from ..protocol import messages as m
from ..protocol.states import ConnectionState, SubscriptionState
from . import subscribing
from .recovering import ALIVE
from .turns import Turn

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

_OPENING = (ConnectionState.CONNECTING, ConnectionState.AUTHENTICATING)


class Visit:
    """What a node remembers of a connection for the application's sake.

    Attributes:
        channels: to which the application subscribes it, and from where on.
        greeted: ``on_connect`` has let it in, and ``on_disconnect`` is to come.
        ended: with which code and reason, once it has.
    """

    __slots__ = ("channels", "ended", "greeted")

    def __init__(self) -> None:
        self.channels: dict[str, m.Position | None] = {}
        self.greeted = False
        self.ended: tuple[int, str] | None = None


def visit_of(connection: Connection) -> Visit:
    """The connection's, made if there is none."""
    if connection.visit is None:
        connection.visit = Visit()
    return connection.visit


async def begin(
    node: Node, connection: Connection, instead: str | None = None
) -> list[subscribing.Begun]:
    """Subscribe a connection that was greeted to what it is to have and has not yet.

    Returns:
        What :func:`announce` takes once its ``auth`` was answered.

    Cancelling leaves what was registered for the connection to release.

    Raises:
        RequestError: not now.
        ConfigError: it never can be.
    """
    if connection.visit is None:
        return []
    wanted = {
        name: since
        for name, since in connection.visit.channels.items()
        if name not in connection.subscriptions
    }
    if not wanted:
        return []
    try:
        return await _begin(node, connection, wanted, instead)
    except NotSent:  # and nobody is there to be told
        return []


async def _begin(
    node: Node,
    connection: Connection,
    wanted: dict[str, m.Position | None],
    instead: str | None = None,
) -> list[subscribing.Begun]:
    requests = [m.ChannelRequest(name, since) for name, since in wanted.items()]
    results, begun = await subscribing.subscribe(node, connection, requests, instead, assigned=True)
    if connection.state not in ALIVE:
        raise NotSent(f"subscribing to {requests[0].channel!r}: the connection was closed")
    for result in results:
        error = result.error
        if error is not None and error.code == ErrorCode.CANCELLED:
            continue  # ended again already, by the application itself
        if error is not None and error.temporary:
            raise request_error(error.code, error.message, temporary=True)
        if error is not None:
            raise ConfigError(f"cannot subscribe to {result.channel!r}: {error.message}")
    return begun


def announce(node: Node, connection: Connection, begun: Sequence[subscribing.Begun]) -> None:
    """Tell the client, and send what follows."""
    for one in begun:
        subscription, start = one.subscription, one.page.start
        if subscription.state is SubscriptionState.RECOVERING:
            channel = subscription.channel
            recovered = one.asked is not None and one.page.recovered
            connection.send(
                m.Subscribed(
                    channel.name, channel.sid, start.epoch, start.offset, start.id, recovered
                )
            )
    subscribing.follow(node, connection, begun)


class Assignable:
    """The part of a connection with which the application subscribes it."""

    __slots__ = ()

    async def subscribe(self, channel: str, *, since: m.Position | None = None) -> None:
        """Subscribe the client to a channel, without its asking: a server-side subscription.

        The client is told, see :attr:`everwire.Client.on_subscribed`. No handler is asked,
        and as long as the connection lasts the client may subscribe to the channel by itself.
        Where it is subscribed already nothing changes. In ``on_connect`` this takes effect
        when the client has been let in.

        Args:
            channel: its name.
            since: deliver what came after this position; the default is what comes next.

        Cancelling may leave the client unsubscribed.

        Raises:
            RequestError: there is no such channel, the broker does not answer, or the
                connection has as many subscriptions as are allowed.
            NotSent: the connection is not open.
        """
        connection = cast("Connection", self)
        node = connection.node
        node.access.rule_of(channel)
        channels = visit_of(connection).channels
        if len(channels) >= node.limits.subscriptions and channel not in channels:
            raise RequestError(
                f"a connection may have {node.limits.subscriptions} subscriptions (limit subscriptions)",
                code=ErrorCode.SUBSCRIPTIONS,
            )
        if connection.state in _OPENING:
            channels[channel] = since
            return
        if connection.state is not ConnectionState.READY:
            raise NotSent(f"subscribing to {channel!r}: the connection is not open")
        async with Turn(connection, (channel,)):
            new = channel not in channels
            channels[channel] = None
            if channel in connection.subscriptions:
                return
            try:
                begun = await _begin(node, connection, {channel: since})
            except BaseException:
                if new:
                    channels.pop(channel, None)
                raise
            announce(node, connection, begun)
