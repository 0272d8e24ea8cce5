"""An application that refuses in each of its ways: ``everwire serve shop:wire``."""

from __future__ import annotations

import asyncio

import msgspec

from everwire import Connection, Everwire, Forbidden, Limits

wire = Everwire(limits=Limits(message=100_000))


class Item(msgspec.Struct):
    name: str
    price: float


@wire.query
async def total(conn: Connection, items: list[Item]) -> float:
    return sum(item.price for item in items)


@wire.query
async def secrets(conn: Connection) -> str:
    raise Forbidden("staff only")


@wire.query(timeout=0.3)
async def slow(conn: Connection) -> None:
    await asyncio.sleep(60)


@wire.query
async def broken(conn: Connection) -> None:
    raise RuntimeError("the password is s3cret")


@wire.query
async def large(conn: Connection) -> str:
    return "x" * 200_000
