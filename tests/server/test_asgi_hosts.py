"""Hosts of several kinds: how they end, and how an application is tested without one."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from everwire import ClientLimits, Everwire, Gap, Grant, Message, connect
from everwire.client.connect import connect_network
from everwire.net.attempts import Attempts

APP = """
from fastapi import FastAPI
from everwire import Everwire, Grant

wire = Everwire(allow_anonymous=True)
wire.channel("chat:{room}", grant=Grant(publish=True))
other = Everwire(allow_anonymous=True)

api = FastAPI()
wire.attach(api, "/ws", user=lambda: "ada")
other.attach(api, "/other", user=lambda: "bob")
"""

SERVERS = {
    "uvicorn": (["uvicorn", "hosted:api", "--port", "{port}"], "Uvicorn running on"),
    "uvicorn-workers": (
        ["uvicorn", "hosted:api", "--workers", "1", "--port", "{port}"], "startup complete"
    ),
    "uvicorn-wsproto": (
        ["uvicorn", "hosted:api", "--ws", "wsproto", "--port", "{port}"], "Uvicorn running on"
    ),
    "hypercorn": (["hypercorn", "hosted:api", "--bind", "127.0.0.1:{port}"], "Running on"),
}  # fmt: skip


# hypercorn tells nobody that it ends: it waits three seconds for connections to end by
# themselves, then cancels them, and logs that.
SECONDS = {"hypercorn": 4.5}
SOON_BACK = ClientLimits(backoff_base=0.2, backoff_cap=0.5)  # the next host takes a second


@pytest.fixture
def host(start: Callable[..., Any], tmp_path: Path, free_port: int) -> Callable[[str], Any]:
    """Start a host of a kind; ``url`` is its WebSocket."""
    (tmp_path / "hosted.py").write_text(APP)

    def host(kind: str) -> Any:
        command, up = SERVERS[kind]
        module, *options = [part.replace("{port}", str(free_port)) for part in command]
        child = start([sys.executable, "-m", module, *options], cwd=tmp_path)
        child.until(lambda: any(up in line for line in child.out + child.err), up)
        child.url = f"ws://127.0.0.1:{free_port}"
        child.seconds = SECONDS.get(kind, 2)
        return child

    return host


# Those that come from a terminal and from a supervisor: two ways in uvicorn, alone and with
# workers; the others' is the same for both.
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("uvicorn", signal.SIGTERM),
        ("uvicorn", signal.SIGINT),
        ("uvicorn-workers", signal.SIGTERM),
        ("uvicorn-workers", signal.SIGINT),
        ("uvicorn-wsproto", signal.SIGINT),
        ("hypercorn", signal.SIGTERM),
    ],
)
def test_an_end_with_sockets_open_is_quick_and_the_clients_come_back(
    host: Callable[[str], Any], kind: str, number: int
) -> None:
    first = host(kind)

    async def main() -> None:
        url = first.url
        async with (
            connect(
                f"{url}/ws", limits=SOON_BACK, network=connect_network(Attempts(None))
            ) as client,
            connect(f"{url}/other", limits=SOON_BACK),
        ):
            async with client.subscribe("chat:x") as room:
                await client.publish("chat:x", 1)
                items = aiter(room)
                assert isinstance(await anext(items), Message)
                began = time.monotonic()
                first.signal(number)
                await asyncio.to_thread(first.wait)
                assert time.monotonic() - began < first.seconds
                again = await asyncio.to_thread(host, kind)
                assert isinstance(await anext(items), Gap)
                await client.publish("chat:x", 2)
                item = await anext(items)
                assert isinstance(item, Message)
                assert item.data == 2
        again.stop()

    asyncio.run(main())
    if "hypercorn" not in first.args:
        assert not [line for line in first.err if "Traceback" in line], first


# ---- without a host: the test client of Starlette ----------------------------------------


def hosted() -> tuple[FastAPI, Everwire]:
    api, wire = FastAPI(), Everwire(allow_anonymous=True)
    wire.channel("chat:{room}", grant=Grant(publish=True))
    wire.attach(api, "/ws", user=lambda name="ada": name)

    @api.post("/say")
    async def say(text: str) -> int:
        return (await wire.publish("chat:x", text)).offset

    return api, wire


def test_an_application_is_tested_without_a_server() -> None:
    api, wire = hosted()
    for _ in range(2):  # it starts and stops with each
        with TestClient(api) as client:
            with (
                client.websocket_connect("/ws?name=bob") as bob,
                client.websocket_connect("/ws/") as ada,
            ):
                ada.send_json({"type": "ping"})
                assert ada.receive_json() == {"type": "pong"}
                bob.send_json({"action": "subscribe", "channel": "chat:x"})
                assert bob.receive_json()["data"]["type"] == "subscription_confirm"
                assert client.post("/say?text=hello").json() == 1
                assert bob.receive_json() == {"channel": "chat:x", "data": "hello"}
                assert {one.user for one in wire.node.connections.values()} == {"ada", "bob"}
        assert wire._node is None


def test_a_test_without_the_lifespan_is_told_what_is_missing() -> None:
    api, _ = hosted()
    with TestClient(api).websocket_connect("/ws") as socket:
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_json()
    assert caught.value.reason == "the application does not run"


# ---- what the signals do -----------------------------------------------------------------

SIGNALS = """
import asyncio, signal, sys
from everwire import Everwire
from everwire.server.attaching import drain_first

async def main():
    wire = Everwire()
    await wire.start()
    async def drain(window):
        print("draining", flush=True)
        await asyncio.sleep(float(sys.argv[1]))
    wire.node.drain = drain
    heard = []
    def host(number, frame):
        heard.append(number)
        print("host", number, flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, host)
    with drain_first(wire):
        print("ready", flush=True)
        async with asyncio.timeout(10):
            while len(heard) < int(sys.argv[2]):
                await asyncio.sleep(0.01)
    signal.raise_signal(signal.SIGINT)

asyncio.run(main())
"""


def signalled(start: Callable[..., Any], seconds: str, *numbers: int) -> list[str]:
    child = start([sys.executable, "-c", SIGNALS, seconds, str(len(numbers))])
    child.line("ready")
    for sent, number in enumerate(numbers):
        child.signal(number)
        if not sent:
            child.line("draining")
    assert child.wait() == 0
    assert child.err == []
    return list(child.out[1:])


HOST_INT, HOST_TERM = f"host {int(signal.SIGINT)}", f"host {int(signal.SIGTERM)}"


def test_the_host_hears_of_a_signal_after_the_drain(start: Callable[..., Any]) -> None:
    out = signalled(start, "0.2", signal.SIGTERM)
    assert out == ["draining", HOST_TERM, HOST_INT]  # the last one came after all of it


def test_the_same_signal_again_hastens(start: Callable[..., Any]) -> None:
    out = signalled(start, "60", signal.SIGINT, signal.SIGINT)
    assert out == ["draining", HOST_INT, HOST_INT, HOST_INT]


def test_a_supervisors_signal_waits_behind_the_terminals(start: Callable[..., Any]) -> None:
    out = signalled(start, "0.5", signal.SIGINT, signal.SIGTERM)
    assert out == ["draining", HOST_INT, HOST_TERM, HOST_INT]
