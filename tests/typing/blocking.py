"""everwire.sync as users write it: checked by mypy and pyright, never run."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, assert_type

from everwire import (
    ClientLimits,
    ConnectionClosed,
    Gap,
    Message,
    PoolMember,
    Position,
    Snapshot,
    SocketStats,
)
from everwire.client import Ack, ChannelPresence, ConnectionState, Member, Stats, SubscriptionState
from everwire.client.observations import Record
from everwire.sync import (
    Client,
    Pool,
    Socket,
    StatefulSubscription,
    Stream,
    Subscription,
    connect,
)


def token() -> str:
    return "fresh"


async def later() -> str:
    return "fresh"


def watch(record: Record) -> None:
    print(record)


def use() -> None:
    with connect(
        "ws://127.0.0.1:8000/ws", token=token, limits=ClientLimits(), on_record=watch
    ) as client:
        assert_type(client, Client)
        ack = client.publish("chat:lobby", {"text": "hello"}, ttl=5)
        assert_type(ack, Ack)
        future = client.publish_nowait("chat:lobby", 1)
        assert_type(future, Future[Ack])
        assert_type(future.result(timeout=1).position, Position | None)
        assert_type(client.query("members", {"room": "lobby"}, type=list[str]), list[str])
        assert_type(client.query("members"), Any)
        assert_type(client.command("say", {}, timeout=2, key=False, type=int), int)
        client.event("typing", {"room": "lobby"})
        assert_type(client.history("c", limit=10), list[Message])
        assert_type(client.presence("c"), ChannelPresence)
        assert_type(client.state, ConnectionState)
        assert_type(client.stats, Stats)
        client.on_state = lambda state: print(assert_type(state, ConnectionState))
        client.on_event = print
        client.on_subscribed = None
        client.on_record = watch
        client.drop()
        client.publish()  # type: ignore[call-arg]
        with client.subscribe("chat:lobby", since=ack.position, presence=True) as room:
            assert_type(room, Subscription)
            for item in room:
                match item:
                    case Message(data=data):
                        assert_type(data, Any)
                    case Gap(reason=why):
                        assert_type(why, str)
            assert_type(next(room), Message | Gap)
            assert_type(room.get(timeout=1.0), Message | Gap)
            for item in room.iterate(timeout=1.0):
                assert_type(item, Message | Gap)
            assert_type(room.members, dict[str, Member])
            assert_type(room.member_count, int)
            assert_type(room.position, Position | None)
            assert_type(room.state, SubscriptionState)
            assert_type(room.channel, str)
            assert_type(room.queued, int)
            room.unsubscribe()
        for item in client.subscribe("chat:lobby"):
            assert_type(item, Message | Gap)


def state() -> list[int]:
    return [1]


def states_and_streams(client: Client) -> None:
    with client.subscribe("c", get_state=state, state_first=True) as room:
        assert_type(room, StatefulSubscription)
        for item in room:
            match item:
                case Snapshot(data=data):
                    assert_type(data, Any)
                case Message() | Gap():
                    pass
    with client.subscribe("c", get_state=True) as served:
        assert_type(served, StatefulSubscription)
    assert_type(client.snapshot("c"), Snapshot)
    watched = client.subscribe("c", on_message=print).open()
    assert_type(watched, Subscription)
    watched.wait_ended()
    stream = client.stream("ticks", type=int)
    assert_type(stream, Stream[int])
    for part in stream:
        assert_type(part, int)
    assert_type(stream.received, int)
    stream.close()


def by_hand() -> None:
    client = connect("ws://127.0.0.1:8000/ws", token=later).open()
    assert_type(client, Client)
    client.close()


def pools() -> None:
    with Pool("ws://127.0.0.1:8000/ws", 3, token=token) as pool:
        assert_type(pool, Pool)
        either: Client = pool
        assert_type(either.publish("c", 1), Ack)
        assert_type(pool.query("members", type=list[str]), list[str])
        assert_type(pool.subscribe("c"), Subscription)
        assert_type(pool.keyed("order").publish_nowait("c", 1), Future[Ack])
        assert_type(pool.members, list[PoolMember])


def sockets() -> None:
    with Socket("ws://127.0.0.1:8000/", headers={"a": "b"}, on_state=print) as socket:
        assert_type(socket, Socket)
        socket.send("text", ttl=1.0, key="k")
        socket.send(b"bytes")
        socket.send(5)  # type: ignore[arg-type]
        socket.send_json({"n": 1})
        assert_type(socket.send_nowait("text"), Future[None])
        assert_type(socket.recv(), str | bytes)
        assert_type(socket.get(timeout=1), str | bytes)
        for message in socket:
            assert_type(message, str | bytes)
        assert_type(socket.state, ConnectionState)
        assert_type(socket.stats, SocketStats)
        assert_type(socket.error, Exception | None)
        assert_type(socket.subprotocol, str | None)
        assert_type(socket.waiting, int)
        assert_type(socket.unread, int)
        socket.on_open = None
        socket.on_message = print
        socket.on_error = print
        socket.on_drop = print
        socket.on_state = None
        socket.on_close = lambda closed: print(assert_type(closed, ConnectionClosed))
        socket.drop()
        socket.hurry()
        socket.close(1001, "going")
