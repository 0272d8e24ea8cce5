"""Who somebody is, while connected: expiry, revocation, refused auths, cookies and their pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from everwire import JWT, ConfigError, Everwire, Grant, Identity, Unauthorized, Unavailable
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.server.identity.cookies import read_cookies
from everwire.server.identity.origins import may_use_cookies, read_origin
from everwire.server.identity.refusals import WINDOW, Refusals, address
from everwire.server.node import Node
from everwire.testing import Network, VirtualLoop, run

from ..client.world import client_to, data_of, take
from .peer import URL, Peer, serving

SECRET = "s" * 64


def wall() -> float:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.wall()


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run(scenario, limit=200_000)


def tokens() -> JWT:
    return JWT(SECRET, algorithms=["HS256"], wall=wall)


@asynccontextmanager
async def guarded(**options: Any) -> AsyncIterator[tuple[Network, Node, Everwire, JWT]]:
    """A node that wants a JWT, whose tenant is in ``tenant`` where it is at all."""
    made = JWT(
        SECRET,
        algorithms=["HS256"],
        wall=wall,
        identity=lambda claims: Identity(claims["sub"], tenant=claims.get("tenant", "")),
    )
    wire = Everwire(**options)
    wire.authenticate(made)
    wire.channel("{name:path}", presence=True, grant=Grant(publish=True))
    async with serving(wire) as (network, node):
        yield network, node, wire, made


async def come(network: Network, token: str, dialect: str = "json") -> Peer:
    """Connect with a token that is good."""
    peer = Peer(network, dialect)
    assert isinstance(await peer.auth(token=token), m.Response)
    return peer


async def comes(network: Network, token: str) -> int:
    """0 if a token is taken, otherwise with which code it is refused."""
    peer = Peer(network)
    if isinstance(await peer.auth(token=token), m.Response):
        return 0
    return await peer.until_closed()


# ---- expiry ---------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["json", "msgpack"])
@pytest.mark.parametrize("life", [1.0, 3.4, 61.7, 130.0])
def test_an_expired_token_stops_delivery_within_a_second(dialect: str, life: float) -> None:
    async def scenario() -> None:
        async with guarded() as (network, node, wire, made):
            ends = wall() + life
            peer = await come(network, made.issue("ada", expires_in=life), dialect)
            await peer.subscribe("c")
            while peer.close_code is None:
                await wire.publish("c", wall())
                await asyncio.sleep(0.05)
            assert peer.close_code == 4402
            last = max(message.data for message in peer.messages())
            assert ends - 0.1 <= last <= ends + 1.0
            await asyncio.sleep(1)
            assert not node.connections

    play(scenario)


def test_a_token_that_has_ended_opens_nothing() -> None:
    async def scenario() -> None:
        async with guarded() as (network, node, _, made):
            peer = Peer(network)
            answer = await peer.auth(token=made.issue("ada", expires_in=-61))
            assert isinstance(answer, m.Error)
            assert (answer.code, answer.temporary) == (201, True)
            assert await peer.until_closed() == 4402
            assert node.counters["auths_refused"] == 1

    play(scenario)


def test_an_identity_that_has_ended_opens_nothing() -> None:
    """Whoever made it."""

    async def scenario() -> None:
        wire = Everwire()

        @wire.authenticate
        async def who(token: str) -> Identity:
            return Identity(token, expires=wall() - 1)

        async with serving(wire) as (network, _):
            assert await comes(network, "ada") == 4402

    play(scenario)


@pytest.mark.parametrize("moment", [float("inf"), float("nan"), "1700000000", datetime.now(UTC)])
def test_a_moment_that_is_none_is_refused_where_it_is_given(moment: Any) -> None:
    for name in ("expires", "issued"):
        with pytest.raises(TypeError, match=f"{name} is a number of seconds"):
            Identity("ada", **{name: moment})


def test_while_a_fresh_token_is_looked_at_the_old_one_may_end() -> None:
    """But not for long: whoever sends one that takes its time gains a second."""

    async def scenario(takes: float) -> int | None:
        wire = Everwire()

        @wire.authenticate
        async def who(token: str) -> Identity:
            if token == "fresh":
                await asyncio.sleep(takes)
                return Identity("ada", expires=wall() + 100)
            return Identity("ada", expires=wall() + 10)

        async with serving(wire) as (network, _):
            peer = await come(network, "first")
            await asyncio.sleep(9.5)
            peer.send(m.Auth(2, "fresh"))
            await asyncio.sleep(5)
            return peer.close_code

    assert run(scenario, 1.0) is None
    assert run(scenario, 4.0) == 4402


@pytest.mark.parametrize("trouble", [False, True])
def test_a_client_with_a_provider_outlives_its_tokens_and_misses_nothing(trouble: bool) -> None:
    """Also when there is no fresh token until the old one has ended."""

    async def scenario() -> None:
        async with guarded() as (network, node, wire, made):
            asked = 0

            async def provider() -> str:
                nonlocal asked
                asked += 1
                if trouble and asked in (2, 3, 4, 5):
                    await asyncio.sleep(4)
                    raise OSError("no tokens now")
                return made.issue("ada", expires_in=10)

            async with client_to(network, token=provider) as client:
                async with client.subscribe("c") as room:
                    for number in range(300):
                        await wire.publish("c", number)
                        await asyncio.sleep(0.2)
                        assert data_of(await take(room, 1)) == [number]
            assert asked >= 6
            expired = node.tally.closes[4402]
            assert expired > 0 if trouble else expired == 0

    play(scenario)


# ---- revocation ------------------------------------------------------------------------


def test_a_revoked_user_is_sent_away_and_older_tokens_are_refused() -> None:
    async def scenario() -> None:
        async with guarded() as (network, node, wire, made):
            old, spare = made.issue("ada"), made.issue("ada")
            others = [await come(network, made.issue("bob"))]
            others.append(await come(network, made.issue("ada", tenant="other")))
            peer = await come(network, old)
            await peer.subscribe("c")
            await asyncio.sleep(1.3)
            await wire.revoke(user="ada")
            await wire.publish("c", "secret")
            assert await peer.until_closed() == 4402
            assert peer.messages() == []
            assert await comes(network, old) == await comes(network, spare) == 4402
            await asyncio.sleep(0.1)
            assert await comes(network, made.issue("ada")) == 0
            assert await comes(network, made.issue("ada", tenant="other")) == 0
            assert [one.close_code for one in others] == [None, None]
            assert node.counters["revoked_connections"] == 1

    play(scenario)


def test_dates_in_whole_seconds_neither_save_an_old_token_nor_cost_a_fresh_one() -> None:
    """Most issuers write them: one that is in use is ended whatever it says."""

    async def scenario() -> None:
        async with guarded() as (network, _, wire, made):

            def issue() -> str:
                return made.issue("ada", iat=int(wall()))

            await asyncio.sleep(0.3)
            used, ahead, unused = issue(), made.issue("ada", iat=wall() + 50), issue()
            peers = [await come(network, used), await come(network, ahead)]
            await asyncio.sleep(0.2)
            await wire.revoke(user="ada")
            for peer in peers:
                assert await peer.until_closed() == 4402
            fresh = issue()
            assert await comes(network, used) == await comes(network, ahead) == 4402
            assert await comes(network, fresh) == 0
            assert await comes(network, unused) == 0  # told apart from a fresh one by nothing
            await wire.revoke(user="ada", before=wall() + 1)
            assert await comes(network, unused) == 4402

    play(scenario)


def test_a_token_that_does_not_say_when_it_was_issued_counts_as_old() -> None:
    async def scenario() -> None:
        wire = Everwire()
        made = JWT(SECRET, algorithms=["HS256"], wall=wall)
        wire.authenticate(made)
        async with serving(wire) as (network, _):
            import jwt

            token = jwt.encode({"sub": "ada", "exp": wall() + 999}, SECRET)
            peer = await come(network, token)
            await wire.revoke(user="ada", before=wall() - 100)
            assert await peer.until_closed() == 4402
            assert await comes(network, token) == 4402

    play(scenario)


def test_a_revocation_before_a_moment_spares_what_was_issued_after_it() -> None:
    async def scenario() -> None:
        async with guarded() as (network, _, wire, made):
            old = await come(network, made.issue("ada"))
            await asyncio.sleep(10.5)
            new = await come(network, made.issue("ada"))
            await wire.revoke(user="ada", before=wall() - 5)
            assert await old.until_closed() == 4402
            await asyncio.sleep(5)
            assert new.close_code is None

    play(scenario)


def test_one_token_can_be_revoked_by_its_name() -> None:
    async def scenario() -> None:
        async with guarded() as (network, node, wire, made):
            stolen, mine = made.issue("ada", jti="t-1"), made.issue("ada", jti="t-2")
            thief, ada = await come(network, stolen), await come(network, mine)
            await wire.revoke(token_id="t-1", until=wall() + 100)
            assert await thief.until_closed() == 4402
            assert await comes(network, stolen) == 4402
            assert await comes(network, mine) == 0
            assert ada.close_code is None
            assert len(node.revocations) == 1
            await asyncio.sleep(101)
            assert await comes(network, stolen) == 0  # by then it has expired, who says until

    play(scenario)


def test_a_whole_tenant_can_be_revoked_and_is_the_only_one() -> None:
    async def scenario() -> None:
        async with guarded() as (network, _, wire, made):
            acme = [await come(network, made.issue(f"u{n}", tenant="acme")) for n in range(450)]
            others = [await come(network, made.issue("u1"))]
            others.append(await come(network, made.issue("u1", tenant="acme2")))
            token = made.issue("u7", tenant="acme")
            await asyncio.sleep(1.1)
            before = wall()
            await wire.revoke(tenant="acme")
            for peer in acme:
                assert await peer.until_closed() == 4402
            assert wall() - before <= 1.0
            assert await comes(network, token) == 4402
            assert [one.close_code for one in others] == [None, None]

    play(scenario)


def test_a_revocation_ends_when_it_is_no_longer_needed() -> None:
    async def scenario() -> None:
        limits = Limits(revocation_ttl=50)
        async with guarded(limits=limits) as (network, _, wire, made):
            token = made.issue("ada", expires_in=1000)
            await asyncio.sleep(2)
            await wire.revoke(user="ada")
            assert await comes(network, token) == 4402
            await asyncio.sleep(51)
            assert await comes(network, token) == 0

    play(scenario)


def test_revocations_are_bounded_and_none_is_forgotten_early() -> None:
    async def scenario() -> None:
        async with guarded(limits=Limits(revocations=3)) as (network, node, wire, made):
            token = made.issue("u0")
            last = await come(network, made.issue("u3"))
            await asyncio.sleep(1.5)
            for number in range(3):
                await wire.revoke(user=f"u{number}", until=wall() + 100)
            await wire.revoke(user="u0", until=wall() + 100)  # the same one takes no more room
            with pytest.raises(Unavailable, match=r"limits\.revocations"):
                await wire.revoke(user="u3")
            assert await last.until_closed() == 4402  # that much is done all the same
            assert await comes(network, token) == 4402
            assert len(node.revocations) == 3
            await asyncio.sleep(101)
            await wire.revoke(user="u3")
            assert len(node.revocations) == 1

    play(scenario)


def test_whom_a_revocation_is_about_must_be_said() -> None:
    async def scenario() -> None:
        async with guarded() as (_, _, wire, _):
            for wrong in ({}, {"tenant": ""}, {"token_id": ""}, {"token_id": "t", "user": "ada"}):
                with pytest.raises(ConfigError, match="revoke"):
                    await wire.revoke(**wrong)
            with pytest.raises(ConfigError, match="revoke"):
                await wire.revoke(token_id="t", before=1.0)

    play(scenario)


def test_what_a_handler_says_of_opaque_tokens_after_a_revocation_is_up_to_it() -> None:
    async def scenario() -> None:
        wire = Everwire()
        sessions = {"s1": "ada"}

        @wire.authenticate
        async def who(token: str) -> Identity:
            if token not in sessions:
                raise Unauthorized("no such session")
            return Identity(sessions[token])

        async with serving(wire) as (network, _):
            peer = await come(network, "s1")
            del sessions["s1"]
            sessions["s2"] = "ada"
            await wire.revoke(user="ada")
            assert await peer.until_closed() == 4402
            assert await comes(network, "s1") == 4402
            assert await comes(network, "s2") == 0

    play(scenario)


def test_a_client_with_a_provider_outlives_a_revocation_and_misses_nothing() -> None:
    async def scenario() -> None:
        async with guarded() as (network, node, wire, made):

            async def provider() -> str:
                return made.issue("ada", iat=int(wall()))

            async with client_to(network, token=provider) as client:
                async with client.subscribe("c") as room:
                    for number in range(100):
                        await wire.publish("c", number)
                        if number % 20 == 10:
                            await wire.revoke(user="ada")
                        await asyncio.sleep(0.5)
                    assert data_of(await take(room, 100)) == list(range(100))
            assert node.counters["revoked_connections"] == 5

    play(scenario)


# ---- refused auths -----------------------------------------------------------------------


def test_an_address_with_many_refused_tokens_is_not_listened_to_for_a_while() -> None:
    """And what it sends is not verified: that would be what an attack costs."""

    async def scenario() -> None:
        wire = Everwire(limits=Limits(refused_auths=20))
        asked: list[str] = []

        @wire.authenticate
        async def who(token: str) -> Identity:
            asked.append(token)
            if token != "good":
                raise Unauthorized("no")
            return Identity("ada", expires=wall() + 30)

        async with serving(wire) as (network, node):
            inside = await come(network, "good")
            codes = [await comes(network, f"bad{n}") for n in range(20)]
            assert codes == [4402] * 20
            for token in ("bad", "good"):
                late = Peer(network)
                await late.open()
                late.send(m.Auth(1, token))
                assert await late.until_closed() == 4429
            assert len(asked) == 21
            assert node.counters["auths_throttled"] == 2
            assert isinstance(await inside.ask(m.Auth(5, "good")), dict)  # who is in stays in
            await asyncio.sleep(WINDOW)
            assert await comes(network, "good") == 0

    play(scenario)


def test_refused_auths_are_no_more_where_all_come_at_the_same_time() -> None:
    async def scenario() -> None:
        wire = Everwire(limits=Limits(refused_auths=5))
        asked: list[str] = []

        @wire.authenticate
        async def who(token: str) -> Identity:
            asked.append(token)
            await asyncio.sleep(0.1)
            if token != "good":
                raise Unauthorized("no")
            return Identity("ada")

        async with serving(wire) as (network, node):

            async def storm(token: str) -> list[int | None]:
                peers = [await Peer(network).open() for _ in range(50)]
                for peer in peers:
                    peer.send(m.Auth(1, token))
                await asyncio.sleep(5)
                return [peer.close_code for peer in peers]

            assert await storm("good") == [None] * 50, "it only takes longer"
            asked.clear()
            codes = await storm("bad")
            assert len(asked) < 10
            assert set(codes) == {4402, 4429}
            assert len(codes) - len(asked) == codes.count(4429)
            assert not node.refusals._trying

    play(scenario)


def test_who_waits_too_long_for_others_of_its_address_is_told_to_come_back() -> None:
    async def scenario() -> None:
        wire = Everwire(limits=Limits(refused_auths=1, request_timeout=2))

        @wire.authenticate
        async def who(token: str) -> Identity:
            await asyncio.sleep(1.5)
            return Identity("ada")

        async with serving(wire) as (network, _):
            peers = [await Peer(network).open() for _ in range(4)]
            for peer in peers:
                peer.send(m.Auth(1, "good"))
            await asyncio.sleep(10)
            assert [peer.close_code for peer in peers] == [None, None, 1013, 1013]

    play(scenario)


def test_in_plain_an_address_is_not_listened_to_either() -> None:
    async def scenario() -> None:
        wire = Everwire(limits=Limits(refused_auths=5), allow_anonymous=True)
        asked: list[str] = []

        @wire.authenticate
        async def who(token: str) -> Identity:
            asked.append(token)
            raise Unauthorized("no")

        async with serving(wire) as (network, _):
            peer = Peer(network, "plain")
            await peer.open()
            for number in range(9):
                peer.send(m.Auth(number, "x"))
                await asyncio.sleep(0.1)
            assert await peer.until_closed() == 4429
            assert len(asked) == 5

    play(scenario)


def test_refusals_are_counted_by_customer() -> None:
    counted = Refusals(2)
    assert address("2001:db8:1:2:3:4:5:6:443") == address("2001:db8:1:2::9:1")
    assert address("2001:db8:1:3::9:1") != address("2001:db8:1:2::9:1")
    assert address("::ffff:192.0.2.7:80") == address("192.0.2.7:99")
    assert address("unix") == address("") == ""
    for number in range(5):
        counted.add(f"2001:db8::{number:x}:1", 0.0)
        counted.add("unix", 0.0)
    assert counted.blocked("2001:db8::ffff:1", 59.0)
    assert not counted.blocked("2001:db8:0:1::1:1", 59.0)
    assert not counted.blocked("unix", 59.0)
    assert not counted.blocked("2001:db8::1:1", 60.0)


def test_a_token_beyond_the_limit_is_refused_before_anything_looks_at_it() -> None:
    async def scenario() -> None:
        wire = Everwire(limits=Limits(token=100))
        asked: list[str] = []

        @wire.authenticate
        async def who(token: str) -> Identity:
            asked.append(token)
            return Identity("ada")

        async with serving(wire) as (network, _):
            assert await comes(network, "x" * 101) == 4402
            assert await comes(network, "x" * 100) == 0
            assert asked == ["x" * 100]

    play(scenario)


# ---- cookies -----------------------------------------------------------------------------


HOST = "chat.example"
OWN = f"https://{HOST}"


@pytest.mark.parametrize(
    ("host", "origin", "allowed", "ok"),
    [
        (HOST, OWN, None, True),
        (HOST, "http://chat.example", None, True),
        (HOST, "HTTPS://Chat.Example", None, True),
        (HOST, "https://chat.example:443", None, True),
        ("chat.example:443", OWN, None, True),
        ("chat.example:8443", "https://chat.example:8443", None, True),
        ("[::1]:8000", "http://[::1]:8000", None, True),
        (HOST, None, None, False),
        (HOST, "", None, False),
        (HOST, "null", None, False),
        (HOST, "null", ["null"], False),
        (HOST, "https://evil.example", None, False),
        (HOST, "https://chat.example.evil.example", None, False),
        (HOST, "https://evilchat.example", None, False),
        (HOST, "https://sub.chat.example", None, False),
        (HOST, "https://chat.example:8443", None, False),
        ("chat.example:8443", OWN, None, False),
        (HOST, "https://chat.example@evil.example", None, False),
        (HOST, "https://chat.example/", None, False),
        (HOST, "https://", None, False),
        ("", "https://", None, False),
        (HOST, "file://", None, False),
        (HOST, "ftp://chat.example", None, False),
        (HOST, "https://ok.example", ["https://ok.example"], True),
        (HOST, "https://OK.example:443", ["https://ok.example"], True),
        (HOST, "https://ok.example.evil.com", ["https://ok.example"], False),
        (HOST, "https://evilok.example", ["https://ok.example"], False),
        (HOST, "http://ok.example", ["https://ok.example"], False),
        (HOST, "https://ok.example:8443", ["https://ok.example"], False),
        (HOST, OWN, ["https://ok.example"], True),
    ],
)
def test_cookies_are_for_pages_of_the_host_and_of_the_list(
    host: str, origin: str | None, allowed: list[str] | None, ok: bool
) -> None:
    headers = {"host": host} if origin is None else {"host": host, "origin": origin}
    origins = None if allowed is None else frozenset(map(read_origin, allowed))
    assert may_use_cookies(headers, origins) is ok


def test_over_tls_a_page_without_it_is_not_the_host_s_own() -> None:
    headers = {"host": HOST, "origin": f"http://{HOST}"}
    assert may_use_cookies(headers)
    assert not may_use_cookies(headers, secure=True)
    assert may_use_cookies({**headers, "origin": OWN}, secure=True)


async def browse(network: Network, headers: dict[str, str], **auth: Any) -> tuple[str, int]:
    """The user's name and 0, or why it is refused and with which code."""
    peer = Peer(network)
    peer.transport = await network.connect(
        URL, peer, subprotocols=("everwire.v1.json",), headers=headers, max_message=9999
    )
    peer.send(m.Auth(1, **auth))
    answer = await peer.answer(1)
    if isinstance(answer, m.Response):
        return answer.payload["user"], 0
    assert isinstance(answer, m.Error)
    return answer.message, await peer.until_closed()


