"""What the token of a channel allows."""

from __future__ import annotations

import msgspec

from ..rules import Grant


class ChannelRights(msgspec.Struct, frozen=True):
    """What a verified token allows: whom, where, what, and for how long.

    Attributes:
        channel: the one channel.
        user: the one user; "" for anonymous ones.
        grant: what the user may do there.
        tenant: of the user.
        expires: when it ends, in seconds since 1970, or None.
        issued: when it was issued, in seconds since 1970.
        token_id: the token's name.
    """

    channel: str
    user: str
    grant: Grant
    tenant: str = ""
    expires: float | None = None
    issued: float | None = None
    token_id: str = ""
