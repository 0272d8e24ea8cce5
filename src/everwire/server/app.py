"""``Everwire``: what a user writes a server with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from time import time
from typing import TYPE_CHECKING, Any, TypeVar

from ..brokers import Broker, open_broker
from ..errors import ConfigError
from ..from_thread import awaitable_only
from ..limits import Limits
from .declarations import Declarations
from .operations import Operations
from .rules import Handlers
from .stats import NodeStats, snapshot

if TYPE_CHECKING:
    from .asgi import Asgi, AsgiApp
    from .identity.jwt import JWT
    from .native.tls import Tls
    from .node import Node
    from .running import Server


F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Everwire(Declarations, Operations):
    """A realtime application: its channels, queries, commands and events.

    What is declared may be ``async`` or a plain function. A plain one runs in a thread,
    where it may block; there, coroutines are called by :func:`everwire.from_thread.run`.

    Args:
        broker: where messages are numbered and kept: a URL (``memory://``), a
            :class:`~everwire.brokers.Broker`, or ``auto``.
        limits: see :class:`everwire.limits.Limits`.
        channel_tokens: verifies the tokens of channels that are declared with ``token=True``.
        allow_anonymous: let connections without a token in even if there is an
            ``authenticate`` handler. Without one, everybody is anonymous; ``everwire serve``
            then wants to be told so, by this or by ``--allow-anonymous``.
        user_channel: a pattern with the user, as ``"user:{user}"``: each connection is
            subscribed to its user's own channel by the server, and nobody else may be. With
            other options than the usual ones: ``wire.channel("user:{user}", own=True, …)``.

    Raises:
        ConfigError: a setting cannot be used.
    """

    def __init__(
        self,
        broker: str | Broker = "auto",
        *,
        limits: Limits | None = None,
        allow_anonymous: bool = False,
        channel_tokens: JWT | None = None,
        user_channel: str | None = None,
        wall: Callable[[], float] = time,
    ) -> None:
        if limits is not None and not isinstance(limits, Limits):
            raise ConfigError(
                f"limits is a Limits, as Limits(messages=500), not {type(limits).__name__}"
            )
        self.limits = limits or Limits()
        self.allow_anonymous = allow_anonymous
        self.channel_tokens = channel_tokens
        self.wall = wall
        self.handlers = Handlers()
        self._broker = broker
        if isinstance(broker, str):
            open_broker(broker, self.limits)  # an unknown one is refused here, not at start
        self._node: Node | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        if user_channel is not None:
            self.channel(user_channel, own=True)

    @property
    def node(self) -> Node:
        """The running node.

        Raises:
            ConfigError: the application does not run.
        """
        if self._node is None:
            raise ConfigError(
                "the application does not run: use `everwire serve`, wire.listen() or "
                "wire.attach(api)"
            )
        return self._node

    def stats(self) -> NodeStats:
        """Return what this node holds and has done: a snapshot, cheap to take.

        It may be called from any thread.

        Raises:
            ConfigError: the application does not run.
        """
        return snapshot(self.node)

    def _here(self) -> Node:
        node = self.node
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "this is not the event loop that the application runs on; use "
                "asyncio.run_coroutine_threadsafe(…, its loop)"
            )
        return node

    # ---- running -------------------------------------------------------------------

    @awaitable_only
    async def start(self) -> Node:
        """Start the node, without a listener. Cancelling leaves it stopped.

        Raises:
            ConfigError: it runs already.
            BrokerUnavailable: the broker cannot be reached.
        """
        from .node import Node

        if self._node is not None:
            raise ConfigError("the application runs already, in this process")
        broker = self._broker
        if isinstance(broker, str):
            broker = open_broker(broker, self.limits, wall=self.wall)
        node = Node(self, broker)
        await node.start()
        self._node, self._loop = node, asyncio.get_running_loop()
        return node

    @awaitable_only
    async def stop(self) -> None:
        """Close all connections and stop the node. Safe to call twice.

        Takes a few seconds at most. Cancelling leaves it half stopped: the connections are
        told, but what the broker has not written yet may be lost.
        """
        node = self._node
        if node is None:
            return
        try:
            await node.stop()  # on_disconnect handlers still call what the application has
        finally:
            if self._node is node:
                self._node = None

    @asynccontextmanager
    async def listen(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        paths: Sequence[str] = ("/", "/ws", "/ws/"),
        page: bytes | None = None,
        tls: Tls | None = None,
        unix: str | None = None,
        origins: Sequence[str] | None = None,
        proxy_protocol: bool = False,
        trusted_proxies: Sequence[str] = (),
        reuse_port: bool = False,
        compression: bool = False,
    ) -> AsyncIterator[Server]:
        """Run the node and listen, for as long as the block lasts.

        Cancelling inside the block ends both, as leaving it does: without draining.

        Args:
            host: the address to listen on.
            port: 0 takes a free one; see ``server.port``.
            paths: where WebSockets are served.
            page: HTML for a GET of ``/``.
            tls: a certificate, to serve ``wss``; see :class:`everwire.Tls`.
            unix: the path of a Unix socket, to listen there too.
            origins: pages that may connect, as ``https://example.org``; None for any.
                Programs, which send no ``Origin``, are not concerned.
            proxy_protocol: every connection begins with a PROXY header (version 1 or 2).
            trusted_proxies: addresses and networks whose ``X-Forwarded-For`` is believed;
                with any, that of the Unix socket is believed, too.
            reuse_port: let other processes listen on the same port.
            compression: agree to permessage-deflate (RFC 7692) where a client offers it.

        Raises:
            ConfigError: the address cannot be used, or the application runs already.
        """
        from .running import Server

        server = Server(
            self,
            await self.start(),
            paths=paths,
            page=page,
            origins=origins,
            proxy_protocol=proxy_protocol,
            trusted_proxies=trusted_proxies,
            compression=compression,
        )
        try:
            await server.start(host, port, tls=tls, reuse_port=reuse_port)
            if unix is not None:
                await server.start_unix(unix)
            yield server
        finally:
            server.close()
            await self.stop()

    def attach(
        self,
        api: Any,
        path: str = "/ws",
        *,
        user: Any = None,
        origins: Sequence[str] | None = None,
    ) -> None:
        """Serve inside a FastAPI or Starlette application, or a router that becomes part of one.

        The route is ``path``, with and without a slash at its end; the node starts and
        stops with the application. Dependencies of a FastAPI application, or router, hold
        for this route as well.

        Args:
            api: the application; of a mounted one, the outermost.
            path: where WebSockets are served; it may have parameters, as ``/{org}/ws``.
            user: asks the application who connects: for FastAPI a dependency, which may
                have dependencies of its own; for Starlette a function of the WebSocket,
                async or not. It returns the user's name, an :class:`Identity`, an object
                with ``user`` or ``id``, or None for nobody; what it raises turns away
                (401: 4500, 403: 4501). Who it names needs no token, and one that comes is
                not read. Whom it does not know goes the usual way, if there is one:
                ``authenticate``, or ``allow_anonymous``.
            origins: pages that may connect, as ``https://example.org``. With ``user``,
                those of the same host always may, and no others may unless they are named
                here; without, None lets every page connect.

        Raises:
            ConfigError: ``api`` is neither, or another argument cannot be used.
        """
        from .attaching import attach

        attach(self, api, path, user=user, origins=origins)

    def asgi(self) -> AsgiApp:
        """Return an ASGI application, to be served alone or mounted anywhere.

        A host that gives mounted applications no lifespan must call :meth:`start` and
        :meth:`stop` itself.
        """
        from .asgi import AsgiApp

        return AsgiApp(self, lifespan=True)

    def http(self, *, api_key: str | Sequence[str] | None = None) -> Asgi:
        """Return an ASGI application to publish through, and to be watched by, over HTTP.

        Mount it where only your own programs can reach it: ``/metrics``, ``/healthz`` and
        ``/readyz`` are open to whoever reaches them; ``/api/…`` wants a key. See
        ``docs/http.md``. It lives as long as this application does.

        Args:
            api_key: a secret of at least 16 characters, or several, so that one can be
                replaced; without any, the API is off.

        Raises:
            ConfigError: a key is too short, or the extra ``everwire[http]`` is missing.
        """
        from .http import missing

        try:
            from .http.app import make
        except ModuleNotFoundError as error:
            raise missing(error) from None
        return make(self, api_key)
