"""Who is present in which channel, in memory. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count, islice

from ..protocol.messages import Member
from .base import Members, PresenceChange

Told = tuple[str, PresenceChange]


class _Present:
    """A member, the node that it is under, and since it was removed: until when it stays."""

    __slots__ = ("instance", "member", "node", "until")

    def __init__(self, member: Member, instance: str, node: str) -> None:
        self.member = member
        self.instance = instance
        self.node = node
        self.until: float | None = None

    @property
    def who(self) -> tuple[str, str]:
        """What a client is known by that comes back."""
        return self.member.user or "", self.instance


class _Roster:
    __slots__ = ("away", "present", "version")

    def __init__(self) -> None:
        self.present: dict[str, _Present] = {}
        self.away: dict[tuple[str, str], list[str]] = {}
        """those in their time of grace, by user and instance: who comes back looks here"""
        self.version = 0

    def take(self, connection: str) -> bool:
        """Take a member out; return whether there was one."""
        one = self.present.pop(connection, None)
        if one is None:
            return False
        if one.until is not None:
            self._back(one)
        return True

    def put(self, one: _Present) -> Member | None:
        """Put a member in; return the one of the same connection that there was."""
        before = self.present.get(one.member.connection)
        if before is not None and before.until is not None:
            self._back(before)
        self.present[one.member.connection] = one
        return before.member if before is not None else None

    def leave(self, one: _Present, until: float) -> None:
        """A member's time of grace begins."""
        if one.until is None:
            self.away.setdefault(one.who, []).append(one.member.connection)
        one.until = until

    def _back(self, one: _Present) -> None:
        away = self.away[one.who]
        away.remove(one.member.connection)
        if not away:
            del self.away[one.who]


class Rosters:
    """The members of all channels. What changes is returned, to be told."""

    def __init__(self) -> None:
        self._rosters: dict[str, _Roster] = {}
        self._serial = count(1)
        self._leaving: list[tuple[float, str, str]] = []
        """a heap of those in their time of grace, and of some that are not any more"""

    def add(
        self, node: str, channel: str, member: Member, instance: str, instead: str | None
    ) -> PresenceChange | None:
        """See :meth:`.base.Broker.presence_add`."""
        roster = self._rosters.get(channel)
        if roster is None:
            roster = self._rosters[channel] = _Roster()
        me = member.connection
        new = _Present(member, instance, node)
        left = [one for one in roster.away.get(new.who, ()) if one != me] if instance else []
        other = roster.present.get(instead) if instead is not None else None
        if other is not None and other.member.user == member.user and instead not in (me, *left):
            left.append(other.member.connection)
        for connection in left:
            roster.take(connection)
        joined = () if roster.put(new) == member else (member,)
        return self._changed(channel, roster, joined, left) if joined or left else None

    def remove(self, channel: str, connection: str, until: float | None) -> PresenceChange | None:
        """See :meth:`.base.Broker.presence_remove`; ``until`` is the end of the grace."""
        roster = self._rosters.get(channel)
        one = roster.present.get(connection) if roster is not None else None
        if roster is None or one is None:
            return None
        if until is not None:
            roster.leave(one, until)
            heappush(self._leaving, (until, channel, connection))
            return None
        roster.take(connection)
        return self._changed(channel, roster, (), [connection])

    def overdue(self, now: float) -> Iterator[Told]:
        """Remove those whose grace is over."""
        while self._leaving and self._leaving[0][0] <= now:
            until, channel, connection = heappop(self._leaving)
            roster = self._rosters.get(channel)
            one = roster.present.get(connection) if roster is not None else None
            if one is not None and one.until == until:
                change = self.remove(channel, connection, None)
                if change is not None:
                    yield channel, change

    def gone(self, node: str) -> Iterator[Told]:
        """Remove those of a node that is no more; who is in grace stays for as long."""
        for channel, roster in list(self._rosters.items()):
            left = [
                connection
                for connection, one in roster.present.items()
                if one.node == node and one.until is None
            ]
            for connection in left:
                roster.take(connection)
            if left:
                yield channel, self._changed(channel, roster, (), left)

    def read(self, channel: str, limit: int) -> Members:
        """See :meth:`.base.Broker.presence`."""
        roster = self._rosters.get(channel)
        if roster is None:
            return Members((), 0, 0)
        present = roster.present
        members = [one.member for one in islice(present.values(), limit)]
        return Members(members, len(present), roster.version)

    def version(self, channel: str) -> int:
        """See :meth:`.base.Broker.presence_versions`."""
        roster = self._rosters.get(channel)
        return 0 if roster is None else roster.version

    def _changed(
        self, channel: str, roster: _Roster, joined: tuple[Member, ...], left: list[str]
    ) -> PresenceChange:
        before = roster.version
        if roster.present:
            roster.version = next(self._serial)
        else:
            roster.version = 0
            del self._rosters[channel]
        return PresenceChange(joined, left, len(roster.present), before, roster.version)
