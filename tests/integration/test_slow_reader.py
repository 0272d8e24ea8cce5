"""A reader that stands still in the middle of much, on real sockets, each side its own process.

It gets everything from history; the server does not grow by what it is behind, and others
notice nothing.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from everwire import Message, connect
from everwire.limits import KiB, MiB

HERE = Path(__file__).parent / "slow_reader"
SIZE = 8 * KiB
COUNT = 50_000_000 // SIZE
SECONDS = 18.0  # that the stream takes
STOPPED = 10.0
OTHERS = 4
MORE = 8 * MiB


def waited(process: int | str) -> float:
    """Seconds for which a process' main thread was ready and had no processor."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9


def resident(process: int) -> int:
    """Bytes of resident memory."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * KiB
    raise AssertionError


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def test_a_reader_stopped_for_ten_seconds_gets_all_of_50_mb_and_nobody_pays_for_it(
    serve: Callable[..., Any], start: Callable[..., Any]
) -> None:
    served = serve("serve", "app:wire", "--allow-anonymous", cwd=HERE)
    server = served.child.pid

    def now() -> float:
        # What the machine does beside is not the server's: this test has it not to itself.
        return time.perf_counter() - waited(server) - waited("self")

    sent: list[float] = [0.0]
    took: list[float] = []  # of each message, to each of the others
    grown = 0

    async def other(ready: asyncio.Event) -> None:
        async with connect(served.url) as client, client.subscribe("stream") as room:
            ready.set()
            expected = 0
            async for item in room:
                expected += 1
                assert isinstance(item, Message), item
                assert int(item.data.partition(" ")[0]) == expected
                took.append(now() - sent[expected])
                if expected == COUNT:
                    return

    async def main() -> tuple[int, int]:
        nonlocal grown
        async with connect(served.url) as client, asyncio.TaskGroup() as group:
            await client.command("fill", {"size": SIZE}, timeout=60)
            reader = start([sys.executable, HERE / "reader.py", served.url, str(COUNT)])
            await asyncio.to_thread(reader.line, "^subscribed")
            for _ in range(OTHERS):
                ready = asyncio.Event()
                group.create_task(other(ready))
                await ready.wait()
            stopped = continued = 0
            before, began = resident(server), time.monotonic()
            for n in range(1, COUNT + 1):
                sent.append(now())
                client.publish_nowait("stream", f"{n} {'x' * SIZE}")
                if n % 20 == 0:
                    grown = max(grown, resident(server) - before)
                    passed = time.monotonic() - began
                    if not stopped and n > COUNT // 4:
                        reader.signal(signal.SIGSTOP)
                        stopped, stopped_at = n, time.monotonic()
                    elif stopped and not continued and time.monotonic() - stopped_at >= STOPPED:
                        reader.signal(signal.SIGCONT)
                        continued = n
                    await asyncio.sleep(max(0, n / COUNT * SECONDS - passed))
            assert continued
            await asyncio.to_thread(reader.line, "^all")
            grown = max(grown, resident(server) - before)
            return stopped, continued

    stopped, continued = asyncio.run(main())
    assert continued - stopped > COUNT // 3
    usual, meanwhile = p99(took[: stopped * OTHERS]), p99(took[stopped * OTHERS :])
    assert grown < MORE, f"the server grew by {grown / MiB:.1f} MiB"
    # As the sample's noise has it: six runs gave 0.96 to 1.18 times.
    assert meanwhile < 1.5 * usual + 0.001, f"p99: {usual:.6f} s before, then {meanwhile:.6f} s"
