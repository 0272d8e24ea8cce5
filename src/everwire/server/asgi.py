"""The same connections over any ASGI server: to live inside FastAPI and its like.

ASGI hands whole messages over and takes them one at a time, so what was framed for all
is unpacked for each. The host answers and sends WebSocket pings itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

from ..codes import CloseCode
from ..errors import ConfigError
from ..net.tasks import TaskOwner
from ..net.transport import Handshake, Receiver
from ..protocol.dialects import negotiate
from ..protocol.frames import Opcode, close_payload, frame, split_frames

if TYPE_CHECKING:
    from ..limits import Limits
    from .app import Everwire
    from .host_user import Host

logger = logging.getLogger("everwire.server")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class AsgiTransport:
    """A WebSocket that an ASGI server holds: a :class:`~everwire.net.transport.Transport`."""

    def __init__(self, send: Send, limits: Limits, subprotocol: str | None, remote: str) -> None:
        self.subprotocol = subprotocol
        self.remote = remote
        self.compressed = False  # that is between the host and the client
        self.write: Callable[[bytes], None] = self._write
        self._asgi_send = send
        self._limits = limits
        self._high, self._low = limits.write_high, limits.write_low
        self._out: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._taken = 0
        self._paused = False
        self._wake = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._close: tuple[int, str] | None = None
        self._gone = asyncio.Event()
        self._abort_host: Callable[[], None] | None = None
        self.receiver: Receiver | None = None

    # ---- Transport ---------------------------------------------------------------

    def _write(self, frames: bytes) -> None:
        if self._close is not None or self._gone.is_set():
            return
        for opcode, payload in split_frames(frames):
            self._out.append((opcode, payload))
            self._size += len(payload)
        self._wake.set()
        if self._size > self._high and not self._paused:
            self._paused = True
            if self.receiver is not None:
                self.receiver.pause_writing()

    def send(self, opcode: int, payload: bytes) -> None:
        self._write(frame(opcode, payload))

    def ping(self) -> None:
        """The host pings, and ends the connection if nothing comes back."""
        if self.receiver is not None:
            self.receiver.heard()

    def close(self, code: int = 1000, reason: str = "") -> None:
        if self._close is None:
            self._close = (code, reason)
            self._may_read.set()
            self._wake.set()

    def abort(self) -> None:
        self._gone.set()
        if self._abort_host is not None:
            self._abort_host()

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    def write_buffer_size(self) -> int:
        return self._size

    def set_write_limits(self, high: int, low: int) -> None:
        self._high, self._low = high, low

    def limit(self, size: int) -> None:
        """The host's own limit holds."""

    def unfinished_since(self) -> float | None:
        return None

    def inbound(self) -> tuple[float, int]:
        return inf, 0

    def taken(self) -> int:
        return self._taken

    # ---- driven by the host ---------------------------------------------------------

    async def run(self, receive: Receive, receiver: Receiver) -> None:
        """Carry messages both ways until the connection ends. Cancelling drops it."""
        self.receiver = receiver
        self._abort_host = _abort_of(receive)
        tasks = TaskOwner("asgi connection")
        reader = tasks.start(self._read(receive, receiver), "reader")
        writer = tasks.start(self._write_out(), "writer")
        gone = tasks.start(self._gone.wait(), "abort")
        code, reason = int(CloseCode.ABNORMAL), ""
        try:
            # The writer ends after a close of ours; the reader then sees the end of it.
            await asyncio.wait({reader, gone}, return_when=asyncio.FIRST_COMPLETED)
            if reader.done() and not reader.cancelled() and reader.exception() is None:
                code, reason = reader.result()
        finally:
            self._gone.set()
            writer.cancel()
            tasks.cancel_all()
            self.receiver = None
            receiver.closed(code, reason)
        await tasks.wait_closed()

    async def _read(self, receive: Receive, receiver: Receiver) -> tuple[int, str]:
        while True:
            event = await receive()
            await self._may_read.wait()  # whoever paused meanwhile wants this one held, too
            if event["type"] == "websocket.disconnect":
                return event.get("code") or int(CloseCode.NO_STATUS), event.get("reason") or ""
            if event["type"] != "websocket.receive" or self._close is not None:
                continue
            text = event.get("text")
            payload = text.encode() if text is not None else event.get("bytes") or b""
            if len(payload) > self._limits.hard_cap:
                self.close(CloseCode.TOO_BIG, "message too big")
            else:
                receiver.received(Opcode.TEXT if text is not None else Opcode.BINARY, payload)

    async def _write_out(self) -> None:
        while True:
            while self._out:
                opcode, payload = self._out.popleft()
                message: dict[str, Any] = {"type": "websocket.send"}
                if opcode == Opcode.TEXT:
                    message["text"] = payload.decode()
                else:
                    message["bytes"] = payload
                try:
                    await self._asgi_send(message)
                except Exception:  # (each host has its own for "it is gone")
                    self._gone.set()
                    return
                self._size -= len(payload)
                self._taken += len(payload)
                if self._paused and self._size <= self._low:
                    self._paused = False
                    if self.receiver is not None:
                        self.receiver.resume_writing()
            if self._close is not None:
                await _close(self._asgi_send, *self._close)
                return
            self._wake.clear()
            await self._wake.wait()


