"""The host's own authentication says who connects: real hosts, real clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, HTTPException, WebSocket
from starlette.applications import Starlette
from starlette.exceptions import WebSocketException
from starlette.routing import Mount
from uvicorn import Config, Server

from everwire import (
    Client,
    ConfigError,
    Everwire,
    Forbidden,
    Grant,
    Identity,
    Limits,
    Unauthorized,
    Unavailable,
    connect,
)

USERS = {"ada-session": "ada", "bob-session": "bob"}


def make_wire(**options: Any) -> Everwire:
    wire = Everwire(**options)
    wire.channel("chat:{room}", presence=True, grant=Grant(publish=True))

    @wire.query
    async def me(conn: Any) -> list[str]:
        return [conn.user, conn.identity.tenant]

    return wire


@asynccontextmanager
async def serving(api: Any) -> AsyncIterator[str]:
    """Run an application under uvicorn in this loop, on a free port."""
    config = Config(api, port=0, log_level="critical", lifespan="on", timeout_graceful_shutdown=3)
    server = _Server(config)
    task = asyncio.create_task(server._serve())
    up = asyncio.create_task(server.up.wait())
    try:
        await asyncio.wait({task, up}, return_when=asyncio.FIRST_COMPLETED)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}"
    finally:
        server.over.set()
        await task


class _Server(Server):
    """Is told when to end, where uvicorn's looks ten times a second."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self.over = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        self.up.set()
        await self.over.wait()


def serve(api: Any, body: Callable[[str], Any]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), serving(api) as url:
            await body(url)

    asyncio.run(main())


def session(value: str, url: str) -> dict[str, str]:
    return {"Cookie": f"session={value}", "Origin": url.replace("ws:", "http:")}


async def who(url: str, path: str = "/ws", **options: Any) -> Any:
    async with connect(url + path, timeout=5, **options) as client:
        return await client.query("me")


async def store() -> dict[str, str]:
    return USERS


async def by_session(
    known: Annotated[dict[str, str], Depends(store)],
    session: Annotated[str | None, Cookie()] = None,
) -> str:
    if session not in known:
        raise HTTPException(401, "sign in first")
    return known[session]


def hosted(user: Any, wire: Everwire | None = None, **options: Any) -> FastAPI:
    api = FastAPI()
    (wire or make_wire()).attach(api, "/ws", user=user, **options)
    return api


@pytest.mark.parametrize("dialect", ["msgpack", "json", "plain"])
def test_a_dependency_with_dependencies_says_who_it_is(dialect: str) -> None:
    async def body(url: str) -> None:
        headers = session("ada-session", url)
        assert await who(url, headers=headers, dialect=dialect) == ["ada", ""]
        assert await who(url, "/ws/", headers=headers, dialect=dialect) == ["ada", ""]

    serve(hosted(by_session), body)


@pytest.mark.parametrize(
    "user", [Depends(by_session), Annotated[str, Depends(by_session)]], ids=["Depends", "Annotated"]
)
def test_a_dependency_may_be_written_as_in_a_route(user: Any) -> None:
    async def body(url: str) -> None:
        assert await who(url, headers=session("bob-session", url)) == ["bob", ""]

    serve(hosted(user), body)


def test_nobody_is_refused_after_the_upgrade_with_the_text_of_the_dependency() -> None:
    async def body(url: str) -> None:
        with pytest.raises(Unauthorized, match="sign in first"):
            await who(url)

    serve(hosted(by_session), body)


def raising(error: Exception) -> Callable[[], Any]:
    async def dependency() -> str:
        raise error

    return dependency


RAISED: list[tuple[Exception, int, str]] = [
    (HTTPException(401, "who?"), 4500, "who?"),
    (HTTPException(403, "not you"), 4501, "not you"),
    (HTTPException(404, {"a": 1}), 4500, '{"a": 1}'),
    (HTTPException(307, headers={"Location": "/sign-in"}), 4500, "Temporary Redirect"),
    (HTTPException(429, "slowly"), 4429, "slowly"),
    (HTTPException(503, "later"), 1013, "later"),
    (HTTPException(403, "ü" * 100), 4501, "ü" * 61),
    (WebSocketException(1008, "policy"), 4500, "policy"),
    (WebSocketException(4321, "ours"), 4321, "ours"),
    (Unauthorized("no"), 4500, "no"),
    (Unauthorized("stale", temporary=True), 4402, "stale"),
    (Forbidden("staff only"), 4501, "staff only"),
    (Unavailable("the database sleeps"), 1013, "the database sleeps"),
    (RuntimeError("secret text"), 1011, ""),
]


