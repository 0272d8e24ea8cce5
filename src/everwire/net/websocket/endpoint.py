"""One side of a WebSocket: from picows' frames to messages, and back."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from math import inf
from typing import Any, cast

from picows import WSFrame, WSListener, WSMsgType, WSTransport

from ...codes import CloseCode
from ...limits import DEFAULTS, KiB
from ...protocol.assembly import Assembly, Budget, Refused
from ...protocol.deflate import inflate
from ...protocol.frames import Opcode, close_payload, may_be_sent
from ..transport import Receiver
from .inbound import inbound, taken
from .lingering import linger
from .pages import give_back

logger = logging.getLogger("everwire.net")

TEXT, BINARY = WSMsgType.TEXT, WSMsgType.BINARY
LARGE = 16 * KiB  # of a frame or of a read, from which on its memory is looked after
KEEP = 0.2  # seconds for which memory that was read into is kept: often there is more to come
HEADER = 14  # the longest of a frame
PONGS_A_READ = 16  # pings of one read that are answered each; of more, the last
SOCKET_BUFFER = 64 * KiB


ASSEMBLING = Budget(DEFAULTS.assembling)
"""what all unfinished messages of this process may take"""


def _ignore(data: bytes) -> None:
    """Where writes go after the close frame."""


class WebSocket(WSListener):
    """One side of a WebSocket: a :class:`~everwire.net.transport.Transport`.

    It is also the logger that its picows protocol is given: so what picows finds wrong
    comes here, once, and neither a logger nor a line a frame is made for it.
    """

    __slots__ = (
        "_assembly", "_close_sent", "_close_timeout", "_giving_back", "_late_ping", "_max_message", "_over",
        "_peer_close", "_picows", "_pings", "_unfinished", "came", "compressed", "max_frame",
        "receiver", "remote", "subprotocol", "write",
    )  # fmt: skip

    def __init__(
        self, max_message: int, *, remote: str = "", close_timeout: float = DEFAULTS.close_timeout
    ) -> None:
        self.receiver: Receiver | None = None
        self.remote = remote
        self.subprotocol: str | None = None
        self.compressed = False
        self.write: Callable[[bytes], None] = _ignore
        self._picows: WSTransport | None = None
        self._max_message = max_message
        self._close_timeout = close_timeout
        self._assembly: Assembly | None = None
        self._pings = 0
        self.came = 0  # bytes behind the last whole frame: in picows' buffer, out of sight
        self._unfinished = 0
        """as many of them as were taken from the budget"""
        self._giving_back = False
        self.max_frame = max_message
        self._late_ping: bytes | None = None
        self._close_sent: tuple[int, str] | None = None
        self._peer_close: tuple[int, str] | None = None
        self._over = False

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done and the connection is not gone."""
        return self._picows is not None

    # ---- Transport -----------------------------------------------------------

    def send(self, opcode: int, payload: bytes) -> None:
        if self._close_sent is None and self._picows is not None:
            self._picows.send(WSMsgType(opcode), payload)

    def ping(self) -> None:
        self.send(Opcode.PING, b"")

    def close(self, code: int = 1000, reason: str = "") -> None:
        if self._close_sent is not None or self._over or self._picows is None:
            return
        self._close_sent = (code, reason)
        self.write = _ignore
        self.resume_reading()  # the answer must get through
        body = close_payload(code, reason)
        self._picows.send_close(cast("Any", code), body[2:])

    def abort(self) -> None:
        if self._picows is None:
            self._over = True  # it may connect all the same
        else:
            self.write = _ignore
            self._picows.disconnect(graceful=False)

    def pause_reading(self) -> None:
        if self._picows is not None:
            self._picows.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        if self._picows is not None and not self._picows.is_disconnected:
            self._picows.underlying_transport.resume_reading()

    def write_buffer_size(self) -> int:
        return (
            self._picows.underlying_transport.get_write_buffer_size()
            if self._picows is not None
            else 0
        )

    def set_write_limits(self, high: int, low: int) -> None:
        if self._picows is not None:
            # asyncio's TLS pauses at the mark, others above it.
            high = max(high, 1) if self._picows.is_secure else high
            self._picows.underlying_transport.set_write_buffer_limits(high, low)

    def limit(self, size: int) -> None:
        self.max_frame = size

    def unfinished_since(self) -> float | None:
        return self._assembly.since if self._assembly is not None else None

    def inbound(self) -> tuple[float, int]:
        return inbound(self._picows.underlying_transport) if self._picows is not None else (inf, 0)

    def taken(self) -> int:
        return taken(self._picows.underlying_transport) if self._picows is not None else 0

    # ---- WSListener ----------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._picows = transport
        underlying = transport.underlying_transport
        self.write = getattr(underlying, "write_nocheck", underlying.write)
        if transport.is_client_side:
            self.subprotocol = transport.response.headers.get("Sec-WebSocket-Protocol")
            if not self.remote:
                self.remote = _address(underlying.get_extra_info("peername"))
        # Nobody asks for the headers again, and they are 2 KiB a connection.
        transport.request.headers = transport.response.headers = cast("Any", None)
        if self._over:
            self.abort()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.came = frame.tail_size
        try:
            kind: Any = frame.msg_type
            if (kind is TEXT or kind is BINARY) and frame.fin and self._assembly is None:
                if self._close_sent is not None or self._over:
                    return
                payload = frame.get_payload_as_bytes()
                if self._unfinished:
                    self._frame_came()
                if frame.rsv1 or frame.rsv2 or frame.rsv3:
                    self._check_reserved(frame)
                    payload = inflate(payload, self._max_message)
                if kind is TEXT and not payload.isascii():
                    payload.decode()
                self.receiver.received(1 if kind is TEXT else 2, payload)  # type: ignore[union-attr]
            else:
                self._other_frame(kind.value, frame)
            if self._pings and frame.last_in_buffer:
                self._end_of_read()
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "text that is not UTF-8")
        except Refused as refused:
            self._fail(refused.code, refused.reason)
        except Exception:
            logger.exception("a defect in handling a message from %s", self.remote)
            self._fail(CloseCode.INTERNAL_ERROR, "")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.write = _ignore
        self._end(*(self._peer_close or (CloseCode.ABNORMAL, "")))
        self._picows = None

    def pause_writing(self) -> None:
        if self.receiver is not None and not self._over:
            self.receiver.pause_writing()

    def resume_writing(self) -> None:
        if self.receiver is not None and not self._over:
            self.receiver.resume_writing()

    # ---- frames that are not whole messages -------------------------------------

    def frame_unfinished(self) -> None:
        """More has come of a large frame, and it is not whole yet."""
        if self._over:
            return
        if self.came > self.max_frame + HEADER:
            self._fail(CloseCode.TOO_BIG, f"a message may have {self.max_frame} bytes")
            return
        ASSEMBLING.used += self.came - self._unfinished
        self._unfinished = self.came
        if ASSEMBLING.used > ASSEMBLING.limit:
            self._fail(CloseCode.TRY_AGAIN_LATER, "too many unfinished messages; later")

    def _frame_came(self) -> None:
        ASSEMBLING.used -= self._unfinished
        self._unfinished = 0
        self.much_came()

    def much_came(self) -> None:
        """A read, or a frame, has filled much of picows' buffer and is done with."""
        if not self._giving_back:
            self._giving_back = True
            asyncio.get_running_loop().call_later(KEEP, self._give_back)

    def _give_back(self) -> None:
        """Give the system what of picows' buffer is free: it never shrinks."""
        self._giving_back = False
        if self._picows is not None:
            protocol: Any = self._picows.underlying_transport.get_protocol()
            give_back(protocol.get_buffer(-1))

    def _other_frame(self, kind: int, frame: WSFrame) -> None:
        if self._peer_close is not None or self._over:
            return  # what comes after its close frame counts for nothing
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._check_reserved(frame, first=kind in (Opcode.TEXT, Opcode.BINARY))
        if kind == Opcode.CLOSE:
            self._on_close(frame)
        elif self._close_sent is not None:
            return
        elif kind == Opcode.PING:
            self._on_ping(frame.get_payload_as_bytes())
        elif kind == Opcode.PONG:
            self.receiver.heard()  # type: ignore[union-attr]
        else:
            self._fragment(kind, frame)

    def _on_ping(self, payload: bytes) -> None:
        """Answer, but a flood only once a read (RFC 6455 section 5.5.3 allows it)."""
        self._pings += 1
        if self._pings <= PONGS_A_READ:
            self.send(Opcode.PONG, payload)
        else:
            self._late_ping = payload
        self.receiver.heard()  # type: ignore[union-attr]

    def _end_of_read(self) -> None:
        self._pings = 0
        if self._late_ping is not None:
            self.send(Opcode.PONG, self._late_ping)
            self._late_ping = None

    def _check_reserved(self, frame: WSFrame, *, first: bool = True) -> None:
        """Only RSV1, on the first frame of a message, if compression was agreed upon."""
        if frame.rsv2 or frame.rsv3 or not (self.compressed and first):
            raise Refused(CloseCode.PROTOCOL_ERROR, "reserved bits")

    def _fragment(self, kind: int, frame: WSFrame) -> None:
        assembly = self._assembly
        if (kind == Opcode.CONTINUATION) is (assembly is None):
            self._fail(CloseCode.PROTOCOL_ERROR, "a fragment out of place")
            return
        if assembly is None:
            now = asyncio.get_running_loop().time()
            assembly = self._assembly = Assembly(
                kind, self._max_message, ASSEMBLING, compressed=bool(frame.rsv1), since=now
            )
        if self._unfinished:
            self._frame_came()
        message = assembly.add(frame.get_payload_as_bytes(), bool(frame.fin))
        if message is None:
            self.receiver.heard()  # type: ignore[union-attr]
            return
        assembly.release()
        self._assembly = None
        if assembly.compressed:
            message = inflate(message, self._max_message)
            if assembly.opcode == Opcode.TEXT:
                message.decode()
        self.receiver.received(assembly.opcode, message)  # type: ignore[union-attr]

    def _on_close(self, frame: WSFrame) -> None:
        picows = self._picows
        if picows is None or self._peer_close is not None:
            return
        body = frame.get_payload_as_bytes()
        code = int.from_bytes(body[:2], "big") if body else int(CloseCode.NO_STATUS)
        if body and not may_be_sent(code):
            self._fail(CloseCode.PROTOCOL_ERROR, "a close code that may not be sent")
            return
        self._answer_close(picows, code, body[2:].decode())

    def _answer_close(self, picows: WSTransport, code: int, reason: str) -> None:
        """The peer closes: echo its code, and end."""
        self._peer_close = (code, reason)
        if self._close_sent is None:
            self._close_sent = self._peer_close
            self.write = _ignore
            if code == CloseCode.NO_STATUS:
                picows.send(WSMsgType.CLOSE, b"")
            else:
                picows.send_close(cast("Any", code), b"")
        # The server closes the TCP connection, and the client waits for that (RFC 6455
        # section 7.1.1); whoever is not answered aborts.
        self._abort_later()
        if not picows.is_client_side:
            picows.disconnect()
            self._end(*self._peer_close)

    def _fail(self, code: int, reason: str) -> None:
        """The peer broke the rules: say so, and drop the link."""
        if self._picows is None or self._over:
            return
        self.close(code, reason)
        if not self._picows.is_client_side:
            linger(self._picows)
        self._picows.disconnect()
        self._abort_later()
        self._end(code, reason)

    def _abort_later(self) -> None:
        """A peer that does not read would keep a graceful disconnect from ending."""
        asyncio.get_running_loop().call_later(self._close_timeout, self.abort)

    def _end(self, code: int, reason: str) -> None:
        if not self._over:
            self._over = True
            code, reason = self._peer_close or (code, reason)  # what comes after that is nothing
            ASSEMBLING.used -= self._unfinished
            self._unfinished = 0
            if self._assembly is not None:
                self._assembly.release()
                self._assembly = None
            receiver, self.receiver = self.receiver, None
            if receiver is not None:
                receiver.closed(int(code), reason)

    # ---- the logger of picows ---------------------------------------------------

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return False

    def error(self, message: str, *args: Any) -> None:
        """The parser refuses a frame: it sends the close frame and disconnects."""
        details = args[0] if args and isinstance(args[0], tuple) else (1002, message)
        code, reason = self._peer_close or (int(details[0]), str(details[1]))
        if self._picows is not None:
            if self._picows.is_client_side:
                _take_exception(self._picows)
            if self._peer_close is None and self._closed_before(self._picows):
                return
            self._close_sent = self._close_sent or (code, reason)
            self.write = _ignore
            self._abort_later()
            if not self._picows.is_client_side:
                linger(self._picows)
        self._end(code, reason)

    def _closed_before(self, picows: WSTransport) -> bool:
        """Answer the peer's close frame, if the refused frame came in one read behind it.

        picows looks at a frame before it hands over the one ahead of it; what comes after a
        close frame counts for nothing (RFC 6455 section 5.5.1), so neither does its fault.
        """
        received: Any = getattr(picows.close_handshake, "recv", None)
        if received is None:
            return False
        # It named no code: picows would send a second close frame behind an empty one.
        code = int(received.code) or int(CloseCode.NORMAL)
        if not may_be_sent(code):
            return False
        self._answer_close(picows, code, received.reason or "")
        return True

    def exception(self, message: str, *args: Any) -> None:
        logger.error(message, *args, exc_info=sys.exception())
        self.error(message)

    def info(self, message: str, *args: Any) -> None:
        """Nothing: picows tells of every connection, and we count them elsewhere."""

    debug = warning = log = info


def _take_exception(picows: WSTransport) -> None:
    """Retrieve what picows' future of the end will raise: we were told, nobody awaits it."""
    waiting: Any = picows.wait_disconnected()
    waiting.send(None).add_done_callback(lambda ended: ended.exception())
    waiting.close()


def _address(name: Any) -> str:
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name or "")
