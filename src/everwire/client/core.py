"""What a client is made of, and how it lives: opened, kept up, closed, ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..codes import CloseCode
from ..errors import (
    ClosedError,
    ClosedOK,
    ConfigError,
    ConnectionClosed,
    EverwireError,
    NotSent,
    RequestTimeout,
)
from ..limits import ClientLimits
from ..net.tasks import TaskOwner
from ..net.transport import Network, public_url
from ..protocol import messages as m
from ..protocol.states import ConnectionState
from .assigned import Assigned
from .forks import Origin
from .handlers import Answering, Handlers
from .hooks import call_hook
from .link import Link
from .observations import HeartbeatSuspect, LinkLost, LinkOpened, StateChanged
from .overflow import Overflow
from .publisher import Publisher
from .reconcile import Reconciler
from .records import SqliteOutbox
from .requests import Calls
from .session import Session
from .stats import Counters, Stats
from .streams import Inflow, Streams
from .target import Target

if TYPE_CHECKING:
    from .client import Client

logger = logging.getLogger("everwire.client")


class Core:
    """Publisher, calls and subscriptions on top of one session.

    Attributes:
        on_state: see :class:`.client.Client`.
        on_event: see :class:`.client.Client`.
        on_failure: is called when an attempt to connect came to nothing.
        on_end: is called when the client ends for good, before anything is given up for it;
            what is taken away from it then, lives on elsewhere.
    """

    def __init__(
        self,
        client: Client,
        target: Target,
        limits: ClientLimits,
        *,
        network: Network,
        random: Random,
        wall: Callable[[], float],
        timeout: float | None,
        overflow: Overflow | None,
        outbox: SqliteOutbox | None,
        handlers: Handlers,
    ) -> None:
        self.on_state: Callable[[ConnectionState], None] | None = None
        self.on_event: Callable[[str, Any], None] | None = None
        self.on_failure: Callable[[Exception], None] | None = None
        self.on_end: Callable[[Exception], None] | None = None
        self.origin = Origin("client")
        self.limits = limits
        self.random = random
        self.counters = Counters()
        self.publisher = Publisher(
            target.dialect,
            limits,
            self.counters,
            wall=wall,
            random=random,
            overflow=overflow,
            durable=outbox,
        )
        self.calls = Calls(limits, random=random)
        self.streams = Streams(limits)
        self.answering = Answering(client, handlers, limits)
        self.subscriptions = Reconciler(target.dialect, limits, self.counters, random=random)
        self.assigned = Assigned(self.subscriptions)
        self.session = Session(
            target,
            limits,
            self,
            instance=self.publisher.instance,
            network=network,
            random=random,
            wall=wall,
            version=__version__,
            counters=self.counters,
        )
        self._target = target
        self._timeout = timeout
        self._was_ready = False
        self._state = self.session.state
        self._tasks = TaskOwner("everwire client", on_error=self._failed)
        self._opened: asyncio.Future[None] | None = None
        self._ready_link: Link | None = None
        self._news = asyncio.Event()  # set when there may be a link that takes more
        self._end: Exception | None = None
        self._closing = False
        self._closed = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it connects to, without what may be secret."""
        return public_url(self._target.url)

    @property
    def acknowledges(self) -> bool:
        """Whether the dialect has more than order; see :class:`everwire.protocol.dialects`."""
        return self._target.dialect.acknowledges

    @property
    def state(self) -> ConnectionState:
        """See :attr:`.client.Client.state`."""
        return self.session.state

    def drop(self) -> None:
        """See :meth:`.client.Client.drop`."""
        self.origin.check()
        link = self.session.link
        if link is not None:
            link.abort(reason="dropped by the application")

    def check(self) -> None:
        """Raise unless something may be begun."""
        self.origin.check()
        if self._end is not None:
            raise self._end.with_traceback(None)
        if self._closing:
            raise ClosedOK(CloseCode.NORMAL, "the client is being closed")
        if self._opened is None:
            raise ConfigError('open the client first: "async with connect(...)" or "await"')

    # ---- life ------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and wait until ready. Cancelling ends the client.

        Raises:
            EverwireError: refused for good; or not ready in time, for the last reason.
            OSError: not ready in time, because there was no connection.
        """
        if self._opened is not None:
            if not self._opened.done():
                raise ConfigError("this client is being opened already; await it once")
            self.check()
            return
        self.origin = Origin("client")
        self._opened = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout or None):
                await self.publisher.open()
                self._tasks.start(self._run(), "session")
                if self._timeout == 0:
                    self._opened.cancel()  # nobody waits for it
                    return
                await self._opened
        except TimeoutError:
            last = self.session.failure
            self._opened.cancel()
            await self._stop()
            gave_up = f"not connected to {self.url} within {self._timeout:g} s"
            if last is None:
                raise RequestTimeout(gave_up) from None
            last.add_note(f"{gave_up}; is the server running there?")
            raise last from None
        except BaseException:
            self._opened.cancel()
            await self._stop()
            raise

    async def _run(self) -> None:
        try:
            await self.session.run()
        except (EverwireError, OSError) as error:
            if self._opened is not None and self._opened.cancelled() and not self._was_ready:
                logger.warning("the client ended: %s", error)  # nobody waits to be told
            self._finish(error)

    def _failed(self, task: asyncio.Task[Any], error: BaseException) -> None:
        """A defect: end rather than pretend to be connected."""
        self._finish(ClosedError(CloseCode.ABNORMAL, f"the client failed: {error!r}"))

    async def close(self, drain: float | None = None) -> None:
        """See :meth:`.client.Client.close`. Cancelling drops the connection at once."""
        self.origin.check()
        if self._closing:
            await self._closed.wait()
            return
        self._closing = True
        self.answering.release()
        try:
            if self._end is None and self._opened is not None:
                try:
                    seconds = self.limits.close_timeout if drain is None else drain
                    async with asyncio.timeout(seconds):
                        await self.publisher.outbox.drained()
                except TimeoutError:
                    logger.warning("closing with %r", self.publisher.outbox)
                if self._end is None:
                    await self.session.close()
        finally:
            await self._stop()

    async def _stop(self) -> None:
        """End at once."""
        self._closing = True
        self._tasks.cancel_all()
        self._finish(ClosedOK(CloseCode.NORMAL, "the client was closed"))
        try:
            await self._tasks.wait_closed()
            await self.answering.stop()
            await self.subscriptions.shared.end(self.limits.close_timeout)
        finally:
            try:
                await self.publisher.close()
            finally:
                self._closed.set()

    def _finish(self, error: Exception) -> None:
        """The client ended, for good: tell everybody who waits."""
        if self._end is not None:
            return
        self._end = error
        self.session.abort()
        if self.on_end is not None:
            self.on_end(error)
        self.publisher.end(error)
        self.calls.end(error)
        self.streams.end(error)
        self.subscriptions.end(error)
        self._news.set()
        self.session.ended()
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)

    def __str__(self) -> str:
        return (
            f"{self.url} {self.state} links={self.session.number} "
            f"subscriptions={len(self.subscriptions)} outbox={len(self.publisher.outbox)} "
            f"calls={len(self.calls)} streams={len(self.streams)}"
        )

    async def ready_link(self) -> Link:
        """Wait for a link that takes more; see :meth:`.client.Client.event`."""
        seconds = self.limits.request_timeout
        try:
            async with asyncio.timeout(seconds):
                while (link := self._ready_link) is None or not link.writable:
                    self.check()
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            why = "no connection" if self._ready_link is None else "the server does not read"
            raise NotSent(f"{why}: waited {seconds:g} s") from None
        return link

    @property
    def stats(self) -> Stats:
        """See :class:`.client.Client`."""
        outbox, subscriptions = self.publisher.outbox, list(self.subscriptions)
        return self.counters.snapshot(
            outbox=len(outbox),
            outbox_bytes=outbox.size,
            in_flight=outbox.in_flight,
            calls=len(self.calls),
            subscriptions=len(subscriptions),
            queued=sum(len(each.inbox) for each in subscriptions),
        )

    async def begin_stream(self, name: str, payload: Any, seconds: float) -> Inflow:
        """Ask for a stream; see :meth:`.client.Client.stream`."""
        return self.streams.begin(await self.ready_link(), name, payload, seconds)

    # ---- SessionOwner --------------------------------------------------------------

    def link_message(self, link: Link, message: m.ChannelMessage, size: int) -> None:
        self.subscriptions.message(message, size)

    def link_pushed(self, link: Link, message: m.Message) -> None:
        if self.subscriptions.pushed(message):
            return
        match message:
            case m.Subscribed():
                self.assigned.take(message)
            case m.Event():
                call_hook(self.on_event, message.name, message.data)
                self.answering.event(link, message)
            case m.Command() | m.Query():
                self.answering.asked(link, message)
            case m.Cancel():
                self.answering.cancel(link, message)
            case m.Error():
                logger.warning("the server: %s (%d)", message.message, message.code)
            case _:
                logger.debug("ignored: %s", type(message).__name__)

    def link_writable(self, link: Link) -> None:
        self.publisher.pump()
        self.calls.pump()
        self._news.set()

    def session_auth(self, link: Link, auth: m.Auth) -> None:
        if self.acknowledges:
            moving = link is not self.session.link
            size = len(link.encode(auth))
            auth.subscribe = self.subscriptions.first_batch(size, moving=moving)

    def session_ready(self, link: Link, payload: Any) -> None:
        self.counters.connects += 1
        self.counters.reconnects += self._was_ready
        self._was_ready = True
        self.subscriptions.attached(link, payload)
        self.publisher.attached(link)
        self.calls.attached(link)
        self._ready_link = link
        self._news.set()
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)
        self.counters.tell(
            LinkOpened(
                number=link.number, url=self.url, dialect=link.dialect.name, seconds=link.age
            )
        )

    def session_failed(self, error: Exception) -> None:
        if self.on_failure is not None:
            self.on_failure(error)

    def session_lost(self, link: Link, error: ConnectionClosed) -> None:
        self._ready_link = None
        self.assigned.lost()
        self.subscriptions.lost()
        self.publisher.lost()
        self.calls.lost(error)
        self.streams.lost(error)
        self.answering.lost()
        self._tell_lost(link, error)

    def _tell_lost(self, link: Link, error: ConnectionClosed) -> None:
        self.counters.tell(
            LinkLost(
                number=link.number,
                code=error.code,
                reason=error.reason,
                by_us=link.by_us,
                held=link.ready_for,
            )
        )

    def session_retired(self, link: Link, error: ConnectionClosed) -> None:
        self.streams.lost(error)
        self.answering.lost()
        self._tell_lost(link, error)

    def session_held(self, link: Link) -> None:
        self._ready_link = None

    def session_released(self, link: Link) -> None:
        self._ready_link = link
        self._news.set()
        self.subscriptions.released()
        self.publisher.pump()
        self.calls.attached(link)

    def session_moved(self, link: Link, payload: Any) -> None:
        # What is unanswered in spite of the waiting has the fate of a lost connection.
        self.calls.lost(ClosedOK(CloseCode.NORMAL, "the client moved to another connection"))
        self.session_ready(link, payload)

    def session_state(self, state: ConnectionState) -> None:
        previous, self._state = self._state, state
        counters = self.counters
        counters.tell(StateChanged(state=state, previous=previous))
        if state is ConnectionState.SUSPECT:
            counters.suspects += 1
            counters.tell(
                HeartbeatSuspect(
                    number=self.session.number, rtt=counters.smoothed_rtt, lag=counters.loop_lag
                )
            )
        call_hook(self.on_state, state)
