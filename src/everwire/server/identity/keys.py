"""Keys that verify tokens, and which algorithms each of them may be used with.

A token names its algorithm itself, so that name decides nothing: a key is bound to the
algorithms of its kind when it is read, and a token that names another one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import Any, TypeAlias

from ...errors import ConfigError

Verify: TypeAlias = Callable[[bytes, bytes], bool]
"""Tell whether a signature (second) is that of a text (first)."""
Verifiers: TypeAlias = Mapping[str, Verify]
"""What one key can verify, by algorithm."""

SECRETS = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Bytes that the secret of an algorithm must have at least (RFC 7518 section 3.2)."""
CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
RSA_BITS = 2048
KNOWN = (*SECRETS, *RSA, *CURVES.values(), "EdDSA")


def pyjwt() -> ModuleType:
    """Load PyJWT.

    Raises:
        ConfigError: it, or what it needs for public keys, is not installed.
    """
    try:
        import cryptography  # noqa: F401
        import jwt
    except ImportError as error:
        raise ConfigError(f"JWT needs PyJWT ({error}): pip install 'everwire[jwt]'") from None
    return jwt


def check_algorithms(algorithms: Collection[str]) -> tuple[str, ...]:
    """Check an allow-list of algorithms.

    Raises:
        ConfigError: it is none, is empty, or names one that is not known, as ``none``.
    """
    given: Any = algorithms
    if isinstance(given, str) or not given:
        raise ConfigError('JWT(algorithms=…) is a list of those that are allowed, as ["RS256"]')
    for one in algorithms:
        if one not in KNOWN:
            raise ConfigError(f"JWT: no algorithm {one!r}; known are {', '.join(KNOWN)}")
    return tuple(dict.fromkeys(algorithms))


def read_key(material: str | bytes, algorithms: Collection[str]) -> Verifiers:
    """Read a secret, or a public key or certificate in PEM.

    Raises:
        ConfigError: it is neither, is too weak, or fits none of ``algorithms``.
    """
    given: Any = material
    if not isinstance(given, (str, bytes)):
        raise ConfigError(f"a key of JWT is text or bytes, not {type(given).__name__}")
    data = material.encode() if isinstance(material, str) else material
    key = _public_key(data) if b"-----BEGIN" in data else data
    if isinstance(key, bytes):
        short = [one for one in algorithms if one in SECRETS and len(key) < SECRETS[one]]
        if short:
            raise ConfigError(
                f"a secret for {short[0]} has {SECRETS[short[0]]} bytes or more, not {len(key)}; "
                "make one: python -c 'import secrets; print(secrets.token_urlsafe(64))'"
            )
    found = verifiers(key, algorithms)
    if not found:
        kind = "a secret" if isinstance(key, bytes) else "this public key"
        raise ConfigError(
            f"{kind} cannot be used with {', '.join(algorithms)}: HS algorithms need a secret, "
            "RS, PS, ES and EdDSA a public key of their kind"
        )
    return found


def _public_key(data: bytes) -> Any:
    pyjwt()
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    if b"PRIVATE KEY-----" in data:
        raise ConfigError("a server needs the public key alone: openssl pkey -pubout")
    try:
        if b"BEGIN CERTIFICATE" in data:
            return load_pem_x509_certificate(data).public_key()
        return load_pem_public_key(data)
    except ValueError as error:
        raise ConfigError(f"not a public key in PEM: {error}") from None


def verifiers(key: Any, algorithms: Collection[str]) -> Verifiers:
    """Return what a key can verify: for the algorithms that fit its kind, and no others.

    Args:
        key: bytes, or a public key of ``cryptography``.
        algorithms: those that are allowed.
    """
    jwt = pyjwt()
    found: dict[str, Verify] = {}
    for name in algorithms:
        if not fits(key, name):
            continue
        algorithm = jwt.get_algorithm_by_name(name)
        try:
            prepared = algorithm.prepare_key(key)
        except jwt.InvalidKeyError as error:  # as a secret that is a public key in another form
            raise ConfigError(f"JWT: {error}") from None
        found[name] = _bound(algorithm, prepared)
    return found


def _bound(algorithm: Any, key: Any) -> Verify:
    def verify(signed: bytes, signature: bytes) -> bool:
        return algorithm.verify(signed, key, signature) is True

    return verify


def fits(key: Any, algorithm: str) -> bool:
    """Tell whether a key is of the kind that an algorithm takes, and a public one strong enough."""
    if isinstance(key, bytes):
        return algorithm in SECRETS  # how long it is was looked at
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    if isinstance(key, rsa.RSAPublicKey):
        return algorithm in RSA and key.key_size >= RSA_BITS
    if isinstance(key, ec.EllipticCurvePublicKey):
        return CURVES.get(key.curve.name) == algorithm
    ed = (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)
    return algorithm == "EdDSA" and isinstance(key, ed)


def read_jwk(jwk: Any, algorithms: Collection[str]) -> tuple[str, Verifiers] | None:
    """Read a public key of a JWKS (RFC 7517), and its ``kid``.

    Returns:
        None for what does not verify signatures here: secrets, private keys, keys for
        encryption, of unknown kinds, too weak, or without a ``kid``. What a key says of
        where else it may be found is not read.
    """
    if not isinstance(jwk, dict):
        return None
    kid, kind = jwk.get("kid"), jwk.get("kty")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(kid, str) or not isinstance(kind, str):
        return None
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list):
        return None
    if "verify" not in operations or kind not in _READERS:
        return None
    bound = jwk.get("alg")
    allowed = [one for one in algorithms if bound is None or bound == one]
    try:
        key = pyjwt().get_algorithm_by_name(_READERS[kind]).from_jwk(jwk)
    except Exception:  # whatever is wrong with it, it is no key
        return None
    found = verifiers(key, allowed)
    return (kid, found) if found else None


_READERS = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}
