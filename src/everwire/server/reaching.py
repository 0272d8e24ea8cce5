"""What an application does to connections: to one, or to all that a user has.

The functions take plain data and look for the connections themselves, so that any node can
be told to call them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codes import CloseCode, ErrorCode
from ..errors import ConfigError
from . import signals
from .identity import revocations
from .identity.revocations import Revocation
from .signals import Target
from .subscribing import expel
from .turns import Turn

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node


def target_of(whom: str | Connection, tenant: str) -> Target:
    """What is meant by a user's name, or by a connection.

    Raises:
        ConfigError: by nobody's name.
    """
    if not isinstance(whom, str):
        return Target(whom.identity.tenant, whom.user, whom.id)
    if not whom:
        raise ConfigError("whom? name a user, or give a connection: the anonymous are many")
    return Target(tenant, whom)


def disconnect(node: Node, target: Target, code: int, reason: str) -> int:
    """Close connections, also those on their way in; return how many there were here."""
    connections = node.users.find(target)
    coming = node.users.coming((target.tenant, target.user))
    connections += [one for one in coming if target.connection in ("", one.id)]
    for connection in connections:
        connection.close(code, reason)
    return len(connections)


async def unsubscribe(node: Node, target: Target, channel: str, code: int) -> int:
    """End subscriptions to a channel; return how many there were here.

    What was asked about the channel before takes effect before. Cancelling leaves those
    whose turn has not come.
    """
    ended = 0
    for connection in node.users.find(target):
        if connection.operations:
            async with Turn(connection, (channel,)):
                ended += expel(node, connection, channel, code)
        else:
            ended += expel(node, connection, channel, code)
    return ended


async def disconnect_everywhere(node: Node, target: Target, code: int, reason: str) -> int:
    """Close connections at all nodes; return how many there were."""
    count = disconnect(node, target, code, reason)
    if target.connection:  # it is given by the node that has it
        return count
    return count + await node.others.everywhere(
        lambda ticket, sender: signals.Disconnect(
            ticket=ticket, sender=sender, target=target, code=code, reason=reason
        )
    )


async def unsubscribe_everywhere(node: Node, target: Target, channel: str, code: int) -> int:
    """End subscriptions to a channel at all nodes; return how many there were."""
    count = await unsubscribe(node, target, channel, code)
    if target.connection:
        return count
    return count + await node.others.everywhere(
        lambda ticket, sender: signals.Unsubscribe(
            ticket=ticket, sender=sender, target=target, channel=channel, code=code
        )
    )


async def revoke_everywhere(node: Node, revocation: Revocation) -> None:
    """Apply a revocation at all nodes.

    Raises:
        Unavailable: this node remembers as many as it may.
        BrokerUnavailable: the other nodes may not know of it.
    """
    try:
        revocations.apply(node, revocation)
    finally:
        await node.others.everywhere(
            lambda ticket, sender: signals.Revoke(
                ticket=ticket, sender=sender, revocation=revocation
            )
        )


def check_close_code(code: int) -> None:
    """Raise :exc:`ConfigError` unless an application may close with ``code``."""
    if code not in (CloseCode.NORMAL, CloseCode.GOING_AWAY) and not 3000 <= code <= 4999:
        raise ConfigError(
            f"a connection cannot be closed with {code}: use 4504, or another one from 3000 to "
            "4999 (clients come back after 4000 to 4499)"
        )


def check_error_code(code: int) -> None:
    """Raise :exc:`ConfigError` unless ``code`` is one of ours."""
    if code not in ErrorCode._value2member_map_:
        raise ConfigError(f"{code} is no error code; see everwire.codes.ErrorCode")
