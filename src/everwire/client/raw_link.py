"""One WebSocket of a client, from its opening to its end, whatever is spoken on it.

Rule 1: what a link is told, it passes on at once, in the same call.
Rule 2: a link that ended tells nothing more, whatever its transport still does.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..codes import CloseCode
from ..errors import ClosedError, ClosedOK, ConnectionClosed, RequestTimeout
from ..net.transport import ClientTransport, Network, Transport, public_url
from .forks import Origin
from .heartbeat import Heartbeat, Verdict
from .observe import of_payload, show, watched
from .proxies import proxy_for
from .stats import Traffic

logger = logging.getLogger("everwire.client")


class RawLink(ABC):
    """A WebSocket that is opened, watched, and closed in bounded time.

    It is the :class:`~everwire.net.transport.Receiver` of its transport. A subclass says
    what is done with messages, and hears of the rest by the methods ``when_…``.

    Args:
        number: counts the links of an owner, from 1: what an older one tells is stale.
        close_timeout: seconds for the closing handshake.
        wall: the time in seconds since 1970.
        traffic: counts what goes over it.

    Attributes:
        error: why it ended, None while it lasts.
        by_us: we ended it, so the close code is not a verdict of the server.
        writable: its write buffer is below the high-water mark.
        ready_at: the loop's time at which it became ready, None before.
    """

    def __init__(
        self,
        number: int,
        *,
        close_timeout: float,
        wall: Callable[[], float],
        traffic: Traffic,
    ) -> None:
        self.number = number
        self.traffic = traffic
        self.error: ConnectionClosed | None = None
        self.by_us = False
        self.writable = True
        self.ready_at: float | None = None
        self._close_timeout = close_timeout
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._origin = Origin("link")
        self._transport: ClientTransport | None = None
        self._unsent: list[tuple[int, bytes]] = []  # written before the transport was known
        self._ended = asyncio.Event()
        self._beat: Heartbeat | None = None
        self._came = self._waiting_out = 0  # bytes, at the last look
        self._timer: asyncio.TimerHandle | None = None

    # ---- what a subclass does ----------------------------------------------------

    @abstractmethod
    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        """See :class:`~everwire.net.transport.Receiver`; calls :meth:`note_message`."""

    def describe(self, payload: bytes | memoryview) -> str:
        """A message as the debug log shows it."""
        return of_payload(payload)

    def probe(self) -> None:
        """Send what a living peer answers."""
        if self._transport is not None:
            self._transport.ping()

    @abstractmethod
    def when_suspect(self, suspect: bool) -> None:
        """It is being probed, or has answered."""

    @abstractmethod
    def when_writable(self) -> None:
        """More can be written."""

    @abstractmethod
    def when_ended(self, error: ConnectionClosed) -> None:
        """It is gone; called once."""

    # ---- life ------------------------------------------------------------------

    async def dial(
        self,
        network: Network,
        url: str,
        *,
        seconds: float,
        max_message: int,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        ssl: Any = None,
        proxy: str | None = None,
    ) -> Transport:
        """Open the WebSocket. Cancelling drops the attempt.

        Raises:
            HandshakeRefused: an HTTP answer other than 101.
            ConfigError: the environment names something that is no proxy.
            RequestTimeout: not within ``seconds``.
            ConnectionClosed: closed at once.
            OSError: no connection.
        """
        proxy = proxy_for(url, proxy)
        if proxy is not None:
            logger.info("link %d: through the proxy %s", self.number, public_url(proxy))
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                transport = await network.connect(
                    url,
                    self,
                    subprotocols=subprotocols,
                    headers=headers,
                    max_message=max_message,
                    ssl=ssl,
                    proxy=proxy,
                )
        except TimeoutError as error:
            if not deadline.expired():
                raise  # the operating system gave up: an OSError as any other
            raise RequestTimeout(f"no connection to the server within {seconds:g} s") from error
        self._transport = transport
        if self.error is not None:
            transport.abort()
            raise self.error
        return transport

    def flush(self) -> None:
        """Write what was sent before the transport was known, and accepted."""
        assert self._transport is not None
        for opcode, payload in self._unsent:
            self._transport.send(opcode, payload)
        self._unsent.clear()

    def send_frame(self, opcode: int, payload: bytes) -> None:
        """Send a message; nothing happens on a link that ended."""
        if self.error is not None:
            return
        self._note_sent(payload)
        if self._transport is None:
            self._unsent.append((opcode, payload))
        else:
            self._transport.send(opcode, payload)

    def send_frames(self, opcode: int, payloads: Sequence[bytes]) -> None:
        """Send messages, in one write where the transport can."""
        if self.error is not None:
            return
        for payload in payloads:
            self._note_sent(payload)
        if self._transport is None:
            self._unsent.extend((opcode, payload) for payload in payloads)
        else:
            self._transport.send_many(opcode, payloads)

    def _note_sent(self, payload: bytes) -> None:
        self.traffic.bytes_out += len(payload)
        if watched():
            show(self.number, ">", self.describe(payload), len(payload))

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
            self._timer = self._loop.call_later(self._close_timeout, self.abort, code, reason)

    def abort(self, code: int = CloseCode.ABNORMAL, reason: str = "") -> None:
        """Drop the link at once."""
        if not self._origin.here:
            return  # what is collected in a forked child must not touch its parent's socket
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
        self._ended.set()
        self.when_ended(error)

    # ---- the heartbeat -----------------------------------------------------------

    def watch(self, beat: Heartbeat) -> None:
        """Give the link up when ``beat`` says so, from now on."""
        self._beat = beat
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(beat.due, self._tick)

    def _tick(self) -> None:
        beat = self._beat
        assert beat is not None
        suspected = beat.probing is not None
        now = self._loop.time()
        self.traffic.loop_lag = max(0.0, now - beat.due)
        match beat.check(now, self._wall(), moved=self._moved()):
            case Verdict.DEAD:
                self.abort(CloseCode.HEARTBEAT, "nothing arrived within the heartbeat's deadline")
                return
            case Verdict.PROBE:
                self.probe()
                self.when_suspect(True)
            case Verdict.PING:
                self.probe()
            case Verdict.ALIVE:
                if suspected and beat.probing is None:
                    self.when_suspect(False)
        self._timer = self._loop.call_at(beat.due, self._tick)

    def _moved(self) -> bool:
        """Whether parts of a message came, or of ours went, since this was asked last."""
        if self._transport is None:
            return False
        came, waiting = self._transport.inbound()[1], self._transport.write_buffer_size()
        moved = came != self._came or waiting < self._waiting_out
        self._came, self._waiting_out = came, waiting
        return moved

    @property
    def age(self) -> float:
        """Seconds since the attempt at it began."""
        return self._loop.time() - self._began

    @property
    def ready_for(self) -> float | None:
        """Seconds since it became ready, None if it never did."""
        return None if self.ready_at is None else self._loop.time() - self.ready_at

    def note_message(self, payload: bytes | memoryview) -> None:
        """A message came."""
        self.note_life()
        self.traffic.bytes_in += len(payload)
        if watched():
            show(self.number, "<", self.describe(payload), len(payload))

    def note_life(self) -> None:
        """Something came."""
        beat = self._beat
        if beat is None:
            return
        beat.heard_at = self._loop.time()
        if beat.probing is not None:
            beat.probing = None
            self.when_suspect(False)

    # ---- reading ---------------------------------------------------------------

    def pause_reading(self) -> None:
        """Let the server feel that we do not keep up; it is not judged meanwhile."""
        if self._transport is not None and self.error is None:
            self._transport.pause_reading()
            if self._beat is not None:
                self._beat.pause(True, self._loop.time())

    def resume_reading(self) -> None:
        """Read on."""
        if self._transport is not None and self.error is None:
            self._transport.resume_reading()
            if self._beat is not None:
                self._beat.pause(False, self._loop.time())

    # ---- Receiver --------------------------------------------------------------

    def heard(self) -> None:
        if self.error is None:
            self.note_life()

    def closed(self, code: int, reason: str) -> None:
        if self.error is None:
            kind = ClosedOK if self.by_us and code == CloseCode.NORMAL else ClosedError
            self._end(kind(code, reason))

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self.error is None:
            self.when_writable()
