"""Back-pressure of the in-memory network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everwire.net.transport import Receiver, Transport
from everwire.protocol.frames import Opcode, frame
from everwire.testing import Direction, Handshake, Link, Network, run

TEXT, BINARY = Opcode.TEXT, Opcode.BINARY
UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT
HUNDRED = b"x" * 98  # 100 bytes on the line


async def settle() -> None:
    await asyncio.get_running_loop().settle()  # type: ignore[attr-defined]


@pytest.mark.parametrize("sender", ["client", "server"])
def test_bytes_beyond_the_window_are_the_senders_write_buffer(dial: Any, sender: str) -> None:
    async def main() -> None:
        opened = await dial(Network(window=250))
        ours = getattr(opened, sender).transport
        opened.link.freeze()
        sizes = []
        for _n in range(4):
            ours.send(BINARY, HUNDRED)
            sizes.append(ours.write_buffer_size())
        assert sizes == [0, 0, 50, 150]
        opened.link.thaw()
        await settle()
        assert ours.write_buffer_size() == 0

    run(main)


def test_writing_pauses_above_the_high_mark_and_resumes_at_the_low_one(dial: Any) -> None:
    async def main() -> None:
        client, server, link = await dial(Network(window=100))
        transport = server.transport
        transport.set_write_limits(300, 100)
        link.cut_after()
        link.freeze()
        for n in range(6):
            transport.write(frame(BINARY, HUNDRED))
            # the buffer holds (n + 1) * 100 - 100; told inside the write, and once
            assert server.events == ([("pause_writing",)] if n >= 4 else [])
        left: list[int] = []
        network = link.network

        def watch(link: Link, direction: Direction, payload: bytes) -> None:
            left.append(len(server.events))

        network.on_message = watch
        link.thaw()
        await settle()
        assert server.events == [("pause_writing",), ("resume_writing",)]
        # 500 in the buffer; at 100 after four deliveries
        assert left == [1, 1, 1, 1, 2, 2]
        assert len(client.payloads) == 6

    run(main)


def test_write_limits_that_make_no_sense_are_refused(dial: Any) -> None:
    async def main() -> None:
        opened = await dial(Network())
        for high, low in ((1, 2), (1, -1)):
            with pytest.raises(ValueError, match="write limits"):
                opened.client.transport.set_write_limits(high, low)

    run(main)


def test_new_write_limits_take_effect_at_once(dial: Any) -> None:
    async def main() -> None:
        client, _, link = await dial(Network(window=0))
        link.freeze()
        client.transport.send(BINARY, HUNDRED)
        client.transport.set_write_limits(50, 10)
        client.transport.set_write_limits(500, 200)
        assert client.events == [("pause_writing",), ("resume_writing",)]

    run(main)


def test_what_accept_sends_counts_towards_the_high_mark(recorder: Any) -> None:
    async def main() -> None:
        network, server = Network(window=0, latency=1.0), recorder()

        def accept(transport: Transport, _: Handshake) -> Receiver:
            transport.send(BINARY, b"x" * 2**21)
            return server  # type: ignore[no-any-return]

        network.listen("node", accept)
        await network.connect("ws://node", recorder(), max_message=2**22)
        await settle()
        assert server.events == [("pause_writing",), ("resume_writing",)]
        assert server.times == [1.0, 2.0]

    run(main)


def test_a_receiver_that_does_not_read_makes_the_senders_buffer_grow(dial: Any) -> None:
    async def main() -> None:
        client, server, _ = await dial(Network(window=100))
        server.transport.set_write_limits(200, 0)
        client.transport.pause_reading()
        for _n in range(5):
            server.transport.write(frame(BINARY, HUNDRED))
        server.transport.close(4430)
        await asyncio.sleep(100)
        assert client.events == []
        assert server.events == [("pause_writing",)]
        assert server.transport.write_buffer_size() > 400
        client.transport.resume_reading()
        await settle()
        assert client.payloads == [HUNDRED] * 5
        assert client.closings == server.closings == [(4430, "")]

    run(main)


def test_reading_paused_inside_received_stops_before_the_next_message(
    dial: Any, recorder: Any
) -> None:
    class Reluctant(recorder):  # type: ignore[misc]
        def received(self, opcode: int, payload: bytes | memoryview) -> None:
            super().received(opcode, payload)
            self.transport.pause_reading()

    async def main() -> None:
        client, server, _ = await dial(Network(), client=Reluctant())
        server.transport.write(frame(TEXT, b"1") + frame(TEXT, b"2"))
        await settle()
        assert client.payloads == [b"1"]
        client.transport.resume_reading()
        await settle()
        assert client.payloads == [b"1", b"2"]

    run(main)


def test_closing_reads_on_so_that_the_answer_gets_through(dial: Any) -> None:
    async def main() -> None:
        client, _, _ = await dial(Network())
        client.transport.pause_reading()
        client.transport.close()
        await settle()
        assert client.closings == [(1000, "")]

    run(main)


def test_a_big_message_on_a_slow_line_leaves_the_buffer_bit_by_bit(dial: Any) -> None:
    """So that a sender which looks for progress sees it."""

    async def main() -> None:
        client, _, link = await dial(Network(window=0))
        link.bandwidth = 100.0
        client.transport.send(BINARY, b"x" * 996)  # 1000 bytes on the line
        sizes = [client.transport.write_buffer_size()]
        for _n in range(10):
            await asyncio.sleep(1.0001)
            sizes.append(client.transport.write_buffer_size())
        assert sizes == pytest.approx([1000 - 100 * n for n in range(11)], abs=1)

    run(main)


def test_a_closed_side_has_nothing_buffered_and_is_not_told_of_marks(dial: Any) -> None:
    async def main() -> None:
        client, _, link = await dial(Network(window=0))
        client.transport.set_write_limits(50, 10)
        link.freeze()
        client.transport.send(BINARY, HUNDRED)
        link.cut()
        assert client.transport.write_buffer_size() == 0
        await settle()
        assert client.events == [("pause_writing",), ("closed", 1006, "")]

    run(main)
