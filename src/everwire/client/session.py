"""Keeps a client connected: one link after the other, until it ends for good.

One attempt is :class:`~.link.Link`; what goes over it belongs to :mod:`.client`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, TypeAlias

from ..codes import CloseCode
from ..errors import ConnectionClosed, EverwireError, RequestError, RequestTimeout
from ..limits import ClientLimits
from ..net.tasks import TaskOwner
from ..net.transport import Network
from ..protocol import messages as m
from ..protocol.answers import answer_error
from ..protocol.states import CONNECTION, ConnectionState as State, Machine
from .handover import Notice, greeting, settle
from .link import Answer, Link
from .observations import TokenRefreshed
from .reconnection import Reconnection
from .refreshing import Refreshing
from .session_owner import SessionOwner
from .stats import Counters
from .target import Target
from .tokens import Token
from .verdict import final_error, is_refused_token

logger = logging.getLogger("everwire.client")


_End: TypeAlias = tuple[Exception, bool]  # why, and whether it was our doing


class Session:
    """The policy loop.

    Attributes:
        link: the current one, None between two.
        failure: why the last attempt or link ended.
    """

    # While another is being opened beside the current one, that is ``_next``; from the
    # moment it is ready it is the current one, and what it replaced is ``_retired``.

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
        counters: Counters,
    ) -> None:
        self.link: Link | None = None
        self._next: Link | None = None
        self._retired: Link | None = None
        self._due: Link | None = None  # to be left now
        self._secret: str | None = None  # of the last link that was ready
        self._final: Exception | None = None  # how a link ended beside which we tried another
        self._news = asyncio.Event()  # a link ended, or is due
        self.failure: Exception | None = None
        self._target = target
        self._limits = limits
        self._owner = owner
        self._network = network
        self._wall = wall
        self._counters = counters
        self._info = m.ClientInfo(instance, target.name, version)
        self._machine = Machine(State.CONNECTING, CONNECTION)
        self._number = 0
        self._asking: Link | None = None  # whose auth is unanswered
        self._answered: asyncio.Future[None] | None = None
        self._reconnection = Reconnection(
            limits,
            attempts=network.attempts,
            random=random,
            has_credentials=target.tokens.renewable,
            fresh_credentials=target.tokens.renewable,
            on_retry=counters.retrying,
        )
        self._token: Token | None = None
        self._refused: Token | None = None
        self._clock_offset = 0.0
        self._tasks = TaskOwner("everwire client's session")
        self._refreshing = Refreshing(target.tokens, limits, random=random, now=self._server_time)
        self._refresh: asyncio.Task[None] | None = None

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
                self._number += 1
                dialect, counters = self._target.dialect, self._counters
                link = Link(self._number, dialect, self._limits, self, self._wall, counters)
                failed = await self._open(link)
                end = failed or await self._keep(link)
                if self.state is State.CLOSING:
                    return
                if self._final is not None:
                    raise self._final
                if end is None:
                    continue
                self.failure, by_us = end
                if failed and self.link is None:
                    self._owner.session_failed(end[0])
                if not by_us and is_refused_token(end[0]):
                    self._refused = self._token
                await self._reconnection.again(
                    end[0], by_us=by_us, number=self._number, standing=self.link is not None
                )
                if self._final is not None:
                    raise self._final
        finally:
            self._reconnection.stop()
            self.abort()
            self._stop_refreshing()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.close_timeout):
                    await self._tasks.wait_closed()

    # ---- one link ----------------------------------------------------------------

    async def _open(self, link: Link) -> _End | None:
        """Make one attempt; return why it failed, None if the link is ready."""
        target = self._target
        self._reconnection.begin(target.url)
        error: Exception
        try:
            known, now = self._token, self._server_time()
            token = self._token = await target.tokens.get(now, instead_of=self._refused)
            if token is not None and token is not known and target.tokens.renewable:
                self._counters.tell(TokenRefreshed(expires_at=token.expires_at))
            if self.link is None:
                self.link = link
            else:
                self._next = link
            await link.open(
                self._network,
                target.url,
                headers=target.headers,
                ssl=target.ssl,
                proxy=target.proxy,
                seconds=target.connect_timeout,
            )
            if link is self._next:
                await self._give_way(link)
            await self._authenticate(link, token)
            return None
        except (EverwireError, OSError) as failure:
            error = failure
        except Exception as failure:
            logger.exception("link %d: failed unexpectedly", self._number)
            error = failure
        by_us = link.by_us and error is link.error
        link.abort()
        return error, by_us

    async def _keep(self, link: Link) -> _End | None:
        """Stay with a link; return why it ended, None if it is to be left first."""
        while link.error is None and self._due is not link:
            self._news.clear()
            await self._news.wait()
        return None if link.error is None else (link.error, link.by_us)

    async def _give_way(self, link: Link) -> None:
        """Have the current link make room for ``link``, which is open.

        Raises:
            RequestTimeout: the server does not say hello on it.
            ConnectionClosed: it ended.
        """
        await greeting(link, self._limits.auth_timeout)
        old = self.link
        if old is not None and old is not link:
            old.held = True
            self._owner.session_held(old)
            await settle(old)
        if link.error is not None:
            raise link.error

    def _server_time(self) -> float:
        """Seconds since 1970, as far as the last server's clock is known."""
        return self._wall() + self._clock_offset

    async def _authenticate(self, link: Link, token: Token | None) -> None:
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
        seconds = self._limits.auth_timeout
        value = None if token is None else token.value
        auth = m.Auth(link.next_id(), value, target.credentials, self._info, self._secret)
        if self.link is link:
            self._to(State.AUTHENTICATING)
        elif self.link is not None:
            self.link.superseded = True
            seconds /= 2  # the old one is held meanwhile
        self._owner.session_auth(link, auth)
        self._asking = link
        answered = self._answered = asyncio.get_running_loop().create_future()
        link.ask(auth.id, link.encode(auth), self._auth_answered, link)
        try:
            async with asyncio.timeout(seconds):
                await answered
        except TimeoutError as error:
            raise RequestTimeout(f"no answer to auth within {seconds:g} s") from error
        except RequestError as error:
            if not target.dialect.needs_auth:
                raise
            await link.fail(error)
        finally:
            self._asking = self._answered = None

    def _auth_answered(self, link: Link, answer: Answer) -> None:
        answered = self._answered
        if answered is None or answered.done() or self.state is State.CLOSING:
            return
        if isinstance(answer, m.Response):
            self._ready(link, answer.payload)
            if not answered.done():
                answered.set_result(None)
        else:
            answered.set_exception(answer_error(answer))

    def _ready(self, link: Link, payload: Any) -> None:
        old = self.link if self.link is not link else None
        self.link, self._next, self._due = link, None, None
        self._secret = None if link.hello is None else link.hello.connection
        self._reconnection.ready()
        self._clock_offset = link.clock_offset
        if self._token and self._target.tokens.renewable and self._target.dialect.needs_auth:
            self._stop_refreshing()
            refresh = self._refreshing.run(link, self._token, payload, self._renewed)
            self._refresh = self._tasks.start(refresh, "token")
        link.start_heartbeat()
        self._to(State.READY)
        if old is None:
            self._owner.session_ready(link, payload)
        else:
            self._owner.session_moved(link, payload)
            if self._retired is not None:
                self._retired.abort()
            self._retired = old
            old.retire()
        if link.notice is not None and self.link is link:
            self._leave(link, link.notice)

    def _stop_refreshing(self) -> None:
        if self._refresh is not None:
            self._refresh.cancel()
            self._refresh = None

    def _renewed(self, token: Token) -> None:
        self._token = token  # if one is refused, it is that
        self._counters.tell(TokenRefreshed(expires_at=token.expires_at))

    # ---- LinkOwner ---------------------------------------------------------------

    def link_message(self, link: Link, message: m.ChannelMessage, size: int) -> None:
        if link is self.link:
            self._owner.link_message(link, message, size)

    def link_pushed(self, link: Link, message: m.Message) -> None:
        if isinstance(message, m.Drain):
            self._drain(link, message)
        elif link is self.link or isinstance(message, (m.Command, m.Query, m.Cancel)):
            self._owner.link_pushed(link, message)

    def link_writable(self, link: Link) -> None:
        if link is self.link:
            self._owner.link_writable(link)

    def link_suspect(self, link: Link, suspect: bool) -> None:
        if link is not self.link:
            return
        if suspect and self.state is State.READY:
            self._to(State.SUSPECT)
        elif not suspect and self.state is State.SUSPECT:
            self._to(State.READY)

    def link_ended(self, link: Link, error: ConnectionClosed) -> None:
        if link.superseded and error.code == CloseCode.REPLACED:
            link.by_us = True  # we asked for it
        if link is self._asking:
            assert self._answered is not None
            if not self._answered.done():
                self._answered.set_exception(error)
        if link is self._retired:
            self._retired = None
            self._owner.session_retired(link, error)
        elif link is self._next:
            self._next = None
            if self.link is not None and self.link.held and self.state is not State.CLOSING:
                self.link.held = False
                self._owner.session_released(self.link)
        elif link is self.link:
            self._lost(link, error)
        self._news.set()

    def _lost(self, link: Link, error: ConnectionClosed) -> None:
        """The current link is gone; one that was to take its place goes on as any attempt."""
        beside, self._next = self._next, None
        self.link = beside
        self._stop_refreshing()
        self._owner.session_lost(link, error)
        if self.state is State.CLOSING:
            return
        if self.state is State.DRAINING and not link.by_us:
            self._final = final_error(error)
            if self._final is not None:
                self._reconnection.hurry()
                if beside is not None:
                    beside.abort()
        if beside is not None and beside is self._asking:
            return  # ready, or lost, in a moment
        if self.state is not State.CONNECTING:
            self._machine.to(State.CLOSED)
            self._to(State.CONNECTING)

    def _drain(self, link: Link, drain: m.Drain) -> None:
        """The node is going: take another link at the moment that it gave us."""
        if link.notice is not None:
            return
        now = asyncio.get_running_loop().time()
        link.notice = Notice(drain.reconnect_in / 1000, drain.close_in / 1000, now)
        if link is self.link and self.state is State.READY:
            self._leave(link, link.notice)

    def _leave(self, link: Link, notice: Notice) -> None:
        moment = self._reconnection.leave(notice.leave_in, notice.close_in)
        self._to(State.DRAINING)
        asyncio.get_running_loop().call_at(moment, self._is_due, link)

    def _is_due(self, link: Link) -> None:
        if link is self.link:
            self._due = link
            self._news.set()

    # ---- ending --------------------------------------------------------------------

    async def close(self) -> None:
        """Close the link, politely.

        Takes at most ``close_timeout`` seconds. Cancelling leaves the link to be dropped.
        """
        self._to(State.CLOSING)
        links = [link for link in (self.link, self._next, self._retired) if link is not None]
        for link in links:
            link.close(CloseCode.NORMAL)
        for link in links:
            await link.wait_ended()

    def abort(self) -> None:
        """Drop whatever link there is."""
        for link in (self._next, self.link, self._retired):
            if link is not None:
                link.abort()

    def ended(self) -> None:
        """There will be no other link."""
        self.abort()
        self._to(State.CLOSED)
