"""One WebSocket of the in-memory network: two transports, a pipe each way, and its faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING, Any

from ..codes import CloseCode
from ..limits import Limits
from ..net.transport import Receiver
from ..protocol.frames import Opcode, close_payload, frame, split_frames
from .pipe import Direction, Pipe

if TYPE_CHECKING:
    from .network import Network


_DEFAULTS = Limits()


class _State(Enum):
    OPEN = auto()
    CLOSING = auto()  # our close frame is sent: nothing but the peer's is looked at
    CLOSED = auto()


class Side:
    """One end of a link: a :class:`~everwire.net.transport.Transport`."""

    def __init__(self, link: Link, out: Pipe, incoming: Pipe, remote: str) -> None:
        self.subprotocol: str | None = None
        self.compressed = False
        self.remote = remote
        self.write: Callable[[bytes], None] = self._refuse_frames
        self.receiver: Receiver | None = None
        self.max_message = _DEFAULTS.hard_cap
        self.reading_paused = False
        self._link = link
        self._out = out
        self._in = incoming
        self._state = _State.OPEN
        self._writing_paused = False
        self._high = _DEFAULTS.write_high
        self._low = _DEFAULTS.write_low

    @property
    def is_closed(self) -> bool:
        """Whether nothing is handed to this side any more but ``closed``."""
        return self._state is _State.CLOSED

    # ---- Transport -----------------------------------------------------------

    def send(self, opcode: int, payload: bytes) -> None:
        if self._state is _State.OPEN:
            self._out.put(opcode, bytes(payload))
            self.check_write_buffer()

    def send_many(self, opcode: int, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            self.send(opcode, payload)

    def write_frames(self, data: bytes) -> None:
        """Write finished frames: what the server's ``write`` is.

        Raises:
            ValueError: they are not what :func:`~everwire.protocol.frames.frame` makes.
        """
        frames = list(split_frames(data))
        if b"".join(frame(*each) for each in frames) != data:
            raise ValueError("the data written is not made of whole, unmasked frames")
        for opcode, payload in frames:
            if self._state is not _State.OPEN:
                return
            if opcode == Opcode.CLOSE:
                self._begin_close(payload)
            else:
                self._out.put(opcode, payload)
        self.check_write_buffer()

    def ping(self) -> None:
        if self._state is _State.OPEN:
            self._out.put(Opcode.PING, b"")

    def close(self, code: int = 1000, reason: str = "") -> None:
        if self._state is _State.OPEN:
            self._begin_close(close_payload(code, reason))

    def _begin_close(self, payload: bytes) -> None:
        self._state = _State.CLOSING
        self._out.put(Opcode.CLOSE, payload)
        self.resume_reading()  # the answer must get through

    def abort(self) -> None:
        if self._state is not _State.CLOSED:
            self._link.reset(self._out)
            self.end(CloseCode.ABNORMAL, "", soon=True)

    def pause_reading(self) -> None:
        self.reading_paused = self._state is _State.OPEN

    def resume_reading(self) -> None:
        self.reading_paused = False
        self._in.schedule()

    def write_buffer_size(self) -> int:
        if self._state is _State.CLOSED:
            return 0
        return max(0, self._out.outstanding - self._link.window)

    def limit(self, size: int) -> None:
        """Messages come whole here."""

    def unfinished_since(self) -> float | None:
        return None  # what is carried here is whole messages

    def inbound(self) -> tuple[float, int]:
        return inf, 0

    def taken(self) -> int:
        return self._out.arrived

    def set_write_limits(self, high: int, low: int) -> None:
        """See :meth:`everwire.net.transport.Transport.set_write_limits`.

        Raises:
            ValueError: not ``0 <= low <= high``.
        """
        if not 0 <= low <= high:
            raise ValueError(f"write limits must be 0 <= low <= high, not {low} and {high}")
        self._high, self._low = high, low
        self.check_write_buffer()

    def _refuse_frames(self, data: bytes) -> None:
        raise RuntimeError("a client's frames are masked, each in its own way: use send()")

    # ---- what the link tells it ------------------------------------------------

    def check_write_buffer(self) -> None:
        """Tell the receiver to pause or to resume writing, if a mark was crossed."""
        if self.receiver is None or self._state is _State.CLOSED:
            return
        size = self.write_buffer_size()
        if size > self._high and not self._writing_paused:
            self._writing_paused = True
            self._tell(self.receiver.pause_writing)
        elif size <= self._low and self._writing_paused:
            self._writing_paused = False
            self._tell(self.receiver.resume_writing)

    def part_came(self) -> None:
        """A part of a message came."""
        if self._state is _State.OPEN and self.receiver is not None:
            self._tell(self.receiver.heard)

    def heeds(self, opcode: int) -> bool:
        """Whether a frame is looked at: after our own close, only the peer's is."""
        if self.receiver is None or self._state is _State.CLOSED:
            return False
        return self._state is _State.OPEN or opcode == Opcode.CLOSE

    def take(self, opcode: int, payload: bytes) -> None:
        """A frame came that is heeded."""
        receiver = self.receiver
        assert receiver is not None
        if opcode == Opcode.CLOSE:
            if self._state is _State.OPEN:
                self._out.put(Opcode.CLOSE, payload)
            code = int.from_bytes(payload[:2], "big") if payload else CloseCode.NO_STATUS
            self.end(code, payload[2:].decode("utf-8", "replace"))
        elif opcode in (Opcode.PING, Opcode.PONG):
            if opcode == Opcode.PING:
                self._out.put(Opcode.PONG, payload)
            self._tell(receiver.heard)
        else:
            self._take_message(receiver, opcode, payload)

    def _take_message(self, receiver: Receiver, opcode: int, payload: bytes) -> None:
        if len(payload) > self.max_message:
            self._fail(CloseCode.TOO_BIG, f"a message above {self.max_message} bytes")
            return
        try:
            if opcode == Opcode.TEXT:
                payload.decode()
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "text that is not UTF-8")
            return
        try:
            if self._link.network.lend:
                # A receiver that keeps it is found out: the view is released, and a buffer
                # that a part of it is kept of cannot be cleared.
                lent = bytearray(payload)
                with memoryview(lent).toreadonly() as view:
                    receiver.received(opcode, view)
                lent.clear()
            else:
                receiver.received(opcode, payload)
        except Exception as error:  # noqa: BLE001  # is reported
            if isinstance(error, BufferError):
                error.add_note("the payload was kept; it is valid during the call only")
            self._link.report(receiver.received, error)
            self._fail(CloseCode.INTERNAL_ERROR, "")

    def _fail(self, code: int, reason: str) -> None:
        """The peer, or our receiver, did what it must not: say so and end."""
        if self._state is _State.OPEN:
            self._out.put(Opcode.CLOSE, close_payload(code, reason))
        self.end(code, reason)

    def end(self, code: int, reason: str, *, soon: bool = False) -> None:
        """Hand nothing over any more but ``closed``."""
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        self.resume_reading()  # what comes is dropped, and holds up nobody
        if soon:
            self._link.loop.call_soon(self._closed, code, reason)
        else:
            self._closed(code, reason)
        self._link.side_ended()

    def _closed(self, code: int, reason: str) -> None:
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            self._tell(receiver.closed, int(code), reason)

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            callback(*args)
        except Exception as error:  # noqa: BLE001  # is reported
            self._link.report(callback, error)


