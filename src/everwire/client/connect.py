"""How an application gets a client."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from random import Random, SystemRandom
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError, EverwireError
from ..limits import ClientLimits
from ..net.attempts import Attempts
from ..net.transport import Network, not_a_url
from ..protocol.dialects import dialect as find_dialect
from .client import Client
from .handlers import Handlers
from .observations import Record
from .overflow import Overflow, checked_overflow
from .proxies import checked_proxy
from .records import SqliteOutbox
from .settings import check_seconds, checked_limits
from .target import Target
from .tokens import Tokens, TokenSource


def connect(
    url: str,
    *,
    token: TokenSource | Tokens = None,
    credentials: Any = None,
    dialect: str = "everwire.v1.msgpack",
    name: str = "",
    headers: Mapping[str, str] | None = None,
    ssl: Any = None,
    proxy: str | None = None,
    handlers: Handlers | None = None,
    limits: ClientLimits | None = None,
    network: Network | None = None,
    random: Random | None = None,
    wall: Callable[[], float] = time.time,
    connect_timeout: float | None = None,
    timeout: float | None = 30.0,
    overflow: Overflow | None = None,
    outbox: str | os.PathLike[str] | SqliteOutbox | None = None,
    on_record: Callable[[Record], None] | None = None,
) -> Client:
    """Make a client: use it with ``async with``, or ``await`` it.

    Entering waits until the client is ready. From then on it reconnects by itself, until
    it is closed or the server turns it away for good.

    Args:
        url: ``ws://host:port/path`` or ``wss://…``.
        token: proves who we are: text; or a function that returns text or a :class:`Token`,
            async or not (then it runs in a thread), within 10 s. It is called for each
            connection, unless a ``Token`` is good for longer, and again before a token
            expires. If the server refuses its token it is asked once more; text that is
            refused is final. Clients that share a :class:`Tokens` share what it fetches.
        credentials: anything else that the server's ``authenticate`` takes.
        dialect: ``everwire.v1.msgpack``, ``everwire.v1.json``, or ``plain`` for servers
            that speak JSON without positions and acknowledgements.
        name: what the server's logs call this client.
        headers: more headers for the handshake.
        ssl: an ``ssl.SSLContext``, for ``wss``.
        proxy: ``http://``, ``https://``, ``socks4://`` or ``socks5://``, then
            ``user:password@host:port``; ``"environment"`` goes by ``ws_proxy``,
            ``wss_proxy``, ``all_proxy``, ``https_proxy``, ``http_proxy`` and ``no_proxy``.
        handlers: what the client does for the server; see :class:`everwire.Handlers`.
        limits: sizes, counts and durations; see :class:`everwire.limits.ClientLimits`.
        network: where WebSockets come from; the default is the real network.
        random: where chance comes from: jitter and ids.
        wall: the time in seconds since 1970.
        connect_timeout: seconds for one attempt; the default is the limits'.
        timeout: seconds for which entering waits, over as many attempts as fit; None: until
            it is ready, or refused for good; 0 does not wait: the client connects by itself,
            and what is published before is in the outbox.
        overflow: what happens when the outbox is full; see :data:`.overflow.Overflow`. The
            default is ``block`` for ``publish`` and ``reject`` for ``publish_nowait``.
        outbox: the path of a file, or a :class:`SqliteOutbox`: what is published survives the
            process there until it is acknowledged. One file for each process, server and user.
        on_record: is called with each event in the client's own life, such as
            :class:`~everwire.client.LinkLost`; see :mod:`everwire.client.observations`.

    Raises:
        ConfigError: the URL or the dialect cannot be used, there is no such policy, or
            something is of the wrong type.
    """
    limits = checked_limits(limits)
    check_seconds("timeout", timeout)
    check_seconds("connect_timeout", connect_timeout)
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigError(not_a_url(url))
    try:
        chosen = find_dialect(dialect)
    except EverwireError as error:
        raise ConfigError(str(error)) from None
    if outbox is not None and not isinstance(outbox, SqliteOutbox):
        outbox = SqliteOutbox(outbox)
    if outbox is not None and not chosen.acknowledges:
        raise ConfigError(f"a durable outbox needs acknowledgements: {chosen.name!r} has none")
    target = Target(
        url=url,
        dialect=chosen,
        tokens=token if isinstance(token, Tokens) else Tokens(token),
        credentials=credentials,
        name=name,
        headers=headers,
        ssl=ssl,
        proxy=checked_proxy(proxy),
        connect_timeout=limits.connect_timeout if connect_timeout is None else connect_timeout,
    )
    client = Client(
        target,
        limits,
        network=network or connect_network(),
        random=random or SystemRandom(),
        wall=wall,
        timeout=timeout,
        overflow=checked_overflow(overflow),
        outbox=outbox,
        handlers=handlers,
    )
    client.on_record = on_record
    return client


def connect_network(attempts: Attempts | None = None) -> Network:
    """Return the real network; ``attempts`` replaces the budget that the process shares."""
    from ..net.websocket import PicowsNetwork

    return PicowsNetwork() if attempts is None else PicowsNetwork(attempts)
