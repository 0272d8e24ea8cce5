"""The programs of docs/fastapi.md start with the commands on their first lines, and do what it says."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from everwire import Message, Unauthorized, connect

PAGE = (Path(__file__).parent.parent.parent / "docs" / "fastapi.md").read_text(encoding="utf-8")
BLOCKS = {
    name: code
    for code, name in re.findall(r"^```python\n(# (\w+)\.py .*?)^```$", PAGE, re.DOTALL | re.M)
}


@pytest.fixture
def hosted(start: Callable[..., Any], tmp_path: Path) -> Callable[[str], str]:
    def hosted(name: str) -> str:
        code = BLOCKS[name]
        (tmp_path / f"{name}.py").write_text(code)
        command = re.findall(r"uvicorn \S+", code.splitlines()[0])[0].split()
        child = start([sys.executable, "-m", *command, "--port", "0"], cwd=tmp_path)
        up = child.line(r"running on (http://127\.0\.0\.1:\d+)", stream="err")
        return str(up[1])

    return hosted


def test_a_route_publishes_to_subscribers(hosted: Callable[[str], str]) -> None:
    page = hosted("app")

    def post() -> bytes:
        with urlopen(Request(f"{page}/news/x?text=hello", method="POST"), timeout=10) as answer:
            return bytes(answer.read())

    async def main() -> None:
        url = page.replace("http:", "ws:") + "/ws"
        async with connect(url) as client, client.subscribe("news:x") as news:
            assert await asyncio.to_thread(post) == b"1"
            item = await anext(aiter(news))
            assert isinstance(item, Message)
            assert item.data == "hello"

    asyncio.run(main())


def test_the_session_of_the_application_is_the_user(hosted: Callable[[str], str]) -> None:
    page = hosted("users")

    async def main() -> None:
        url = page.replace("http:", "ws:") + "/ws"
        async with connect(url, headers={"Cookie": "session=s-1", "Origin": page}) as client:
            await client.publish("chat:x", 1)
        with pytest.raises(Unauthorized, match="sign in first"):
            await connect(url)

    asyncio.run(main())


def test_every_program_is_tried() -> None:
    assert set(BLOCKS) == {"app", "users"}
