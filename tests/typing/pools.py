"""Pools as users write them: checked by mypy, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

from everwire import Client, ClientLimits, Pool, PoolMember, PoolTimeout, Socket, SocketPool
from everwire.client import Ack, ConnectionState, Gap, Message, Stats


async def takes_either(client: Client) -> None:
    assert_type(await client.publish("c", {"n": 1}), Ack)
    assert_type(await client.query("members", type=list[str]), list[str])
    async with client.subscribe("c") as room:
        async for item in room:
            assert_type(item, Message | Gap)


def least_failures(members: Sequence[PoolMember], key: str | None) -> PoolMember:
    return min(members, key=lambda member: (member.failures, member.requests))


async def pool() -> None:
    async with Pool(
        ["ws://a/ws", "ws://b/ws"],
        4,
        min_ready=2,
        strategy=least_failures,
        acquire_timeout=1.0,
        max_inflight=64,
        token=lambda: "token",
        limits=ClientLimits(outbox_messages=10),
        dialect="json",
        name="worker",
    ) as many:
        await takes_either(many)
        await takes_either(many.keyed("order 7"))
        assert_type(many.state, ConnectionState)
        assert_type(many.stats, Stats)
        assert_type(many.members, list[PoolMember])
        try:
            await many.command("say", {"text": "hi"})
        except PoolTimeout:
            pass
    again = await Pool("ws://a/ws", strategy="failover")
    assert_type(again, Pool)
    await again.close()


async def sockets() -> None:
    def hello(socket: Socket) -> None:
        socket.send_nowait("hello")

    async with SocketPool("ws://a/", strategy="least_inflight", on_open=hello, ttl=1.0) as many:
        await many.send("text", key="k", ttl=2.0)
        await many.send_json({"n": 1})
        assert_type(await many.recv_from(), tuple[int, str | bytes])
        async for message in many:
            assert_type(message, str | bytes)
        assert_type(many.sockets, tuple[Socket, ...])
