"""The applications that are attacked; ``everwire serve app:wire``."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from everwire import Connection, Everwire, Grant, Identity, Unauthorized
from everwire.limits import Limits
from everwire.server import contents


def make(**options: Any) -> Everwire:
    made = Everwire(allow_anonymous=True, **options)
    made.channel("{name:path}", presence=True, grant=Grant(publish=True))

    @made.authenticate
    async def who(token: str | None = None) -> Identity:
        if token == "slow":
            await asyncio.sleep(1)
        if token == "no":
            raise Unauthorized("no")
        return Identity(token or "")

    @made.query
    async def echo(conn: Connection, payload: Any) -> Any:
        return payload

    @made.query
    async def length(conn: Connection, payload: str) -> int:
        return len(payload)

    @made.query
    async def slow(conn: Connection) -> None:
        await asyncio.sleep(1)

    @made.query
    async def broken(conn: Connection, text: str = "") -> None:
        raise RuntimeError(f"broken by {text}")

    @made.query
    async def log(conn: Connection, text: str) -> None:
        logging.getLogger("app").warning("%s said %s", conn.user, text)

    @made.query
    async def holds(conn: Connection) -> dict[str, int]:
        """What a node holds for those who are connected."""
        node = made.node
        return {
            "connections": len(node.connections),
            "tasks": len(node.tasks) + len(node.working),
            "channels": len([name for name in node.hub.channels if "churn" in name]),
            "present": len((await contents.presence(node, "churn")).members),
        }

    return made


wire = make()
brief = make(
    limits=Limits(
        auth_timeout=1.0,
        handshake_timeout=1.0,
        message_timeout=2.0,
        ping_interval=2.0,
        ping_grace=1.0,
        stall=2.0,
        close_timeout=0.5,
    )
)
