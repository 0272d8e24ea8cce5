"""The public API as users write it: checked by mypy, never run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, assert_type

from fastapi import FastAPI

from everwire import (
    JWT,
    BrokerUnavailable,
    Client,
    ClientLimits,
    ConfigError,
    Connection,
    ConnectionClosed,
    DeliveryUnknown,
    Everwire,
    EverwireError,
    Forbidden,
    Gap,
    Grant,
    Handlers,
    Identity,
    Limits,
    Message,
    NodeStats,
    NotSent,
    OutboxFull,
    Position,
    RequestError,
    RequestTimeout,
    Snapshot,
    SqliteOutbox,
    Stream,
    StreamInterrupted,
    Tls,
    Token,
    Tokens,
    Unauthorized,
    Undelivered,
    connect,
    from_thread,
)
from everwire.brokers.base import Page
from everwire.client import (
    Ack,
    ChannelPresence,
    ConnectionState,
    GapFound,
    HeartbeatSuspect,
    LinkLost,
    LinkOpened,
    Member,
    Overflow,
    PublishDropped,
    Record,
    RetryScheduled,
    StateChanged,
    StatefulSubscription,
    Stats,
    Subscription,
    TokenRefreshed,
)
from everwire.server.node import Node

wire = Everwire("memory://", limits=Limits(message=64 * 1024), allow_anonymous=False)


@wire.authenticate
async def who(token: str) -> Identity:
    if not token:
        raise Unauthorized("no token", temporary=True)
    return Identity(user=token, tenant="t", info={"a": 1}, expires=1e12)


jwt = JWT(
    keys={"2024": "s" * 64}, algorithms=["HS256"], issuer="https://id.example", audience=["chat"],
    leeway=5.0, tenant="org", info="profile",
)  # fmt: skip
published = JWT(
    jwks={"https://id.example": "https://id.example/jwks"},
    algorithms=["ES256", "EdDSA"],
    identity=lambda claims: Identity(str(claims["name"]), issued=1.0, token_id="t"),
)
guarded = Everwire(channel_tokens=jwt)
guarded.authenticate(published)
guarded.channel("private:{id}", token=True)
Everwire().authenticate("secret")  # type: ignore[type-var]


async def tokens() -> None:
    assert_type(jwt.issue("ada", expires_in=None, channel="private:1", publish=True), str)
    assert_type(await jwt(jwt.issue("ada")), Identity)
    assert_type((await jwt.channel("t")).grant, Grant)
    await guarded.revoke(user="ada", tenant="acme", before=1.0, until=2.0)
    await guarded.revoke(token_id="t")


async def by_cookie(cookies: dict[str, str], headers: dict[str, str]) -> Identity:
    return Identity(cookies["sid"], token_id=headers["x"])


Everwire().authenticate(by_cookie)


async def price(conn: Connection, symbol: str) -> int:
    return len(symbol)


@wire.channel("chat:{room}", history=500, history_ttl=60.0, presence=True)
async def chat(conn: Connection, room: str) -> Grant:
    if room == "staff":
        raise Forbidden("staff only")
    return Grant(publish=True, subscribe=True)


@wire.on_publish("chat:{room}")
async def clean(conn: Connection, room: str, data: dict[str, str]) -> dict[str, str] | None:
    return None


@wire.on_connect
async def came(conn: Connection) -> list[str]:
    await conn.subscribe("news", since=Position("e", 1))
    return ["chat:lobby"]


@wire.on_connect
def came_too(conn: Connection) -> None: ...


@wire.on_disconnect
async def left(conn: Connection, code: int, reason: str) -> None:
    assert_type(code, int)


assert_type(Everwire(user_channel="user:{user}").user_channel("ada"), str)
wire.channel("price:{symbol}", latest=True, grant=Grant(history=False, presence=False))
wire.channel("own:{user}", own=True, history=10, grant=Grant(publish=True))


@wire.channel("ticker:{symbol}", history=0, on_overflow="conflate", state=price)
async def ticker(conn: Connection, symbol: str) -> None: ...


wire.channel("c", on_overflow="never", grant=Grant())  # type: ignore[arg-type]


@wire.wildcard("chat:*", on_overflow="conflate")
async def audit(conn: Connection) -> Grant:
    return Grant()


@wire.state("chat:{room}")
def topic(conn: Connection, room: str) -> Snapshot:
    return Snapshot({"topic": room}, Position("e", 1, "i"))


@wire.query
async def members(conn: Connection, room: str) -> list[str]:
    return [member.user for member in await wire.presence(f"chat:{room}")]


@wire.command
async def say(conn: Connection, room: str, text: str) -> Position:
    return await wire.publish(f"chat:{room}", {"by": conn.user, "text": text})


@wire.query(concurrency=8, timeout=2.5)
async def narrow(conn: Connection, n: int) -> int:
    return n


@wire.event(concurrency=1)
@wire.command(timeout=60, idempotent=True)
def plainly(conn: Connection, n: int) -> int:
    return n


wire.query(concurrency="many")  # type: ignore[call-overload]


@wire.command(idempotent=True)
async def rename(conn: Connection, name: str) -> str:
    return name


@wire.command
def say_slowly(conn: Connection, room: str, text: str) -> Position:
    position = from_thread.run(wire.publish, f"chat:{room}", {"text": text}, id="1")
    assert_type(position, Position)
    from_thread.run(wire.publish, 5)  # type: ignore[arg-type, call-arg]
    return position


@wire.event
async def typing(conn: Connection, room: str) -> None:
    assert_type(conn.user, str)


@wire.query
async def ticks(conn: Connection, n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


async def ask(conn: Connection) -> None:
    assert_type(await conn.query("confirm", {"text": "?"}, type=bool), bool)
    assert_type(await conn.query("confirm", timeout=2), Any)
    assert_type(await conn.command("reload", type=int), int)
    await conn.event("told", {"n": 1})
    assert_type(await wire.request("ada", "confirm", type=bool), bool)
    assert_type(await wire.request(conn, "reload", kind="command", timeout=2.0), Any)
    await wire.request("ada", "confirm", kind="event")  # type: ignore[call-overload]


def ask_from_a_thread(conn: Connection) -> bool:
    return bool(from_thread.run(wire.request, conn, "confirm", {"text": "?"}))


handlers = Handlers()


@handlers.query
async def confirm(client: Client, text: str) -> bool:
    return bool(await client.query("members", {"room": text}))


@handlers.command
def reload(client: Client) -> int:
    return 1


@handlers.event
async def told(client: Client, n: int) -> None:
    assert_type(client.stream("ticks", {"n": n}, type=int), Stream[int])


async def read_a_stream(client: Client) -> None:
    assert_type(await confirm(client, "direct"), bool)
    try:
        async with client.stream("ticks", {"n": 3}, type=int) as stream:
            async for part in stream:
                assert_type(part, int)
        async for anything in client.stream("ticks", timeout=60):
            assert_type(anything, Any)
    except StreamInterrupted as error:
        assert_type(error.parts, int)


# A decorator leaves the function as it was.
async def calls_it_directly(conn: Connection) -> None:
    assert_type(await members(conn, "lobby"), list[str])
    assert_type(await narrow(conn, n=1), int)
    assert_type(plainly(conn, 1), int)
    assert_type(await say(conn, room="lobby", text="hi"), Position)


api = FastAPI()
wire.attach(api, "/ws")
wire.attach(api, "/ws", user=who, origins=["https://example.org"])
api.mount("/internal", wire.http(api_key="a key of 16 letters"))


async def serve() -> None:
    async with wire.listen("127.0.0.1", 0, tls=Tls("cert.pem", "key.pem")) as server:
        assert_type(server.port, int)
        server.reload_tls()
        await server.drain(2.0)


def handle_undelivered(message: Undelivered) -> None:
    assert_type((message.channel, message.sent, message.number), tuple[str, bool, int])


async def use() -> None:
    connect("ws://host", outbox=SqliteOutbox("outbox.db", synchronous="FULL"), overflow="coalesce")
    async with connect(
        "ws://127.0.0.1:8000/ws", token="t", dialect="json", limits=ClientLimits(outbox_ttl=5.0)
    ) as client:
        assert_type(client, Client)
        ack = await client.publish("chat:lobby", {"text": "hello"})
        assert_type(ack, Ack)
        assert_type(ack.position, Position | None)
        assert_type(client.publish_nowait("chat:lobby", 1), asyncio.Future[Ack])
        client.publish_nowait("chat:lobby", 1, key="k", overflow="coalesce", ttl=5.0)
        client.publish_nowait("chat:lobby", 1, overflow="block")  # type: ignore[arg-type]
        assert_type(await client.publish("chat:lobby", 1, wait="stored", overflow="block"), Ack)
        client.on_drop = client.on_undelivered = handle_undelivered
        client.forget_undelivered(await client.undelivered())
        assert_type(client.drain_queued(), list[Undelivered])
        assert_type(await client.query("members", {"room": "lobby"}, type=list[str]), list[str])
        await client.command("say", {"room": "lobby", "text": "hi"}, timeout=2)
        await client.event("typing", {"room": "lobby"})
        async with client.subscribe("chat:lobby", since=ack.position) as room:
            assert_type(room, Subscription)
            async for item in room:
                match item:
                    case Message(data=data, position=position):
                        assert_type(data, Any)
                        assert_type(position, Position | None)
                    case Gap(reason=why):
                        assert_type(why, str)


def show(message: Message) -> None:
    print(message.data)


async def store(gap: Gap) -> None:
    print(gap.reason)


async def state() -> Snapshot:
    return Snapshot({"total": 1}, Position("e", 1, "i"))


async def subscribe(client: Client) -> None:
    room = await client.subscribe(
        "c", on_message=show, on_gap=store, priority=1, token="t", stop_on_error=True
    )
    assert_type(room, Subscription)
    await room.wait_ended()
    async with client.subscribe("c", get_state=state, state_first=True) as stateful:
        assert_type(stateful, StatefulSubscription)
        async for item in stateful:
            assert_type(item, Message | Gap | Snapshot)
    async with client.subscribe("c", get_state=True) as served:
        assert_type(served, StatefulSubscription)
    assert_type(await client.snapshot("c", timeout=1.0), Snapshot)
    client.subscribe("c", get_state=False)  # type: ignore[call-overload]
    async with client.subscribe("c", token=token) as plain:
        async for each in plain:
            assert_type(each, Message | Gap)


async def token() -> str:
    return "fresh"


async def lasting() -> Token:
    return Token("fresh", expires_at=1e12)


shared = Tokens(lasting)
connect("ws://127.0.0.1:8000/ws", token=shared, handlers=handlers)
connect("ws://127.0.0.1:8000/ws", token=lasting)
connect("ws://127.0.0.1:8000/ws", token=lambda: "plain")
connect("ws://127.0.0.1:8000/ws", token=5)  # type: ignore[arg-type]


async def errors() -> None:
    try:
        client = await connect("ws://127.0.0.1:8000/ws", token=token)
        await client.close()
    except RequestError as error:
        assert_type(error.code, int)
        assert_type(error.temporary, bool)
    except ConnectionClosed as error:
        assert_type(error.code, int)
    except (ConfigError, DeliveryUnknown, NotSent, OutboxFull, RequestTimeout) as error:
        root: EverwireError = error
        print(root)


def watch(record: Record) -> None:
    match record:
        case StateChanged(state=state, previous=previous):
            assert_type(state, ConnectionState)
            assert_type(previous, ConnectionState)
        case LinkOpened(number=number, url=url, dialect=dialect, seconds=seconds):
            print(number, url, dialect, seconds)
        case LinkLost(code=code, reason=reason, by_us=by_us, held=held):
            assert_type(code, int)
            assert_type(reason, str)
            assert_type(by_us, bool)
            assert_type(held, float | None)
        case RetryScheduled(delay=delay, attempt=attempt, cause=cause):
            assert_type(delay, float)
            assert_type(attempt, int)
            assert_type(cause, Exception)
        case HeartbeatSuspect(rtt=rtt, lag=lag):
            assert_type(rtt, float | None)
            assert_type(lag, float)
        case GapFound(channel=channel, position=position):
            assert_type(channel, str)
            assert_type(position, Position | None)
        case PublishDropped(channel=channel, cause=cause):
            assert_type(channel, str)
            assert_type(cause, Exception)
        case TokenRefreshed():
            pass
        case _:
            print(record)


async def observe() -> None:
    client = await connect("ws://127.0.0.1:8000/ws", on_record=watch)
    client.on_record = watch
    client.on_subscribed = lambda channel, start: print(channel, assert_type(start, Position))
    client.on_state = print
    client.on_event = print
    stats = client.stats
    assert_type(stats, Stats)
    assert_type(stats.rtt, float | None)
    assert_type(stats.bytes_in, int)
    assert_type(client.state, ConnectionState)
    assert_type(await client.history("c"), list[Message])
    present = await client.presence("c")
    assert_type(present, ChannelPresence)
    assert_type(present.members, list[Member])
    client.drop()
    policy: Overflow = "drop_oldest"
    await connect("ws://127.0.0.1:8000/ws", overflow=policy)


async def run_a_node() -> None:
    node = await wire.start()
    assert_type(node, Node)
    assert_type(wire.node, Node)
    assert_type(wire.has_authenticator, bool)
    assert_type(wire.stats(), NodeStats)
    assert_type(wire.stats().refused["rate_limited"], int)
    page = await wire.history("c", limit=5, since=Position("e", 1), tenant="t")
    assert_type(page, Page)
    assert_type(page.records[0].position, Position)
    assert_type(page.records[0].data, Any)
    at = await wire.publish("c", 1, id="i", tenant="t", publisher="ada")
    assert_type(at, Position)
    outcomes = await wire.broadcast(["a", "b"], {"n": 1}, id="i", tenant="t", publisher="ada")
    for channel, outcome in outcomes.items():
        match outcome:
            case Position(offset=offset):
                print(channel, offset)
            case RequestError(code=code):
                print(channel, code)
            case _:
                assert_type(outcome, BrokerUnavailable)
    assert_type(await wire.unsubscribe("ada", "c", code=202, tenant="t"), int)
    assert_type(await wire.disconnect("ada", code=4504, reason="bye", tenant="t"), int)
    await wire.stop()
    wire.asgi()
