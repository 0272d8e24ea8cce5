"""The least that Python can do on picows, for the same two exchanges: picows_bare.py PORT.

No history, no ids remembered, no limits, no checks: what a server written in Python adds to
the C floor before it has a single feature. It speaks `plain` for fan-out and `v1.msgpack` for
publish, acknowledgement and one delivery; what comes within a turn of the loop is joined.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
from picows import WSListener, WSUpgradeResponse, WSUpgradeResponseWithListener, ws_create_server

PUBLISH, SUBSCRIBE = b'{"action":"publish",', b'{"action":"subscribe"'
CONFIRM = b'{"channel":"system","data":{"type":"subscription_confirm","channel":"c"}}'
TAG_AUTH, TAG_PUBLISH, TAG_MESSAGE, TAG_RESPONSE = 1, 4, 5, 15

decode, encode = msgspec.msgpack.Decoder().decode, msgspec.msgpack.Encoder().encode


def frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    return bytes((0x80 | opcode, 126, size >> 8, size & 255)) + payload


class Server:
    """Everything that connections share."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.armed = False
        self.everybody: dict[Connection, None] = {}
        self.subscriber: dict[str, Connection] = {}
        self.pending: list[bytes] = []
        self.touched: list[Connection] = []

    def arm(self) -> None:
        if not self.armed:
            self.armed = True
            self.loop.call_soon(self.turn_end)

    def turn_end(self) -> None:
        self.armed = False
        touched, self.touched = self.touched, []
        for one in touched:
            out, one.out = one.out, []
            one.write(out[0] if len(out) == 1 else b"".join(out))
        if self.pending:
            data, self.pending = b"".join(self.pending), []
            for one in self.everybody:
                one.write(data)


class Connection(WSListener):
    __slots__ = ("out", "server", "write")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.out: list[bytes] = []

    def on_ws_connected(self, transport) -> None:
        underlying = transport.underlying_transport
        self.write = getattr(underlying, "write_nocheck", underlying.write)

    def on_ws_disconnected(self, transport) -> None:
        self.write = lambda data: None
        self.server.everybody.pop(self, None)

    def queue(self, data: bytes) -> None:
        if not self.out:
            self.server.touched.append(self)
        self.out.append(data)
        self.server.arm()

    def on_ws_frame(self, transport, one) -> None:
        payload, server = one.get_payload_as_bytes(), self.server
        if payload[:1] == b"{":
            if payload.startswith(PUBLISH):
                server.pending.append(frame(1, b"{" + payload[len(PUBLISH) :]))
                server.arm()
            elif payload.startswith(SUBSCRIBE):
                server.everybody[self] = None
                self.queue(frame(1, CONFIRM))
            return
        message = decode(payload)
        if message[0] == TAG_PUBLISH:
            _, key, channel, data = message[:4]
            answer = {"epoch": "0123456789abcdef", "offset": 1, "duplicate": False}
            self.queue(frame(2, encode((TAG_RESPONSE, key, answer, False, None))))
            delivery = frame(2, encode((TAG_MESSAGE, 1, 1, key, 1700000000000, data)))
            server.subscriber[channel].queue(delivery)
        elif message[0] == TAG_AUTH:
            for wanted in message[7]:
                server.subscriber[wanted["channel"]] = self
            self.queue(frame(2, encode((TAG_RESPONSE, 1, {}, False, None))))


async def main(port: int) -> None:
    server = Server(asyncio.get_running_loop())
    protocol = {"Sec-WebSocket-Protocol": "everwire.v1.msgpack"}

    def accept(request) -> WSUpgradeResponseWithListener:
        offered = "Sec-WebSocket-Protocol" in request.headers
        response = WSUpgradeResponse.create_101_response(protocol if offered else None)
        return WSUpgradeResponseWithListener(response, Connection(server))

    options = {"backlog": 4096, "read_buffer_init_size": 2048, "enable_auto_pong": False}
    listener = await ws_create_server(accept, "127.0.0.1", port, **options)
    print("listening", flush=True)
    await listener.serve_forever()


if __name__ == "__main__":
    try:
        import uvloop as loop
    except ImportError:
        loop = asyncio
    loop.run(main(int(sys.argv[1])))
