"""Tokens, cookies and addresses of others: over real sockets, whatever is tried."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from everwire import ConfigError, Everwire, EverwireError, Grant, Identity, connect
from everwire.client.client import Client

from .conftest import Target
from .identity_app import SECRET, jwt
from .peer import JSON, Peer, close_all

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def tokens() -> Iterator[Target]:
    """Wants signed tokens; its log says everything."""
    made = Target("identity_app:wire", "--log-level", "debug")
    made.secrets += [SECRET, "t0ken"]
    yield made
    made.stop()


@pytest.fixture(scope="module")
def sessions() -> Iterator[Target]:
    """Takes cookies as well, of its own pages and of one other."""
    made = Target("identity_app:sessions", "--origin", "https://ok.example", "--origin",
                  "http://127.0.0.1:1", "--origin", "http://h")  # fmt: skip
    yield made
    made.stop()


@pytest.fixture
def fresh() -> Iterator[Callable[..., Target]]:
    """A server for a test alone: it will not listen to this address any more."""
    made: list[Target] = []

    def start(*options: str) -> Target:
        made.append(Target("identity_app:wire", *options))
        return made[-1]

    yield start
    for one in made:
        one.stop()


def segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def bad_tokens() -> Iterator[tuple[str, str]]:
    now = int(time.time())
    good = {"sub": "ada", "exp": now + 90_000}  # long after the last test
    rsa_key = rsa.generate_private_key(65537, 2048)
    public = rsa_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head, claims, signature = pyjwt.encode(good, SECRET).split(".")
    yield "none", pyjwt.encode(good, None, algorithm="none")
    yield "none, signed", f"{segment({'alg': 'none'})}.{claims}.{signature}"
    yield "another algorithm", pyjwt.encode(good, SECRET, algorithm="HS512")
    yield "a public key's", pyjwt.encode(good, rsa_key, algorithm="RS256")
    yield "another secret", pyjwt.encode(good, "x" * 64)
    yield "crit", pyjwt.encode(good, SECRET, headers={"crit": ["t0ken"], "t0ken": 1})
    yield "a public key as the secret", f"{head}.{claims}.{segment(public.decode())}"
    for name in ("jku", "x5u"):
        headers = {name: f"http://127.0.0.1:9/{name}", "kid": "http://127.0.0.1:9/kid"}
        yield name, pyjwt.encode(good, "x" * 64, headers=headers)
    for name, value in (
        ("exp missing", None), ("exp text", str(now + 60)), ("exp huge", 1e308),
        ("exp past", now - 61), ("exp bool", True),
    ):  # fmt: skip
        changed = {"sub": "ada"} if value is None else {"sub": "ada", "exp": value}
        yield name, pyjwt.encode(changed, SECRET)
    yield "nbf", pyjwt.encode({**good, "nbf": now + 80_000}, SECRET)
    yield "iat", pyjwt.encode({**good, "iat": now + 80_000}, SECRET)
    yield "aud", pyjwt.encode({**good, "aud": ["t0ken"]}, SECRET)
    yield "sub", f"{segment({'alg': 'HS256'})}.{segment({'sub': 5})}.AAAA"
    yield "a channel's", jwt.issue("ada", channel="private:1")
    yield "large", pyjwt.encode({**good, "info": "t0ken" * 4000}, SECRET)
    yield "no token", "t0ken"
    yield "", ""


BAD = dict(bad_tokens())


@pytest.mark.parametrize("name", BAD)
def test_a_token_that_is_not_as_it_should_be_is_refused_with_4402(
    tokens: Target, name: str
) -> None:
    """Nothing of it is in the log, which says everything else."""

    def case() -> None:
        with Peer(tokens.port, JSON) as peer:
            answer = peer.ask({"type": "auth", "id": 1, "token": BAD[name]})
            assert answer["type"] == "error", answer
            assert answer["code"] in (200, 201)
            assert peer.code() == 4402
            assert "t0ken" not in json.dumps(answer)

    tokens.attack(case)


def test_no_key_is_fetched_from_where_a_token_says(tokens: Target) -> None:
    """Somebody listens where it points, and nobody comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/keys"
        headers = {"jku": url, "x5u": url, "kid": url, "jwk": {"kty": "oct", "k": "AAAA"}}
        claims = {"sub": "ada", "iss": url, "exp": time.time() + 60}
        with Peer(tokens.port, JSON) as peer:
            bad = pyjwt.encode(claims, "x" * 64, headers=headers)
            peer.say({"type": "auth", "id": 1, "token": bad})
            assert peer.code() == 4402
        with Peer(tokens.port, JSON) as peer:
            peer.auth(token=pyjwt.encode(claims, SECRET, headers=headers))
        server.settimeout(0.3)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_token_of_a_megabyte_is_not_even_read(tokens: Target) -> None:
    def case() -> None:
        with Peer(tokens.port, JSON) as peer:
            peer.say({"type": "auth", "id": 1, "token": "A" * 1_000_000})
            assert peer.code() == 1009

    tokens.attack(case)


