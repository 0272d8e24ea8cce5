"""Keys that issuers publish: fetched from where the configuration says, and seldom."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from everwire import JWT, ConfigError, Unauthorized, Unavailable
from everwire.server.identity.jwks import GIVE_UP, MAX_SIZE, REFRESH, STALE, parse
from everwire.testing import VirtualLoop, run

A, B = "https://a.example", "https://b.example"
URLS = {A: "https://a.example/jwks", B: "https://b.example/jwks"}
ONE, TWO = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


def jwk(key: Any, kid: str = "k", **more: Any) -> dict[str, Any]:
    kinds = {
        rsa.RSAPrivateKey: pyjwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: pyjwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: pyjwt.algorithms.OKPAlgorithm,
    }
    made = next(algorithm for kind, algorithm in kinds.items() if isinstance(key, kind))
    return {**json.loads(made.to_jwk(key.public_key())), "kid": kid, **more}


class Publisher:
    """Where keys are published: answers as a test says, and counts who asks."""

    def __init__(self, **sets: list[dict[str, Any]]) -> None:
        self.sets: dict[str, Any] = dict(sets)
        self.asked: list[str] = []
        self.delay = 0.0

    async def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        await asyncio.sleep(self.delay)
        found = self.sets[url.split("/")[2].partition(".")[0]]
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, bytes) else json.dumps({"keys": found}).encode()


def now() -> float:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.wall()


def signed(key: Any = ONE, iss: Any = A, kid: Any = "k", alg: str = "ES256", **more: Any) -> str:
    claims = {"sub": "ada", "iss": iss, "exp": now() + 7200}
    return pyjwt.encode(claims, key, algorithm=alg, headers={"kid": kid, **more})


def verifier(publisher: Publisher, **options: Any) -> JWT:
    options = {"jwks": URLS, "tenant": "iss", "algorithms": ["ES256"], **options}
    return JWT(fetch=publisher, wall=now, jwks_ttl=600, **options)


async def refused(made: JWT, token: str, why: str = "refused") -> None:
    with pytest.raises(Unauthorized, match=why):
        await made(token)


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run(scenario, limit=20_000)


def test_a_published_key_verifies_and_is_fetched_once() -> None:
    async def scenario() -> None:
        publisher = Publisher(a=[jwk(ONE)])
        made = verifier(publisher)
        for _ in range(5):
            identity = await made(signed())
        assert (identity.user, identity.tenant) == ("ada", A)
        await refused(made, signed(TWO), "signature")
        assert publisher.asked == [URLS[A]]

    play(scenario)


def test_nobody_is_asked_for_the_keys_of_an_issuer_that_is_not_configured() -> None:
    async def scenario() -> None:
        publisher = Publisher(a=[jwk(ONE)])
        made = verifier(publisher)
        evil = {
            "jku": "https://evil.example/jwks",
            "x5u": "https://evil.example/x",
            "jwk": jwk(TWO),
        }
        for iss in ("https://evil.example", "", f"{A}/", URLS[A], A.upper()):
            await refused(made, signed(TWO, iss, **evil), "issuer")
        await refused(made, "x" * 100)
        assert publisher.asked == []
        await refused(made, signed(TWO, **evil), "signature")
        assert publisher.asked == [URLS[A]]

    play(scenario)


def test_the_same_kid_of_two_issuers_is_two_keys() -> None:
    async def scenario() -> None:
        publisher = Publisher(a=[jwk(ONE)], b=[jwk(TWO)])
        made = verifier(publisher)
        assert (await made(signed(ONE, A))).tenant == A
        assert (await made(signed(TWO, B))).tenant == B
        await refused(made, signed(ONE, B), "signature")
        await refused(made, signed(TWO, A), "signature")
        assert sorted(publisher.asked) == sorted(URLS.values())

    play(scenario)


@pytest.mark.parametrize(
    "changed",
    [
        {"alg": "ES384"},
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": 5},
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"key_ops": "verify"},
        {"kid": None},
        {"kid": 5},
        {"kty": "oct", "k": "c2VjcmV0" * 8},
        {"kty": "RSA"},
        {"kty": ["EC"]},
        {"crv": "P-384"},
        {"x": "AAAA"},
        {"d": "AAAA"},
    ],
)
def test_a_published_key_that_is_not_for_this_is_none(changed: dict[str, Any]) -> None:
    """Above all one that names another algorithm than the token does."""

    async def scenario() -> None:
        publisher = Publisher(a=[jwk(ONE, **changed), jwk(TWO, "other"), "junk"])  # type: ignore[list-item]
        made = verifier(publisher)
        await refused(made, signed(), "unknown key")
        assert await made(signed(TWO, kid="other"))

    play(scenario)


def test_a_private_key_that_was_published_is_not_used() -> None:
    async def scenario() -> None:
        private = json.loads(pyjwt.algorithms.ECAlgorithm.to_jwk(ONE))
        publisher = Publisher(a=[{**private, "kid": "k"}, jwk(TWO, "other")])
        assert "d" in private
        await refused(verifier(publisher), signed(), "unknown key")

    play(scenario)


def test_the_algorithm_of_a_token_is_that_of_the_published_key() -> None:
    async def scenario() -> None:
        key = rsa.generate_private_key(65537, 2048)
        publisher = Publisher(a=[jwk(key, alg="RS512"), jwk(key, "free")])
        made = verifier(publisher, algorithms=["RS256", "RS512"])
        assert await made(signed(key, alg="RS512"))
        await refused(made, signed(key, alg="RS256"), "unknown key")
        for alg in ("RS256", "RS512"):
            assert await made(signed(key, kid="free", alg=alg))
        await refused(made, signed(key, kid="free", alg="RS384"), "algorithm")

    play(scenario)


def test_unknown_kids_cause_one_request_in_ten_seconds() -> None:
    async def scenario() -> None:
        publisher = Publisher(a=[jwk(ONE)])
        made = verifier(publisher)
        assert await made(signed())
        await asyncio.sleep(REFRESH)
        for number in range(500):
            await refused(made, signed(TWO, kid=f"../../{number}"), "unknown key")
        assert len(publisher.asked) == 2
        publisher.sets["a"].append(jwk(TWO, "new"))  # rotated
        await refused(made, signed(TWO, kid="new"), "unknown key")
        await asyncio.sleep(REFRESH)
        assert await made(signed(TWO, kid="new"))
        assert len(publisher.asked) == 3

    play(scenario)


def test_all_who_wait_for_a_set_share_one_request_and_who_leaves_leaves_the_others() -> None:
    async def scenario() -> None:
        publisher = Publisher(a=[jwk(ONE)])
        publisher.delay = 2.0
        made = verifier(publisher)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(_until_cancelled(made))
            tasks = [group.create_task(_user(made)) for _ in range(20)]
            await asyncio.sleep(1)
            first.cancel()
        assert [task.result() for task in tasks] == ["ada"] * 20
        assert len(publisher.asked) == 1

    async def _user(made: JWT) -> str:
        return (await made(signed())).user

    async def _until_cancelled(made: JWT) -> None:
        await made(signed())

    play(scenario)


@pytest.mark.parametrize(
    "answer",
    [
        OSError("no route"),
        ValueError("odd"),
        b"",
        b"not json",
        b"[]",
        b'{"keys": 5}',
        b'{"keys": []}',
        b'{"keys": [{"kty": "EC"}]}',
        b"[" * 10_000,
        b'{"keys": [' + b" " * MAX_SIZE + b"]}",
    ],
)
def test_without_its_keys_an_issuer_s_tokens_are_refused_for_now(answer: Any) -> None:
    """Not for good: the client comes back. And not more than one request in ten seconds."""

    async def scenario() -> None:
        publisher = Publisher(a=answer)
        made = verifier(publisher)
        for _ in range(50):
            with pytest.raises(Unavailable) as caught:
                await made(signed())
            assert caught.value.temporary
        assert len(publisher.asked) == 1
        publisher.sets["a"] = [jwk(ONE)]
        await asyncio.sleep(REFRESH)
        assert await made(signed())

    play(scenario)


def test_a_fetch_that_hangs_is_given_up_and_not_the_last_one() -> None:
    async def scenario() -> None:
        publisher = Publisher(a=[jwk(ONE)])
        publisher.delay = 1e6
        made = verifier(publisher)
        async with asyncio.timeout(GIVE_UP + 1):
            with pytest.raises(Unavailable):
                await made(signed())
        publisher.delay = 0.0
        assert await made(signed())

    play(scenario)


def test_a_set_that_is_old_is_fetched_beside_those_who_use_it_and_stays_on_errors() -> None:
    async def scenario() -> None:
        publisher = Publisher(a=[jwk(ONE)])
        made = verifier(publisher)
        assert await made(signed())
        await asyncio.sleep(601)
        publisher.sets["a"] = OSError("down")
        publisher.delay = 5.0
        before = now()
        assert await made(signed())
        assert now() == before, "it waited"
        await asyncio.sleep(6)
        assert len(publisher.asked) == 2
        assert await made(signed())  # the old one is still used
        await asyncio.sleep(STALE)
        with pytest.raises(Unavailable):  # but not for ever
            await made(signed())
        publisher.sets["a"] = [jwk(TWO)]
        await asyncio.sleep(REFRESH)
        await refused(made, signed(), "signature")
        assert await made(signed(TWO))

    play(scenario)


def test_a_key_that_is_no_longer_published_is_no_longer_used() -> None:
    async def scenario() -> None:
        publisher = Publisher(a=[jwk(ONE), jwk(TWO, "two")])
        made = verifier(publisher)
        assert await made(signed())
        publisher.sets["a"] = [jwk(TWO, "two")]
        await asyncio.sleep(601)
        assert await made(signed(TWO, kid="two"))  # this has it fetched
        await asyncio.sleep(1)
        await refused(made, signed(), "unknown key")

    play(scenario)


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example/jwks", "http://10.0.0.1/jwks", "file:///etc/passwd", "ftp://id.example/x",
        "id.example/jwks", "", "https://", "http://127.0.0.1.evil.example/", "http://[::2]/",
    ],
)  # fmt: skip
def test_keys_come_over_https_or_from_this_machine(url: str) -> None:
    with pytest.raises(ConfigError, match="https://"):
        JWT(jwks=url, issuer="i", algorithms=["RS256"])


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost:9", "[::1]:9"])
def test_on_this_machine_http_will_do(host: str) -> None:
    assert JWT(jwks=f"http://{host}/jwks", issuer="i", algorithms=["RS256"])


def test_of_equal_kids_the_first_that_can_be_used_counts() -> None:
    keys = [jwk(ONE, use="enc"), jwk(ONE), jwk(TWO)]
    found = parse(json.dumps({"keys": keys}).encode(), ["ES256"])
    key = pyjwt.get_algorithm_by_name("ES256")
    assert found["k"]["ES256"](b"text", key.sign(b"text", ONE))
    assert not found["k"]["ES256"](b"text", key.sign(b"text", TWO))