def test_what_a_dependency_raises_becomes_a_close_code() -> None:
    async def body(url: str) -> None:
        for number, (error, code, reason) in enumerate(RAISED):
            assert await closing(f"{url}/{number}") == (code, reason), error

    api = FastAPI()
    for number, (error, *_) in enumerate(RAISED):
        make_wire().attach(api, f"/{number}/ws", user=raising(error))
    serve(api, body)


async def closing(url: str, **headers: str) -> tuple[int, str]:
    """The close frame that a bare WebSocket client gets."""
    from websockets.asyncio.client import connect as open_websocket
    from websockets.exceptions import ConnectionClosed

    async with open_websocket(url + "/ws", additional_headers=headers) as socket:
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def test_a_header_that_is_missing_is_named() -> None:
    async def by_header(x_user: Annotated[str, Header()]) -> str:
        return x_user

    async def body(url: str) -> None:
        assert await closing(url) == (4500, "header x-user: Field required")
        assert await who(url, headers={"X-User": "ada"}) == ["ada", ""]

    serve(hosted(by_header), body)


class Row:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


FOUND: list[tuple[Any, list[str]]] = [
    ("ada", ["ada", ""]),
    (7, ["7", ""]),
    (UUID(int=1), ["00000000-0000-0000-0000-000000000001", ""]),
    (Identity("ada", tenant="acme"), ["ada", "acme"]),
    (Row(id=7, name="Ada"), ["7", ""]),
    (Row(user="ada", id=7), ["ada", ""]),
    (Row(user=Row(id=7), id=3), ["7", ""]),
    (Row(user=Identity("ada", tenant="acme"), id=3), ["ada", "acme"]),
]


def test_a_user_may_be_what_the_application_has() -> None:
    async def body(url: str) -> None:
        for number, (found, user) in enumerate(FOUND):
            assert await who(url, f"/{number}") == user, found

    api = FastAPI()
    for number, (found, _) in enumerate(FOUND):
        make_wire().attach(api, f"/{number}", user=lambda found=found: found)
    serve(api, body)


def test_what_is_no_user_is_a_defect_and_not_somebody() -> None:
    users = (object(), True, 1.5, Row(name="ada"), Row(user=Row(name="ada"), id=3))

    async def body(url: str) -> None:
        for number, found in enumerate(users):
            assert await closing(f"{url}/{number}") == (1011, ""), found

    api = FastAPI()
    for number, found in enumerate(users):
        make_wire().attach(api, f"/{number}/ws", user=lambda found=found: found)
    serve(api, body)


@pytest.mark.parametrize(
    "nobody", [None, "", Row(id=""), Row(id=None), Row(user=None, id=3)], ids=repr
)
def test_who_is_nobody_is_not_let_in(nobody: Any) -> None:
    async def body(url: str) -> None:
        assert await closing(url) == (4500, "sign in first")

    serve(hosted(lambda: nobody), body)


def test_whom_the_host_does_not_know_may_bring_a_token_if_that_is_a_way_in() -> None:
    wire = make_wire()

    @wire.authenticate
    async def authenticate(token: str) -> Identity:
        if token != "t-eve":
            raise Unauthorized("unknown token")
        return Identity("eve")

    async def by_cookie(session: Annotated[str, Cookie()] = "") -> str | None:
        return USERS.get(session)

    async def body(url: str) -> None:
        ada = session("ada-session", url)
        assert await who(url, token="t-eve") == ["eve", ""]
        assert await who(url, headers=ada) == ["ada", ""]
        assert await who(url, headers=ada, token="t-eve") == ["ada", ""]  # the host's word holds
        with pytest.raises(Unauthorized):
            await who(url)

    serve(hosted(by_cookie, wire), body)


def test_somebody_unknown_is_anonymous_where_that_is_allowed() -> None:
    async def body(url: str) -> None:
        assert await who(url) == ["", ""]

    serve(hosted(lambda: None, make_wire(allow_anonymous=True)), body)


def test_the_host_is_asked_again_when_its_word_has_expired() -> None:
    asked: list[float] = []
    wire = make_wire()

    async def for_a_second() -> Identity:
        asked.append(wire.wall())
        return Identity("ada", expires=wire.wall() + 1)

    async def body(url: str) -> None:
        async with connect(url + "/ws") as client:
            while len(asked) < 2:
                await asyncio.sleep(0.05)
            assert await client.query("me") == ["ada", ""]

    serve(hosted(for_a_second, wire), body)
    assert asked[1] - asked[0] >= 1


