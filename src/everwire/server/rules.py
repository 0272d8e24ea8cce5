"""What an application declares, and what its handlers return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, get_args

import msgspec

from ..brokers.base import ChannelOptions, Overflow
from ..errors import ConfigError, Unauthorized
from ..handling.handlers import Handler
from ..limits import MAX_USER
from ..protocol.channels import ChannelPattern, OwnChannel
from .filters import Filter


class Identity(msgspec.Struct, frozen=True):
    """Who a connection is. Returned by an ``authenticate`` handler.

    Attributes:
        user: the user's name, at most 255 bytes; connections of one user share message ids
            and limits.
        info: shown to others in presence; any data.
        tenant: channels, users and ids of different tenants never meet.
        expires: when this ends, in seconds since 1970, or None.
        issued: when the token was issued, in seconds since 1970; None if that is not known:
            then a later revocation of the user is up to the ``authenticate`` handler.
        token_id: names the token (its ``jti``), so that it can be revoked alone.
    """

    user: str = ""
    info: Any = None
    tenant: str = ""
    expires: float | None = None
    issued: float | None = None
    token_id: str = ""

    def __post_init__(self) -> None:
        """Refuse names that could be mistaken for others, and what is no moment.

        Raises:
            Unauthorized: the user or the tenant has a name that none can have.
            TypeError: something is of another kind.
        """
        for what, name in (("user", self.user), ("tenant", self.tenant)):
            if not isinstance(name, str):
                raise TypeError(f"an Identity's {what} is text, not {name!r}")
            if name and ("\x00" in name or len(name.encode("utf-8", "replace")) > MAX_USER):
                raise Unauthorized(
                    f"a {what}'s name may have {MAX_USER} bytes, and no NUL among them"
                )
        for what, moment in (("expires", self.expires), ("issued", self.issued)):
            if not _may_be_a_moment(moment):
                raise TypeError(
                    f"an Identity's {what} is a number of seconds since 1970, or None, "
                    f"not {moment!r}"
                )


def _may_be_a_moment(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and isfinite(value))


class Grant(msgspec.Struct, frozen=True):
    """What a connection may do with a channel. Returned by a ``channel`` handler."""

    publish: bool = False
    subscribe: bool = True
    info: Any = None
    """shown in the channel's presence, instead of the identity's"""
    history: bool = True
    """to read what was published before: by a query, and by subscribing from a position"""
    presence: bool = True
    """to see who is in the channel, where it has presence"""
    filter: Callable[[Any], object] | None = None
    """is handed the data of each message, and says whether it is sent to the connection; also
    of history. It must be quick, and does not wait. Grant one function to many: those share its
    answer"""


@dataclass(frozen=True, slots=True)
class ChannelRule:
    """A pattern of channels, and what holds for those that fit."""

    pattern: ChannelPattern
    options: ChannelOptions
    presence: bool
    handler: Handler | None
    grant: Grant | None
    token: bool = False
    """a signed token of the channel is needed"""
    own: OwnChannel | None = None
    """the grant is for the user alone whose channel it is"""
    latest: bool = False
    """whoever subscribes is sent the last message first"""
    state: Handler | None = None
    """says what the channel's messages have come to"""
    wildcard: bool = False
    """``pattern`` fits names that end in ``*``: they stand for all that begin with the rest"""


def checked_overflow(policy: Overflow, options: ChannelOptions) -> Overflow:
    """Return ``policy`` if a channel with these options may have it.

    Raises:
        ConfigError: it may not.
    """
    if policy not in get_args(Overflow):
        raise ConfigError(
            f"on_overflow must be one of {', '.join(get_args(Overflow))}, not {policy!r}"
        )
    if options.history > 0:
        raise ConfigError(
            "on_overflow is for channels without history: with history a slow reader is sent "
            "everything later; write history=0, or leave on_overflow out"
        )
    return policy


@dataclass(slots=True)
class Handlers:
    """Everything that was declared."""

    authenticate: Callable[..., Any] | None = None
    on_connect: list[Handler] = field(default_factory=list)
    on_disconnect: list[Handler] = field(default_factory=list)
    filters: list[Filter] = field(default_factory=list)
    own: OwnChannel | None = None
    rules: list[ChannelRule] = field(default_factory=list)
    queries: dict[str, Handler] = field(default_factory=dict)
    commands: dict[str, Handler] = field(default_factory=dict)
    events: dict[str, Handler] = field(default_factory=dict)
