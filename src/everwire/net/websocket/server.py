"""The server's side: a TCP connection whose handshake was checked becomes a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from picows import (
    WSAutoPingStrategy,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from ...limits import KiB
from ..transport import Receiver
from .endpoint import LARGE, WebSocket

READ_BUFFER = 2 * KiB


_buffer_updated = WSProtocol.buffer_updated


class _Protocol(WSProtocol):  # type: ignore[misc]
    """Tells of a large frame before it is whole: until then it is in picows' buffer."""

    __slots__ = ("websocket",)

    def buffer_updated(self, nbytes: int) -> None:
        websocket = self.websocket
        websocket.came += nbytes
        _buffer_updated(self, nbytes)
        if websocket.came > LARGE:
            websocket.frame_unfinished()
        elif nbytes > LARGE:
            websocket.much_came()


def accept_upgrade(
    transport: asyncio.Transport,
    websocket: WebSocket,
    *,
    key: str,
    subprotocol: str | None,
    extensions: str | None,
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
        extensions: likewise: permessage-deflate as our answer has it, or None.
        max_message: bytes of the largest frame; a larger one closes with 1009.
        leftover: what came behind the request.
        connected: is called when the answer was sent; returns the receiver.
    """
    headers = {"Sec-WebSocket-Protocol": subprotocol} if subprotocol else {}
    if extensions is not None:
        headers["Sec-WebSocket-Extensions"] = extensions
        websocket.compressed = True

    def accepted(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        return WSUpgradeResponseWithListener(
            WSUpgradeResponse.create_101_response(headers), websocket
        )

    protocol = _Protocol(
        None, None, False, accepted, websocket, True, None, False, 0, 0,
        WSAutoPingStrategy.PING_WHEN_IDLE, False,
        max_message, None, READ_BUFFER,
    )  # fmt: skip
    protocol.websocket = websocket
    websocket.subprotocol = subprotocol
    transport.set_protocol(protocol)
    if isinstance(transport.get_extra_info("sockname"), tuple):
        protocol.connection_made(transport)
    else:  # a Unix socket's name is a path
        protocol.connection_made(_WithoutTcp(transport))
    # The request as picows likes it: it takes "keep-alive, Upgrade" for a refusal.
    _feed(
        protocol,
        b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % key.encode(),
    )
    websocket.came = 0
    if not websocket.is_open:  # picows found fault with what the front let pass
        return
    websocket.receiver = connected(websocket)
    if leftover:
        _feed(protocol, leftover)


class _WithoutTcp:
    """A transport whose socket has no TCP options; picows would fail in setting them."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        found = self._transport.get_extra_info(name, default)
        return _SocketWithoutTcp(found) if name == "socket" else found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _SocketWithoutTcp:
    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def fileno(self) -> int:
        return int(self._sock.fileno())

    def setsockopt(self, *args: Any) -> None:
        """There is nothing to set."""

    def getsockopt(self, *args: Any) -> int:
        return 0


def _feed(protocol: Any, data: bytes) -> None:
    """Have a buffered protocol read ``data``."""
    view = memoryview(data)
    while view:
        buffer = protocol.get_buffer(-1)
        size = min(len(buffer), len(view))
        buffer[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]
