"""Connecting over the in-memory network, and failing to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everwire.errors import HandshakeRefused
from everwire.net.transport import Receiver, Transport
from everwire.protocol.frames import Opcode, frame
from everwire.testing import Handshake, Network, run

TEXT, BINARY = Opcode.TEXT, Opcode.BINARY


async def settle() -> None:
    await asyncio.get_running_loop().settle()  # type: ignore[attr-defined]


# ---- connecting ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        ((), None),
        (("everwire.v1.msgpack",), "everwire.v1.msgpack"),
        (("everwire.v1.json", "everwire.v1.msgpack"), "everwire.v1.json"),
        (("unheard.of", "everwire.v1.msgpack"), "everwire.v1.msgpack"),
    ],
)
def test_both_sides_know_the_subprotocol_agreed_upon(
    dial: Any, offered: tuple[str, ...], agreed: str | None
) -> None:
    async def main() -> None:
        opened = await dial(Network(), subprotocols=offered)
        assert opened.client.transport.subprotocol == agreed
        assert opened.server.transport.subprotocol == agreed
        assert opened.server.handshake.subprotocols == offered

    run(main)


def test_only_unknown_subprotocols_are_refused_before_accept(recorder: Any) -> None:
    async def main() -> None:
        network, accepted = Network(), list[Any]()
        network.listen("ws://node", lambda *args: accepted.append(args) or recorder())
        with pytest.raises(HandshakeRefused, match=r"everwire\.v1\.msgpack") as caught:
            await network.connect(
                "ws://node", recorder(), subprotocols=["unheard.of"], max_message=1
            )
        assert caught.value.status == 400
        assert not caught.value.temporary
        assert not accepted
        assert network.links == []

    run(main)


def test_the_server_sees_what_the_handshake_said(dial: Any) -> None:
    async def main() -> None:
        network = Network()
        first = await dial(
            network, url="ws://node:81/ws?x=1", headers={"Origin": "http://here"},
            subprotocols=["everwire.v1.json", "t"],
        )  # fmt: skip
        second = await dial(network, url="ws://node:81")
        handshake = first.server.handshake
        assert (handshake.path, handshake.query) == ("/ws", "x=1")
        assert dict(handshake.headers) == {
            "origin": "http://here",
            "host": "node:81",
            "sec-websocket-protocol": "everwire.v1.json, t",
        }
        assert handshake.remote == first.server.transport.remote
        assert handshake.remote != second.server.handshake.remote
        assert second.server.handshake.path == "/"
        assert first.client.transport.remote == "node:81"

    run(main)


def test_nobody_listening_is_a_refused_connection(recorder: Any) -> None:
    async def main() -> None:
        with pytest.raises(ConnectionRefusedError):
            await Network().connect("ws://nobody", recorder(), max_message=1)

    run(main)


def test_a_closed_listener_refuses_but_its_links_stay(dial: Any, recorder: Any) -> None:
    async def main() -> None:
        network = Network()
        listener = network.listen("node", lambda *_: recorder())
        await network.connect("ws://node", recorder(), max_message=1)
        listener.close()
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            await network.connect("ws://node", recorder(), max_message=1)
        assert len(network.links) == 1
        await dial(network, url="ws://node:80/ws")  # the address is free again

    run(main)


def test_an_address_has_one_listener_whatever_its_spelling(recorder: Any) -> None:
    network = Network()
    network.listen("node", lambda *_: recorder())
    with pytest.raises(OSError, match="node:80"):
        network.listen("ws://node:80/ws", lambda *_: recorder())
    network.listen("wss://node", lambda *_: recorder())


def test_what_is_no_websocket_url_is_refused_for_good(recorder: Any) -> None:
    async def main() -> None:
        with pytest.raises(HandshakeRefused, match="not a WebSocket URL") as caught:
            await Network().connect("http://node", recorder(), max_message=1)
        assert not caught.value.temporary

    run(main)


def test_accept_may_refuse(recorder: Any) -> None:
    async def main() -> None:
        network = Network(latency=1.0)
        asyncio.get_running_loop().call_later(1.5, lambda: seen.append(network.links))
        seen: list[Any] = []

        def accept(transport: Transport, _: Handshake) -> Receiver:
            transport.send(TEXT, b"not to be seen")
            raise HandshakeRefused(503, "draining", temporary=True, retry_after=3)

        network.listen("node", accept)
        client = recorder()
        with pytest.raises(HandshakeRefused, match="draining") as caught:
            await network.connect("ws://node", client, max_message=100)
        assert caught.value.retry_after == 3
        await asyncio.sleep(10)
        assert client.events == []
        assert seen == [[]]

    run(main)


def test_a_defect_in_accept_is_a_500_and_is_reported(recorder: Any) -> None:
    async def main() -> None:
        network = Network()
        network.listen("node", lambda *_: 1 / 0)  # type: ignore[arg-type, return-value]
        with pytest.raises(HandshakeRefused, match="500"):
            await network.connect("ws://node", recorder(), max_message=100)

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert caught.group_contains(ZeroDivisionError)


def test_what_accept_sends_may_come_before_connect_returns(recorder: Any) -> None:
    async def main() -> None:
        network, server = Network(), recorder()

        def accept(transport: Transport, _: Handshake) -> Receiver:
            transport.write(frame(BINARY, b"hello"))
            return server

        network.listen("node", accept)
        client = recorder()
        await network.connect("ws://node", client, max_message=100)
        assert client.payloads == [b"hello"]

    run(main)


def test_connecting_takes_one_round_trip(dial: Any) -> None:
    async def main() -> float:
        await dial(Network(latency=0.25))
        return asyncio.get_running_loop().time()

    assert run(main) == 0.5


# ---- connects that do not come through --------------------------------------------------


def test_a_connect_cancelled_before_accept_never_reaches_the_server(recorder: Any) -> None:
    async def main() -> None:
        network, accepted = Network(latency=1.0), list[Any]()
        network.listen("node", lambda *_: accepted.append(1) or recorder())
        client = recorder()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await network.connect("ws://node", client, max_message=1)
        await asyncio.sleep(10)
        assert not accepted
        assert client.events == []
        assert network.links == []

    run(main)


def test_a_connect_cancelled_after_accept_is_a_lost_link_for_the_server(recorder: Any) -> None:
    async def main() -> None:
        network, server = Network(latency=1.0), recorder()

        def accept(transport: Transport, _: Handshake) -> Receiver:
            transport.send(TEXT, b"hello")
            return server  # type: ignore[no-any-return]

        network.listen("node", accept)
        client = recorder()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await network.connect("ws://node", client, max_message=1)
        await asyncio.sleep(10)
        assert server.events == [("closed", 1006, "")]
        assert server.times == [2.5]
        assert client.events == []
        assert network.links == []

    run(main)


def test_a_connect_cancelled_when_it_had_come_through_tells_the_client_nothing_more(
    recorder: Any,
) -> None:
    class Impatient(recorder):  # type: ignore[misc]
        connecting: asyncio.Task[Any]

        def received(self, opcode: int, payload: bytes | memoryview) -> None:
            super().received(opcode, payload)
            self.connecting.cancel()

    async def main() -> None:
        network, server, client = Network(), recorder(), Impatient()

        def accept(transport: Transport, _: Handshake) -> Receiver:
            transport.send(TEXT, b"hello")
            return server  # type: ignore[no-any-return]

        network.listen("node", accept)
        client.connecting = asyncio.create_task(
            network.connect("ws://node", client, max_message=100)
        )
        with pytest.raises(asyncio.CancelledError):
            await client.connecting
        await settle()
        assert client.payloads == [b"hello"]
        assert client.closings == []
        assert server.closings == [(1006, "")]

    run(main)


def test_a_link_cut_between_accept_and_answer_is_a_failed_connect(recorder: Any) -> None:
    async def main() -> None:
        network, server, client = Network(latency=1.0), recorder(), recorder()
        network.listen("node", lambda *_: server)
        asyncio.get_running_loop().call_later(1.5, lambda: network.links[0].cut())
        await refused_by_reset(network, client)
        await settle()
        assert server.closings == [(1006, "")]
        assert client.events == []

    run(main)


async def refused_by_reset(network: Network, client: Any) -> None:
    with pytest.raises(ConnectionResetError):
        await network.connect("ws://node", client, max_message=1)
