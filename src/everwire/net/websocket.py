"""WebSockets over picows: the only module that imports it.

picows parses and masks frames. What it leaves to its user is here: reassembly with
limits on bytes and on fragments, UTF-8, reserved bits, pings, and the closing handshake
(RFC 6455 sections 5.4, 5.5, 7 and 8.1).
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

from picows import (
    WSAutoPingStrategy,
    WSFrame,
    WSHandshakeError,
    WSInvalidURL,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_connect,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from ..codes import CloseCode
from ..errors import HandshakeRefused
from ..limits import CLIENT_DEFAULTS, DEFAULTS, KiB
from ..protocol.frames import Opcode, close_payload
from .transport import Receiver, Transport

logger = logging.getLogger("everwire.net")

TEXT, BINARY = WSMsgType.TEXT, WSMsgType.BINARY
MAX_FRAGMENTS = 1024
READ_BUFFER = 2 * KiB
SOCKET_BUFFER = 64 * KiB


def _ignore(data: bytes) -> None:
    """Where writes go after the close frame."""


class WebSocket(WSListener):
    """One side of a WebSocket: a :class:`~everwire.net.transport.Transport`.

    It is also the logger that its picows protocol is given: so what picows finds wrong
    comes here, once, and neither a logger nor a line a frame is made for it.
    """

    __slots__ = (
        "_close_sent", "_close_timeout", "_fragments", "_kind", "_max_message", "_over",
        "_peer_close", "_picows", "_size", "_utf8", "receiver", "remote", "subprotocol", "write",
    )  # fmt: skip

    def __init__(
        self, max_message: int, *, remote: str = "", close_timeout: float = DEFAULTS.close_timeout
    ) -> None:
        self.receiver: Receiver | None = None
        self.remote = remote
        self.subprotocol: str | None = None
        self.write: Callable[[bytes], None] = _ignore
        self._picows: WSTransport | None = None
        self._max_message = max_message
        self._close_timeout = close_timeout
        self._fragments: list[bytes] | None = None
        self._kind = Opcode.CONTINUATION
        self._size = 0
        self._utf8: Any = None
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
        if self._picows is not None:
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
        """Set the marks at which the receiver is told to pause and to resume writing."""
        assert self._picows is not None
        self._picows.underlying_transport.set_write_buffer_limits(high, low)

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

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        try:
            kind: Any = frame.msg_type
            if (kind is TEXT or kind is BINARY) and frame.fin and self._fragments is None:
                if self._close_sent is not None or self._over:
                    return
                if frame.rsv1 or frame.rsv2 or frame.rsv3:
                    self._fail(CloseCode.PROTOCOL_ERROR, "reserved bits")
                    return
                payload = frame.get_payload_as_bytes()
                if kind is TEXT and not payload.isascii():
                    payload.decode()
                self.receiver.received(kind.value, payload)  # type: ignore[union-attr]
            else:
                self._other_frame(int(kind), frame)
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "text that is not UTF-8")
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

    def _other_frame(self, kind: int, frame: WSFrame) -> None:
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._fail(CloseCode.PROTOCOL_ERROR, "reserved bits")
        elif kind == Opcode.CLOSE:
            self._on_close(frame)
        elif self._close_sent is not None or self._over:
            return
        elif kind == Opcode.PING:
            self.send(Opcode.PONG, frame.get_payload_as_bytes())
            self.receiver.heard()  # type: ignore[union-attr]
        elif kind == Opcode.PONG:
            self.receiver.heard()  # type: ignore[union-attr]
        else:
            self._fragment(kind, frame.get_payload_as_bytes(), bool(frame.fin))

    def _fragment(self, kind: int, payload: bytes, fin: bool) -> None:
        if (kind == Opcode.CONTINUATION) is (self._fragments is None):
            self._fail(CloseCode.PROTOCOL_ERROR, "a fragment out of place")
            return
        if self._fragments is None:
            self._fragments, self._size, self._kind = [], 0, Opcode(kind)
            self._utf8 = codecs.getincrementaldecoder("utf-8")() if kind == Opcode.TEXT else None
        self._size += len(payload)
        self._fragments.append(payload)
        if self._size > self._max_message or len(self._fragments) > MAX_FRAGMENTS:
            self._fail(CloseCode.TOO_BIG, "message too big, or in too many fragments")
            return
        if self._utf8 is not None:
            self._utf8.decode(payload, fin)
        if not fin:
            self.receiver.heard()  # type: ignore[union-attr]
            return
        message, self._fragments, self._utf8 = b"".join(self._fragments), None, None
        self.receiver.received(self._kind, message)  # type: ignore[union-attr]

    def _on_close(self, frame: WSFrame) -> None:
        picows = self._picows
        if picows is None or self._peer_close is not None:
            return
        code = int(cast("Any", frame.get_close_code())) or int(CloseCode.NO_STATUS)
        if 1015 <= code < 3000 or code > 4999:
            self._fail(CloseCode.PROTOCOL_ERROR, "a close code that may not be sent")
            return
        self._peer_close = (code, frame.get_close_reason() or "")
        if self._close_sent is None:
            self._close_sent = self._peer_close
            self.write = _ignore
            if code == CloseCode.NO_STATUS:
                picows.send(WSMsgType.CLOSE, b"")
            else:
                picows.send_close(cast("Any", code), b"")
        if not picows.is_client_side:
            picows.disconnect()
            self._abort_later()
        self._end(*self._peer_close)

    def _fail(self, code: int, reason: str) -> None:
        """The peer broke the rules: say so, and drop the link."""
        if self._picows is None or self._over:
            return
        self.close(code, reason)
        self._picows.disconnect()
        self._abort_later()
        self._end(code, reason)

    def _abort_later(self) -> None:
        """A peer that does not read would keep a graceful disconnect from ending."""
        asyncio.get_running_loop().call_later(self._close_timeout, self.abort)

    def _end(self, code: int, reason: str) -> None:
        if not self._over:
            self._over = True
            self._fragments = self._utf8 = None
            receiver, self.receiver = self.receiver, None
            if receiver is not None:
                receiver.closed(int(code), reason)

    # ---- the logger of picows ---------------------------------------------------

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return False

    def error(self, message: str, *args: Any) -> None:
        """The parser refuses a frame: it sends the close frame and disconnects."""
        details = args[0] if args and isinstance(args[0], tuple) else (1002, message)
        if self._close_sent is None and self._picows is not None:
            self._close_sent = (int(details[0]), str(details[1]))
            self.write = _ignore
            self._abort_later()
        self._end(int(details[0]), str(details[1]))

    def exception(self, message: str, *args: Any) -> None:
        logger.error(message, *args, exc_info=sys.exception())
        self.error(message)

    def info(self, message: str, *args: Any) -> None:
        """Nothing: picows tells of every connection, and we count them elsewhere."""

    debug = warning = log = info


def accept_upgrade(
    transport: asyncio.Transport,
    websocket: WebSocket,
    *,
    key: str,
    subprotocol: str | None,
    max_message: int,
    leftover: bytes,
    connected: Callable[[WebSocket], Receiver],
) -> None:
    """Turn a TCP connection whose handshake was checked into a WebSocket (server side).

    Args:
        transport: the connection; its protocol is replaced.
        websocket: a fresh one.
        key: the request's ``Sec-WebSocket-Key``.
        subprotocol: what was agreed upon.
        max_message: bytes of the largest frame; a larger one closes with 1009.
        leftover: what came behind the request.
        connected: is called when the answer was sent; returns the receiver.
    """
    headers = {"Sec-WebSocket-Protocol": subprotocol} if subprotocol else None

    def accepted(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        return WSUpgradeResponseWithListener(
            WSUpgradeResponse.create_101_response(headers), websocket
        )

    protocol = WSProtocol(
        None, None, False, accepted, websocket, True, None, False, 0, 0,
        WSAutoPingStrategy.PING_WHEN_IDLE, False,
        max_message, None, READ_BUFFER,
    )  # fmt: skip
    websocket.subprotocol = subprotocol
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    # The request as picows likes it: it takes "keep-alive, Upgrade" for a refusal.
    _feed(
        protocol,
        b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % key.encode(),
    )
    if not websocket.is_open:  # picows found fault with what the front let pass
        return
    websocket.receiver = connected(websocket)
    if leftover:
        _feed(protocol, leftover)


def _feed(protocol: Any, data: bytes) -> None:
    """Have a buffered protocol read ``data``."""
    view = memoryview(data)
    while view:
        buffer = protocol.get_buffer(-1)
        size = min(len(buffer), len(view))
        buffer[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]


def _address(name: Any) -> str:
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name or "")


class PicowsNetwork:
    """The real network, for clients."""

    async def connect(
        self,
        url: str,
        receiver: Receiver,
        *,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        max_message: int,
        ssl: Any = None,
    ) -> Transport:
        """See :meth:`everwire.net.transport.Network.connect`."""
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise HandshakeRefused(
                0, f"{url!r} is not a WebSocket URL: ws://host:port/path", temporary=False
            )
        websocket = WebSocket(max_message, close_timeout=CLIENT_DEFAULTS.close_timeout)
        websocket.receiver = receiver
        sent = dict(headers or {})
        if subprotocols:
            sent["Sec-WebSocket-Protocol"] = ", ".join(subprotocols)
        try:
            await ws_connect(
                lambda: websocket,
                url,
                ssl_context=ssl,
                websocket_handshake_timeout=CLIENT_DEFAULTS.connect_timeout,
                logger_name=cast("Any", websocket),
                enable_auto_pong=False,
                max_frame_size=max_message,
                extra_headers=sent,
                max_redirects=0,
            )
        except WSHandshakeError as error:
            raise _refusal(error) from error
        except WSInvalidURL as error:
            raise HandshakeRefused(0, str(error), temporary=False) from error
        except BaseException:
            websocket.receiver = None
            websocket.abort()
            raise
        if websocket.subprotocol is not None and websocket.subprotocol not in subprotocols:
            websocket.receiver = None
            websocket.abort()
            raise HandshakeRefused(
                101, f"chose a subprotocol not offered: {websocket.subprotocol}", temporary=False
            )
        return websocket


def _refusal(error: WSHandshakeError) -> HandshakeRefused:
    response = error.response
    if response is None:
        return HandshakeRefused(0, str(error), temporary=True)
    status = int(response.status)
    retry_after = response.headers.get("Retry-After", "")
    body = (error.raw_body or b"")[:200].decode("utf-8", "replace").strip()
    return HandshakeRefused(
        status,
        body or str(error),
        temporary=status in (408, 425, 429) or status >= 500,
        retry_after=float(retry_after) if retry_after.isdigit() else None,
    )


__all__ = ["PicowsNetwork", "WebSocket", "accept_upgrade"]
