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


class _Roster:
    __slots__ = ("present", "version")

    def __init__(self) -> None:
        self.present: dict[str, _Present] = {}
        self.version = 0


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
        present, me = roster.present, member.connection
        left = [
            other
            for other, one in present.items()
            if other != me
            and one.member.user == member.user
            and (
                other == instead
                or (instance and one.until is not None and one.instance == instance)
            )
        ]
        for connection in left:
            del present[connection]
        before = present.get(me)
        present[me] = _Present(member, instance, node)
        joined = () if before is not None and before.member == member else (member,)
        return self._changed(channel, roster, joined, left) if joined or left else None

    def remove(self, channel: str, connection: str, until: float | None) -> PresenceChange | None:
        """See :meth:`.base.Broker.presence_remove`; ``until`` is the end of the grace."""
        roster = self._rosters.get(channel)
        one = roster.present.get(connection) if roster is not None else None
        if roster is None or one is None:
            return None
        if until is not None:
            one.until = until
            heappush(self._leaving, (until, channel, connection))
            return None
        del roster.present[connection]
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
                del roster.present[connection]
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
