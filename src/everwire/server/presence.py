"""Who is in a channel: joining, being shown, and telling those who watch.

The broker knows who is present. Those who watch a channel are sent the whole once, and then
what changes. Each change names the version before it: where one is missing, or a comparison
with the broker shows that one was, they are sent the whole again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, cast

from msgspec.structs import replace

from ..brokers.base import Members, PresenceChange
from ..hub.registry import Channel, Subscription
from ..protocol import messages as m
from ..protocol.data import plain_data
from ..protocol.states import SubscriptionState
from .access import shown_info

if TYPE_CHECKING:
    from .access import Channelled
    from .connection import Connection
    from .node import Node

READINGS = 3  # of who is present, while changes come in between
PAUSE = 0.1  # seconds between two messages of changes to the same readers
PAUSE_EACH, LONGEST_PAUSE = (
    0.0002,
    2.0,
)  # more for each reader, so that they cost a core at most half

_LIVE = (SubscriptionState.RECOVERING, SubscriptionState.SUBSCRIBED)


class _Shown:
    """What those who watch a channel have been told."""

    __slots__ = ("changed", "count", "joined", "left", "partly", "sent_at", "timer", "version")

    def __init__(self) -> None:
        # Changes that are to be sent, and when the last ones were.
        self.joined: dict[str, m.Member] = {}
        self.left: dict[str, None] = {}
        self.count = 0
        self.sent_at = float("-inf")
        self.timer: asyncio.TimerHandle | None = None
        self.version: int | None = None
        """None: the whole is being read"""
        self.changed = False
        """a change came while it was"""
        self.partly = False
        """there are more members than are listed"""

    def end(self) -> None:
        """Nobody watches any more: what was to be told is nobody's."""
        if self.timer is not None:
            self.timer.cancel()


