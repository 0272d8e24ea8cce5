"""One channel whose history holds 64 MiB: ``everwire serve app:wire``."""

from __future__ import annotations

from everwire import Connection, Everwire, Grant
from everwire.limits import Limits, MiB

HELD = 64 * MiB

wire = Everwire(limits=Limits(history_total=2 * HELD))
wire.channel(
    "stream", history=1_000_000, history_bytes=HELD, history_ttl=3600.0, grant=Grant(publish=True)
)


@wire.command
async def fill(conn: Connection, size: int) -> int:
    """Publish until history holds what it may, and has turned over once."""
    count = 2 * HELD // size
    for n in range(count):
        await wire.publish("stream", f"{-n} {'x' * size}")
    return count
