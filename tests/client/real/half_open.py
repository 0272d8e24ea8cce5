"""A publisher and a subscriber whose server falls silent, without anybody saying so.

Run as a program, in a network namespace of its own (``unshare --net python half_open.py``),
the machine's loopback interface goes down there under connections that stay: each packet is
lost, in both directions, as with a cable that was pulled behind a router. A line of JSON tells
what happened.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from everwire import ClientLimits, connect
from everwire.client import Client, Gap, Subscription
from everwire.client.connect import connect_network
from everwire.net.attempts import Attempts

INTERVAL, GRACE = 1.0, 2.0  # seconds, of the heartbeat
GRAIN = 1.0  # of the server's timer
SERVER = f"""
from everwire import Everwire, Grant
from everwire.limits import Limits

wire = Everwire(limits=Limits(ping_interval={INTERVAL}, ping_grace={GRACE}))
wire.channel("c", history=10_000, grant=Grant(publish=True))
"""
LIMITS = ClientLimits(
    ping_grace=GRACE,
    connect_timeout=1.0,
    first_retry=0.2,
    backoff_base=0.2,
    backoff_cap=0.5,
)


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        found: seconds after which each of the two had given its link up.
        published: messages, all of them acknowledged.
        read: how many of them the subscriber was handed, all in order.
        gaps: that it was told of.
        resent: publishes beyond one for each message.
        naive: what a connection without a heartbeat takes its state for at the end.
    """

    found: dict[str, float] = field(default_factory=dict)
    published: int = 0
    read: int = 0
    gaps: int = 0
    resent: int = 0
    naive: str = ""


Act = Callable[[], Awaitable[None]]


async def trial(make: Callable[[], Client], strike: Act, heal: Act, every: float = 0.05) -> Outcome:
    """Publish all the time; strike, wait until both have noticed, heal.

    Raises:
        AssertionError: something is lost, doubled or out of order.
    """
    now = asyncio.get_running_loop().time
    outcome = Outcome()
    clients = {"publisher": make(), "subscriber": make()}
    acks: list[asyncio.Future[Any]] = []
    data: list[Any] = []
    struck = float("inf")
    over = asyncio.Event()

    def watch(name: str, state: str) -> None:
        if state == "connecting" and now() > struck:
            outcome.found.setdefault(name, now() - struck)

    async def publish(client: Client) -> None:
        while not over.is_set():
            acks.append(client.publish_nowait("c", len(acks), ttl=120))
            await asyncio.sleep(every)

    async def read(room: Subscription) -> None:
        async for item in room:
            if isinstance(item, Gap):
                outcome.gaps += 1
            else:
                data.append(item.data)

    for name, client in clients.items():
        await client
        client.on_state = lambda state, name=name: watch(name, state)
    async with clients["subscriber"].subscribe("c") as room, asyncio.TaskGroup() as group:
        reading = group.create_task(read(room))
        publishing = group.create_task(publish(clients["publisher"]))
        await asyncio.sleep(1)
        await strike()
        struck = now()
        while len(outcome.found) < 2:
            assert now() - struck < 60, f"not found within a minute: {outcome}"
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)  # an attempt to connect fails meanwhile
        await heal()
        while not all(client.state == "ready" for client in clients.values()):
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        over.set()
        await publishing
        offsets = [(await ack).position.offset for ack in acks]
        while len(data) < len(acks):
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)  # for what comes twice
        reading.cancel()
    outcome.resent = clients["publisher"].stats.sent - len(acks)
    for client in clients.values():
        await client.close()
    assert data == list(range(len(acks))), f"lost, doubled or out of order: {data}"
    assert offsets == list(range(1, len(acks) + 1)), offsets
    outcome.published, outcome.read = len(acks), len(data)
    return outcome


def real_client(url: str) -> Client:
    """Over the real network, with a budget of attempts without a bound."""
    return connect(url, limits=LIMITS, network=connect_network(Attempts(None)), timeout=20)


# ---- as a program --------------------------------------------------------------------


async def link(state: str) -> None:
    """Set the namespace's loopback interface ``up`` or ``down``."""
    await asyncio.to_thread(subprocess.run, ["ip", "link", "set", "lo", state], check=True)


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    """The server, as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "everwire", "serve", "app:wire", "--port", "0", "--allow-anonymous",
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode()
        yield line.removeprefix("everwire: ").split()[0]
    finally:
        process.terminate()
        await process.wait()


async def main() -> None:
    from websockets.asyncio.client import connect as naive_connect

    await link("up")
    async with served() as url:
        naive = await naive_connect(url, ping_interval=None, close_timeout=0.1)
        down = asyncio.Event()

        async def strike() -> None:
            await link("down")
            down.set()

        async def heal() -> None:
            await naive.send('{"action":"publish","channel":"n","data":"lost"}')
            outcome_naive.append(naive.state.name)
            await link("up")

        outcome_naive: list[str] = []
        outcome = await trial(lambda: real_client(url), strike, heal)
        outcome.naive = outcome_naive[0]
        naive.transport.abort()
    print("outcome", json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    Path("app.py").write_text(SERVER)
    asyncio.run(main())
