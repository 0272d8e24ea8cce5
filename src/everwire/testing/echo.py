"""``python -m everwire.testing.echo --port N``: what comes goes back, message by message.

It is the WebSocket layer of the native listener and nothing above it, for conformance
suites and for measuring the floor. Only this machine can reach it.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Sequence

from ..errors import ConfigError
from ..limits import Limits, MiB
from ..net.heartbeat import Wheel
from ..net.transport import Handshake, Receiver, Transport
from ..protocol.deflate import deflated_frame
from ..protocol.frames import Opcode, frame
from ..server.native.listener import Listener

HOST = "127.0.0.1"
MAX_MESSAGE = 16 * MiB


class Echo:
    """Sends each message back as it came; reads no more while the peer does not read."""

    __slots__ = ("_open", "_transport")

    def __init__(self, transport: Transport, open_ones: set[Echo]) -> None:
        self._transport = transport
        self._open = open_ones
        open_ones.add(self)

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        framed = deflated_frame if self._transport.compressed else frame
        self._transport.write(framed(Opcode(opcode), bytes(payload)))

    def heard(self) -> None:
        """Nobody waits for a sign of life."""

    def closed(self, code: int, reason: str) -> None:
        self._open.discard(self)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def leave(self) -> None:
        """Say goodbye: the server ends."""
        self._transport.close(1001)


class EchoServer:
    """The echo behind a listener, without a node.

    Attributes:
        port: the port that it listens on.
    """

    def __init__(self, limits: Limits | None = None, *, deflate: bool = False) -> None:
        self._open: set[Echo] = set()
        self._wheel = Wheel(asyncio.get_running_loop())
        self._listener = Listener(
            limits=limits or Limits(message=MAX_MESSAGE, hard_cap=MAX_MESSAGE),
            wheel=self._wheel,
            accept=self._accept,
            paths=_Anywhere(),
            assets={},
            compression=deflate,
        )

    @property
    def port(self) -> int:
        return self._listener.port

    def _accept(self, transport: Transport, handshake: Handshake) -> Receiver:
        return Echo(transport, self._open)

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; port 0 takes a free one.

        Raises:
            ConfigError: the port cannot be used.
        """
        self._wheel.start()
        await self._listener.start(HOST, port)

    def close(self) -> None:
        """Stop listening, and say goodbye to who is there."""
        self._listener.close()
        for echo in list(self._open):
            echo.leave()
        self._wheel.stop()


class _Anywhere(frozenset[str]):
    """Conformance suites put what they like into the path."""

    def __contains__(self, path: object) -> bool:
        return True


async def _serve(port: int, deflate: bool) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = EchoServer(deflate=deflate)
    await server.start(port)
    sys.stdout.write(f"listening on ws://{HOST}:{server.port}\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()
    await asyncio.sleep(0.1)  # for the goodbyes to be answered


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m everwire.testing.echo",
        description=f"A WebSocket echo on {HOST}, for conformance suites. SIGTERM ends it.",
    )
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--deflate", action="store_true", help="negotiate permessage-deflate")
    given = parser.parse_args(arguments)
    factory: Callable[[], asyncio.AbstractEventLoop] | None
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_serve(given.port, given.deflate))
    except ConfigError as error:
        sys.stderr.write(f"echo: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