def test_ten_thousand_bad_tokens_are_verified_fifty_times(fresh: Callable[..., Target]) -> None:
    """As many as an address may have refused in a minute; one line in the log says so."""
    target = fresh()
    inside = Peer(target.port, JSON).auth(token=jwt.issue("ada"))
    bad = json.dumps({"type": "auth", "id": 1, "token": pyjwt.encode({"sub": "x"}, "x" * 64)})
    codes: list[int | None] = []

    def case(hundreds: int = 10) -> None:
        for _ in range(hundreds):
            peers = [Peer(target.port, JSON) for _ in range(100)]
            for peer in peers:
                peer.say(bad)
            codes.extend(peer.code() for peer in peers)
            close_all(peers)

    target.attack(case, lines=1, again=False)
    case(90)  # what they leave behind is let go within seconds, not at once
    assert codes.count(4402) == 50
    assert codes.count(4429) == 9950
    assert inside.query("verified")["payload"] == 51
    counted = inside.query("counted")["payload"]
    assert (counted["auths_refused"], counted["auths_throttled"]) == (50, 9950)
    with Peer(target.port, JSON) as late:  # a good one as well, for the rest of the minute
        late.say({"type": "auth", "id": 1, "token": jwt.issue("ada")})
        assert late.code() == 4429
    inside.close()


def refused(port: int, count: int, forwarded: Callable[[int], str]) -> list[int | None]:
    codes = []
    for number in range(count):
        with Peer(port, JSON, X_Forwarded_For=forwarded(number)) as peer:
            peer.say({"type": "auth", "id": 1, "token": "bad"})
            codes.append(peer.code())
    return codes


def test_whom_a_stranger_claims_to_forward_for_is_not_believed(
    fresh: Callable[..., Target],
) -> None:
    codes = refused(fresh().port, 60, lambda number: f"192.0.2.{number}, 198.51.100.{number}")
    assert codes == [4402] * 50 + [4429] * 10


def test_whom_a_trusted_proxy_forwards_for_is_who_is_refused(fresh: Callable[..., Target]) -> None:
    """What the client wrote before the proxy's own word is nothing."""
    port = fresh("--trusted-proxy", "127.0.0.1").port
    assert refused(port, 60, lambda number: f"192.0.2.{number}, 198.51.100.7")[50:] == [4429] * 10
    assert refused(port, 1, lambda _: "198.51.100.7, 198.51.100.8") == [4402]


# ---- where tokens travel ------------------------------------------------------------------


