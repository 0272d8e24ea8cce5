"""A connection that nobody waits for any more."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
import socket
import threading

import pytest

from everwire.net.websocket import PicowsNetwork


class Server(threading.Thread):
    """Answers one handshake, together with a message, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.asked = threading.Event()
        self.answer = threading.Event()
        self.answered = threading.Event()

    def run(self) -> None:
        connection, _ = self.listener.accept()
        with self.listener, connection:
            request = connection.recv(65536).decode()
            key = re.search(r"sec-websocket-key: *(\S+)", request, re.I)
            assert key is not None
            accept = hashlib.sha1(f"{key[1]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode())
            self.asked.set()
            self.answer.wait(10)
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + base64.b64encode(accept.digest()) + b"\r\n\r\n"
                b"\x81\x02hi"
            )
            self.answered.set()
            connection.settimeout(10)
            while connection.recv(65536):
                pass


class Receiver:
    """Nothing is to come."""

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        raise AssertionError("a message came")

    def heard(self) -> None:
        raise AssertionError("a sign of life came")

    def closed(self, code: int, reason: str) -> None:
        raise AssertionError("it was told of the end")

    def pause_writing(self) -> None:
        raise AssertionError

    resume_writing = pause_writing


def test_what_came_with_the_answer_to_a_cancelled_opening_is_dropped_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    server.start()

    async def main() -> None:
        url = f"ws://127.0.0.1:{server.port}/"
        opening = asyncio.create_task(PicowsNetwork().connect(url, Receiver(), max_message=1000))
        while not server.asked.is_set():
            await asyncio.sleep(0.001)
        server.answer.set()
        assert server.answered.wait(10)  # holding up the loop: what was sent waits to be read
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        while server.is_alive():  # until the connection is dropped
            await asyncio.sleep(0.001)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())
    server.join(10)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
