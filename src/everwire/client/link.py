"""One connection to a server: a generation. It never comes back; :mod:`.session` retries.

Rule 1: what a link is told, its owner is told at once, in the same call: what follows a
``response`` in the same read already relies on it.
Rule 2: a link that ended tells nothing more, whatever its transport still does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import msgspec

from ..codes import CloseCode
from ..errors import ClosedError, ClosedOK, ConfigError, ConnectionClosed, RequestTimeout
from ..limits import DEFAULTS, ClientLimits
from ..net.transport import Network, Transport
from ..protocol import messages as m
from ..protocol.dialects import BadMessage, Dialect
from .heartbeat import Heartbeat, Verdict

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


class Link:
    """A WebSocket, the dialect spoken on it, and the requests that wait for an answer.

    It is the :class:`~everwire.net.transport.Receiver` of its transport.

    Attributes:
        number: counts the links of a client, from 1.
        hello: what the server announced, None before it did, and in dialects without.
        error: why it ended, None while it lasts.
        by_us: we ended it, so the close code is not a verdict of the server.
        writable: its write buffer is below the high-water mark.
        message_limit: bytes that one message may have.
        subscribe_batch: channels that one ``subscribe`` may have.
        window: requests that the server works on at a time.
        dedupe_window: seconds for which the server remembers a message's id.
    """

    def __init__(
        self,
        number: int,
        dialect: Dialect,
        limits: ClientLimits,
        owner: LinkOwner,
        wall: Callable[[], float],
    ) -> None:
        self.number = number
        self.dialect = dialect
        self.hello: m.Hello | None = None
        self.error: ConnectionClosed | None = None
        self.by_us = False
        self.writable = True
        self.message_limit = limits.message
        self.subscribe_batch = limits.subscribe_batch
        self.window = DEFAULTS.inflight
        self.dedupe_window = DEFAULTS.dedupe_window
        self._limits = limits
        self._owner = owner
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._transport: Transport | None = None
        self._unsent: list[bytes] = []  # answers to what came before the transport was known
        self._ended = asyncio.Event()
        self._waiting: dict[m.RequestId, tuple[Answered, Any]] = {}
        self._serial = 0
        now = self._loop.time()
        self._beat = Heartbeat(limits.auth_timeout, limits.probe, now=now, wall=wall())
        self._timer: asyncio.TimerHandle | None = None

    # ---- life ------------------------------------------------------------------

    async def open(
        self,
        network: Network,
        url: str,
        *,
        headers: Mapping[str, str] | None,
        ssl: Any,
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
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                transport = await network.connect(
                    url,
                    self,
                    subprotocols=(wanted,) if wanted else (),
                    headers=headers,
                    max_message=INBOUND_FACTOR * self._limits.message,
                    ssl=ssl,
                )
        except TimeoutError as error:
            if not deadline.expired():
                raise  # the operating system gave up: an OSError as any other
            raise RequestTimeout(f"no connection to the server within {seconds:g} s") from error
        self._transport = transport
        if self.error is not None:
            transport.abort()
            raise self.error
        if transport.subprotocol != wanted:
            self.abort(CloseCode.PROTOCOL_ERROR, "the server does not speak the dialect")
            raise ConfigError(
                f"the server does not speak {self.dialect.name!r} (it agreed to "
                f"{transport.subprotocol or 'no subprotocol'}); choose another dialect: "
                "'plain' needs nothing of a server"
            )
        for payload in self._unsent:
            transport.send(self.dialect.opcode, payload)
        self._unsent.clear()

    def start_heartbeat(self) -> None:
        """Watch the link from now on, at the pace that the server announced."""
        now, wall = self._loop.time(), self._wall()
        if self.dialect.needs_auth:
            interval = self.hello.ping_interval / 1000 if self.hello else DEFAULTS.ping_interval
            deadline = interval + self._limits.ping_grace
            self._beat = Heartbeat(deadline, self._limits.probe, now=now, wall=wall)
        else:
            self._beat = Heartbeat(
                PLAIN_SILENCE, PLAIN_PROBE, now=now, wall=wall, always_probe=True
            )
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._beat.due, self._tick)

    def _tick(self) -> None:
        match self._beat.check(self._loop.time(), self._wall()):
            case Verdict.DEAD:
                self.abort(CloseCode.HEARTBEAT, "nothing arrived within the heartbeat's deadline")
                return
            case Verdict.PROBE:
                if self.dialect.needs_auth:
                    self.send(m.Ping(int(self._wall() * 1000)))
                elif self._transport is not None:
                    self._transport.ping()
                self._owner.link_suspect(self, True)
            case Verdict.ALIVE:
                pass
        self._timer = self._loop.call_at(self._beat.due, self._tick)

    def _heard(self) -> None:
        self._beat.heard_at = self._loop.time()
        if self._beat.probing is not None:
            self._beat.probing = None
            self._owner.link_suspect(self, False)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Begin the closing handshake.

        The link ends when the server answers, or is aborted after the closing time-out.
        """
        if self.error is not None:
            return
        self.by_us = True
        if self._transport is None:
            self._end(ClosedOK(code, reason))
            return
        self._transport.close(code, reason)
        if self.error is None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(
                self._limits.close_timeout, self.abort, code, reason
            )

    def abort(self, code: int = CloseCode.ABNORMAL, reason: str = "") -> None:
        """Drop the link at once."""
        if self.error is None:
            self.by_us = True
            kind = ClosedOK if code == CloseCode.NORMAL else ClosedError
            self._end(kind(code, reason))
        if self._transport is not None:
            self._transport.abort()

    async def wait_ended(self) -> ConnectionClosed:
        """Wait until the link is gone; return why. Safe to cancel."""
        await self._ended.wait()
        assert self.error is not None
        return self.error

    def _end(self, error: ConnectionClosed) -> None:
        self.error = error
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        self._ended.set()
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
        if self.error is not None or not payload:
            return
        if self._transport is None:
            self._unsent.append(payload)
        else:
            self._transport.send(self.dialect.opcode, payload)

    def ask(
        self,
        request_id: m.RequestId,
        payload: bytes,
        answered: Answered,
        context: Any,
        within: float | None = None,
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
        """
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

    # ---- Receiver --------------------------------------------------------------

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        if self.error is not None:
            return
        self._heard()
        try:
            message = self.dialect.decode(payload)
            if isinstance(message, m.ChannelMessage):
                self._owner.link_message(self, message, len(payload))
            elif isinstance(message, (m.Response, m.Error)):
                self._answer(message)
            elif isinstance(message, m.Ping):
                self.send(m.Pong(message.time))
            elif isinstance(message, m.Hello):
                self._greeted(message)
            elif not isinstance(message, m.Pong):
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
        announced = hello.limits.get
        self.message_limit = announced("message", self.message_limit)
        batch = announced("subscribeBatch", self.subscribe_batch)
        self.subscribe_batch = max(1, min(self.subscribe_batch, batch))
        self.window = max(1, announced("inflight", self.window))
        self.dedupe_window = announced("dedupeWindow", int(self.dedupe_window * 1000)) / 1000

    def _answer(self, answer: Answer) -> None:
        found = self._waiting.get(answer.request_id) if answer.request_id is not None else None
        if found is not None:
            if not (isinstance(answer, m.Response) and answer.more):
                assert answer.request_id is not None
                del self._waiting[answer.request_id]
            found[0](found[1], answer)
        elif answer.request_id is None:
            self._owner.link_pushed(self, answer)

    def _bad(self, error: BadMessage) -> None:
        if error.unknown_type or not self.dialect.needs_auth:
            logger.debug("link %d: ignored: %s", self.number, error)
        else:
            self._broken(str(error))

    def _broken(self, text: str) -> None:
        logger.warning("link %d: the server breaks the protocol: %s", self.number, text)
        self.abort(CloseCode.PROTOCOL_ERROR, text)

    def heard(self) -> None:
        if self.error is None:
            self._heard()

    def closed(self, code: int, reason: str) -> None:
        if self.error is None:
            kind = ClosedOK if self.by_us and code == CloseCode.NORMAL else ClosedError
            self._end(kind(code, reason))

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self.error is None:
            self._owner.link_writable(self)

    def __repr__(self) -> str:
        state = "up" if self.error is None else f"ended ({self.error})"
        return f"<Link {self.number} {self.dialect.name} {state}>"
