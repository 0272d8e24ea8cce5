"""Written by scripts/sync-facade from everwire.client.connect: change that, not this."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from ..client.connect import connect as async_connect
from ..client.handlers import Handlers
from ..client.observations import Record
from ..client.overflow import Overflow
from ..client.records import SqliteOutbox
from ..client.tokens import Tokens, TokenSource
from ..limits import ClientLimits
from ..net.transport import Network
from .background import background
from .client import Client


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
    """Make a client: use it with ``with``, or call its ``open()``.

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
    home = background()
    return Client(
        home,
        home.do(
            lambda: async_connect(
                url,
                token=token,
                credentials=credentials,
                dialect=dialect,
                name=name,
                headers=headers,
                ssl=ssl,
                proxy=proxy,
                handlers=handlers,
                limits=limits,
                network=network,
                random=random,
                wall=wall,
                connect_timeout=connect_timeout,
                timeout=timeout,
                overflow=overflow,
                outbox=outbox,
                on_record=on_record,
            )
        ),
    )
