"""The in-memory network while nothing is wrong with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from everwire.net.transport import Network as NetworkProtocol, Transport
from everwire.protocol.frames import Opcode, frame
from everwire.testing import Network, run

TEXT, BINARY = Opcode.TEXT, Opcode.BINARY


async def settle() -> None:
    await asyncio.get_running_loop().settle()  # type: ignore[attr-defined]


def test_it_is_what_the_client_and_the_server_ask_for(dial: Any) -> None:
    async def main() -> None:
        network = Network()
        _: NetworkProtocol = network
        opened = await dial(network)
        ends: list[Transport] = [opened.client.transport, opened.server.transport]
        assert all(callable(end.write) for end in ends)

    run(main)


# ---- messages --------------------------------------------------------------------


def test_messages_arrive_with_their_kind_both_ways(dial: Any) -> None:
    async def main() -> None:
        client, server, _ = await dial(Network())
        client.transport.send(TEXT, "grüße".encode())
        server.transport.write(frame(BINARY, b"one") + frame(TEXT, b"two" * 50_000))
        server.transport.send(TEXT, b"")
        await settle()
        assert server.events == [("received", TEXT, "grüße".encode())]
        assert client.events == [
            ("received", BINARY, b"one"),
            ("received", TEXT, b"two" * 50_000),
            ("received", TEXT, b""),
        ]

    run(main)


def test_nothing_is_delivered_inside_the_call_that_sends_it(dial: Any) -> None:
    async def main() -> None:
        client, server, _ = await dial(Network())
        client.transport.send(TEXT, b"x")
        server.transport.write(frame(TEXT, b"y"))
        assert client.events == server.events == []
        await settle()
        assert (client.payloads, server.payloads) == ([b"y"], [b"x"])

    run(main)


def test_a_client_cannot_write_frames(dial: Any) -> None:
    async def main() -> None:
        opened = await dial(Network())
        with pytest.raises(RuntimeError, match="masked"):
            opened.client.transport.write(frame(TEXT, b"x"))

    run(main)


def test_half_a_frame_is_not_written(dial: Any) -> None:
    async def main() -> None:
        opened = await dial(Network())
        with pytest.raises(ValueError, match="whole, unmasked frames"):
            opened.server.transport.write(frame(TEXT, b"abc")[:-1])

    run(main)


def test_latency_delays_each_message_alike(dial: Any) -> None:
    async def main() -> None:
        client, server, _ = await dial(Network(latency=0.5))
        began = asyncio.get_running_loop().time()
        client.transport.send(TEXT, b"a")
        await asyncio.sleep(0.1)
        client.transport.send(TEXT, b"b")
        await asyncio.sleep(2)
        assert server.times == pytest.approx([began + 0.5, began + 0.6])

    run(main)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2), st.integers(0, 300)), max_size=20))
def test_messages_never_overtake_each_other(steps: list[tuple[float, float, int]]) -> None:
    """Whatever is done to latency and bandwidth between them."""
    got: list[int] = []

    class Server:
        def received(self, opcode: int, payload: bytes | memoryview) -> None:
            got.append(int(bytes(payload).split()[0]))

        def heard(self) -> None: ...

        def closed(self, code: int, reason: str) -> None: ...

        pause_writing = resume_writing = heard

    async def main() -> None:
        network = Network()
        network.listen("node", lambda *_: Server())
        client = await network.connect("ws://node", Server(), max_message=1)
        for n, (pause, latency, size) in enumerate(steps):
            network.latency = latency
            network.bandwidth = 50.0 + size
            client.send(TEXT, b"%d " % n + b"x" * size)
            await asyncio.sleep(pause)
        await asyncio.sleep(10_000)

    run(main, limit=1e6)
    assert got == list(range(len(steps)))


def test_bandwidth_takes_the_time_that_the_bytes_take(dial: Any) -> None:
    """A frame of 1000 bytes at 100 bytes a second: ten seconds; the next one after it."""

    async def main() -> None:
        network = Network(latency=1.0)
        client, server, link = await dial(network)
        began = asyncio.get_running_loop().time()
        link.bandwidth = 100.0
        client.transport.send(BINARY, b"x" * 996)
        client.transport.send(BINARY, b"x" * 98)
        await asyncio.sleep(100)
        times = [
            at - began
            for at, event in zip(server.times, server.events, strict=True)
            if event[0] == "received"
        ]
        assert times == pytest.approx([11.0, 12.0])

    run(main)


def test_a_slow_message_gives_signs_of_life_while_it_comes(dial: Any) -> None:
    """Otherwise a slow line would look like a dead one."""

    async def main() -> None:
        client, server, link = await dial(Network())
        link.bandwidth = 100.0
        client.transport.send(BINARY, b"x" * 996)
        await asyncio.sleep(100)
        assert [event[0] for event in server.events] == ["heard"] * 9 + ["received"]

    run(main)


def test_a_payload_kept_beyond_the_call_is_found_out(dial: Any, recorder: Any) -> None:
    class Keeper(recorder):  # type: ignore[misc]
        kept: Any = None

        def received(self, opcode: int, payload: bytes | memoryview) -> None:
            self.kept = payload

    async def main() -> None:
        keeper = Keeper()
        opened = await dial(Network(), client=keeper)
        opened.server.transport.send(TEXT, b"x")
        await settle()
        with pytest.raises(ValueError, match="released"):
            bytes(keeper.kept)

        plain = Keeper()
        opened = await dial(Network(lend=False), client=plain)
        opened.server.transport.send(TEXT, b"x")
        await settle()
        assert plain.kept == b"x"

    run(main)


def test_a_slice_kept_beyond_the_call_is_reported(dial: Any, recorder: Any) -> None:
    class Keeper(recorder):  # type: ignore[misc]
        def received(self, opcode: int, payload: bytes | memoryview) -> None:
            self.kept = memoryview(payload)[1:]

    async def main() -> None:
        opened = await dial(Network(), client=Keeper())
        opened.server.transport.send(TEXT, b"abc")
        await settle()

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    (error,) = caught.value.exceptions
    assert isinstance(error, BufferError)
    assert any("during the call only" in note for note in error.__notes__)


def test_a_ping_is_heard_by_both_after_their_ways(dial: Any) -> None:
    async def main() -> None:
        client, server, _ = await dial(Network(latency=0.5))
        began = asyncio.get_running_loop().time()
        client.transport.ping()
        await asyncio.sleep(5)
        assert (server.events, server.times) == ([("heard",)], [began + 0.5])
        assert (client.events, client.times) == ([("heard",)], [began + 1.0])

    run(main)
