"""Two nodes on one broker, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from everwire import (
    Client,
    ClientLimits,
    ClosedError,
    Connection,
    Everwire,
    Grant,
    Handlers,
    Identity,
    connect,
)
from everwire.brokers.memory import MemoryBroker

QUICK = ClientLimits(first_retry=0.1, backoff_base=0.1, backoff_cap=0.5)


def application(broker: MemoryBroker, runs: list[int]) -> Everwire:
    wire = Everwire(broker)

    @wire.authenticate
    async def who(token: str) -> Identity:
        return Identity(token)

    wire.channel("{room}", presence=True, grant=Grant(publish=True))

    @wire.command
    async def pay(conn: Connection, amount: int) -> int:
        runs.append(amount)
        await asyncio.sleep(0.3)
        return len(runs)

    return wire


@asynccontextmanager
async def two_nodes(runs: list[int]) -> AsyncIterator[list[tuple[Everwire, str]]]:
    """Applications, and where they listen."""
    first = MemoryBroker()
    async with AsyncExitStack() as stack:
        nodes = []
        for broker in (first, MemoryBroker(beside=first)):
            wire = application(broker, runs)
            server = await stack.enter_async_context(wire.listen(port=0))
            nodes.append((wire, f"ws://127.0.0.1:{server.port}/ws"))
        yield nodes


def greeting(name: str) -> Handlers:
    handlers = Handlers()

    @handlers.query
    async def greet(client: Client, to: str) -> str:
        return f"{name} greets {to}"

    return handlers


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


def test_two_nodes_are_one_to_applications_and_clients() -> None:
    async def main() -> None:
        runs: list[int] = []
        async with two_nodes(runs) as [(one, here), (two, there)]:
            options = {"limits": QUICK}
            ada = connect(there, token="ada", handlers=greeting("ada"), **options)  # type: ignore[arg-type]
            bob = connect(here, token="bob", **options)  # type: ignore[arg-type]
            async with ada, bob, bob.subscribe("c", presence=True) as room:
                async with ada.subscribe("c") as hers:
                    await until(lambda: room.member_count == 2)
                    assert await one.request("ada", "greet", {"to": "bob"}) == "ada greets bob"
                    assert await two.request("ada", "greet", {"to": "all"}) == "ada greets all"
                    await bob.publish("c", "over there")
                    assert (await anext(aiter(hers))).data == "over there"  # type: ignore[union-attr]
                    answers = [
                        ada.command("pay", {"amount": 5}, key="k"),
                        *(connect_and_pay(url) for url in (here, there) * 4),
                        ada.command("pay", {"amount": 5}, key="k"),
                    ]
                    assert await asyncio.gather(*answers) == [1] * 10
                    assert runs == [5]
                    assert [m.user for m in await two.presence("c")] == ["bob", "ada"]
                    assert await one.disconnect("ada", reason="out") == 1
                    with pytest.raises(ClosedError, match="4504"):
                        await anext(aiter(hers))
                await until(lambda: room.member_count == 1)

    asyncio.run(main())


async def connect_and_pay(url: str) -> int:
    async with connect(url, token="ada") as client:
        return int(await client.command("pay", {"amount": 5}, key="k"))
