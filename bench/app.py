"""The application under test: everybody whose token is good may do everything."""

from __future__ import annotations

import hmac
import os
import time
from base64 import urlsafe_b64decode

import msgspec

from everwire import Everwire, Grant, Identity, Unauthorized

SECRET = os.environ.get("BENCH_SECRET", "bench").encode()


class Claims(msgspec.Struct):
    sub: str
    exp: float


claims = msgspec.json.Decoder(Claims)
wire = Everwire(broker="memory://", allow_anonymous=True)
wire.channel("{name:path}", grant=Grant(publish=True))


@wire.authenticate
async def who(token: str) -> Identity:
    """Accept an HS256 JWT: the cheapest algorithm, so that it is not what is measured."""
    signed, _, signature = token.rpartition(".")
    if not hmac.compare_digest(hmac.digest(SECRET, signed.encode(), "sha256"), _bytes(signature)):
        raise Unauthorized("bad signature")
    found = claims.decode(_bytes(signed.partition(".")[2]))
    if found.exp < time.time():
        raise Unauthorized("expired")
    return Identity(found.sub, expires=found.exp)


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
