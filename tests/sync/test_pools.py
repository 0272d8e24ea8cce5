"""Pools for code that blocks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from everwire import ClosedOK, Message, PoolTimeout
from everwire.sync import Client, Pool, SocketPool

from .conftest import Server


def test_a_pool_from_many_threads(server: Server) -> None:
    with Pool(server.url, 3, min_ready=3, token="ada") as pool:
        with pool.subscribe("c") as room, ThreadPoolExecutor(8) as threads:
            acks = list(threads.map(lambda n: pool.publish("c", n), range(40)))
            items = [next(room) for _ in range(40)]
        positions = sorted(ack.position.offset for ack in acks if ack.position is not None)
        assert positions == list(range(1, 41))
        assert sorted(item.data for item in items if isinstance(item, Message)) == list(range(40))
        assert pool.query("double", {"n": 2}, type=int) == 4
        assert list(pool.stream("count", {"n": 3}, type=int)) == [0, 1, 2]
        keyed = pool.keyed("order 7")
        assert isinstance(keyed, Client)
        assert keyed.publish("d", 1).position is not None
        assert [member.state for member in pool.members] == ["ready"] * 3
    with pytest.raises(ClosedOK):
        pool.publish("c", 1)


def test_a_pool_that_cannot_connect_says_so(deaf_port: int) -> None:
    with Pool(f"ws://127.0.0.1:{deaf_port}/ws", min_ready=0, acquire_timeout=0.1) as pool:
        with pytest.raises(PoolTimeout):
            pool.query("double")


def test_a_pool_of_sockets(server: Server) -> None:
    with SocketPool(server.url, 2, min_ready=2) as pool:
        for _ in range(4):
            pool.send_json({"type": "ping"})
        got = [pool.recv_from() for _ in range(4)]
        assert sorted(number for number, _ in got) == [0, 0, 1, 1]
        assert {text for _, text in got} == {'{"type":"pong"}'}
        assert pool.stats.sent == 4
