"""An application whose users have signed tokens: ``everwire serve identity_app:wire``."""

from __future__ import annotations

from typing import Any

from everwire import JWT, Connection, Everwire, Grant, Identity, Unauthorized
from everwire.limits import Limits

SECRET = "t0p-s3cret-" * 8
jwt = JWT(SECRET, algorithms=["HS256"])
LIMITS = Limits(refused_auths=50)


def declare(made: Everwire) -> Everwire:
    made.channel("private:{id}", token=True)
    made.channel("{name:path}", grant=Grant(publish=True))

    @made.query
    async def revoke(conn: Connection, payload: Any) -> None:
        await made.revoke(**payload)

    @made.query
    async def counted(conn: Connection) -> dict[str, int]:
        return dict(made.node.counters)

    return made


class Counting:
    """Counts how many tokens are verified."""

    def __init__(self) -> None:
        self.verified = 0

    async def __call__(self, token: str) -> Identity:
        self.verified += 1
        return await jwt(token)


counting = Counting()
wire = declare(Everwire(channel_tokens=jwt, limits=LIMITS, allow_anonymous=True))
wire.authenticate(counting)


@wire.query
async def verified(conn: Connection) -> int:
    return counting.verified


sessions = declare(Everwire(channel_tokens=jwt))


@sessions.authenticate
async def who(cookies: dict[str, str], token: str | None = None) -> Identity:
    if token is not None:
        return await jwt(token)
    if "sid" not in cookies:
        raise Unauthorized("no session")
    return Identity(cookies["sid"])


hosted = sessions.asgi()
