"""A network inside one event loop: whole WebSocket messages, and faults when a test wants them.

::

    network = Network(latency=0.05)
    network.listen("ws://node-1", accept)      # accept(transport, handshake) -> receiver
    transport = await network.connect("ws://node-1/ws", receiver, max_message=2**20)
    network.links[0].cut()
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..codes import CloseCode
from ..errors import HandshakeRefused
from ..limits import KiB, Limits
from ..net.attempts import Attempts
from ..net.transport import ClientTransport, Handshake, Receiver, Transport
from ..protocol import dialects
from .link import Link
from .pipe import Direction

HARD_CAP = Limits().hard_cap


class Record(NamedTuple):
    """Something that happened on the network.

    Attributes:
        time: of the loop, in seconds.
        link: the link's id, 0 for the whole network.
        direction: which way; None for both, or neither.
        kind: ``connect``, ``open``, ``refused``, ``sent``, ``delivered``, ``cut``,
            ``freeze``, ``drop``, ``thaw``.
        opcode: of the frame, where there is one.
        payload: of the frame, up to ``trace_bytes``.
    """

    time: float
    link: int
    direction: Direction | None
    kind: str
    opcode: int | None
    payload: bytes


Accept = Callable[[Transport, Handshake], Receiver]


class Listener:
    """Somebody who takes connections; made by :meth:`Network.listen`."""

    def __init__(
        self,
        network: Network,
        host: str,
        accept: Accept,
        max_message: int,
        subprotocols: Sequence[str] | None,
    ) -> None:
        self.host = host
        self.accept = accept
        self.max_message = max_message
        self.subprotocols = subprotocols
        self._network = network

    def close(self) -> None:
        """Stop listening: later connects get ConnectionRefusedError. Open links stay."""
        self._network.unlisten(self)


class Network:
    """Carries messages between clients and servers of one event loop.

    A :class:`everwire.net.transport.Network` for clients; servers :meth:`listen`. Nothing
    is delivered inside the call that sends it, and in each direction of a link everything
    arrives in order. Connecting takes one round trip.

    Args:
        latency: seconds each way.
        bandwidth: bytes a virtual second, link and direction; None for no limit.
        window: bytes that the sockets' buffers hold, a link and direction.
        trace_limit: records that :attr:`trace` keeps; 0 records nothing.
        trace_bytes: of each payload that a record keeps.
        lend: hand payloads over as memoryviews which are released after the call, so that
            a receiver which keeps one is found out; otherwise as bytes.

    Attributes:
        attempts: after failures, shared by all clients of this network; by the loop's time.
        refuse: True, or an exception: new connects fail with ConnectionRefusedError, or it.
        on_message: is called once before each delivery of a message (text or binary) with
            the link, the direction and the payload. If it cuts or freezes the link, the
            message is not delivered (yet).
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        bandwidth: float | None = None,
        window: int = 256 * KiB,
        trace_limit: int = 1_000,
        trace_bytes: int = 256,
        lend: bool = True,
    ) -> None:
        self.attempts = Attempts(clock=lambda: asyncio.get_running_loop().time())
        self.refuse: bool | BaseException = False
        self.on_message: Callable[[Link, Direction, bytes], None] | None = None
        self.lend = lend
        self._latency = latency
        self._bandwidth = bandwidth
        self._window = window
        self._trace: deque[Record] = deque(maxlen=trace_limit)
        self._trace_bytes = trace_bytes
        self._partitioned = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._number = 0
        self._listeners: dict[str, Listener] = {}
        self._links: dict[int, Link] = {}  # those still connecting included

    # ---- servers ---------------------------------------------------------------

    def listen(
        self,
        address: str,
        accept: Accept,
        *,
        max_message: int = HARD_CAP,
        subprotocols: Sequence[str] | None = None,
    ) -> Listener:
        """Take connections for an address.

        Args:
            address: ``ws://name:port`` or ``name:port``; a path is ignored.
            accept: is called with the server's transport and what the handshake said, when
                the subprotocol is agreed upon; returns the receiver. It may send already.
                HandshakeRefused raised in it reaches the client; any other exception is
                reported to the loop, and the client gets a 500.
            max_message: bytes of a payload; a larger one closes with 1009.
            subprotocols: what a server that is not Everwire's knows: the first that is
                offered is agreed upon, or none. None: those of Everwire's dialects.

        Raises:
            OSError: somebody listens there (EADDRINUSE).
        """
        host = _host(address)
        if host in self._listeners:
            raise OSError(errno.EADDRINUSE, f"somebody listens on {host} already")
        self._listeners[host] = listener = Listener(self, host, accept, max_message, subprotocols)
        return listener

    def unlisten(self, listener: Listener) -> None:
        """Forget a listener."""
        if self._listeners.get(listener.host) is listener:
            del self._listeners[listener.host]

    # ---- clients ---------------------------------------------------------------

    async def connect(
        self,
        url: str,
        receiver: Receiver,
        *,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        max_message: int,
        ssl: Any = None,
        proxy: str | None = None,
    ) -> ClientTransport:
        """See :meth:`everwire.net.transport.Network.connect`; ``ssl`` and ``proxy`` change nothing.

        When it raises or is cancelled, ``receiver`` is told nothing more.
        """
        try:
            host = _host(url)
        except ValueError as error:
            raise HandshakeRefused(0, str(error), temporary=False) from error
        parts = urlsplit(url)
        self._loop = asyncio.get_running_loop()
        self._number += 1
        link = Link(self, self._number, host, f"192.0.2.1:{40_000 + self._number}")
        link.client.max_message = max_message
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        sent["host"] = parts.netloc
        if subprotocols:
            sent["sec-websocket-protocol"] = ", ".join(subprotocols)
        handshake = Handshake(
            parts.path or "/",
            MappingProxyType(sent),
            tuple(subprotocols),
            link.server.remote,
            parts.query,
        )
        self._links[link.id] = link
        self.record(link.id, Direction.TO_SERVER, "connect")
        link.post(Direction.TO_SERVER, lambda: self._arrived(link, handshake, receiver))
        try:
            await link.opened
        except BaseException:
            link.client.receiver = None
            link.client.abort()
            raise
        return link.client

    def _arrived(self, link: Link, handshake: Handshake, client: Receiver) -> None:
        """The request is with the server; the answer goes ahead of what ``accept`` sends."""
        refusal = self._admit(link, handshake)

        def answer() -> None:
            if link.opened.done():
                return
            if refusal is not None:
                self.record(link.id, Direction.TO_CLIENT, "refused")
                link.opened.set_exception(refusal)
            else:
                link.client.receiver = client
                link.opened.set_result(None)

        link.post(Direction.TO_CLIENT, answer)
        if refusal is not None:
            return
        link.is_accepted = True
        self.record(link.id, Direction.TO_CLIENT, "open")
        try:
            link.server.receiver = self._listeners[link.host].accept(link.server, handshake)
        except HandshakeRefused as error:
            refusal = error
        except Exception as error:  # noqa: BLE001  # is reported
            link.loop.call_exception_handler(
                {"message": "an exception in a listener's accept", "exception": error}
            )
            refusal = HandshakeRefused(500, "Internal Server Error", temporary=True)
        if refusal is not None:
            link.is_accepted = False
            link.server.end(CloseCode.ABNORMAL, "")
            return
        link.server.check_write_buffer()

    def _admit(self, link: Link, handshake: Handshake) -> BaseException | None:
        """Say why a request is refused; or agree upon the subprotocol."""
        if isinstance(self.refuse, BaseException):
            return self.refuse
        listener = self._listeners.get(link.host)
        if self.refuse or listener is None:
            return ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on {link.host}")
        if listener.subprotocols is not None:
            chosen = next((n for n in handshake.subprotocols if n in listener.subprotocols), None)
        else:
            dialect = dialects.negotiate(handshake.subprotocols)
            if dialect is None:
                known = ", ".join(dialects.subprotocols())
                return HandshakeRefused(
                    400, f"unknown subprotocols; there are {known}", temporary=False
                )
            chosen = dialect.subprotocol
        link.client.subprotocol = link.server.subprotocol = chosen
        link.server.max_message = listener.max_message
        link.server.write = link.server.write_frames
        return None

    # ---- faults ----------------------------------------------------------------

    @property
    def links(self) -> list[Link]:
        """The live ones, in the order of opening."""
        return [link for link in self._links.values() if link.is_live]

    def cut(self) -> None:
        """Cut every link, those still connecting too (:meth:`Link.cut`)."""
        for link in list(self._links.values()):
            link.cut()

    def partition(self, on: bool = True) -> None:
        """Let nothing through anywhere, as :meth:`Link.freeze` does; False ends it.

        Who connects meanwhile waits.
        """
        if on is self._partitioned:
            return
        self._partitioned = on
        self.record(0, None, "freeze" if on else "thaw")
        for link in list(self._links.values()):
            link.unblock()

    @property
    def partitioned(self) -> bool:
        """Whether there is a partition."""
        return self._partitioned

    @property
    def latency(self) -> float:
        """Seconds each way, for new links; setting it sets it for those that exist, too."""
        return self._latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._latency = seconds
        for link in self._links.values():
            link.latency = seconds

    @property
    def bandwidth(self) -> float | None:
        """Bytes a virtual second, for new links; setting it sets it for all."""
        return self._bandwidth

    @bandwidth.setter
    def bandwidth(self, rate: float | None) -> None:
        self._bandwidth = rate
        for link in self._links.values():
            link.bandwidth = rate

    @property
    def window(self) -> int:
        """Bytes that the sockets' buffers hold, for new links; setting it sets it for all."""
        return self._window

    @window.setter
    def window(self, size: int) -> None:
        self._window = size
        for link in self._links.values():
            link.window = size

    # ---- the record --------------------------------------------------------------

    @property
    def trace(self) -> list[Record]:
        """What happened last, oldest first."""
        return list(self._trace)

    def record(
        self,
        link: int,
        direction: Direction | None,
        kind: str,
        opcode: int | None = None,
        payload: bytes = b"",
    ) -> None:
        """Append to :attr:`trace`."""
        if self._trace.maxlen:
            now = self._loop.time() if self._loop else 0.0
            if len(payload) > self._trace_bytes:
                payload = payload[: self._trace_bytes]
            self._trace.append(Record(now, link, direction, kind, opcode, payload))

    def forget(self, link: Link) -> None:
        """Both sides of a link have ended."""
        self._links.pop(link.id, None)


def _host(address: str) -> str:
    """Take ``name:port`` from a URL or from itself.

    Raises:
        ValueError: it is neither.
    """
    parts = urlsplit(address if "://" in address else f"ws://{address}")
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{address!r} is not a WebSocket URL: ws://host:port/path")
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'wss' else 80)}"