def by_cookie(kind: str) -> Everwire:
    wire = Everwire()
    if kind == "cookies":

        @wire.authenticate
        async def from_cookies(cookies: dict[str, str], token: str | None = None) -> Identity:
            if token or "sid" in cookies:
                return Identity(token or cookies["sid"])
            raise Unauthorized("no session")
    else:

        @wire.authenticate
        def from_headers(headers: dict[str, str], token: str | None = None) -> Identity:
            cookies = read_cookies(headers.get("cookie", ""))
            name = token or cookies.get("sid") or headers.get("x-user")
            if name:
                return Identity(name)
            raise Unauthorized("no session")

    return wire


@pytest.mark.parametrize("kind", ["cookies", "headers"])
def test_a_foreign_page_cannot_act_with_its_browser_s_cookies(kind: str) -> None:
    async def scenario() -> None:
        async with serving(by_cookie(kind)) as (network, node):
            cookie = {"cookie": "sid=ada"}
            assert await browse(network, {**cookie, "origin": "http://node"}) == ("ada", 0)
            for origin in ("https://evil.example", "null", "http://node.evil.example"):
                why, code = await browse(network, {**cookie, "origin": origin})
                assert code == 4501
                assert "origins=" in why
            why, code = await browse(network, cookie)  # no origin at all
            assert code == 4501
            assert "origins=" in why
            why, code = await browse(network, {"origin": "https://evil.example"})
            assert code == 4501
            assert node.counters["origins_refused"] == 5

    play(scenario)


