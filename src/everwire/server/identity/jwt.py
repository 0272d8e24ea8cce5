"""``JWT``: verifies signed tokens, of connections and of channels (RFC 7519, RFC 8725)."""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from secrets import token_urlsafe
from time import time
from typing import Any

import msgspec

from ...errors import ConfigError, Unauthorized
from ...limits import DEFAULTS
from ..rules import Grant, Identity
from .claims import (
    Claims,
    check_audience,
    check_dates,
    date,
    ends,
    flag,
    refused,
    text,
)
from .jwks import Fetch, Jwks, fetch as fetch_jwks
from .keys import SECRETS, Verifiers, check_algorithms, pyjwt, read_key
from .rights import ChannelRights

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


class JWT:
    """Verifies JSON Web Tokens: ``wire.authenticate(JWT(secret, algorithms=["HS256"]))``.

    It needs the extra ``jwt``: ``pip install 'everwire[jwt]'``. Exactly one of ``key``,
    ``keys`` and ``jwks`` says what tokens are signed with. Nothing that a token says of
    where its key is to be found is followed, and its algorithm must be allowed, and be of
    the key's own kind.

    Args:
        key: a secret, for HS256, HS384 and HS512 (32, 48, 64 bytes at least); or a public
            key, or a certificate, in PEM.
        algorithms: those that are allowed.
        keys: several of them, by the ``kid`` that a token names.
        jwks: the URL of the issuer's keys; or several URLs, by issuer.
        issuer: what ``iss`` must be; needed with the URL of one JWKS.
        audience: what ``aud`` must name, or one of several. Without it, a token that is
            meant for anybody in particular is refused.
        leeway: seconds by which the issuer's clock may differ from ours, for whoever comes.
            Who is here is sent away at ``exp``.
        require_exp: whether a connection's token must say when it expires.
        user: the claim that is the user's name.
        tenant: the claim that is the tenant, which then must be there.
        info: the claim that presence shows of the user.
        identity: makes an :class:`Identity` of the claims, instead of these three. What it
            leaves None of ``expires``, ``issued`` and ``token_id`` is taken from the token.
        max_size: characters of a token; a longer one is refused before it is looked at.
            ``Limits.token`` holds for it, too.
        jwks_ttl: seconds after which published keys are fetched again.
        fetch: reads the URL of a JWKS: a function, async or not, that returns bytes.
        wall: the clock, in seconds since 1970.

    Raises:
        ConfigError: a setting cannot be used, or PyJWT is not installed.
    """

    def __init__(
        self,
        key: str | bytes | None = None,
        *,
        algorithms: Sequence[str],
        keys: Mapping[str, str | bytes] | None = None,
        jwks: str | Mapping[str, str] | None = None,
        issuer: str | None = None,
        audience: str | Sequence[str] | None = None,
        leeway: float = 60.0,
        require_exp: bool = True,
        user: str = "sub",
        tenant: str | None = None,
        info: str | None = None,
        identity: Callable[[dict[str, Any]], Identity] | None = None,
        max_size: int = DEFAULTS.token,
        jwks_ttl: float = 600.0,
        fetch: Fetch = fetch_jwks,
        wall: Callable[[], float] = time,
    ) -> None:
        pyjwt()
        if sum(one is not None for one in (key, keys, jwks)) != 1:
            raise ConfigError("JWT takes one of key=, keys= (by kid) and jwks= (a URL)")
        if not 0 <= leeway <= 600:
            raise ConfigError(f"JWT(leeway={leeway!r}) must be from 0 to 600 seconds")
        self._algorithms = check_algorithms(algorithms)
        self._key = None if key is None else read_key(key, self._algorithms)
        self._keys = {kid: read_key(one, self._algorithms) for kid, one in (keys or {}).items()}
        self._secrets = {None: key} if key is not None else dict(keys or {})
        self._issuers = frozenset([issuer] if issuer is not None else [])
        self._jwks = None if jwks is None else self._publishers(jwks, issuer, jwks_ttl, fetch)
        self._audience = (audience,) if isinstance(audience, str) else tuple(audience or ())
        self._leeway = leeway
        self._require_exp = require_exp
        self._user, self._tenant, self._info = user, tenant, info
        self._identity = identity
        self._max_size = max_size
        self._wall = wall
        self._check_use()

    def _publishers(
        self, jwks: str | Mapping[str, str], issuer: str | None, ttl: float, fetch: Fetch
    ) -> Jwks:
        if isinstance(jwks, str):
            if issuer is None:
                raise ConfigError("JWT(jwks=…) needs issuer=…, whose keys these are")
            jwks = {issuer: jwks}
        elif issuer is not None:
            raise ConfigError("JWT(jwks={issuer: URL}) names the issuers; leave issuer= out")
        if not jwks:
            raise ConfigError("JWT(jwks={}) names no issuer, so every token would be refused")
        self._issuers = frozenset(jwks)
        return Jwks(jwks, self._algorithms, ttl=ttl, fetch=fetch)

    def _check_use(self) -> None:
        """Find an algorithm that no key can be used with: somebody meant something else."""
        if self._jwks is not None:
            usable = {one for one in self._algorithms if one not in SECRETS}
        else:
            read = [self._key] if self._key is not None else list(self._keys.values())
            usable = {one for verifiers in read for one in verifiers}
        idle = [one for one in self._algorithms if one not in usable]
        if idle:
            raise ConfigError(
                f"JWT: no key that was given can be used with {', '.join(idle)}: HS algorithms "
                "need a secret (never a JWKS), the others a public key of their kind"
            )
        if len(self._issuers) > 1 and self._tenant is None and self._identity is None:
            raise ConfigError(
                "several issuers may mean different people by one name: give tenant='iss', "
                "or identity=…"
            )

    def __repr__(self) -> str:
        return (
            f"<JWT {' '.join(self._algorithms)} of {', '.join(sorted(self._issuers)) or 'anybody'}>"
        )

    # ---- verifying -----------------------------------------------------------------

    async def __call__(self, token: str) -> Identity:
        """Verify a connection's token; return who it is.

        Cancelling is safe.

        Raises:
            Unauthorized: it is refused (``token_expired`` if it was good once).
            Unavailable: the issuer's keys cannot be had now.
        """
        signed, claims = await self._verified(token)
        now = self._wall()
        check_dates(claims, now, self._leeway, expires=self._require_exp)
        if self._identity is not None:
            found = self._identity(claims)
            if not isinstance(found, Identity):
                raise TypeError(f"JWT(identity=…) must return an Identity, not {found!r}")
        else:
            if "channel" in claims:
                raise refused("it is for a channel, not for a connection")
            found = Identity(
                _named(claims, self._user),
                claims.get(self._info) if self._info is not None else None,
                _named(claims, self._tenant) if self._tenant is not None else "",
            )
        return msgspec.structs.replace(
            found,
            expires=ends(claims, now, self._leeway) if found.expires is None else found.expires,
            issued=_issued(claims) if found.issued is None else found.issued,
            token_id=found.token_id or _token_id(claims, signed),
        )

    async def channel(self, token: str) -> ChannelRights:
        """Verify a channel's token; return whom it allows what, and where.

        Its claims: ``sub`` (the user, "" for anonymous ones), ``channel``, and optionally
        ``exp``, ``subscribe`` (true if absent), ``publish`` (false), ``info``, and the
        tenant. Cancelling is safe.

        Raises:
            Unauthorized: it is refused (``token_expired`` if it was good once).
            Unavailable: the issuer's keys cannot be had now.
        """
        signed, claims = await self._verified(token)
        now = self._wall()
        check_dates(claims, now, self._leeway, expires=False)
        tenant = self._tenant or "tenant"
        return ChannelRights(
            text(claims, "channel"),
            text(claims, self._user),
            Grant(
                flag(claims, "publish", False), flag(claims, "subscribe", True), claims.get("info")
            ),
            text(claims, tenant) if self._tenant is not None or tenant in claims else "",
            ends(claims, now, self._leeway),
            _issued(claims),
            _token_id(claims, signed),
        )

    async def _verified(self, token: str) -> tuple[str, Claims]:
        """Return what was signed, and the claims in it: of whom, for whom, with which key.

        Raises:
            Unauthorized: anything of it is not as it should be.
        """
        if len(token) > self._max_size:
            raise refused(f"it has more than {self._max_size} characters")
        parts = _COMPACT.fullmatch(token)
        if parts is None:
            raise refused("it is no JWT")
        header, claims = _object(parts[1]), _object(parts[2])
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise refused("its algorithm is not allowed")
        if "crit" in header or "b64" in header:  # RFC 7515 section 4.1.11: we know none
            raise refused("it demands an extension")
        issuer = claims.get("iss")
        if self._issuers and not (isinstance(issuer, str) and issuer in self._issuers):
            raise refused("its issuer is not known")
        verifiers = await self._find(header, claims)
        verify = None if verifiers is None else verifiers.get(algorithm)
        if verify is None:
            raise refused("it is signed with an unknown key")
        signed = f"{parts[1]}.{parts[2]}"
        if not verify(signed.encode(), _bytes(parts[3])):
            raise refused("its signature is wrong")
        check_audience(claims, self._audience)
        return signed, claims

    async def _find(self, header: Mapping[str, Any], claims: Claims) -> Verifiers | None:
        """The key: what was configured for the name that the token gives, nothing else."""
        if self._key is not None:
            return self._key
        kid = header.get("kid")
        if not isinstance(kid, str):
            raise refused("it does not name its key (kid)")
        if self._jwks is None:
            return self._keys.get(kid)
        return await self._jwks.find(claims["iss"], kid)

    # ---- issuing ---------------------------------------------------------------------

    def issue(
        self,
        user: str,
        *,
        expires_in: float | None = 3600.0,
        channel: str | None = None,
        **claims: Any,
    ) -> str:
        """Sign a token that this object accepts: for small applications and for tests.

        Args:
            user: whose it is.
            expires_in: seconds that it is good for; None: it does not say.
            channel: makes it the token of this channel.
            claims: what else it claims, as ``publish=True`` or ``jti="…"``.

        Raises:
            ConfigError: there is no secret to sign with; who has the private key signs.
        """
        algorithm = next((one for one in self._algorithms if one in SECRETS), None)
        if algorithm is None or self._jwks is not None:
            raise ConfigError("JWT: only who has the private key can issue tokens")
        read = {None: self._key} if self._key is not None else dict(self._keys)
        kid = next(kid for kid, verifiers in read.items() if verifiers and algorithm in verifiers)
        secret = self._secrets[kid]  # type: ignore[index]  # the same names
        now = self._wall()
        made: Claims = {self._user: user, "iat": now, "jti": token_urlsafe(12)}
        if expires_in is not None:
            made["exp"] = now + expires_in
        if channel is not None:
            made["channel"] = channel
        if self._issuers:
            made["iss"] = next(iter(self._issuers))
        if self._audience:
            made["aud"] = self._audience[0]
        return str(
            pyjwt().encode(
                {**made, **claims},
                secret,
                algorithm=algorithm,
                headers=None if kid is None else {"kid": kid},
            )
        )


def _named(claims: Claims, name: str) -> str:
    found = text(claims, name)
    if not found:
        raise refused(f"{name} is empty")
    return found


def _issued(claims: Claims) -> float:
    """When it was issued; long ago if it does not say: a revocation then concerns it."""
    return date(claims, "iat") or 0.0


def _token_id(claims: Claims, signed: str) -> str:
    """A token's own name, or one made of what was signed: nobody can change that."""
    given = claims.get("jti")
    if given is None:
        return "#" + blake2b(signed.encode(), digest_size=16).hexdigest()
    if not isinstance(given, str):
        raise refused("jti is not text")
    return given


def _bytes(segment: str) -> bytes:
    try:
        found = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (binascii.Error, ValueError):
        raise refused("it is no JWT") from None
    if urlsafe_b64encode(found).rstrip(b"=") != segment.encode():  # the same, spelled otherwise
        raise refused("it is no JWT")
    return found


def _object(segment: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(_bytes(segment))
    except (msgspec.DecodeError, RecursionError, Unauthorized):
        raise refused("it is no JWT") from None
    if not isinstance(found, dict):
        raise refused("it is no JWT")
    return found
