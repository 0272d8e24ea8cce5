"""A line that carries less than is published on it, with a real kernel in between."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from everwire import ClientLimits, Everwire, Grant, connect
from everwire.limits import Limits

from ..world import data_of, take

PIECE = 2_048  # bytes


class Line:
    """Carries bytes between a client and a server, so many a second to the client."""

    def __init__(self, port: int, rate: float) -> None:
        self.rate = rate
        self.connections = 0
        self._port = port

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        async with await asyncio.start_server(self._carry, "127.0.0.1", 0) as server:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * PIECE)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        down, up = await asyncio.open_connection(sock=sock, limit=PIECE)

        async def forward() -> None:
            while data := await reader.read(PIECE):
                up.write(data)
            up.close()

        async def back() -> None:
            while data := await down.read(PIECE):
                await asyncio.sleep(len(data) / self.rate)
                writer.write(data)
            writer.close()

        with closing(writer), closing(up):
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(forward())
                    group.create_task(back())
            except* OSError:
                pass


def test_a_reader_whose_line_is_too_slow_is_not_cut_off() -> None:
    async def main() -> None:
        wire = Everwire(limits=Limits(ping_interval=1.0, ping_grace=1.0, probe=1.0))
        wire.channel("c", history=1_000, history_bytes=2**27, grant=Grant())
        limits = ClientLimits(ping_grace=1.5)
        async with asyncio.timeout(50), wire.listen(port=0) as server:
            line = Line(server.port, 50_000.0)
            async with line.open() as url, connect(url, limits=limits) as client:
                async with client.subscribe("c") as room:
                    for n in range(80):  # 160 KB a second
                        await wire.publish("c", [n, "x" * 8_000])
                        await asyncio.sleep(0.05)
                    assert client.stats.reconnects == 0
                    line.rate = 1e9
                    got = data_of(await take(room, 80))
                    assert [one[0] for one in got] == list(range(80))
                    assert (client.stats.reconnects, line.connections) == (0, 1)

    asyncio.run(main())