class Link:
    """One connection of a :class:`~everwire.testing.Network`, and what may go wrong with it.

    Attributes:
        id: counts from 1 in the order of the attempts to connect.
        host: what was connected to, as ``name:port``.
        client: the client's transport.
        server: the server's transport.
        latency: seconds each way. Like ``bandwidth`` it applies to what is sent from now
            on; messages never overtake each other.
        bandwidth: bytes a virtual second each way, or None for no limit.
        window: bytes that the sockets' buffers hold each way; what is sent and not
            delivered beyond that is the sender's write buffer.
    """

    def __init__(
        self,
        network: Network,
        id: int,  # noqa: A002  # as the attribute
        host: str,
        remote: str,
    ) -> None:
        self.network = network
        self.id = id
        self.host = host
        self.loop = asyncio.get_running_loop()
        self.latency = network.latency
        self.bandwidth = network.bandwidth
        self.window = network.window
        self.opened: asyncio.Future[None] = self.loop.create_future()
        self.is_accepted = False
        to_server, to_client = Pipe(self, Direction.TO_SERVER), Pipe(self, Direction.TO_CLIENT)
        self._pipes = {Direction.TO_SERVER: to_server, Direction.TO_CLIENT: to_client}
        self.client = Side(self, to_server, to_client, host)
        self.server = Side(self, to_client, to_server, remote)

    def __repr__(self) -> str:
        return f"<Link {self.id} to {self.host}, {'live' if self.is_live else 'over'}>"

    @property
    def is_live(self) -> bool:
        """Whether it was accepted, and one side at least does not know of its end."""
        return self.is_accepted and not (self.client.is_closed and self.server.is_closed)

    def delivered(self, direction: Direction) -> int:
        """How many messages (text or binary) were delivered that way."""
        return self._pipes[direction].delivered

    # ---- faults --------------------------------------------------------------

    def cut(self) -> None:
        """Lose the connection: both sides get ``closed(1006, "")`` in the loop's next turn.

        What is in flight is lost. A side that was closed already is not told again.
        """
        if not self.client.is_closed or not self.server.is_closed:
            self.network.record(self.id, None, "cut")
        for pipe in self._pipes.values():
            pipe.discard()
        if not self.opened.done():
            self.opened.set_exception(ConnectionResetError("the link was cut"))
        self.client.end(CloseCode.ABNORMAL, "", soon=True)
        self.server.end(CloseCode.ABNORMAL, "", soon=True)

    def cut_after(self, n_to_client: int | None = None, n_to_server: int | None = None) -> None:
        """Cut it right after so many more messages (text or binary) were delivered.

        Whichever direction gets there first counts; 0 cuts at once, None takes an earlier
        order for that direction back.

        Raises:
            ValueError: a number is negative.
        """
        if min(n_to_client or 0, n_to_server or 0) < 0:
            raise ValueError("a number of messages cannot be negative")
        self._pipes[Direction.TO_CLIENT].remaining = n_to_client
        self._pipes[Direction.TO_SERVER].remaining = n_to_server
        if 0 in (n_to_client, n_to_server):
            self.cut()

    def freeze(self, direction: Direction | None = None, *, drop: bool = False) -> None:
        """Let nothing through, and tell nobody: half-open.

        What is sent is kept, as TCP keeps it, and delivered by :meth:`thaw`.

        Args:
            direction: None for both.
            drop: lose what is in flight and all that follows; that direction never
                recovers, and only :meth:`cut` or the side's own ``abort`` ends it.
        """
        for pipe in self._chosen(direction):
            self.network.record(self.id, pipe.direction, "drop" if drop else "freeze")
            pipe.frozen = True
            if drop:
                pipe.lose()

    def thaw(self, direction: Direction | None = None) -> None:
        """Let through again, beginning with what was kept; None: both directions."""
        for pipe in self._chosen(direction):
            self.network.record(self.id, pipe.direction, "thaw")
            pipe.frozen = False
            pipe.schedule()

    def _chosen(self, direction: Direction | None) -> list[Pipe]:
        return list(self._pipes.values()) if direction is None else [self._pipes[direction]]

    # ---- what the pipes and the network tell it -----------------------------------

    def post(self, direction: Direction, act: Callable[[], None]) -> None:
        """Do ``act`` when what was sent before has arrived that way."""
        self._pipes[direction].put(None, b"", act)

    def sender(self, direction: Direction) -> Side:
        """The side that sends that way."""
        return self.client if direction is Direction.TO_SERVER else self.server

    def receiver(self, direction: Direction) -> Side:
        """The side that receives that way."""
        return self.server if direction is Direction.TO_SERVER else self.client

    def show(self, direction: Direction, payload: bytes) -> None:
        """Call the network's ``on_message``."""
        hook = self.network.on_message
        if hook is not None:
            try:
                hook(self, direction, payload)
            except Exception as error:  # noqa: BLE001  # is reported
                self.report(hook, error)
                self.cut()

    def report(self, callback: Callable[..., Any], error: Exception) -> None:
        """Tell the loop's exception handler what a callback raised."""
        name = getattr(callback, "__qualname__", repr(callback))
        self.loop.call_exception_handler({"message": f"an exception in {name}", "exception": error})

    def reset(self, pipe: Pipe) -> None:
        """A side aborts: what its sockets held arrives, then the peer learns of it."""
        if not self.is_accepted:
            for each in self._pipes.values():
                each.discard()
            self.server.end(CloseCode.ABNORMAL, "")
            return
        pipe.keep(self.window)
        peer = self.receiver(pipe.direction)
        self.post(pipe.direction, lambda: peer.end(CloseCode.ABNORMAL, ""))

    def unblock(self) -> None:
        """Look again whether something can be delivered."""
        for pipe in self._pipes.values():
            pipe.schedule()

    def side_ended(self) -> None:
        """A side will hear of nothing more."""
        if self.client.is_closed and self.server.is_closed:
            self.network.forget(self)
