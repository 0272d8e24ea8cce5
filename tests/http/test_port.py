"""The HTTP port of `everwire serve`: a real process, and real sockets."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from everwire import Message, connect

from .conftest import KEY

CHAT = """
from everwire import Everwire, Grant, Limits
wire = Everwire(limits=Limits(message=65_536, request_timeout=1))
wire.channel("chat:{room}", grant=Grant(publish=True))
"""


@pytest.fixture
def ports() -> int:
    """A port that is free, and so is the next one."""
    for _ in range(100):
        with socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
    raise AssertionError("no two free ports beside each other")


class Served:
    def __init__(self, child: Any, port: int) -> None:
        self.child = child
        self.url = f"ws://127.0.0.1:{port}/ws"
        self.http = port + 1

    def ask(self, path: str, body: Any = None, key: str = KEY) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "X-API-Key": key}
        request = Request(f"http://127.0.0.1:{self.http}{path}", data, headers)
        try:
            answer = urlopen(request, timeout=10)
        except HTTPError as error:
            answer = error  # type: ignore[assignment]
        with answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith("{") else text


@pytest.fixture
def server(everwire: Callable[..., Any], tmp_path: Path, ports: int) -> Callable[..., Served]:
    (tmp_path / "chat.py").write_text(CHAT)

    def server(*options: str, key: str = KEY, **env: str) -> Served:
        child = everwire(
            "serve", "chat:wire", "--allow-anonymous", "--port", str(ports), *options,
            cwd=tmp_path, env={"EVERWIRE_API_KEY": key, **env},
        )  # fmt: skip
        child.line("^everwire: ws://")
        return Served(child, ports)

    return server


def test_it_is_on_the_next_port_and_publishes(server: Callable[..., Served]) -> None:
    served = server()
    served.child.line(rf"http://127\.0\.0\.1:{served.http}: metrics and health", stream="err")
    assert served.ask("/readyz", key="") == (200, {"status": "ok"})
    assert "everwire_uptime_seconds" in served.ask("/metrics", key="")[1]
    assert served.ask("/api/publish", {"channel": "chat:x", "data": 1}, key="wrong")[0] == 401

    async def main() -> None:
        async with connect(served.url) as client, client.subscribe("chat:x") as room:
            body = {"channel": "chat:x", "data": "hello"}
            status, answer = await asyncio.to_thread(served.ask, "/api/publish", body)
            assert (status, answer["position"]["offset"]) == (200, 1)
            item = await anext(aiter(room))
            assert isinstance(item, Message)
            assert item.data == "hello"

    asyncio.run(main())
    served.child.signal()
    assert served.child.wait() == 0  # the signal was not uvicorn's
    assert not [line for line in served.child.err if "POST" in line or "GET" in line]
    assert KEY not in "".join(served.child.err)


def test_without_a_key_there_is_health_and_no_api(server: Callable[..., Served]) -> None:
    served = server(key="")
    assert served.ask("/healthz")[0] == 200
    assert served.ask("/api/publish", {"channel": "chat:x", "data": 1})[0] == 403
    served.child.line("the API is off", stream="err")


def test_zero_turns_it_off(server: Callable[..., Served]) -> None:
    served = server("--http-port", "0")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", served.http)) != 0


def test_a_port_that_is_taken_is_a_warning_unless_it_was_asked_for(
    server: Callable[..., Served], everwire: Callable[..., Any], ports: int, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", ports + 1)):
        served = server(key="")
        served.child.line(r"no HTTP port: .*--http-port 0", stream="err")
        served.child.signal()
        assert served.child.wait() == 0
        for asked in (["--http-port", str(ports + 1)], ["--api-key", KEY]):
            child = everwire(
                "serve", "chat:wire", "--allow-anonymous", "--port", str(ports), *asked,
                cwd=tmp_path,
            )  # fmt: skip
            assert child.wait() == 1
            assert f"cannot listen on 127.0.0.1:{ports + 1}" in child.err[-1]


def test_a_key_that_is_no_secret_is_refused(
    everwire: Callable[..., Any], ports: int, tmp_path: Path
) -> None:
    (tmp_path / "chat.py").write_text(CHAT)
    child = everwire(
        "serve", "chat:wire", "--allow-anonymous", "--port", str(ports), "--api-key", "secret",
        cwd=tmp_path,
    )  # fmt: skip
    assert child.wait() == 1
    assert "at least 16" in child.err[-1]


def test_while_it_drains_it_is_alive_and_not_ready(server: Callable[..., Served]) -> None:
    served = server()

    async def main() -> None:
        async with connect(served.url, name="stays", dialect="plain"):
            served.child.signal(signal.SIGTERM)
            await asyncio.to_thread(served.child.line, "draining", stream="err")
            assert (await asyncio.to_thread(served.ask, "/readyz"))[0] == 503
            assert (await asyncio.to_thread(served.ask, "/healthz"))[0] == 200

    asyncio.run(main())
    assert served.child.wait() == 0


HEAD = (
    "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    f"X-API-Key: {KEY}\r\n"
)


@pytest.fixture
def raw(server: Callable[..., Served]) -> Iterator[Callable[[], socket.socket]]:
    """Open connections to the HTTP port; ``raw.served`` is the server."""
    with ExitStack() as open_ones:
        served = server()

        def raw() -> socket.socket:
            address = ("127.0.0.1", served.http)
            return open_ones.enter_context(socket.create_connection(address, timeout=20))

        raw.served = served  # type: ignore[attr-defined]
        yield raw


def status_of(peer: socket.socket) -> int:
    return int(peer.recv(4096).split()[1])


def send(peer: socket.socket, data: bytes, times: int) -> None:
    """Send until the other side has enough."""
    try:
        for _ in range(times):
            peer.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def test_a_body_without_a_length_ends_at_the_limit(raw: Callable[[], socket.socket]) -> None:
    peer = raw()
    peer.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
    send(peer, b"2000\r\n" + b"x" * 0x2000 + b"\r\n", 20)
    assert status_of(peer) == 413


def test_a_body_in_chunks_of_a_byte_ends_at_the_limit(raw: Callable[[], socket.socket]) -> None:
    peer = raw()
    peer.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
    send(peer, b"1\r\nx\r\n" * 1_000, 200)
    assert status_of(peer) in (408, 413)  # or at the time that a body may take
    assert raw.served.ask("/healthz")[0] == 200  # type: ignore[attr-defined]


def test_a_body_that_does_not_come_is_given_up(raw: Callable[[], socket.socket]) -> None:
    peer = raw()
    peer.sendall(f"{HEAD}Content-Length: 100\r\n\r\n{{".encode())
    assert status_of(peer) == 408


def test_a_head_that_does_not_end_is_refused(raw: Callable[[], socket.socket]) -> None:
    peer = raw()
    send(peer, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000, 1)
    assert status_of(peer) in (400, 431)


def test_the_end_does_not_wait_for_those_who_say_nothing(raw: Callable[[], socket.socket]) -> None:
    raw().sendall(b"GET /heal")
    idle, slow = raw(), raw()
    idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status_of(idle) == 200
    slow.sendall(f"{HEAD}Content-Length: 100\r\n\r\n{{".encode())
    began = time.monotonic()
    child = raw.served.child  # type: ignore[attr-defined]
    child.signal(signal.SIGTERM)
    assert child.wait() == 0
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("module", ["prometheus_client", "starlette", "uvicorn"])
def test_a_missing_extra_is_named(start: Callable[..., Any], module: str) -> None:
    code = (
        f"import sys; sys.modules['{module}'] = None\n"
        "from everwire.cli.http_port import http_beside\n"
        "from everwire.cli.options import ServerOptions\n"
        "from everwire import Everwire\n"
        "import asyncio\n"
        "fields = dict.fromkeys(ServerOptions.__dataclass_fields__)\n"
        "options = ServerOptions(**(fields | dict(port=1, http_port=2, api_key=(), http_host='::1')))\n"
        "async def main():\n"
        "    async with http_beside(Everwire(), options, by_default=True):\n"
        "        pass\n"
        "asyncio.run(main())\n"
    )
    child = start([sys.executable, "-c", code])
    assert child.wait() == 1
    assert child.err[-1].endswith("is missing: pip install 'everwire[http]'"), child
    assert module in child.err[-1]
