"""What an application does to connections: to one, or to all that a user has.

The functions take plain data and look for the connections themselves, so that any node can
be told to call them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..codes import CloseCode, ErrorCode
from ..errors import ConfigError
from .subscribing import expel
from .turns import Turn

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node


class Target(msgspec.Struct, frozen=True, gc=False):
    """Whom: a user's connections, or the one of them that is given by its public id."""

    tenant: str
    user: str
    connection: str = ""


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


def find(node: Node, target: Target) -> list[Connection]:
    """Those of this node."""
    connections = node.users.connections((target.tenant, target.user))
    if not target.connection:
        return connections
    return [one for one in connections if one.id == target.connection]


def disconnect(node: Node, target: Target, code: int, reason: str) -> int:
    """Close connections; return how many there were here."""
    connections = find(node, target)
    for connection in connections:
        connection.close(code, reason)
    return len(connections)


async def unsubscribe(node: Node, target: Target, channel: str, code: int) -> int:
    """End subscriptions to a channel; return how many there were here.

    What was asked about the channel before takes effect before. Cancelling leaves those
    whose turn has not come.
    """
    ended = 0
    for connection in find(node, target):
        if connection.operations:
            async with Turn(connection, (channel,)):
                ended += expel(node, connection, channel, code)
        else:
            ended += expel(node, connection, channel, code)
    return ended


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