def test_a_dependency_is_left_before_the_connection_begins() -> None:
    """A database session that it holds is not held for as long as the connection lives."""
    events: list[str] = []

    async def with_session() -> AsyncIterator[str]:
        events.append("opened")
        yield "ada"
        events.append("closed")

    async def body(url: str) -> None:
        async with connect(url + "/ws"):
            assert events == ["opened", "closed"]

    serve(hosted(with_session), body)


def test_dependencies_of_the_application_hold_for_the_route_as_well() -> None:
    async def invited(invitation: Annotated[str, Header()] = "") -> None:
        if invitation != "yes":
            raise HTTPException(403, "by invitation only")

    async def body(url: str) -> None:
        assert await closing(url) == (4501, "by invitation only")
        assert await who(url, headers={"Invitation": "yes"}) == ["", ""]

    api = FastAPI(dependencies=[Depends(invited)])
    make_wire().attach(api, "/ws")
    serve(api, body)


def test_a_dependency_may_be_overridden_for_tests() -> None:
    async def body(url: str) -> None:
        assert await who(url) == ["tester", ""]

    api = hosted(by_session)
    api.dependency_overrides[by_session] = lambda: "tester"
    serve(api, body)


def test_a_dependency_that_does_not_end_is_given_up() -> None:
    async def for_ever() -> str:
        await asyncio.sleep(60)
        return "ada"

    async def body(url: str) -> None:
        assert await closing(url) == (1013, "authentication took too long; try again")

    serve(hosted(for_ever, make_wire(limits=Limits(request_timeout=0.1))), body)


# ---- Starlette -------------------------------------------------------------------------


async def asynchronous(websocket: WebSocket) -> str | None:
    return USERS.get(websocket.cookies.get("session", ""))


def blocking(websocket: WebSocket) -> str:
    if (name := USERS.get(websocket.cookies.get("session", ""))) is None:
        raise HTTPException(403, "not you")
    return name


@pytest.mark.parametrize(
    ("user", "refusal"),
    [(asynchronous, (4500, "sign in first")), (blocking, (4501, "not you"))],
)
def test_starlette_takes_a_function_of_the_websocket(user: Any, refusal: tuple[int, str]) -> None:
    async def body(url: str) -> None:
        assert await who(url, headers=session("bob-session", url)) == ["bob", ""]
        assert await closing(url) == refusal

    api = Starlette()
    make_wire().attach(api, "/ws", user=user)
    serve(api, body)


# ---- pages of others -------------------------------------------------------------------


PAGES = [
    ("http://{host}", True),
    ("HTTP://{HOST}", True),
    ("https://{host}", True),  # behind a proxy that ends TLS
    ("https://friend.example", True),
    ("https://friend.example:443", True),
    ("https://FRIEND.example", True),
    ("https://evil.example", False),
    ("null", False),
    ("", False),
    ("http://", False),
    ("https://friend.example.evil.example", False),
    ("https://evilfriend.example", False),
    ("https://friend.example:8443", False),
    ("http://friend.example", False),
    ("http://{host}.evil.example", False),
    ("http://127.0.0.1:1", False),
    ("ftp://{host}", False),
]


def test_pages_of_others_cannot_use_the_cookies_of_ours() -> None:
    async def body(url: str) -> None:
        host = url.removeprefix("ws://")
        for origin, allowed in PAGES:
            page = origin.replace("{host}", host).replace("{HOST}", host.upper())
            headers = {"Cookie": "session=ada-session", "Origin": page}
            if allowed:
                assert await who(url, headers=headers) == ["ada", ""], origin
            else:
                code, reason = await closing(url, **headers)
                assert code == 4501, origin
                assert "origins=" in reason

    serve(hosted(by_session, origins=["https://friend.example"]), body)


def test_cookies_without_an_origin_are_no_browsers() -> None:
    async def body(url: str) -> None:
        code, reason = await closing(url, Cookie="session=ada-session")
        assert (code, reason) == (4501, "cookies without an Origin are not accepted")

    serve(hosted(by_session), body)


def test_without_the_hosts_users_origins_name_the_pages_that_may_connect() -> None:
    async def body(url: str) -> None:
        assert (await closing(url, Origin="https://evil.example"))[0] == 4501
        assert await who(url) == ["", ""]
        assert await who(url, headers={"Origin": "https://friend.example"}) == ["", ""]

    serve(hosted(None, origins=["https://friend.example"]), body)


