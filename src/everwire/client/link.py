"""One connection to a server: a generation. It never comes back; :mod:`.session` retries.

What a link is told, its owner is told at once, in the same call: what follows a
``response`` in the same read already relies on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol, TypeAlias

import msgspec

from ..codes import CloseCode
from ..errors import ConfigError, ConnectionClosed
from ..limits import DEFAULTS, ClientLimits
from ..net.transport import Network
from ..protocol import messages as m
from ..protocol.dialects import BadMessage, Dialect
from .handover import Notice
from .heartbeat import Heartbeat
from .observe import of_message
from .raw_link import RawLink
from .stats import Traffic, measured

logger = logging.getLogger("everwire.client")

PLAIN_SILENCE = 20.0  # seconds after which a server of the plain dialect is pinged
PLAIN_PROBE = 10.0  # seconds that it has for the pong
INBOUND_FACTOR = 16  # a response may hold several messages; a link takes so many times one

Answer: TypeAlias = m.Response | m.Error
Answered: TypeAlias = Callable[[Any, Answer], None]


class LinkOwner(Protocol):
    """Is told what happens on a link."""

    def link_message(self, link: Link, message: m.ChannelMessage, size: int) -> None:
        """A message of a channel came; ``size`` is in bytes."""

    def link_pushed(self, link: Link, message: m.Message) -> None:
        """Something else came that answers no request."""

    def link_writable(self, link: Link) -> None:
        """More can be written."""

    def link_suspect(self, link: Link, suspect: bool) -> None:
        """The link is being probed, or has answered."""

    def link_ended(self, link: Link, error: ConnectionClosed) -> None:
        """The link is gone; called once."""


class Link(RawLink):
    """A WebSocket, the dialect spoken on it, and the requests that wait for an answer.

    Attributes:
        hello: what the server announced, None before it did, and in dialects without.
        message_limit: bytes that one message may have.
        subscribe_batch: channels that one ``subscribe`` may have.
        window: requests that the server works on at a time.
        dedupe_window: seconds for which the server remembers a message's id.
        held: nothing new is to be asked on it; what was asked is still answered.
        notice: the server's word that it is to be left.
        superseded: the server was asked to close it for another.
        clock_offset: seconds by which the server's clock is ahead of ours.
        answer_size: bytes of the answer that is being handed over.
        serving: requests of the server that we work on.
    """

    def __init__(
        self,
        number: int,
        dialect: Dialect,
        limits: ClientLimits,
        owner: LinkOwner,
        wall: Callable[[], float],
        traffic: Traffic,
    ) -> None:
        super().__init__(number, close_timeout=limits.close_timeout, wall=wall, traffic=traffic)
        self.dialect = dialect
        self.hello: m.Hello | None = None
        self.message_limit = limits.message
        self.subscribe_batch = limits.subscribe_batch
        self.window = DEFAULTS.inflight
        self.dedupe_window = DEFAULTS.dedupe_window
        self.clock_offset = 0.0
        self.answer_size = 0
        self._limits = limits
        self._owner = owner
        self.serving = 0
        self.held = False
        self.notice: Notice | None = None
        self.superseded = False
        self._waiting: dict[m.RequestId, tuple[Answered, Any]] = {}
        self._news = asyncio.Event()  # hello, the last answer, or the end
        self._serial = 0
        self._timed: tuple[m.RequestId | None, float] | None = None  # a round trip under way

    # ---- life ------------------------------------------------------------------

    async def open(
        self,
        network: Network,
        url: str,
        *,
        headers: Mapping[str, str] | None,
        ssl: Any,
        proxy: str | None,
        seconds: float,
    ) -> None:
        """Open the WebSocket. Cancelling drops the attempt.

        Raises:
            HandshakeRefused: an HTTP answer other than 101.
            RequestTimeout: not within ``seconds``.
            ConfigError: the server does not speak the dialect.
            ConnectionClosed: closed at once.
            OSError: no connection.
        """
        wanted = self.dialect.subprotocol
        transport = await self.dial(
            network,
            url,
            seconds=seconds,
            max_message=INBOUND_FACTOR * self._limits.message,
            subprotocols=(wanted,) if wanted else (),
            headers=headers,
            ssl=ssl,
            proxy=proxy,
        )
        if transport.subprotocol != wanted:
            self.abort(CloseCode.PROTOCOL_ERROR, "the server does not speak the dialect")
            raise ConfigError(
                f"the server does not speak {self.dialect.name!r} (it agreed to "
                f"{transport.subprotocol or 'no subprotocol'}); choose another dialect: "
                "'plain' needs nothing of a server"
            )
        self.flush()

    def describe(self, payload: bytes | memoryview) -> str:
        try:
            return of_message(self.dialect.decode(payload))
        except BadMessage:
            return super().describe(payload)

    def start_heartbeat(self) -> None:
        """Watch the link, which is ready, at the pace that the server announced."""
        self.ready_at = self._loop.time()
        now, wall = self._loop.time(), self._wall()
        if self.dialect.needs_auth:
            interval = self.hello.ping_interval / 1000 if self.hello else DEFAULTS.ping_interval
            deadline = interval + self._limits.ping_grace
            self.watch(Heartbeat(deadline, self._limits.probe, now=now, wall=wall))
        else:
            self.watch(Heartbeat(PLAIN_SILENCE, PLAIN_PROBE, now=now, wall=wall, always_probe=True))

    def probe(self) -> None:
        if self.dialect.needs_auth:
            self._timed = (None, self._loop.time())
            self.send(m.Ping(int(self._wall() * 1000)))
        else:
            super().probe()

    def when_suspect(self, suspect: bool) -> None:
        self._owner.link_suspect(self, suspect)

    def when_writable(self) -> None:
        self._owner.link_writable(self)

    def when_ended(self, error: ConnectionClosed) -> None:
        self._waiting.clear()
        self._news.set()
        self._owner.link_ended(self, error)

    # ---- sending ---------------------------------------------------------------

    def next_id(self) -> int:
        """An id for a request, never used before on this link."""
        self._serial += 1
        return self._serial

    def encode(self, message: m.Message) -> bytes:
        """Write a message in the link's dialect."""
        return self.dialect.encode(message, int(self._wall() * 1000))

    def send(self, message: m.Message) -> None:
        """Send a message; nothing happens on a link that ended."""
        self.send_bytes(self.encode(message))

    def send_bytes(self, payload: bytes) -> None:
        """Send an encoded message."""
        if payload:
            self.send_frame(self.dialect.opcode, payload)

    def send_many(self, payloads: Sequence[bytes]) -> None:
        """Send encoded messages, in one write where the transport can."""
        self.send_frames(self.dialect.opcode, payloads)

    def expect(self, request_id: m.RequestId, answered: Answered, context: Any) -> None:
        """Have ``answered(context, answer)`` called, as for :meth:`ask`; the request follows."""
        self._waiting[request_id] = (answered, context)
        if self._timed is None:
            self._timed = (request_id, self._loop.time())

    def ask(
        self,
        request_id: m.RequestId,
        payload: bytes,
        answered: Answered,
        context: Any,
        within: float | None = None,
        *,
        timed: bool = True,
    ) -> None:
        """Send an encoded request; ``answered(context, answer)`` is called with the answer.

        It is not called if the link ends first: the owner hears of that.

        Args:
            request_id: of the request.
            payload: the request.
            answered: what to call.
            context: its first argument.
            within: seconds after which a missing answer means that the server is broken,
                and the link is dropped.
            timed: the answer comes at once, and may tell how long a round trip takes.
        """
        if timed:
            self.expect(request_id, answered, context)
        else:
            self._waiting[request_id] = (answered, context)
        self.send_bytes(payload)
        if within is not None:
            self._loop.call_later(within, self._overdue, request_id)

    def _overdue(self, request_id: m.RequestId) -> None:
        if request_id in self._waiting:
            self.abort(reason="a request was never answered")

    def forget(self, request_id: m.RequestId) -> None:
        """Ignore the answer to a request."""
        self._waiting.pop(request_id, None)
        if self._timed is not None and self._timed[0] == request_id:
            self._timed = None
        if not self._waiting:
            self._news.set()

    async def fail(self, error: Exception) -> NoReturn:
        """Raise ``error``, or the close code that follows it: it says more of what to do next."""
        try:
            async with asyncio.timeout(self._limits.close_timeout):
                raise await self.wait_ended() from error
        except TimeoutError:
            raise error from None

    # ---- giving way to another -----------------------------------------------------

    async def greeted(self) -> None:
        """Wait for the server's ``hello``. Safe to cancel.

        Raises:
            ConnectionClosed: the link ended.
        """
        while self.hello is None:
            if self.error is not None:
                raise self.error
            await self._changed()

    async def settled(self) -> None:
        """Wait until all that either side asked is answered, or the link ended. Safe to cancel."""
        while (self._waiting or self.serving) and self.error is None:
            await self._changed()

    def served(self) -> None:
        """A request of the server is answered."""
        self.serving -= 1
        self._news.set()

    async def _changed(self) -> None:
        self._news.clear()
        await self._news.wait()

    def retire(self) -> None:
        """Close the link, which another has replaced: what it still says is no answer."""
        self._waiting.clear()
        self.close(CloseCode.NORMAL, "moved to another connection")

    # ---- Receiver --------------------------------------------------------------

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        if self.error is not None:
            return
        self.note_message(payload)
        try:
            message = self.dialect.decode(payload)
            if isinstance(message, m.ChannelMessage):
                self._owner.link_message(self, message, len(payload))
            elif isinstance(message, (m.Response, m.Error)):
                self.answer_size = len(payload)
                self._answer(message)
            elif isinstance(message, m.Ping):
                self.send(m.Pong(message.time))
            elif isinstance(message, m.Hello):
                self._greeted(message)
            elif isinstance(message, m.Pong):
                self._round_trip(None)
            else:
                self._owner.link_pushed(self, message)
        except BadMessage as error:
            self._bad(error)
        except msgspec.ValidationError as error:
            self._broken(f"an answer that is none: {error}")
        except Exception:
            # Whatever it was, going on would skip it in silence: the next link begins anew.
            logger.exception("link %d: a defect in handling a message", self.number)
            self.abort(CloseCode.INTERNAL_ERROR, "a defect of this client; see its log")

    def _greeted(self, hello: m.Hello) -> None:
        self.hello = hello
        self._news.set()
        if hello.time:
            self.clock_offset = hello.time / 1000 - self._wall()
        announced = hello.limits.get
        self.message_limit = announced("message", self.message_limit)
        batch = announced("subscribeBatch", self.subscribe_batch)
        self.subscribe_batch = max(1, min(self.subscribe_batch, batch))
        self.window = max(1, announced("inflight", self.window))
        self.dedupe_window = announced("dedupeWindow", int(self.dedupe_window * 1000)) / 1000

    def _answer(self, answer: Answer) -> None:
        found = self._waiting.get(answer.request_id) if answer.request_id is not None else None
        if found is not None:
            self._round_trip(answer.request_id)
            if not (isinstance(answer, m.Response) and answer.more):
                assert answer.request_id is not None
                del self._waiting[answer.request_id]
                if self.held and not self._waiting:
                    self._news.set()
            found[0](found[1], answer)
        elif answer.request_id is None:
            self._owner.link_pushed(self, answer)

    def _round_trip(self, request_id: m.RequestId | None) -> None:
        if self._timed is not None and self._timed[0] == request_id:
            measured(self.traffic, self._loop.time() - self._timed[1])
            self._timed = None

    def _bad(self, error: BadMessage) -> None:
        if error.unknown_type or not self.dialect.needs_auth:
            logger.debug("link %d: ignored: %s", self.number, error)
        else:
            self._broken(str(error))

    def _broken(self, text: str) -> None:
        logger.warning("link %d: the server breaks the protocol: %s", self.number, text)
        self.abort(CloseCode.PROTOCOL_ERROR, text)

    def __repr__(self) -> str:
        state = "up" if self.error is None else f"ended ({self.error})"
        return f"<Link {self.number} {self.dialect.name} {state}>"
