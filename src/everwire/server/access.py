"""Which rule a channel falls under, and what a connection is granted there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from ..brokers.base import ChannelOptions
from ..codes import ErrorCode
from ..errors import BadData, BadRequest, Forbidden, RequestError
from ..hub.filters import ReaderFilter
from ..protocol.channels import channel_key, check_channel
from ..protocol.data import plain_data
from .filters import ChannelFilter, Filter
from .identity.channel_tokens import both, rights_of, watch
from .identity.rights import ChannelRights
from .rules import ChannelRule, Grant

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

_json = msgspec.json.Encoder()

MAX_RULES_REMEMBERED = 10_000
NO_GRANT = Grant(publish=False, subscribe=False)


class Placed(msgspec.Struct, frozen=True, gc=False):
    """A channel name, and the rule that it falls under."""

    rule: ChannelRule | None
    parameters: dict[str, str]
    filter: ChannelFilter | None = None


class Channelled(msgspec.Struct, frozen=True, gc=False):
    """A channel as one connection may use it."""

    key: str
    name: str
    options: ChannelOptions
    presence: bool
    grant: Grant
    latest: bool = False
    rights: ChannelRights | None = None
    """of the token that it was granted for"""
    prefix: str | None = None
    """what the keys begin with, of a subscription to several channels; it has a key of its own"""
    filter: ChannelFilter | None = None
    """sees what clients publish"""


class Access:
    """Finds the rule of a channel, and asks its handler once for each connection."""

    def __init__(self, rules: Sequence[ChannelRule], filters: Sequence[Filter] = ()) -> None:
        self._rules = rules
        self._filters = filters
        self._placed: dict[str, Placed] = {}
        self._granted: dict[str, Channelled] = {}
        """what everybody of a tenant is granted without asking, by channel key"""

    def place(self, channel: str) -> Placed:
        """Find the first rule whose pattern fits.

        Raises:
            RequestError: no channel can have this name.
        """
        placed = self._placed.get(channel)
        if placed is None:
            try:
                check_channel(channel)
            except BadData as error:
                raise RequestError(str(error), code=ErrorCode.BAD_CHANNEL) from None
            placed = Placed(None, {})
            for rule in self._rules:
                parameters = rule.pattern.match(channel)
                if parameters is not None:
                    placed = Placed(rule, parameters, self._filter(channel))
                    break
            if len(self._placed) >= MAX_RULES_REMEMBERED:
                self._placed.clear()
            self._placed[channel] = placed
        return placed

    def _filter(self, channel: str) -> ChannelFilter | None:
        found = (one.of(channel) for one in self._filters)
        return next((one for one in found if one is not None), None)

    def rule_of(self, channel: str, *, wildcard: bool = False) -> ChannelRule:
        """Find the rule of a channel, or of a wildcard if that is allowed.

        Raises:
            RequestError: there is no such channel.
        """
        rule = self.place(channel).rule
        if rule is None or (rule.wildcard and not wildcard):
            raise RequestError(
                f"there is no channel {channel!r}: no pattern of the server fits it",
                code=ErrorCode.BAD_CHANNEL,
            )
        return rule

    def assigned(self, connection: Connection, channel: str) -> Channelled:
        """Return what the application gives a connection that it subscribes by itself.

        Raises:
            RequestError: there is no such channel.
        """
        key = channel_key(connection.identity.tenant, channel)
        return self._channelled(key, channel, Grant(), self.rule_of(channel))

    def known(self, connection: Connection, channel: str) -> Channelled | None:
        """Return what the connection was granted, or is granted without asking; else None.

        Raises:
            RequestError: there is no such channel.
        """
        granted = connection.channels.get(channel)
        if granted is not None:
            return granted
        rule = self.rule_of(channel, wildcard=True)
        if rule.grant is None:
            return None
        key = channel_key(connection.identity.tenant, channel)
        if rule.own is not None:
            user = connection.identity.user
            if not user or rule.own.name(user) != channel:
                raise Forbidden(f"{channel!r} is another user's own channel")
            return self._remember(connection, self._channelled(key, channel, rule.grant, rule))
        granted = self._granted.get(key)
        if granted is None:
            if len(self._granted) >= MAX_RULES_REMEMBERED:
                self._granted.clear()
            granted = self._granted[key] = self._channelled(key, channel, rule.grant, rule)
        return self._remember(connection, granted)

    async def ask(
        self, connection: Connection, channel: str, token: str | ChannelRights | None = None
    ) -> Channelled:
        """Return what the connection is granted, asking the rule's handler if need be.

        ``token`` is the request's, for channels that want one, or what one allowed before.
        Cancelling cancels the handler.

        Raises:
            RequestError: there is no such channel, or the token or the handler refuses.
        """
        placed = self.place(channel)
        rule = placed.rule
        if token is None or rule is None or not rule.token:
            granted = self.known(connection, channel)
            if granted is not None:
                return granted
        assert rule is not None
        identity = connection.identity
        given = connection.visit is not None and channel in connection.visit.channels
        rights = None
        try:
            grant = Grant()
            if rule.token:
                rights = await rights_of(connection, channel, token)
                grant = rights.grant
            if rule.handler is not None:
                asked = await self._asked(connection, channel, rule, placed)
                grant = asked if rights is None else both(grant, asked)
        except Forbidden:
            if not given:
                raise
            grant = Grant()  # it may do what the application does for it
        if given and not grant.subscribe:
            grant = msgspec.structs.replace(grant, subscribe=True)
        if connection.identity is not identity:  # authenticated anew meanwhile: ask for that
            return await self.ask(connection, channel, token)
        key = channel_key(identity.tenant, channel)
        granted = self._remember(connection, self._channelled(key, channel, grant, rule, rights))
        watch(connection, granted)
        return granted

    @staticmethod
    async def _asked(
        connection: Connection, channel: str, rule: ChannelRule, placed: Placed
    ) -> Grant:
        """Ask the rule's handler."""
        assert rule.handler is not None
        try:
            arguments = rule.handler.arguments(placed.parameters, strict=False)
        except BadRequest as error:  # as room "x" where a number is asked for
            raise RequestError(
                f"there is no channel {channel!r}: {error.message}", code=ErrorCode.BAD_CHANNEL
            ) from None
        try:
            async with asyncio.timeout(connection.node.limits.request_timeout):
                grant = await rule.handler.call(connection, arguments)
        except TimeoutError:
            raise RequestError(
                f"asking about the channel {channel!r} took too long", code=ErrorCode.TIMEOUT
            ) from None
        if grant is None:
            return Grant()
        if not isinstance(grant, Grant):
            raise TypeError(
                f"{rule.handler.function.__name__}() must return a Grant or None, not {grant!r}"
            )
        return grant

    def _channelled(
        self,
        key: str,
        name: str,
        grant: Grant,
        rule: ChannelRule,
        rights: ChannelRights | None = None,
    ) -> Channelled:
        if rule.wildcard:
            if grant.filter is not None:
                raise TypeError("a wildcard's Grant can have no filter: it is for one channel")
            grant = Grant(subscribe=grant.subscribe)  # there is no channel to publish to
            return Channelled(f"{key}\x00", name, rule.options, False, grant, prefix=key[:-1])
        publishing = self.place(name).filter
        return Channelled(
            key, name, rule.options, rule.presence, grant, rule.latest, rights, filter=publishing
        )

    @staticmethod
    def _remember(connection: Connection, granted: Channelled) -> Channelled:
        if len(connection.channels) >= connection.node.limits.subscriptions:
            oldest = next(
                (name for name in connection.channels if name not in connection.subscriptions),
                None,
            )
            if oldest is not None:
                del connection.channels[oldest]
        connection.channels[granted.name] = granted
        return granted


def filter_of(node: Node, granted: Channelled) -> ReaderFilter | None:
    """What decides which messages of a channel a connection is sent, if not all."""
    function = granted.grant.filter
    if function is None:
        return None
    where = f"the filter of channel {granted.name!r}"
    return ReaderFilter(function, partial(node.log_defect, where, "a channel's filter"))


def check_info(connection: Connection, granted: Channelled) -> None:
    """Check what others would be shown of the connection.

    Raises:
        RequestError: it is too big, or nothing that can be shown.
    """
    info = shown_info(connection, granted)
    most = connection.node.limits.presence_info
    if info is not None and len(_json.encode(plain_data(info))) > most:
        connection.node.count("presence_refused")
        raise RequestError(
            f"what presence shows of a member may have {most} bytes", code=ErrorCode.TOO_BIG
        )


def shown_info(connection: Connection, granted: Channelled) -> Any:
    """What presence shows of the connection in a channel."""
    return granted.grant.info if granted.grant.info is not None else connection.identity.info
