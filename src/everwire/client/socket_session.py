"""Keeps a :class:`~everwire.Socket` connected: one link after the other, to any server.

When to try again :mod:`.reconnection` decides; what goes over a link is the socket's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from ..codes import CloseCode
from ..errors import ConfigError, EverwireError, HandshakeRefused
from ..limits import ClientLimits
from ..net.transport import Network, Transport, not_a_url, public_url
from ..protocol.states import CONNECTION, ConnectionState as State, Machine
from .pings import Ping
from .provider import ask
from .reconnection import Decide, Reconnection, decide_for_socket
from .socket_link import SocketLink, SocketLinkOwner
from .stats import Traffic

logger = logging.getLogger("everwire.socket")

Url: TypeAlias = str | Callable[[], str | Awaitable[str]]
Headers: TypeAlias = (
    Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]] | None
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketTarget:
    """Where a socket connects to, and how; see :class:`everwire.Socket`."""

    url: Url
    subprotocols: tuple[str, ...]
    headers: Headers
    ssl: Any
    proxy: str | None
    heartbeat: Ping | None
    decide: Decide | None
    max_attempts: int | None


class SocketSessionOwner(SocketLinkOwner, Protocol):
    """Is told of links that come and go."""

    def session_open(self, link: SocketLink) -> None:
        """A link is open."""

    def session_state(self, state: State) -> None:
        """The state changed."""

    def session_failed(self, error: Exception) -> None:
        """An attempt failed."""


class SocketSession:
    """The policy loop.

    Attributes:
        link: the current one, None between two.
        transport: the link's, None until it is open.
        failure: why the last attempt or link ended.
        url: that was tried last, as it may be shown.
    """

    def __init__(
        self,
        target: SocketTarget,
        limits: ClientLimits,
        owner: SocketSessionOwner,
        *,
        network: Network,
        random: Random,
        wall: Callable[[], float],
        traffic: Traffic,
    ) -> None:
        self.link: SocketLink | None = None
        self.transport: Transport | None = None
        self.failure: Exception | None = None
        self.url = "" if callable(target.url) else public_url(target.url)
        self._target = target
        self._limits = limits
        self._owner = owner
        self._network = network
        self._wall = wall
        self._traffic = traffic
        self._machine = Machine(State.CONNECTING, CONNECTION)
        self._number = 0
        fresh = callable(target.url) or callable(target.headers)
        self.reconnection = Reconnection(
            limits,
            attempts=network.attempts,
            random=random,
            decide=target.decide,
            default=decide_for_socket,
            max_attempts=target.max_attempts,
            has_credentials=fresh,
            fresh_credentials=fresh,
            is_refusal=_is_refusal,
        )

    @property
    def state(self) -> State:
        """Of the link; ``connecting`` between two."""
        return self._machine.state

    @property
    def number(self) -> int:
        """How many links were tried."""
        return self._number

    def _to(self, state: State) -> None:
        if state is not self._machine.state:
            self._machine.to(state)
            self._owner.session_state(state)

    async def run(self) -> None:
        """Keep a link up, until :meth:`close`. Cancelling drops the link.

        Raises:
            EverwireError: or what else ended it for good.
        """
        try:
            while True:
                error, by_us = await self._once()
                if self.state is State.CLOSING:
                    return
                self.failure = error
                await self.reconnection.again(error, by_us=by_us, number=self._number)
        finally:
            self.reconnection.stop()

    async def _once(self) -> tuple[Exception, bool]:
        """Make one attempt and see it through; return why it ended, and whether we ended it."""
        self._number += 1
        link = SocketLink(
            self._number,
            self._owner,
            self._limits,
            self._target.heartbeat,
            self._wall,
            self._traffic,
        )
        error: Exception
        try:
            self.link = link
            self.transport = await self._dial(link)
            self.reconnection.ready()
            link.start(self.transport)
            self._to(State.READY)
            self._owner.session_open(link)
            link.hand_over()
            error = await link.wait_ended()
        except (EverwireError, OSError) as failure:
            error = failure
        except Exception as failure:
            logger.exception("link %d: failed unexpectedly", self._number)
            error = failure
        finally:
            ended, by_us = link.error, link.by_us
            link.abort()
            link.hand_over()
            opened = self.transport is not None
            self.link = self.transport = None
        if not opened and self.state is not State.CLOSING:
            self._owner.session_failed(error)
        return error, by_us and error is ended

    async def _dial(self, link: SocketLink) -> Transport:
        """Ask for what may be new each time, and open the link.

        Raises:
            EverwireError: or OSError: it did not come about.
        """
        target = self._target
        url = await ask(target.url, "URL") if callable(target.url) else target.url
        self.reconnection.begin(checked_url(url))
        self.url = public_url(url)
        headers = target.headers
        if callable(headers):
            headers = await ask(headers, "headers")
        return await link.dial(
            self._network,
            url,
            seconds=self._limits.connect_timeout,
            max_message=self._limits.message,
            subprotocols=target.subprotocols,
            headers=headers,
            ssl=target.ssl,
            proxy=target.proxy,
        )

    # ---- what its links tell -------------------------------------------------------

    def suspect(self, suspect: bool) -> None:
        """The link is being probed, or has answered."""
        if suspect and self.state is State.READY:
            self._to(State.SUSPECT)
        elif not suspect and self.state is State.SUSPECT:
            self._to(State.READY)

    def lost(self) -> None:
        """The link is gone."""
        if self.state not in (State.CLOSING, State.CONNECTING):
            self._machine.to(State.CLOSED)
            self._to(State.CONNECTING)

    # ---- ending --------------------------------------------------------------------

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the link, politely.

        Takes at most ``close_timeout`` seconds. Cancelling leaves the link to be dropped.
        """
        self._to(State.CLOSING)
        link = self.link
        if link is not None:
            link.close(code, reason)
            await link.wait_ended()

    def ended(self) -> None:
        """There will be no other link."""
        self._to(State.CLOSED)


def checked_url(url: Any) -> str:
    """Return a URL that can be connected to.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(url, str):
        raise ConfigError(f"a URL is text, not {type(url).__name__}")
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigError(not_a_url(url))
    return url


def _is_refusal(error: Exception) -> bool:
    """Whether a fresh URL or fresh headers may help."""
    return isinstance(error, HandshakeRefused) and error.status in (401, 403)