def _abort_of(receive: Receive) -> Callable[[], None] | None:
    """How to drop the host's own connection, or None.

    ASGI has no word for it, and when an application returns, a host closes the connection
    only after the peer has taken what is buffered: never, if the peer stands still.
    uvicorn's ``receive`` is a method of the protocol that has the transport.
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    abort: Callable[[], None] | None = getattr(transport, "abort", None)
    return abort


class AsgiApp:
    """An ASGI application that serves WebSockets at every path it is given.

    Args:
        wire: whose connections these are.
        lifespan: start and stop it with the host.
        host: what the host says of who connects, if it is asked.
    """

    def __init__(self, wire: Everwire, *, lifespan: bool, host: Host | None = None) -> None:
        self._wire = wire
        self._lifespan = lifespan
        self._host = host
        self._complained = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan" and self._lifespan:
            await self._live(receive, send)
        elif scope["type"] == "http":
            await receive()
            headers = [(b"content-type", b"text/plain"), (b"upgrade", b"websocket")]
            await send({"type": "http.response.start", "status": 426, "headers": headers})
            await send({"type": "http.response.body", "body": b"this is a WebSocket endpoint\n"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        offered = tuple(scope.get("subprotocols") or ())
        dialect = negotiate(offered)
        if dialect is None:
            await send({"type": "websocket.close", "code": int(CloseCode.TRY_AGAIN_LATER)})
            return
        await send({"type": "websocket.accept", "subprotocol": dialect.subprotocol})
        headers = headers_of(scope)
        identity = None
        try:
            node = self._wire.node
            if self._host is not None:
                identity = await self._host.identify(scope, headers)
        except ConfigError as error:
            self._complain(error)
            await _close(send, CloseCode.INTERNAL_ERROR, "the application does not run")
            return
        except TurnedAway as refusal:
            await _close(send, refusal.code, refusal.reason)
            return
        client = scope.get("client") or ("", 0)
        remote = f"{client[0]}:{client[1]}"
        transport = AsgiTransport(send, node.limits, dialect.subprotocol, remote)
        if identity is not None:
            headers = {}  # nothing asks for them any more, and the handshake is kept
        handshake = Handshake(
            scope["path"],
            headers,
            offered,
            remote,
            origins=None if self._host is None else self._host.origins,
            secure=scope.get("scheme") == "wss",
            identity=identity,
        )
        await transport.run(receive, node.accept(transport, handshake))

    def _complain(self, error: ConfigError) -> None:
        if not self._complained:
            self._complained = True
            logger.error(
                "%s. A mounted application has no life of its own: attach to the outermost one, "
                'as wire.attach(api, "/mounted/ws")',
                error,
            )

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                await self._wire.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._wire.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


class TurnedAway(Exception):
    """Who connects is not let in; the WebSocket is closed with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


def headers_of(scope: Scope) -> Mapping[str, str]:
    """The request's headers, names in lower case; of several of a name, the last one."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def _close(send: Send, code: int, reason: str) -> None:
    """Close; a host whose client is gone may raise, each in its own way."""
    text = close_payload(code, reason)[2:].decode()
    with suppress(Exception):
        await send({"type": "websocket.close", "code": int(code), "reason": text})
