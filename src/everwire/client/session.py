"""Keeps a client connected: one link after the other, until it ends for good.

When to try again, and which failures are final, :mod:`.reconnection` decides. One attempt
is :class:`~.link.Link`; what goes over it belongs to :mod:`.client`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from ..codes import CloseCode
from ..errors import (
    ConnectionClosed,
    EverwireError,
    RequestError,
    RequestTimeout,
)
from ..limits import ClientLimits
from ..net.transport import Network
from ..protocol import messages as m
from ..protocol.dialects import Dialect
from ..protocol.states import CONNECTION, ConnectionState as State, Machine
from .link import Answer, Link
from .provider import Token, ask_token
from .reconnection import Reconnection
from .requests import answer_error

logger = logging.getLogger("everwire.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a client connects to, and as whom; see :func:`everwire.connect`."""

    url: str
    dialect: Dialect
    token: Token
    credentials: Any
    name: str
    headers: Mapping[str, str] | None
    ssl: Any
    connect_timeout: float


class SessionOwner(Protocol):
    """Is told of links that come and go."""

    def link_message(self, link: Link, message: m.ChannelMessage, size: int) -> None:
        """A message of a channel came."""

    def link_pushed(self, link: Link, message: m.Message) -> None:
        """Something else came that answers no request."""

    def link_writable(self, link: Link) -> None:
        """More can be written."""

    def session_auth(self, link: Link, auth: m.Auth) -> None:
        """Fill in what goes out with ``auth``."""

    def session_ready(self, link: Link, payload: Any) -> None:
        """A link is ready; ``payload`` is what ``auth`` was answered with."""

    def session_lost(self, error: ConnectionClosed) -> None:
        """The link is gone."""

    def session_state(self, state: State) -> None:
        """The state changed."""


class Session:
    """The policy loop.

    Attributes:
        link: the current one, None between two.
        failure: why the last attempt or link ended.
    """

    def __init__(
        self,
        target: Target,
        limits: ClientLimits,
        owner: SessionOwner,
        *,
        instance: str,
        network: Network,
        random: Random,
        wall: Callable[[], float],
        version: str,
    ) -> None:
        self.link: Link | None = None
        self.failure: Exception | None = None
        self._target = target
        self._limits = limits
        self._owner = owner
        self._network = network
        self._wall = wall
        self._info = m.ClientInfo(instance, target.name, version)
        self._machine = Machine(State.CONNECTING, CONNECTION)
        self._number = 0
        self._answered: asyncio.Future[None] | None = None
        self._reconnection = Reconnection(
            limits,
            attempts=network.attempts,
            random=random,
            has_credentials=target.token is not None,
            fresh_credentials=callable(target.token),
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
            EverwireError: what ended it for good.
        """
        try:
            while True:
                error, by_us = await self._once()
                if self.state is State.CLOSING:
                    return
                self.failure = error
                await self._reconnection.again(error, by_us=by_us, number=self._number)
        finally:
            self._reconnection.stop()

    # ---- one link ----------------------------------------------------------------

    async def _once(self) -> tuple[Exception, bool]:
        """Make one attempt and see it through; return why it ended, and whether we ended it."""
        self._number += 1
        target = self._target
        self._reconnection.begin(target.url)
        link = Link(self._number, target.dialect, self._limits, self, self._wall)
        error: Exception
        try:
            token = await ask_token(target.token)
            self.link = link
            await link.open(
                self._network,
                target.url,
                headers=target.headers,
                ssl=target.ssl,
                seconds=target.connect_timeout,
            )
            await self._authenticate(link, token)
            error = await link.wait_ended()
        except (EverwireError, OSError) as failure:
            error = failure
        except Exception as failure:
            logger.exception("link %d: failed unexpectedly", self._number)
            error = failure
        finally:
            ended, by_us = link.error, link.by_us
            link.abort()
            self.link = None
        return error, by_us and error is ended

    async def _authenticate(self, link: Link, token: str | None) -> None:
        """Make the link ready, or raise.

        Raises:
            RequestError: the server refuses, and leaves the link open.
            RequestTimeout: no answer.
            ConnectionClosed: the link ended.
        """
        target = self._target
        if not target.dialect.needs_auth and token is None and target.credentials is None:
            self._ready(link, None)
            return
        self._to(State.AUTHENTICATING)
        auth = m.Auth(link.next_id(), token, target.credentials, self._info)
        self._owner.session_auth(link, auth)
        answered = self._answered = asyncio.get_running_loop().create_future()
        seconds = self._limits.auth_timeout
        link.ask(auth.id, link.encode(auth), self._auth_answered, link)
        try:
            async with asyncio.timeout(seconds):
                await answered
        except TimeoutError as error:
            raise RequestTimeout(f"no answer to auth within {seconds:g} s") from error
        except RequestError as error:
            if not target.dialect.needs_auth:
                raise
            await self._prefer_close_code(link, error)
        finally:
            self._answered = None

    async def _prefer_close_code(self, link: Link, error: RequestError) -> None:
        """A refusal is followed by a close code, which says more of what to do next."""
        try:
            async with asyncio.timeout(self._limits.close_timeout):
                raise await link.wait_ended() from error
        except TimeoutError:
            raise error from None

    def _auth_answered(self, link: Link, answer: Answer) -> None:
        answered = self._answered
        if answered is None or answered.done():
            return
        if isinstance(answer, m.Response):
            self._ready(link, answer.payload)
            answered.set_result(None)
        else:
            answered.set_exception(answer_error(answer))

    def _ready(self, link: Link, payload: Any) -> None:
        self._reconnection.ready()
        link.start_heartbeat()
        self._to(State.READY)
        self._owner.session_ready(link, payload)

    # ---- LinkOwner ---------------------------------------------------------------

    def link_message(self, link: Link, message: m.ChannelMessage, size: int) -> None:
        self._owner.link_message(link, message, size)

    def link_pushed(self, link: Link, message: m.Message) -> None:
        if isinstance(message, m.Drain):
            self._drain(link, message)
        else:
            self._owner.link_pushed(link, message)

    def link_writable(self, link: Link) -> None:
        self._owner.link_writable(link)

    def link_suspect(self, link: Link, suspect: bool) -> None:
        if suspect and self.state is State.READY:
            self._to(State.SUSPECT)
        elif not suspect and self.state is State.SUSPECT:
            self._to(State.READY)

    def link_ended(self, link: Link, error: ConnectionClosed) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
        self._owner.session_lost(error)
        if self.state is not State.CLOSING:
            self._machine.to(State.CLOSED)
            self._to(State.CONNECTING)

    def _drain(self, link: Link, drain: m.Drain) -> None:
        """The node is going: leave at the moment that it gave us, and come back at once."""
        if self.state is not State.READY or self._reconnection.leaving_at is not None:
            return
        moment = self._reconnection.leave(drain.reconnect_in / 1000)
        self._to(State.DRAINING)
        asyncio.get_running_loop().call_at(moment, link.close, CloseCode.NORMAL, "draining")

    # ---- ending --------------------------------------------------------------------

    async def close(self) -> None:
        """Close the link, politely.

        Takes at most ``close_timeout`` seconds. Cancelling leaves the link to be dropped.
        """
        self._to(State.CLOSING)
        link = self.link
        if link is not None:
            link.close(CloseCode.NORMAL)
            await link.wait_ended()

    def ended(self) -> None:
        """There will be no other link."""
        self._to(State.CLOSED)
