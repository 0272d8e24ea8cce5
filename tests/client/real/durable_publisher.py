"""What the test of kills starts and kills: a process that publishes until it is killed."""

from __future__ import annotations

import asyncio
import os

from everwire import ClientLimits, connect

LIMITS = ClientLimits(first_retry=0.02, backoff_base=0.02, backoff_cap=0.1, outbox_messages=2_000)
WORKERS = 4
LEAVES = 3  # the worker that does not wait for the server


def publish(url: str, path: str, synchronous: str, number: int, log: str) -> None:
    """Publish ``[number, worker, n]`` in each worker's channel; log what was acknowledged."""
    asyncio.run(_publish(url, path, synchronous, number, log))


async def _publish(url: str, path: str, synchronous: str, number: int, log: str) -> None:
    from everwire import SqliteOutbox

    acknowledged = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    outbox = SqliteOutbox(path, synchronous="FULL" if synchronous == "FULL" else "NORMAL")

    async with connect(url, token="t", outbox=outbox, limits=LIMITS) as client:
        os.write(acknowledged, b"open\n")

        async def work(worker: int) -> None:
            n = 0
            while True:
                # Two at a time, so that there is an order to keep within a run as well.
                first = client.publish_nowait(f"c{worker}", [number, worker, n])
                await client.publish(f"c{worker}", [number, worker, n + 1])
                await first
                line = f"{number} {worker} {n}\n{number} {worker} {n + 1}\n"
                os.write(acknowledged, line.encode())
                n += 2

        async def leave() -> None:
            n = 0
            while True:  # what is in the file is as good as acknowledged
                await client.publish(f"c{LEAVES}", [number, LEAVES, n], wait="stored")
                os.write(acknowledged, f"{number} {LEAVES} {n}\n".encode())
                n += 1
                await asyncio.sleep(0.001)

        async def drop() -> None:
            while True:  # so that there is always something that only the file has
                await asyncio.sleep(0.03)
                client.drop()

        async with asyncio.TaskGroup() as group:
            group.create_task(drop())
            group.create_task(leave())
            for worker in range(LEAVES):
                group.create_task(work(worker))