@pytest.mark.parametrize("origins", [None, ["https://friend.example"]])
def test_a_cookie_that_authenticate_takes_is_taken_from_these_pages_alone(
    origins: list[str] | None,
) -> None:
    """The other way: everwire reads the cookie, inside of a host that does not."""
    wire = make_wire()

    @wire.authenticate
    async def authenticate(cookies: dict[str, str]) -> Identity:
        return Identity(USERS[cookies["session"]])

    async def body(url: str) -> None:
        own, friend = url.replace("ws:", "http:"), "https://friend.example"
        for page, allowed in ((own, not origins), (friend, bool(origins)), ("http://evil", False)):
            headers = {"Cookie": "session=bob-session", "Origin": page}
            if allowed:
                assert await who(url, headers=headers) == ["bob", ""]
            else:
                with pytest.raises(Forbidden):
                    await who(url, headers=headers)

    api = FastAPI()
    wire.attach(api, "/ws", origins=origins)
    serve(api, body)


def test_whoever_was_revoked_is_not_let_in_by_an_older_word() -> None:
    wire = make_wire()

    async def body(url: str) -> None:
        assert await who(url) == ["ada", ""]
        await wire.revoke(token_id="session-7")
        assert await closing(url) == (4500, "the token was revoked")

    serve(hosted(lambda: Identity("ada", token_id="session-7"), wire), body)


def test_a_word_that_has_expired_already_is_none() -> None:
    async def body(url: str) -> None:
        assert await closing(url) == (4402, "the token has expired")

    serve(hosted(lambda: Identity("ada", expires=1.0)), body)


# ---- where it is attached --------------------------------------------------------------


def test_a_router_with_a_prefix_and_parameters_becomes_part_of_an_application() -> None:
    async def member(org: str, session: Annotated[str, Cookie()] = "") -> Identity:
        if org != "acme":
            raise HTTPException(403, "another org")
        return Identity(USERS[session], tenant=org)

    api, router = FastAPI(), APIRouter(prefix="/v1/{org}")
    make_wire().attach(router, "/ws", user=member)
    api.include_router(router, prefix="/api")

    async def body(url: str) -> None:
        headers = session("ada-session", url)
        assert await who(url, "/api/v1/acme/ws", headers=headers) == ["ada", "acme"]
        with pytest.raises(Forbidden, match="another org"):
            await who(url, "/api/v1/other/ws", headers=headers)

    serve(api, body)


def test_several_live_in_one_application_and_one_has_several_routes() -> None:
    one, two, api = make_wire(), make_wire(), FastAPI()
    one.attach(api, "/one", user=lambda: "ada")
    one.attach(api, "/{org}/one", user=lambda org: Identity("ada", tenant=org))
    two.attach(api, "/two/ws", user=lambda: "bob")

    async def body(url: str) -> None:
        assert await who(url, "/one") == ["ada", ""]
        assert await who(url, "/acme/one") == ["ada", "acme"]
        assert await who(url, "/two/ws/") == ["bob", ""]
        assert one.node is not two.node

    serve(api, body)


def test_a_path_below_a_mounted_application_is_attached_to_the_outermost_one() -> None:
    wire, inner = make_wire(), FastAPI()
    api = Starlette(routes=[Mount("/inner", inner)])
    wire.attach(api, "/inner/ws")

    async def body(url: str) -> None:
        assert await who(url, "/inner/ws") == ["", ""]

    serve(api, body)


def test_a_mounted_one_that_was_never_started_says_so(caplog: pytest.LogCaptureFixture) -> None:
    inner, api = FastAPI(), FastAPI()
    make_wire().attach(inner, "/ws")
    api.mount("/inner", inner)

    async def body(url: str) -> None:
        for _ in range(2):
            assert await closing(url + "/inner") == (1011, "the application does not run")

    serve(api, body)
    lines = [line for line in caplog.messages if "attach to the outermost" in line]
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("api", "options", "text"),
    [
        (object(), {}, "not a Starlette or FastAPI application"),
        (FastAPI(), {"user": "ada"}, "takes a function or a dependency"),
        (FastAPI(), {"origins": ["*"]}, "not an origin"),
        (FastAPI(), {"path": "ws"}, "begins with a slash"),
    ],
)
def test_what_cannot_be_attached_is_refused_at_once(
    api: Any, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        make_wire().attach(api, **options)


def test_the_word_of_the_host_ends_with_the_client_that_it_was_about() -> None:
    """What was found out for one connection is no other's."""
    names = iter(["ada", "bob", "eve"])

    async def body(url: str) -> None:
        clients: list[Client] = [await connect(url + "/ws") for _ in range(3)]
        found = [(await client.query("me"))[0] for client in clients]
        assert sorted(found) == ["ada", "bob", "eve"]
        for client in clients:
            await client.close()

    serve(hosted(lambda: next(names)), body)
