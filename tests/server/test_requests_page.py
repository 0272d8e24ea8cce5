"""docs/requests.md: its handlers and its client run, and ask each other as the page says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from everwire import Everwire, Grant, Identity

PAGE = (Path(__file__).parents[2] / "docs" / "requests.md").read_text(encoding="utf-8")


async def make_report(user: str, month: str) -> str:
    return f"{month} of {user}"


@asynccontextmanager
async def prices(symbol: str) -> AsyncIterator[AsyncIterator[float]]:
    async def all_of_them() -> AsyncIterator[float]:
        yield 1.5
        yield 2.5

    yield all_of_them()


def test_what_the_page_declares_can_be_asked_as_it_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {"make_report": make_report, "prices": prices, "token": "ada"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(block, "docs/requests.md", "exec", dont_inherit=True), names)
    wire: Everwire = names["wire"]
    wire.channel("chat:{room}", presence=True, grant=Grant())
    monkeypatch.setattr("builtins.input", lambda text: "n")
    answers: list[bool] = []

    @wire.authenticate
    async def who(token: str) -> Identity:
        return Identity(token)

    async def main() -> None:
        async with wire.listen(port=0) as server:
            names["url"] = f"ws://127.0.0.1:{server.port}/ws"
            await names["ask"]()
            async with names["connect"](names["url"], token="bob", handlers=names["handlers"]):
                answers.append(await wire.request("bob", "confirm", {"text": "?"}, type=bool))

    asyncio.run(main())
    assert capsys.readouterr().out.split() == ["1.5", "2.5"]
    assert answers == [False]
