"""How links of the in-memory network end, and what is recorded of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everwire.net.transport import Receiver, Transport
from everwire.protocol.frames import Opcode, close_payload, frame
from everwire.testing import Direction, Handshake, Network, run

TEXT, BINARY = Opcode.TEXT, Opcode.BINARY


async def settle() -> None:
    await asyncio.get_running_loop().settle()  # type: ignore[attr-defined]


# ---- closing ---------------------------------------------------------------------


@pytest.mark.parametrize("closer", ["client", "server"])
def test_closing_tells_the_peer_first_and_both_once(dial: Any, closer: str) -> None:
    async def main() -> None:
        network = Network(latency=0.5)
        opened = await dial(network)
        ours = getattr(opened, closer)
        theirs = opened.server if closer == "client" else opened.client
        began = asyncio.get_running_loop().time()
        ours.transport.send(TEXT, b"before")
        ours.transport.close(4001, "bye")
        ours.transport.send(TEXT, b"after")
        ours.transport.ping()
        ours.transport.close(1000)
        await asyncio.sleep(5)
        assert theirs.events == [("received", TEXT, b"before"), ("closed", 4001, "bye")]
        assert ours.events == [("closed", 4001, "bye")]
        assert (theirs.times[-1], ours.times[-1]) == (began + 0.5, began + 1.0)
        assert network.links == []

    run(main)


def test_messages_that_come_after_our_own_close_are_not_heeded(dial: Any) -> None:
    async def main() -> None:
        client, server, _ = await dial(Network(latency=0.5))
        client.transport.close()
        server.transport.send(TEXT, b"on its way")
        await asyncio.sleep(5)
        assert client.events == [("closed", 1000, "")]
        assert server.events == [("closed", 1000, "")]

    run(main)


def test_closing_at_once_from_both_sides_ends_both_with_the_others_code(dial: Any) -> None:
    async def main() -> None:
        client, server, _ = await dial(Network(latency=0.5))
        client.transport.close(4001)
        server.transport.close(4002)
        await asyncio.sleep(5)
        assert (client.closings, server.closings) == ([(4002, "")], [(4001, "")])

    run(main)


def test_a_close_frame_that_was_written_begins_the_handshake(dial: Any) -> None:
    async def main() -> None:
        client, server, _ = await dial(Network())
        server.transport.write(
            frame(TEXT, b"1") + frame(Opcode.CLOSE, close_payload(4001, "x")) + frame(TEXT, b"2")
        )
        await settle()
        assert client.events == [("received", TEXT, b"1"), ("closed", 4001, "x")]
        assert server.events == [("closed", 4001, "x")]

    run(main)


def test_a_close_frame_without_a_code_is_1005(dial: Any) -> None:
    async def main() -> None:
        client, server, _ = await dial(Network())
        server.transport.write(frame(Opcode.CLOSE, b""))
        await settle()
        assert client.closings == server.closings == [(1005, "")]

    run(main)


def test_an_abort_is_1006_for_both_and_later_for_the_peer(dial: Any) -> None:
    async def main() -> None:
        network = Network(latency=0.5)
        client, server, _ = await dial(network)
        began = asyncio.get_running_loop().time()
        client.transport.abort()
        client.transport.abort()
        server.transport.send(TEXT, b"into the void")
        assert client.events == []
        await asyncio.sleep(5)
        assert (client.events, client.times) == ([("closed", 1006, "")], [began])
        assert (server.events, server.times) == ([("closed", 1006, "")], [began + 0.5])
        assert network.links == []

    run(main)


def test_an_abort_loses_what_was_not_with_the_sockets_yet(dial: Any) -> None:
    async def main() -> None:
        client, server, _ = await dial(Network(window=250))
        for _n in range(5):
            client.transport.send(BINARY, b"x" * 98)  # 100 bytes on the line
        client.transport.abort()
        await settle()
        assert len(server.payloads) == 2
        assert server.closings == [(1006, "")]

    run(main)


def test_accept_may_close_or_abort(recorder: Any) -> None:
    async def main(how: str) -> None:
        network, server, client = Network(), recorder(), recorder()

        def accept(transport: Transport, _: Handshake) -> Receiver:
            transport.close(4500) if how == "close" else transport.abort()
            return server

        network.listen("node", accept)
        await network.connect("ws://node", client, max_message=1)
        await settle()
        code = 4500 if how == "close" else 1006
        assert client.closings == server.closings == [(code, "")]

    run(main, "close")
    run(main, "abort")


def test_a_message_above_the_receivers_limit_closes_both_with_1009(dial: Any) -> None:
    async def main() -> None:
        for sender in ("client", "server"):
            client, server, _ = await dial(
                Network(), server_max=10, client_max=10, url=f"ws://{sender}"
            )
            ours = client if sender == "client" else server
            ours.transport.send(BINARY, b"x" * 10)
            ours.transport.send(BINARY, b"x" * 11)
            ours.transport.send(BINARY, b"x")
            await settle()
            theirs = server if sender == "client" else client
            assert theirs.payloads == [b"x" * 10]
            assert [code for code, _ in client.closings] == [1009]
            assert [code for code, _ in server.closings] == [1009]

    run(main)


def test_text_that_is_not_utf8_closes_with_1007(dial: Any) -> None:
    async def main() -> None:
        client, server, _ = await dial(Network())
        client.transport.send(TEXT, b"\xff")
        await settle()
        assert server.payloads == []
        assert [server.closings[0][0], client.closings[0][0]] == [1007, 1007]

    run(main)


def test_an_exception_in_received_is_reported_and_closes_with_1011(
    dial: Any, recorder: Any
) -> None:
    seen = []

    class Broken(recorder):  # type: ignore[misc]
        def received(self, opcode: int, payload: bytes | memoryview) -> None:
            raise LookupError("defect")

    async def main() -> None:
        client, server, _ = await dial(Network(), client=Broken())
        server.transport.send(TEXT, b"x")
        await settle()
        seen.extend(client.closings + server.closings)

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert caught.group_contains(LookupError, match="defect")
    assert seen == [(1011, ""), (1011, "")]


# ---- the record --------------------------------------------------------------------


def test_the_trace_tells_what_happened_in_order(dial: Any) -> None:
    async def main() -> None:
        network = Network(latency=0.5, trace_bytes=4)
        client, _, link = await dial(network)
        client.transport.send(TEXT, b"hello")
        await asyncio.sleep(1)
        link.cut()
        up, down = Direction.TO_SERVER, Direction.TO_CLIENT
        assert network.trace == [
            (0.0, 1, up, "connect", None, b""),
            (0.5, 1, down, "open", None, b""),
            (1.0, 1, up, "sent", TEXT, b"hell"),
            (1.5, 1, up, "delivered", TEXT, b"hell"),
            (2.0, 1, None, "cut", None, b""),
        ]

    run(main)


@pytest.mark.parametrize("limit", [0, 3])
def test_the_trace_is_bounded(dial: Any, limit: int) -> None:
    async def main() -> None:
        network = Network(trace_limit=limit)
        client, _, _ = await dial(network)
        for _n in range(10):
            client.transport.send(TEXT, b"x")
        await settle()
        assert [record.kind for record in network.trace] == ["delivered"] * limit

    run(main)


def test_a_link_says_which_it_is_and_whether_it_lives(dial: Any) -> None:
    async def main() -> None:
        link = (await dial(Network())).link
        assert repr(link) == "<Link 1 to node:80, live>"
        link.cut()
        assert repr(link) == "<Link 1 to node:80, over>"

    run(main)


def test_links_count_what_was_delivered_and_keep_their_order(dial: Any) -> None:
    async def main() -> None:
        network = Network()
        opened = [await dial(network) for _ in range(3)]
        assert network.links == [each.link for each in opened]
        assert [link.id for link in network.links] == [1, 2, 3]
        opened[1].client.transport.send(TEXT, b"x")
        opened[1].client.transport.ping()
        await settle()
        assert opened[1].link.delivered(Direction.TO_SERVER) == 1
        assert opened[1].link.delivered(Direction.TO_CLIENT) == 0

    run(main)
