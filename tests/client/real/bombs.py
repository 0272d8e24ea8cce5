"""A WebSocket server that sends what becomes too much: ``python bombs.py KIND``."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
import zlib

BOMB = 64 * 2**20
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def bomb() -> bytes:
    """64 MiB of blanks, in a few kilobytes."""
    squeeze = zlib.compressobj(9, wbits=-15)
    return squeeze.compress(b" " * BOMB) + squeeze.flush(zlib.Z_SYNC_FLUSH)


def frame(head: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 65_536:
        return bytes([head, 126]) + size.to_bytes(2, "big") + payload
    return bytes([head, 127]) + size.to_bytes(8, "big") + payload


def frames(kind: str) -> list[bytes]:
    piece = b" " * 2**20
    match kind:
        case "compressed":
            return [frame(0xC1, bomb())]
        case "compressed-in-pieces":
            half = len(bomb()) // 2
            return [frame(0x41, bomb()[:half]), frame(0x80, bomb()[half:])]
        case "large":
            return [frame(0x81, piece * 64)]
        case _:
            return [frame(0x01, piece), *[frame(0x00, piece)] * 200]


async def main(kind: str) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).splitlines()
        key = next(one for one in lines if one.lower().startswith(b"sec-websocket-key"))
        accept = hashlib.sha1(key.partition(b":")[2].strip() + MAGIC).digest()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n"
        )
        try:
            for one in frames(kind):
                writer.write(one)
                await writer.drain()
            await reader.read()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