def test_where_the_anonymous_are_let_in_a_session_counts_and_a_foreign_page_is_nobody() -> None:
    async def scenario() -> None:
        wire = Everwire(allow_anonymous=True)

        @wire.authenticate
        async def who(cookies: dict[str, str]) -> Identity:
            return Identity(cookies["sid"])

        async with serving(wire) as (network, _):
            own = {"cookie": "sid=ada", "origin": "http://node"}
            assert await browse(network, own) == ("ada", 0)
            for headers in ({**own, "origin": "https://evil.example"}, {"cookie": "sid=ada"}, {}):
                assert await browse(network, headers) == ("", 0)

    play(scenario)


@pytest.mark.parametrize("kind", ["cookies", "headers"])
def test_who_shows_a_token_needs_no_page_but_gets_no_cookies_either(kind: str) -> None:
    async def scenario() -> None:
        async with serving(by_cookie(kind)) as (network, _):
            evil = {"cookie": "sid=ada", "origin": "https://evil.example"}
            assert await browse(network, evil, token="bob") == ("bob", 0)
            assert await browse(network, {}, token="bob") == ("bob", 0)
            assert (await browse(network, evil, credentials={"x": 1}))[1] == 4501, "not looked at"
            assert await browse(network, {}) == ("no session", 4500)

    play(scenario)