def test_a_token_in_the_url_is_not_read_and_stands_nowhere(tokens: Target) -> None:
    token = jwt.issue("ada", jti="t0ken")
    seen: list[bytes] = []

    def case() -> None:
        for query in (f"token={token}", f"access_token={token}", f"x=t0ken&token={token}"):
            for path in ("/ws", "/nowhere", "/healthz", "/"):
                with socket.create_connection(("127.0.0.1", tokens.port), 5) as sock:
                    sock.sendall(
                        f"GET {path}?{query} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n"
                        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                        f"Sec-WebSocket-Protocol: {JSON}\r\n\r\n".encode()
                    )
                    answer = sock.recv(65536)
                    if b" 101 " in answer:
                        frame = bytes([0x81, 0x80 | 22, 0, 0, 0, 0]) + b'{"type":"auth","id":1}'
                        sock.sendall(frame)
                        while b'"requestId":1' not in answer:
                            answer += sock.recv(65536)
                        assert b'"user":""' in answer  # let in as nobody
                    seen.append(answer)

    tokens.attack(case)
    assert len(seen) == 12
    assert not any(b"t0ken" in answer or token.encode() in answer for answer in seen)
    assert not any(token in line or "t0ken" in line for line in tokens.child.err)
    with Peer(tokens.port, JSON).auth(token=jwt.issue("bob")) as peer:
        assert "t0ken" not in json.dumps(peer.query("counted"))


