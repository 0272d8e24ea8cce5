"""``Everwire``: what a user writes a server with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from time import time
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..brokers import Broker, open_broker
from ..brokers.base import ChannelOptions, Page
from ..errors import ConfigError
from ..from_thread import awaitable_only
from ..handling.handlers import Handler, declare
from ..limits import Limits
from ..protocol.channels import ChannelPattern
from ..protocol.messages import Member, Position
from . import asking
from .handlers import check_parameters
from .rules import ChannelRule, Grant, Handlers

if TYPE_CHECKING:
    from .asgi import AsgiApp
    from .connection import Connection
    from .native.tls import Tls
    from .node import Node
    from .running import Server

AUTHENTICATE = ("token", "credentials", "headers", "remote")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Everwire:
    """A realtime application: its channels, queries, commands and events.

    What is declared may be ``async`` or a plain function. A plain one runs in a thread,
    where it may block; there, coroutines are called by :func:`everwire.from_thread.run`.

    Args:
        broker: where messages are numbered and kept: a URL (``memory://``), a
            :class:`~everwire.brokers.Broker`, or ``auto``.
        limits: see :class:`everwire.limits.Limits`.
        allow_anonymous: let connections without a token in even if there is an
            ``authenticate`` handler. Without one, everybody is anonymous.

    Raises:
        ConfigError: a setting cannot be used.
    """

    def __init__(
        self,
        broker: str | Broker = "auto",
        *,
        limits: Limits | None = None,
        allow_anonymous: bool = False,
        wall: Callable[[], float] = time,
    ) -> None:
        self.limits = limits or Limits()
        self.allow_anonymous = allow_anonymous
        self.wall = wall
        self.handlers = Handlers()
        self._broker = broker
        if isinstance(broker, str):
            open_broker(broker, self.limits)  # an unknown one is refused here, not at start
        self._node: Node | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # ---- what a user declares ---------------------------------------------------

    @property
    def has_authenticator(self) -> bool:
        """Whether an ``authenticate`` handler was declared."""
        return self.handlers.authenticate is not None

    def authenticate(self, function: F) -> F:
        """Declare who may connect: ``async def who(token: str) -> Identity``.

        The function may take ``token``, ``credentials``, ``headers`` and ``remote``, by
        these names, and raises :exc:`~everwire.Unauthorized` to refuse.
        """
        if self.handlers.authenticate is not None:
            raise ConfigError("there is an authenticate handler already")
        check_parameters(function, AUTHENTICATE)
        self.handlers.authenticate = function
        return function

    def channel(
        self,
        pattern: str,
        *,
        history: int | None = None,
        history_ttl: float | None = None,
        history_bytes: int | None = None,
        presence: bool = False,
        grant: Grant | None = None,
    ) -> Callable[[F], F]:
        """Declare the channels that fit ``pattern``, as ``"chat:{room}"``.

        The decorated function authorises: it takes the connection and the pattern's
        parameters, and returns a :class:`Grant`, or None for one to subscribe only, or
        raises :exc:`~everwire.Forbidden`. Patterns are tried in the order of declaration.

        Args:
            pattern: ``{name}`` stands for characters other than ``:`` and ``/``,
                ``{name:path}`` for any.
            history: messages kept; 0 keeps none.
            history_ttl: seconds for which they are kept.
            history_bytes: bytes of payload kept.
            presence: whether subscribers are shown to each other.
            grant: what everybody is granted; then there is no function to decorate.
        """
        limits = self.limits
        options = ChannelOptions(
            history=limits.history if history is None else history,
            history_ttl=limits.history_ttl if history_ttl is None else history_ttl,
            history_bytes=limits.history_bytes if history_bytes is None else history_bytes,
        )
        if not isinstance(pattern, str):
            raise ConfigError('write @wire.channel("a-pattern"): it takes the channels\' names')
        parsed = ChannelPattern(pattern)
        if any(rule.pattern.text == pattern for rule in self.handlers.rules):
            raise ConfigError(f"channel {pattern!r} is declared twice")
        if grant is not None:
            self.handlers.rules.append(ChannelRule(parsed, options, presence, None, grant))

        def declare(function: F) -> F:
            if grant is not None:
                raise ConfigError(f"channel {pattern!r} has a grant; it takes no function")
            handler = Handler(pattern, function)
            handler.takes(parsed.names, f"the channel {pattern!r}")
            self.handlers.rules.append(ChannelRule(parsed, options, presence, handler, None))
            return function

        return declare

    def query(self, function: F) -> F:
        """Declare a query: safe to repeat; answered with what the function returns.

        What an async generator yields is sent item by item, as fast as the client takes
        it: see :meth:`everwire.Client.stream`. It is closed when nobody listens any more.
        """
        return declare(self.handlers.queries, function, may_stream=True)

    def command(self, function: F) -> F:
        """Declare a command: runs once for its key, however often it is sent."""
        return declare(self.handlers.commands, function)

    def event(self, function: F) -> F:
        """Declare what happens on an event: it is not answered."""
        return declare(self.handlers.events, function)

    # ---- what a user calls -------------------------------------------------------

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

    def _here(self) -> Node:
        node = self.node
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "this is not the event loop that the application runs on; use "
                "asyncio.run_coroutine_threadsafe(…, its loop)"
            )
        return node

    @awaitable_only
    async def publish(self, channel: str, data: Any, *, id: str = "") -> Position:  # noqa: A002
        """Publish to a channel; return where it is stored.

        Args:
            channel: its name.
            data: any data; see :mod:`everwire.protocol.data`.
            id: a second publish with the same id within five minutes has no effect.

        Cancelling does not take the message back.

        Raises:
            BadData: ``data`` cannot be put on the wire.
            RequestError: refused; ``temporary`` tells whether to try again.
            BrokerUnavailable: not stored, or not known to be (``outcome``).
        """
        return (await self._here().publish(channel, data, message_id=id)).position

    @awaitable_only
    async def history(self, channel: str, *, limit: int = 100) -> Page:
        """Return the last ``limit`` messages of a channel, as records. Safe to cancel.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        return await self._here().history(channel, limit=limit)

    @awaitable_only
    async def presence(self, channel: str) -> Sequence[Member]:
        """Return who is present in a channel. Safe to cancel.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        return (await self._here().presence(channel))[0]

    @overload
    async def request(
        self,
        target: str | Connection,
        name: str,
        payload: Any = None,
        *,
        kind: asking.Kind = "query",
        type: type[T],
        timeout: float | None = None,  # noqa: ASYNC109
        tenant: str = "",
    ) -> T: ...

    @overload
    async def request(
        self,
        target: str | Connection,
        name: str,
        payload: Any = None,
        *,
        kind: asking.Kind = "query",
        type: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109
        tenant: str = "",
    ) -> Any: ...

    @awaitable_only
    async def request(
        self,
        target: str | Connection,
        name: str,
        payload: Any = None,
        *,
        kind: asking.Kind = "query",
        type: Any = None,  # noqa: A002  # as the client's own
        timeout: float | None = None,  # noqa: ASYNC109  # it goes over the wire as well
        tenant: str = "",
    ) -> Any:
        """Ask a user, or the client of one connection; return the answer.

        A query to a user goes to all connections that the user has to this node, and the
        first answer wins; a command needs exactly one. Each is tried once.

        Args:
            target: the user's name, or a connection.
            name: of the query or command, as the client's ``Handlers`` declare it.
            payload: its parameters.
            kind: ``"query"``, which changes nothing, or ``"command"``.
            type: what to turn the answer into: anything that msgspec understands.
            timeout: seconds until the answer; the default is ``request_timeout``.
            tenant: the user's.

        Cancelling cancels the clients' handlers; a command may have run.

        Raises:
            RequestError: the client refuses, or serves no such request; a user has no
                connection (``unavailable``), or not exactly one (``ambiguous_target``).
            RequestTimeout: no answer to a query in time.
            ClosedError: the connection was lost before a query was answered.
            DeliveryUnknown: either of them, for a command: it may have run.
            NotSent: the connection is not open.
            BadData: the answer is no ``type``, or the payload cannot be put on the wire.
        """
        node = self._here()
        seconds = self.limits.request_timeout if timeout is None else timeout
        if not isinstance(target, str):
            return await asking.ask([target], seconds, kind, name, payload, type)
        user = (tenant, target)
        return await asking.ask_user(node, user, seconds, kind, name, payload, type)

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
        node, self._node = self._node, None
        if node is not None:
            await node.stop()

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
            tls: a certificate, to serve ``wss``; see :class:`everwire.server.native.tls.Tls`.
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

    def attach(self, api: Any, path: str = "/ws") -> None:
        """Serve inside a FastAPI or Starlette application.

        The route is ``path``, with and without a slash at its end; the node starts and
        stops with the application.

        Raises:
            ConfigError: ``api`` is neither.
        """
        from .asgi import attach

        attach(self, api, path)

    def asgi(self) -> AsgiApp:
        """Return an ASGI application, to be served alone or mounted anywhere.

        A host that gives mounted applications no lifespan must call :meth:`start` and
        :meth:`stop` itself.
        """
        from .asgi import AsgiApp

        return AsgiApp(self, lifespan=True)
