"""Somebody else's client: asks the server for a sign of life again and again, in its own process.

Each line on stdin is answered with the longest round trip, in seconds, since the line before.
Time in which the server or this process was ready to run and had no processor, because the
machine does other work, is not counted.
"""

from __future__ import annotations

import select
import socket
import sys
import time

REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PING = b"\x81\x8f\x00\x00\x00\x00" + b'{"type":"ping"}'
PONG = b"\x81\x0f" + b'{"type":"pong"}'


def waited(process: str) -> float:
    """Seconds for which a process' main thread has waited for a processor."""
    with open(f"/proc/{process}/schedstat") as file:
        return int(file.read().split()[1]) / 1e9


def main(port: int, server: str) -> None:
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(REQUEST)
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(4096)
    longest, data = 0.0, b""
    while True:
        began = time.perf_counter() - waited(server) - waited("self")
        sock.sendall(PING)
        while PONG not in data:
            piece = sock.recv(4096)
            if not piece:
                print("closed", data, flush=True)
                return
            data += piece
        data = data.replace(PONG, b"", 1).replace(b"\x89\x00", b"")
        ended = time.perf_counter() - waited(server) - waited("self")
        longest = max(longest, ended - began)
        if select.select([sys.stdin], [], [], 0.01)[0]:
            if not sys.stdin.readline():
                return
            print(longest, flush=True)
            longest = 0.0


main(int(sys.argv[1]), sys.argv[2])