AMBIENT = {"authorization": "Basic ada", "x-remote-user": "ada", "cookie": "sid=ada"}


@pytest.mark.parametrize("brought", [{"token": "x"}, {"credentials": {"x": 1}}])
def test_a_token_that_nobody_looks_at_opens_nothing_to_a_foreign_page(brought: Any) -> None:
    wire = Everwire()

    @wire.authenticate
    async def by_proxy(headers: dict[str, str]) -> Identity:
        return Identity(headers["x-remote-user"])

    async def scenario() -> None:
        async with serving(wire) as (network, _):
            evil = {**AMBIENT, "origin": "https://evil.example"}
            assert (await browse(network, evil, **brought))[1] == 4501
            own = {**AMBIENT, "origin": "http://node"}
            assert await browse(network, own, **brought) == ("ada", 0)

    play(scenario)


def test_whatever_a_browser_or_a_proxy_adds_is_not_a_foreign_page_s_to_use() -> None:
    wire = Everwire()
    seen: list[dict[str, str]] = []

    @wire.authenticate
    async def by_token_or_proxy(headers: dict[str, str], token: str | None = None) -> Identity:
        seen.append(headers)
        return Identity(headers.get("x-remote-user") or token or "")

    async def scenario() -> None:
        async with serving(wire) as (network, _):
            evil = {**AMBIENT, "origin": "https://evil.example", "user-agent": "a browser"}
            assert await browse(network, evil, token="eve") == ("eve", 0)
            assert seen[-1].keys() == {"host", "origin", "user-agent", "sec-websocket-protocol"}
            program = {name: text for name, text in AMBIENT.items() if name != "cookie"}
            assert await browse(network, program, token="eve") == ("ada", 0)

    play(scenario)


