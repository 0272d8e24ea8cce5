"""JWT: what a signed token must be, and what is refused, each by its own rule."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from everwire import JWT, ConfigError, Identity, RequestError, Unauthorized
from everwire.codes import ErrorCode

NOW = 1_700_000_000.0
SECRET = "s" * 64
OTHER = "o" * 64


def pem(key: Any) -> tuple[str, str]:
    """The private and the public half."""
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


RSA = pem(rsa.generate_private_key(65537, 2048))
P256 = pem(ec.generate_private_key(ec.SECP256R1()))
P384 = pem(ec.generate_private_key(ec.SECP384R1()))
P521 = pem(ec.generate_private_key(ec.SECP521R1()))
ED = pem(ed25519.Ed25519PrivateKey.generate())
KEYS = {
    "HS256": (SECRET, SECRET), "HS384": (SECRET, SECRET), "HS512": (SECRET, SECRET),
    "RS256": RSA, "RS384": RSA, "RS512": RSA, "PS256": RSA, "PS384": RSA, "PS512": RSA,
    "ES256": P256, "ES384": P384, "ES512": P521, "EdDSA": ED,
}  # fmt: skip


def signed(
    claims: dict[str, Any] | None = None,
    *,
    key: Any = SECRET,
    algorithm: str = "HS256",
    headers: dict[str, Any] | None = None,
    **more: Any,
) -> str:
    made = {"sub": "ada", "exp": int(NOW) + 60, **(claims or {}), **more}
    return pyjwt.encode(made, key, algorithm=algorithm, headers=headers)


def segment(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def forged(header: dict[str, Any], claims: Any, secret: bytes = SECRET.encode()) -> str:
    """A token whose parts are whatever a test wants, well signed with HS256."""
    text = f"{segment(header)}.{segment(claims)}"
    return f"{text}.{segment(hmac.digest(secret, text.encode(), 'sha256'))}"


def verifier(key: Any = SECRET, *, algorithms: Any = ("HS256",), **options: Any) -> JWT:
    if "jwks" not in options and "keys" not in options:
        options["key"] = key
    options.setdefault("wall", lambda: NOW)
    return JWT(algorithms=list(algorithms), **options)


def verify(made: JWT, token: str) -> Identity:
    return asyncio.run(made(token))  # type: ignore[arg-type]


def refuses(made: JWT, token: str, why: str, code: int = ErrorCode.UNAUTHENTICATED) -> None:
    with pytest.raises(Unauthorized, match=why) as caught:
        verify(made, token)
    assert caught.value.code == code


# ---- what is accepted ---------------------------------------------------------------


@pytest.mark.parametrize("algorithm", KEYS)
def test_each_algorithm_verifies_with_its_kind_of_key(algorithm: str) -> None:
    private, public = KEYS[algorithm]
    token = signed(key=private, algorithm=algorithm)
    made = verifier(public, algorithms=[algorithm])
    assert verify(made, token).user == "ada"
    head, claims, signature = token.split(".")
    broken = ("A" if signature[0] != "A" else "B") + signature[1:]
    refuses(made, f"{head}.{claims}.{broken}", "signature")
    refuses(made, f"{head}.{segment({'sub': 'eve', 'exp': NOW + 9})}.{signature}", "signature")


def test_claims_become_the_identity() -> None:
    made = verifier(tenant="org", info="profile")
    token = signed(org="acme", profile={"name": "Ada"}, iat=NOW - 5, jti="t-1", exp=NOW + 60)
    assert verify(made, token) == Identity("ada", {"name": "Ada"}, "acme", NOW + 60, NOW - 5, "t-1")
    by_name = verifier(identity=lambda claims: Identity(claims["name"], token_id="mine"))
    assert verify(by_name, signed(name="Ada L.", jti="t-1")) == Identity(
        "Ada L.", None, "", int(NOW) + 60, 0.0, "mine"
    )


def test_a_token_without_an_id_is_named_by_what_was_signed() -> None:
    """Not by its signature, which can be spelled in several ways."""
    made = verifier(P256[1], algorithms=["ES256"])
    claims = {"sub": "ada", "exp": int(NOW) + 60}
    one, two = (signed(claims, key=P256[0], algorithm="ES256") for _ in range(2))
    assert one != two  # ECDSA signs differently each time
    assert verify(made, one).token_id == verify(made, two).token_id != ""


def test_what_it_issues_it_accepts() -> None:
    made = verifier(issuer="me", audience=["chat", "other"], tenant="org")
    identity = verify(made, made.issue("ada", expires_in=10, org="acme"))
    assert (identity.user, identity.tenant, identity.expires) == ("ada", "acme", NOW + 10)
    assert identity.issued == NOW
    assert len(identity.token_id) >= 12
    several = verifier(keys={"old": RSA[1], "new": SECRET}, algorithms=["RS256", "HS256"])
    assert verify(several, several.issue("bob")).user == "bob"
    with pytest.raises(ConfigError, match="private key"):
        verifier(RSA[1], algorithms=["RS256"]).issue("ada")


# ---- algorithms and keys ------------------------------------------------------------


def test_alg_none_is_refused_and_cannot_be_allowed() -> None:
    unsigned = pyjwt.encode({"sub": "ada", "exp": NOW + 60}, None, algorithm="none")
    refuses(verifier(), unsigned, "no JWT")
    head, claims, _ = signed().split(".")
    for alg in ("none", "None", "NONE", "nOnE"):
        none = segment({"alg": alg, "typ": "JWT"})
        refuses(verifier(), f"{none}.{claims}.", "no JWT")
        refuses(verifier(), f"{none}.{claims}.AAAA", "algorithm")
    for alg in ("none", "HS1", "hs256", ""):
        with pytest.raises(ConfigError, match="no algorithm"):
            verifier(algorithms=["HS256", alg])
    assert head


def test_hs256_signed_with_the_rsa_public_key_is_refused() -> None:
    private, public = RSA
    header, claims = {"alg": "HS256", "typ": "JWT"}, {"sub": "ada", "exp": NOW + 60}
    for secret in (public.encode(), public.strip().encode()):
        token = forged(header, claims, secret)
        refuses(verifier(public, algorithms=["RS256"]), token, "algorithm")
        both = verifier(keys={"a": public, "b": SECRET}, algorithms=["RS256", "HS256"])
        refuses(both, forged({**header, "kid": "a"}, claims, secret), "unknown key")
        refuses(both, forged({**header, "kid": "b"}, claims, secret), "signature")
    assert verify(verifier(public, algorithms=["RS256"]), signed(key=private, algorithm="RS256"))


def test_an_algorithm_that_is_not_on_the_list_is_refused() -> None:
    refuses(verifier(algorithms=["HS256"]), signed(algorithm="HS384"), "algorithm")
    rs = signed(key=RSA[0], algorithm="RS512")
    refuses(verifier(RSA[1], algorithms=["RS256"]), rs, "algorithm")
    for alg in (None, 5, ["HS256"], {"HS256": 1}):
        token = forged({"alg": alg}, {"sub": "ada", "exp": NOW + 60})
        refuses(verifier(), token, "algorithm")


@pytest.mark.parametrize(
    ("key", "algorithms", "why"),
    [
        ("s" * 31, ["HS256"], "32 bytes"),
        ("s" * 47, ["HS384"], "48 bytes"),
        ("s" * 63, ["HS256", "HS512"], "64 bytes"),
        ("", ["HS256"], "32 bytes"),
        (SECRET, ["RS256"], "a secret cannot be used with RS256"),
        (SECRET, ["HS256", "ES256"], "can be used with ES256"),
        (RSA[1], ["HS256"], "public key cannot be used with HS256"),
        (RSA[1], ["RS256", "HS256"], "can be used with HS256"),
        (P256[1], ["ES384"], "cannot be used with ES384"),
        (RSA[0], ["RS256"], "public key alone"),
        ("-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----", ["RS256"], "not a public key"),
        (5, ["HS256"], "text or bytes"),
        (SECRET, [], "list of those"),
        (SECRET, "HS256", "list of those"),
    ],
)
def test_a_key_that_does_not_fit_its_algorithms_is_refused_at_once(
    key: Any, algorithms: Any, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        JWT(key, algorithms=algorithms)


def test_a_weak_rsa_key_is_refused() -> None:
    weak = pem(rsa.generate_private_key(65537, 1024))[1]
    with pytest.raises(ConfigError, match="cannot be used"):
        verifier(weak, algorithms=["RS256"])


def test_settings_that_leave_open_who_signs_are_refused() -> None:
    with pytest.raises(ConfigError, match="one of key"):
        JWT(algorithms=["HS256"])
    with pytest.raises(ConfigError, match="one of key"):
        JWT(SECRET, keys={"a": SECRET}, algorithms=["HS256"])
    with pytest.raises(ConfigError, match="whose keys"):
        JWT(jwks="https://id.example/jwks", algorithms=["RS256"])
    with pytest.raises(ConfigError, match="never a JWKS"):
        JWT(jwks="https://id.example/jwks", issuer="i", algorithms=["HS256"])
    with pytest.raises(ConfigError, match="tenant='iss'"):
        JWT(jwks={"a": "https://a.example", "b": "https://b.example"}, algorithms=["RS256"])
    for leeway in (-1, 601, float("nan")):
        with pytest.raises(ConfigError, match="leeway"):
            JWT(SECRET, algorithms=["HS256"], leeway=leeway)


def test_without_pyjwt_the_remedy_is_named() -> None:
    code = (
        "import sys; sys.modules['jwt'] = None\n"
        "from everwire import JWT, ConfigError, Everwire\n"
        "try:\n    JWT('s' * 64, algorithms=['HS256'])\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert "pip install 'everwire[jwt]'" in done.stdout


def test_pyjwt_is_loaded_only_when_it_is_used() -> None:
    code = (
        "import sys, everwire; everwire.Everwire; everwire.JWT\n"
        "sys.exit(any(n in sys.modules for n in ('jwt', 'cryptography')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


# ---- headers that would lead elsewhere ---------------------------------------------------


@pytest.mark.parametrize(
    "crit", [["unknown"], ["b64"], ["exp"], [], "b64", None, 5, ["typ"], {"a": 1}]
)
def test_whatever_is_critical_is_refused(crit: Any) -> None:
    header = {"alg": "HS256", "crit": crit, "unknown": 1, "b64": True}
    refuses(verifier(), forged(header, {"sub": "ada", "exp": NOW + 60}), "extension")


def test_a_payload_that_is_not_encoded_is_refused() -> None:
    header = {"alg": "HS256", "b64": False}
    refuses(verifier(), forged(header, {"sub": "ada", "exp": NOW + 60}), "extension")


@pytest.mark.parametrize(
    "kid",
    ["../../dev/null", "/etc/passwd", "https://evil.example/key", "' OR 1=1 --", "", "a\x00", "b"],
)
def test_a_kid_is_only_ever_looked_up(kid: str) -> None:
    made = verifier(keys={"a": SECRET})
    refuses(made, signed(headers={"kid": kid}), "unknown key")
    assert verify(made, signed(headers={"kid": "a"})).user == "ada"


def test_a_kid_that_is_missing_or_no_text_is_refused_where_there_are_several_keys() -> None:
    claims = {"sub": "ada", "exp": NOW + 60}
    for kid in (None, 1, ["a"], {"a": 1}, True):
        refuses(verifier(keys={"a": SECRET}), forged({"alg": "HS256", "kid": kid}, claims), "kid")
    refuses(verifier(keys={"a": SECRET}), signed(), "kid")


def test_a_key_that_the_token_brings_along_is_not_used() -> None:
    evil = rsa.generate_private_key(65537, 2048)
    jwk = json.loads(pyjwt.algorithms.RSAAlgorithm.to_jwk(evil.public_key()))
    for headers in (
        {"jwk": jwk},
        {"jku": "http://127.0.0.1:9/jwks"},
        {"x5u": "http://127.0.0.1:9/x"},
        {"x5c": ["AAAA"]},
    ):
        token = signed(key=pem(evil)[0], algorithm="RS256", headers=headers)
        refuses(verifier(RSA[1], algorithms=["RS256"]), token, "signature")
        good = signed(key=RSA[0], algorithm="RS256", headers=headers)
        assert verify(verifier(RSA[1], algorithms=["RS256"]), good).user == "ada"


# ---- what is no token at all ---------------------------------------------------------------


def garbage() -> Iterator[str]:
    head, claims, signature = signed().split(".")
    yield from ("", ".", "..", "...", "a.b.c", "a.b", f"{head}.{claims}", "☃" * 10, "\x00" * 20)
    yield f"{head}.{claims}.{signature}.x"
    yield f"{head}.{claims}.{signature}="
    yield f"{head}.{claims}.{signature}\n"
    yield f" {head}.{claims}.{signature}"
    yield f"{head}.{claims}.!{signature}"
    yield f"{segment(b'[]')}.{claims}.{signature}"
    yield f"{segment(b'null')}.{claims}.{signature}"
    yield f"{segment(b'{')}.{claims}.{signature}"
    yield f"{segment(b'[' * 5000)}.{claims}.{signature}"
    not_text = segment(bytes([255, 254]))
    yield f"{not_text}.{claims}.{signature}"
    yield forged({"alg": "HS256"}, [1, 2])
    yield forged({"alg": "HS256"}, b"{" * 5000)


@pytest.mark.parametrize("token", list(garbage()))
def test_what_is_no_token_is_refused_whatever_it_is(token: str) -> None:
    with pytest.raises(Unauthorized, match="the token is refused"):
        verify(verifier(), token)


def test_the_unused_bits_of_a_signature_spell_no_other_token() -> None:
    head, claims, signature = signed().split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet[alphabet.index(signature[-1]) ^ 1]
    refuses(verifier(), f"{head}.{claims}.{signature[:-1]}{last}", "no JWT")


def test_a_large_token_is_refused_before_it_is_decoded() -> None:
    """In less time than looking at one of its parts would take."""
    big = "A" * 1_000_000
    refuses(verifier(), f"{big}.{big}.{big}", "8192 characters")
    refuses(verifier(), signed(info="x" * 8192), "8192 characters")
    assert verify(verifier(max_size=20_000), signed(info="x" * 8192)).user == "ada"


# ---- dates --------------------------------------------------------------------------------


def test_exp_must_be_there_unless_that_is_waived() -> None:
    token = pyjwt.encode({"sub": "ada"}, SECRET)
    refuses(verifier(), token, "exp")
    assert verify(verifier(require_exp=False), token).expires is None


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", ["soon", "1700000060", None, True, [], {}, 1e308, -1, 2**63, 253402300800, 10**400]
)
def test_a_date_that_is_none_is_refused(claim: str, value: Any) -> None:
    claims = {"sub": "ada", "exp": NOW + 60, claim: value}
    refuses(verifier(), forged({"alg": "HS256"}, claims), claim)


@pytest.mark.parametrize("value", [b"1e400", b"NaN", b"Infinity", b"-Infinity", b"1e999999"])
def test_a_date_that_is_not_finite_is_refused(value: bytes) -> None:
    claims = b'{"sub":"ada","exp":' + value + b"}"
    with pytest.raises(Unauthorized):
        verify(verifier(), forged({"alg": "HS256"}, claims))


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": NOW - 59}, None),
        ({"exp": NOW - 60}, ErrorCode.TOKEN_EXPIRED),
        ({"exp": NOW - 61}, ErrorCode.TOKEN_EXPIRED),
        ({"exp": 0}, ErrorCode.TOKEN_EXPIRED),
        ({"nbf": NOW + 59}, None),
        ({"nbf": NOW + 61}, ErrorCode.UNAUTHENTICATED),
        ({"iat": NOW + 59}, None),
        ({"iat": NOW + 61}, ErrorCode.UNAUTHENTICATED),
    ],
)
def test_clocks_may_differ_by_a_minute_and_no_more(
    claims: dict[str, Any], code: int | None
) -> None:
    token = signed(claims)
    if code is None:
        assert verify(verifier(), token).user == "ada"
    else:
        refuses(verifier(), token, "token", code)
    if claims.get("exp") == NOW - 59:
        refuses(verifier(leeway=0), token, "expired", ErrorCode.TOKEN_EXPIRED)


def test_the_leeway_is_for_who_comes_and_who_is_here_goes_at_exp() -> None:
    assert verify(verifier(), signed(exp=NOW + 1)).expires == NOW + 1
    assert verify(verifier(), signed(exp=NOW - 10)).expires == NOW + 50


# ---- for whom, of whom -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "aud", "ok"),
    [
        (None, None, True),
        (None, "chat", False),
        ("chat", None, False),
        ("chat", "chat", True),
        ("chat", ["mail", "chat"], True),
        ("chat", ["mail"], False),
        ("chat", [], False),
        ("chat", ["chat", 5], False),
        ("chat", 5, False),
        ("chat", {"chat": 1}, False),
        (["a", "b"], ["b"], True),
        (["a", "b"], "ab", False),
        ("chat", "Chat", False),
    ],
)
def test_a_token_for_others_is_refused(wanted: Any, aud: Any, ok: bool) -> None:
    claims: dict[str, Any] = {"sub": "ada", "exp": NOW + 60}
    if aud is not None:
        claims["aud"] = aud
    made = verifier(audience=wanted)
    token = forged({"alg": "HS256"}, claims)
    if ok:
        assert verify(made, token).user == "ada"
    else:
        refuses(made, token, "aud")


@pytest.mark.parametrize(
    "iss", [None, "evil", "", 5, ["https://id.example"], "https://id.example/"]
)
def test_a_token_of_another_issuer_is_refused(iss: Any) -> None:
    claims = {"sub": "ada", "exp": NOW + 60, "iss": iss}
    if iss is None:
        del claims["iss"]
    made = verifier(issuer="https://id.example")
    refuses(made, forged({"alg": "HS256"}, claims), "issuer")
    assert verify(made, signed(iss="https://id.example")).user == "ada"


@pytest.mark.parametrize("sub", [None, "", 5, ["ada"], {"a": 1}, True])
def test_a_user_is_text_and_not_empty(sub: Any) -> None:
    refuses(verifier(), forged({"alg": "HS256"}, {"sub": sub, "exp": NOW + 60}), "sub")


def test_a_tenant_that_is_wanted_must_be_there() -> None:
    made = verifier(tenant="org")
    refuses(made, signed(), "org")
    refuses(made, signed(org=""), "org")
    refuses(made, signed(org=5), "org")


def test_a_name_that_is_no_text_is_refused() -> None:
    refuses(verifier(), forged({"alg": "HS256"}, {"sub": "a", "exp": NOW + 6, "jti": 5}), "jti")


def test_the_token_of_a_channel_is_none_of_a_connection() -> None:
    made = verifier()
    refuses(made, made.issue("ada", channel="c"), "for a channel")


@pytest.mark.parametrize("claims", [{"publish": 1}, {"subscribe": "yes"}, {"channel": 5}])
def test_the_rights_of_a_channel_are_read_strictly(claims: dict[str, Any]) -> None:
    made = verifier()
    with pytest.raises(Unauthorized):
        asyncio.run(made.channel(signed({"channel": "c", **claims})))


def test_what_is_refused_is_not_repeated_to_whoever_sent_it() -> None:
    for token in (signed(key=OTHER), signed(iss="t0p-s3cret"), "t0p-s3cret"):
        with pytest.raises(RequestError) as caught:
            verify(verifier(issuer="me", tenant="org"), token)
        assert "s3cret" not in str(caught.value)
        assert token[:20] not in str(caught.value)
    assert "s" * 64 not in repr(verifier())