def test_a_client_shows_no_token_of_its_url(
    tokens: Target, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    async def scenario(path: str) -> str:
        client: Client | None = None
        try:
            async with connect(
                f"ws://127.0.0.1:{tokens.port}{path}?token=t0ken&x=1", token="wrong"
            ) as client:
                pass
        except EverwireError as error:
            return f"{error!r} {error} {client!r}"
        return "connected"

    for path in ("/ws", "/nowhere"):
        said = asyncio.run(scenario(path))
        assert "connected" not in said.split()
        assert "t0ken" not in said
    assert "t0ken" not in caplog.text


def test_a_token_among_the_subprotocols_is_used_and_never_agreed_upon(tokens: Target) -> None:
    token = jwt.issue("ada", jti="t0ken")
    for offers in (f"{JSON}, everwire.token.{token}", f"everwire.token.{token},{JSON}"):
        with Peer(tokens.port, offers) as peer:
            assert f"Sec-WebSocket-Protocol: {JSON}\r\n" in f"{peer.head.decode()}\r\n"
            assert b"everwire.token" not in peer.head
            peer.auth()
    with Peer(tokens.port, f"everwire.token.{token}") as peer:
        assert peer.head.startswith(b"HTTP/1.1 400 ")
        assert token.encode() not in peer.head + peer.ended()
    with Peer(tokens.port, f"{JSON}, everwire.token.{token[:-3]}AAA") as peer:
        peer.say({"type": "auth", "id": 1})
        assert peer.code() == 4402


# ---- cookies ------------------------------------------------------------------------------

PAGES = [
    ("http://h", 0),
    ("HTTP://H:80", 0),
    ("https://ok.example", 0),
    ("https://OK.example:443", 0),
    (None, 4501),
    ("null", 403),
    ("https://evil.example", 403),
    ("https://ok.example.evil.com", 403),
    ("https://evilok.example", 403),
    ("https://ok.example:8443", 403),
    ("http://ok.example", 403),
]


def cookie_code(port: int, origin: str | None, **auth: Any) -> int | None:
    """0, the status of a refused handshake, or the code of the close."""
    headers = {"Cookie": "a=b; sid=ada"}
    if origin is not None:
        headers["Origin"] = origin
    with Peer(port, JSON, **headers) as peer:
        if not peer.accepted:
            return int(peer.head.split()[1])
        answer = peer.ask({"type": "auth", "id": 1, **auth})
        if answer["type"] == "response":
            assert answer["payload"]["user"] == "ada"
            return 0
        if answer["name"] == "forbidden":
            assert "origins=" in answer["message"]
        return peer.code()


@pytest.mark.parametrize(("origin", "code"), PAGES)
def test_a_cookie_counts_for_pages_of_the_list_alone(
    sessions: Target, origin: str | None, code: int
) -> None:
    assert cookie_code(sessions.port, origin) == code


def test_cookies_may_come_in_several_headers(sessions: Target) -> None:
    with Peer(sessions.port, JSON, Cookie="a=b", Origin="http://h", cookie="sid=eve") as peer:
        answer = peer.ask({"type": "auth", "id": 1})
        assert answer["payload"]["user"] == "eve"


def test_a_token_needs_no_page(sessions: Target) -> None:
    assert cookie_code(sessions.port, None, token=jwt.issue("ada")) == 0


@pytest.mark.parametrize(
    ("origin", "code"), [("http://h", 0), (None, 4501), ("https://evil.example", 4501)]
)
def test_inside_another_server_cookies_are_for_the_host_s_own_pages_too(
    start: Callable[..., Any], free_port: int, origin: str | None, code: int
) -> None:
    command = [sys.executable, "-m", "uvicorn", "identity_app:hosted", "--port", str(free_port)]
    child = start(command, cwd=HERE)
    child.line("Uvicorn running on", stream="err")
    assert cookie_code(free_port, origin) == code
    assert cookie_code(free_port, None, token=jwt.issue("ada")) == 0


# ---- live connections -----------------------------------------------------------------------


def test_a_token_that_ends_or_is_revoked_ends_what_it_opened(tokens: Target) -> None:
    """Within a second; and what it opened is not opened by it again."""
    with Peer(tokens.port, JSON).auth(token=jwt.issue("root")) as root:
        for way in ("expires", "revoked"):
            token = jwt.issue(way, expires_in=2.0 if way == "expires" else 600.0)
            with Peer(tokens.port, JSON) as peer:
                peer.auth(token=token, subscribe=[{"channel": "c"}])
                ended = time.monotonic() + 2.0
                if way == "revoked":
                    ended = time.monotonic()
                    root.query("revoke", {"user": way})
                assert peer.code() == 4402
                assert time.monotonic() - ended < 1.5  # one, and half of one for the machine
            if way == "revoked":
                with Peer(tokens.port, JSON) as peer:
                    peer.say({"type": "auth", "id": 1, "token": token})
                    assert peer.code() == 4402


def test_a_client_with_a_provider_outlives_expiry_and_revocation_and_misses_nothing(
    tokens: Target,
) -> None:
    async def scenario() -> tuple[list[Any], int]:
        asked = 0
        url = f"ws://127.0.0.1:{tokens.port}/ws"

        async def provider() -> str:
            nonlocal asked
            asked += 1
            return jwt.issue("eva", expires_in=2.0)

        got: list[Any] = []
        async with connect(url, token=jwt.issue("root")) as writer, connect(
            url, token=provider
        ) as reader:  # fmt: skip
            async with reader.subscribe("news") as room:
                for number in range(50):
                    await writer.publish("news", number)
                    if number in (20, 40):
                        await writer.query("revoke", {"user": "eva"})
                    await asyncio.sleep(0.1)
                async with asyncio.timeout(20):
                    while len(got) < 50:
                        item = await anext(room)
                        got.append(getattr(item, "data", item))
        return got, asked

    got, asked = asyncio.run(scenario())
    assert got == list(range(50))
    assert asked >= 4


def test_a_setting_for_home_is_loud_where_others_can_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The address is this machine's own; that it is cannot be told from how it is written."""

    async def scenario(host: str, **options: Any) -> dict[str, int]:
        wire = Everwire(**options)
        wire.channel("c", grant=Grant())

        @wire.authenticate
        async def who(token: str) -> Identity:
            return Identity(token)

        async with wire.listen(host, 0) as server:
            return dict(server.node.counters)

    for host, options, loud in (
        ("127.1", {"allow_anonymous": True}, True),
        ("127.0.0.1", {"allow_anonymous": True}, False),
        ("127.1", {}, False),
    ):
        caplog.clear()
        counters = asyncio.run(scenario(host, **options))
        assert ("insecure: allow_anonymous" in caplog.text) is loud
        assert counters.get("insecure_settings", 0) == int(loud)
    with pytest.raises(ConfigError, match="32 bytes"):
        type(jwt)("short", algorithms=["HS256"])
