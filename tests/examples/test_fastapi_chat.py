"""The example as its first lines tell to run it, under a real uvicorn."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
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

from everwire import Client, Forbidden, Gap, Message, Unauthorized, connect

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
BIN = Path(sys.executable).parent
COMMAND = "uvicorn examples.fastapi_chat:app"


class Chat:
    """The example, running."""

    def __init__(self, child: Any, port: int) -> None:
        self.child = child
        self.port = port
        self.page = f"http://127.0.0.1:{port}"
        self.url = f"ws://127.0.0.1:{port}/ws"

    def ask(self, path: str, body: Any = None, cookie: str = "") -> Any:
        headers = {"Content-Type": "application/json", "Cookie": cookie}
        data = None if body is None else json.dumps(body).encode()
        return urlopen(Request(self.page + path, data, headers), timeout=10)

    def sign_in(self, name: str) -> str:
        with self.ask("/sign-in", {"name": name}) as response:
            return str(response.headers["set-cookie"]).partition(";")[0]

    def connect(self, name: str) -> Client:
        """As the page does: with its cookie, and from its origin."""
        return connect(self.url, headers={"Cookie": self.sign_in(name), "Origin": self.page})

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def chat(start: Callable[..., Any], tmp_path: Path, free_port: int) -> Callable[..., Chat]:
    def chat(*options: str) -> Chat:
        if not (tmp_path / "examples").exists():
            shutil.copytree(EXAMPLES, tmp_path / "examples")
        command = [BIN / "uvicorn", *COMMAND.split()[1:], *options, "--port", str(free_port)]
        child = start(command, cwd=tmp_path)
        child.line("Uvicorn running on", stream="err")
        child.line("Application startup complete", stream="err")
        chat = Chat(child, free_port)
        child.until(chat.listens, "an open port")  # a reloading one says that it runs before
        return chat

    return chat


def test_the_command_is_the_one_that_is_documented() -> None:
    assert COMMAND in (EXAMPLES / "fastapi_chat.py").read_text(encoding="utf-8")
    assert COMMAND in (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")


def test_two_who_signed_in_chat_and_a_route_publishes(chat: Callable[..., Chat]) -> None:
    one = chat()

    async def main() -> None:
        async with one.connect("ada") as ada, one.connect("Zoë") as zoe:
            assert await zoe.query("members", {"room": "lobby"}) == []
            async with zoe.subscribe("chat:lobby") as room:
                assert await ada.query("members", {"room": "lobby"}) == ["Zoë"]
                await ada.command("say", {"room": "lobby", "text": "hello"})
                items = aiter(room)
                item = await anext(items)
                assert isinstance(item, Message)
                assert item.data == {"by": "ada", "text": "hello"}
                cookie = await asyncio.to_thread(one.sign_in, "bob")
                path = "/rooms/lobby/announcements"
                with await asyncio.to_thread(one.ask, path, {"text": "lunch"}, cookie) as answer:
                    assert json.load(answer) == {"offset": 2}
                item = await anext(items)
                assert isinstance(item, Message)
                assert item.data == {"by": "bob (HTTP)", "text": "lunch"}
                with pytest.raises(Forbidden):
                    await ada.publish("chat:lobby", {"by": "zoe", "text": "not from her"})
            with pytest.raises(Forbidden, match="staff only"):
                async with zoe.subscribe("chat:staff"):
                    pass

    asyncio.run(main())


def test_who_did_not_sign_in_is_told_so_after_the_upgrade(chat: Callable[..., Chat]) -> None:
    one = chat()

    async def main() -> None:
        with pytest.raises(Unauthorized, match="sign in first"):
            await connect(one.url)
        with pytest.raises(Unauthorized, match="sign in first"):
            headers = {"Cookie": "session=ada", "Origin": one.page}
            await connect(one.url, headers=headers)

    asyncio.run(main())
    with pytest.raises(HTTPError) as refused:
        one.ask("/rooms/lobby/announcements", {"text": "x"})
    with refused.value as answer:
        assert answer.code == 401


def test_the_page_and_the_browsers_client_are_served(chat: Callable[..., Chat]) -> None:
    one = chat()
    with one.ask("/") as page:
        assert b'from "/everwire.js"' in page.read()
    with one.ask("/everwire.js") as module:
        assert "javascript" in module.headers["content-type"]
        assert b"export const connect" in module.read()


@pytest.fixture
def stand_still() -> Iterator[Callable[[Chat], None]]:
    """Open a WebSocket of a machine that falls asleep: it takes nothing, and says nothing."""
    with ExitStack() as open_ones:
        yield lambda chat: fall_asleep(
            chat, open_ones.enter_context(socket.create_connection(("127.0.0.1", chat.port)))
        )


def fall_asleep(chat: Chat, peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lines = [
        "GET /ws HTTP/1.1", f"Host: 127.0.0.1:{chat.port}", "Upgrade: websocket",
        "Connection: Upgrade", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13", f"Origin: {chat.page}", f"Cookie: {chat.sign_in('sleeper')}",
    ]  # fmt: skip
    peer.sendall("\r\n".join([*lines, "", ""]).encode())
    text = b'{"action":"subscribe","channel":"chat:lobby"}'
    peer.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)


async def fill(client: Client, messages: int) -> None:
    for _ in range(messages):
        await client.command("say", {"room": "lobby", "text": "x" * 60_000})


def test_ctrl_c_ends_it_within_two_seconds_with_sockets_open(
    chat: Callable[..., Chat], stand_still: Callable[[Chat], None]
) -> None:
    """Those of clients that answer, and those of peers that take nothing any more."""
    one = chat()
    for _ in range(3):
        stand_still(one)

    async def main() -> None:
        async with one.connect("ada") as ada, one.connect("bob") as bob:
            async with bob.subscribe("chat:lobby"):
                await fill(ada, 150)
                began = time.monotonic()
                one.child.signal(signal.SIGINT)
                await asyncio.to_thread(one.child.wait)
                assert time.monotonic() - began < 2
                assert ada.state == "connecting"

    asyncio.run(main())
    assert not [line for line in one.child.err if "Traceback" in line], one.child


def test_ctrl_c_ends_a_reloading_one_within_two_seconds(
    chat: Callable[..., Chat], stand_still: Callable[[Chat], None]
) -> None:
    """A terminal signals both processes, and then the parent signals the child once more."""
    one = chat("--reload")
    served = one.child.line(r"Started server process \[(\d+)\]", stream="err")
    stand_still(one)

    async def main() -> None:
        async with one.connect("ada") as ada:
            await fill(ada, 150)
            began = time.monotonic()
            one.child.signal(signal.SIGINT)
            os.kill(int(served[1]), signal.SIGINT)
            await asyncio.to_thread(one.child.wait)
            assert time.monotonic() - began < 2

    asyncio.run(main())
    assert not [line for line in one.child.err if "Traceback" in line], one.child


def test_clients_come_back_after_a_reload_and_are_told_of_it(
    chat: Callable[..., Chat], tmp_path: Path
) -> None:
    """What was acknowledged reaches those who are subscribed, once and in order.

    What the old process acknowledged comes before it ends; then a gap says that its memory
    went with it; then comes what the new one acknowledged, from its first message on.
    """
    one = chat("--reload")
    file = tmp_path / "examples" / "fastapi_chat.py"
    got: list[str] = []
    gaps: list[tuple[str, int]] = []

    async def listen(client: Client, subscribed: asyncio.Event) -> None:
        async with client.subscribe("chat:lobby") as room:
            subscribed.set()
            async for item in room:
                match item:
                    case Gap(reason=reason):
                        gaps.append((reason, len(got)))
                    case Message(data={"text": "end"}):
                        return
                    case Message(data={"text": text}):
                        got.append(text)

    async def main() -> None:
        async with (
            one.connect("ada") as ada,
            one.connect("bob") as bob,
            asyncio.TaskGroup() as tasks,
        ):
            subscribed = asyncio.Event()
            tasks.create_task(listen(bob, subscribed))
            await subscribed.wait()

            async def say(text: str) -> None:
                await ada.command("say", {"room": "lobby", "text": text}, timeout=30)

            number = 0
            for reload in range(2):
                for _ in range(50):
                    await say(str(number))
                    number += 1
                file.write_text(f"{file.read_text()}\n# changed {reload}\n")
                while len(gaps) == reload:  # all through the reload, within what history holds
                    await say(str(number))
                    number += 1
                    await asyncio.sleep(0.01)
            await say("end")
        assert got == list(map(str, range(number)))
        assert [reason for reason, _ in gaps] == ["epoch", "epoch"]

    asyncio.run(main())
    assert len([line for line in one.child.err if "Reloading" in line]) == 2
    assert not [line for line in one.child.err if "Traceback" in line], one.child
