"""Realtime messaging over WebSockets that survives drops and deploys.

A server (:class:`Everwire`), a client (:func:`connect`), and the errors they share
(:mod:`everwire.errors`). What is named here is loaded when it is first used, so that
a client never loads the server, nor the server the client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import (
        Client,
        Gap,
        Handlers,
        Message,
        Snapshot,
        SqliteOutbox,
        Stream,
        Token,
        Tokens,
        Undelivered,
    )
    from .client.connect import connect
    from .client.pings import CustomPing, JsonPing, NativePing
    from .client.pool import Pool
    from .client.pool_members import PoolMember
    from .client.reconnection import Failure, Retry, Stop
    from .client.socket import Socket
    from .client.socket_hooks import SocketStats
    from .client.socket_pool import SocketPool
    from .errors import (
        BadData,
        BadRequest,
        BrokerUnavailable,
        ClosedError,
        ClosedOK,
        ConfigError,
        ConnectionClosed,
        DeliveryUnknown,
        Dropped,
        EverwireError,
        Forbidden,
        HandshakeRefused,
        NotSent,
        NotStored,
        OutboxFull,
        PoolTimeout,
        ProtocolError,
        RequestError,
        RequestTimeout,
        StillQueued,
        StreamInterrupted,
        Superseded,
        Unauthorized,
        Unavailable,
    )
    from .limits import ClientLimits, Limits
    from .protocol.messages import Position
    from .server.app import Everwire
    from .server.connection import Connection
    from .server.identity.jwt import JWT
    from .server.native.tls import Tls
    from .server.rules import Grant, Identity
    from .server.stats import NodeStats

__version__ = "0.1.0"

__all__ = [
    "JWT",
    "BadData",
    "BadRequest",
    "BrokerUnavailable",
    "Client",
    "ClientLimits",
    "ClosedError",
    "ClosedOK",
    "ConfigError",
    "Connection",
    "ConnectionClosed",
    "CustomPing",
    "DeliveryUnknown",
    "Dropped",
    "Everwire",
    "EverwireError",
    "Failure",
    "Forbidden",
    "Gap",
    "Grant",
    "Handlers",
    "HandshakeRefused",
    "Identity",
    "JsonPing",
    "Limits",
    "Message",
    "NativePing",
    "NodeStats",
    "NotSent",
    "NotStored",
    "OutboxFull",
    "Pool",
    "PoolMember",
    "PoolTimeout",
    "Position",
    "ProtocolError",
    "RequestError",
    "RequestTimeout",
    "Retry",
    "Snapshot",
    "Socket",
    "SocketPool",
    "SocketStats",
    "SqliteOutbox",
    "StillQueued",
    "Stop",
    "Stream",
    "StreamInterrupted",
    "Superseded",
    "Tls",
    "Token",
    "Tokens",
    "Unauthorized",
    "Unavailable",
    "Undelivered",
    "connect",
]

# Where a name lives; those not listed are errors.
_HOMES = {
    "Client": ".client",
    "ClientLimits": ".limits",
    "Connection": ".server.connection",
    "CustomPing": ".client.pings",
    "Everwire": ".server.app",
    "Failure": ".client.reconnection",
    "Gap": ".client",
    "Grant": ".server.rules",
    "Handlers": ".client",
    "Identity": ".server.rules",
    "JWT": ".server.identity.jwt",
    "JsonPing": ".client.pings",
    "Limits": ".limits",
    "Message": ".client",
    "NativePing": ".client.pings",
    "NodeStats": ".server.stats",
    "Pool": ".client.pool",
    "PoolMember": ".client.pool_members",
    "Position": ".protocol.messages",
    "Retry": ".client.reconnection",
    "Snapshot": ".client",
    "Socket": ".client.socket",
    "SocketPool": ".client.socket_pool",
    "SocketStats": ".client.socket_hooks",
    "SqliteOutbox": ".client",
    "Stop": ".client.reconnection",
    "Stream": ".client",
    "Tls": ".server.native.tls",
    "Token": ".client",
    "Tokens": ".client",
    "Undelivered": ".client",
    "connect": ".client",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, ".errors"), __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