def test_a_program_may_show_a_header_that_no_browser_sends() -> None:
    async def scenario() -> None:
        async with serving(by_cookie("headers")) as (network, _):
            assert await browse(network, {"x-user": "job"}) == ("job", 0)
            foreign = {"x-user": "job", "origin": "https://evil.example"}
            assert (await browse(network, foreign))[1] == 4501

    play(scenario)


@pytest.mark.parametrize(
    ("header", "cookies"),
    [
        ("", {}),
        ("a=1", {"a": "1"}),
        ("a=1; b=2;c=3", {"a": "1", "b": "2", "c": "3"}),
        ("a=1=2", {"a": "1=2"}),
        ('a="q\\054 r"', {"a": "q, r"}),
        ("a=1; a=2", {"a": "2"}),
        (" ; ;; a = 1 ", {"a": "1"}),
        ("alone", {"": "alone"}),
        ("a=", {"a": ""}),
    ],
)
def test_cookies_are_read_as_web_frameworks_read_them(header: str, cookies: dict[str, str]) -> None:
    assert read_cookies(header) == cookies
    from starlette.requests import cookie_parser

    assert cookie_parser(header) == cookies


def test_tokens_are_issued_and_verified_by_the_same_object() -> None:
    async def scenario() -> None:
        made = tokens()
        assert (await made(made.issue("ada"))).user == "ada"

    play(scenario)
