"""Who is present in a channel, as far as the server told."""

from __future__ import annotations

from ..protocol import messages as m
from ..protocol.messages import Member


class Roster:
    """Kept up to date by what the server sends.

    Attributes:
        members: who is present, by connection.
        count: how many they are; ``members`` holds no more than the server lists.
    """

    __slots__ = ("count", "members")

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.count = 0

    def update(self, presence: m.Presence) -> None:
        """Who is present changed."""
        if presence.full:
            self.members.clear()
        for member in presence.joined:
            self.members[member.connection] = member
        for connection in presence.left:
            self.members.pop(connection, None)
        self.count = presence.count

    def clear(self) -> None:
        """Nothing is known."""
        self.members.clear()
        self.count = 0