class Presence:
    """A node's part in presence."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._shown: dict[Channel, _Shown] = {}
        self._leaving: deque[tuple[float, str, str]] = deque()
        """members in their time of grace, and its end"""

    # ---- being present -----------------------------------------------------------

    def appear(
        self,
        connection: Connection,
        granted: Channelled,
        subscription: Subscription,
        instead: str | None,
    ) -> None:
        """Make a connection present, in the place of the connection ``instead``."""
        work = partial(self._appear, connection, granted, subscription, instead)
        self._node.chores.add(granted.key, work)

    async def _appear(
        self,
        connection: Connection,
        granted: Channelled,
        subscription: Subscription,
        instead: str | None,
    ) -> None:
        if subscription.state is SubscriptionState.UNSUBSCRIBED:  # it left meanwhile
            return
        info = shown_info(connection, granted)
        member = m.Member(connection.id, connection.user, plain_data(info))
        await self._node.broker.presence_add(granted.key, member, connection.instance, instead)

    def disappear(self, connection: Connection, key: str, *, stays: bool) -> None:
        """End a connection's presence in a channel.

        With ``stays`` its client may be back in a moment: then it is the others' to see only
        if it does not come. A client that does not say who it is could not be known again.
        """
        grace = self._node.limits.presence_grace if stays and connection.instance else 0.0
        if grace:
            self._leaving.append((self._node.wheel.now + grace, key, connection.id))
        remove = self._node.broker.presence_remove
        self._node.chores.add(key, partial(remove, key, connection.id, grace))

    def tick(self, now: float) -> None:
        """Remove those whose time of grace is over."""
        while self._leaving and self._leaving[0][0] <= now:
            _, key, connection = self._leaving.popleft()
            remove = self._node.broker.presence_remove
            self._node.chores.add(key, partial(remove, key, connection))

    def restore(self) -> None:
        """The broker has given up this node, or lost what it knew: tell it anew."""
        node = self._node
        node.count("presence_restored")
        for connection in node.connections.values():
            for name, subscription in connection.subscriptions.items():
                granted = connection.channels.get(name)
                if granted is not None and granted.presence:
                    self.appear(connection, granted, subscription, None)

    # ---- watching ----------------------------------------------------------------

    def show(self, connection: Connection, subscription: Subscription) -> None:
        """Send who is present, and from now on who comes and goes."""
        work = partial(self._show, connection, subscription)
        self._node.chores.add(subscription.channel.key, work)

    @staticmethod
    def hide(connection: Connection, subscription: Subscription) -> None:
        """Tell a reader no more of who is present."""
        subscription.channel.watchers.pop(connection, None)
        connection.presence_missed.pop(subscription, None)

    def show_missed(self, connection: Connection) -> None:
        """Send in full what a reader was not sent while it was too slow."""
        missed, connection.presence_missed = connection.presence_missed, {}
        for subscription in missed:
            self.show(connection, subscription)

    async def _show(self, connection: Connection, subscription: Subscription) -> None:
        if subscription.state not in _LIVE:
            return
        channel = subscription.channel
        shown = self._shown.get(channel)
        if shown is None or not channel.watchers:
            if shown is not None:
                shown.end()
            shown = self._shown[channel] = _Shown()
        channel.watchers[connection] = subscription
        if connection.paused:
            _missed(connection, subscription)
            return
        members = await self._read(channel, shown)
        if subscription.state in _LIVE and connection in channel.watchers:
            for payload in _encoded(connection, _whole(channel, members)):
                connection.send_payload(payload)
            await asyncio.sleep(0)  # let it be written, and the buffer be measured

    async def _read(self, channel: Channel, shown: _Shown) -> Members:
        """Read who is present, and not less than those who watch were told already."""
        members = await self._read_once(channel, shown)
        for _ in range(READINGS - 1):
            if shown.version is None:
                if not shown.changed:
                    break
            elif members.version == shown.version or members.version > shown.version > 0:
                break
            members = await self._read_once(channel, shown)
        if shown.version is None:
            shown.version = members.version
        shown.partly = members.count > self._node.limits.presence_members
        return members

    async def _read_once(self, channel: Channel, shown: _Shown) -> Members:
        shown.changed = False
        return await self._node.broker.presence(channel.key, self._node.limits.presence_members)

    def on_change(self, channel: Channel, change: PresenceChange) -> None:
        """The members of a channel that is watched changed."""
        shown = self._shown.get(channel)
        if shown is None:
            return
        if shown.version is None:
            shown.changed = True
        elif change.version == shown.version or 0 < change.version < shown.version:
            pass  # it is in what was read
        elif change.before != shown.version:
            self._again(channel, shown)
        else:
            shown.version = change.version
            for connection in change.left:
                shown.joined.pop(connection, None)
                shown.left[connection] = None
            for member in change.joined:
                shown.left.pop(member.connection, None)
                shown.joined[member.connection] = member
            shown.count = change.count
            if shown.timer is None:
                self._soon(channel, shown)

    def _soon(self, channel: Channel, shown: _Shown) -> None:
        """Have the changes sent: at once, or, where many come or go, with those that follow."""
        loop = asyncio.get_running_loop()
        pause = min(LONGEST_PAUSE, max(PAUSE, len(channel.watchers) * PAUSE_EACH))
        delay = max(0.0, shown.sent_at + pause - loop.time())
        shown.timer = loop.call_later(delay, self._tell, channel, shown)

    def _tell(self, channel: Channel, shown: _Shown) -> None:
        shown.timer, shown.sent_at = None, asyncio.get_running_loop().time()
        joined, left = list(shown.joined.values()), list(shown.left)
        shown.joined.clear()
        shown.left.clear()
        if shown.version is None or self._shown.get(channel) is not shown:
            return  # the whole will be sent; or was, to others than these changes were for
        if shown.count > self._node.limits.presence_members:
            shown.partly, joined = True, []
        elif shown.partly:  # there are few enough to be listed
            self._again(channel, shown)
            return
        _send(channel, m.Presence(channel.sid, False, joined, left, shown.count))

    def _again(self, channel: Channel, shown: _Shown) -> None:
        """Have everybody who watches sent the whole."""
        shown.version = None
        self._node.count("presence_repairs")
        self._node.chores.add(channel.key, partial(self._show_all, channel, shown))

    async def _show_all(self, channel: Channel, shown: _Shown) -> None:
        members = await self._read(channel, shown)
        _send(channel, _whole(channel, members))

    # ---- comparing ---------------------------------------------------------------

    def watched(self) -> dict[Channel, int]:
        """The channels that anybody watches, and the version that was told last."""
        for channel in [channel for channel in self._shown if not channel.watchers]:
            self._shown.pop(channel).end()
        return {
            channel: shown.version
            for channel, shown in self._shown.items()
            if shown.version is not None
        }

    def repair(self, channels: Iterable[tuple[Channel, int]]) -> None:
        """The broker knew another version of these for a while: a change was lost."""
        for channel, version in channels:
            shown = self._shown.get(channel)
            if shown is not None and shown.version == version:
                self._again(channel, shown)


def _whole(channel: Channel, members: Members) -> m.Presence:
    return m.Presence(channel.sid, True, list(members.members), [], members.count)


def _missed(reader: Connection, subscription: Subscription) -> None:
    """A reader that is too slow is sent the whole when it can take it."""
    reader.presence_missed = reader.presence_missed or {}
    reader.presence_missed[subscription] = None


def _encoded(reader: Connection, message: m.Presence) -> list[bytes]:
    """Encode what is told, in as many messages as it takes for none to be too large."""
    payload = reader.dialect.encode(message)
    if not payload:
        return []
    joined, left = message.joined, message.left
    many = max(len(joined), len(left))
    if many <= 1 or len(payload) <= reader.node.limits.message:
        return [payload]
    half = many // 2
    return [
        *_encoded(reader, replace(message, joined=joined[:half], left=left[:half])),
        *_encoded(reader, replace(message, full=False, joined=joined[half:], left=left[half:])),
    ]


def _send(channel: Channel, message: m.Presence) -> None:
    """Send something to all who watch; encoded once for each dialect."""
    encoded: dict[object, list[bytes]] = {}
    for one, subscription in channel.watchers.items():
        reader = cast("Connection", one)
        if reader.paused:
            _missed(reader, subscription)
            continue
        payloads = encoded.get(reader.dialect)
        if payloads is None:
            payloads = encoded[reader.dialect] = _encoded(reader, message)
        for payload in payloads:
            reader.send_payload(payload)
