"""What was lost, came twice or came too late, told from numbers alone. Pure."""

from __future__ import annotations

from bisect import bisect_right


class Numbers:
    """A set of numbers that come in runs: its size is that of its ranges.

    Attributes:
        ranges: first and last of each, in order, never touching.
    """

    __slots__ = ("ranges",)

    def __init__(self) -> None:
        self.ranges: list[list[int]] = []

    def add(self, first: int, last: int) -> None:
        """Add ``first`` to ``last``, none of which is in it."""
        ranges = self.ranges
        at = bisect_right(ranges, [first])
        ranges.insert(at, [first, last])
        if at + 1 < len(ranges) and ranges[at + 1][0] == last + 1:
            ranges[at][1] = ranges.pop(at + 1)[1]
        if at and ranges[at - 1][1] == first - 1:
            ranges[at - 1][1] = ranges.pop(at)[1]

    def discard(self, number: int) -> bool:
        """Take a number out. False if it is not in it."""
        ranges = self.ranges
        at = bisect_right(ranges, [number + 1]) - 1
        if at < 0 or number > ranges[at][1]:
            return False
        first, last = ranges[at]
        ranges[at : at + 1] = [
            part for part in ([first, number - 1], [number + 1, last]) if part[0] <= part[1]
        ]
        return True

    def without(self, other: Numbers) -> int:
        """How many of its numbers are not in ``other``."""
        return len(self) - sum(
            max(0, min(last, theirs[1]) - max(first, theirs[0]) + 1)
            for first, last in self.ranges
            for theirs in other.ranges
        )

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)


class Checker:
    """Follows what one subscriber gets of one channel, each publisher's messages by number.

    Attributes:
        last: the highest number that came, by publisher; the first message is number 1.
        doubled: deliveries of what had come before.
        misordered: deliveries after a later one.
    """

    __slots__ = ("_missing", "doubled", "last", "misordered")

    def __init__(self, publishers: int) -> None:
        self.last = [0] * publishers
        self.doubled = 0
        self.misordered = 0
        self._missing: dict[int, Numbers] = {}

    def received(self, publisher: int, number: int) -> bool:
        """Take note of a delivery. False if it came twice."""
        last = self.last[publisher]
        if number == last + 1:
            self.last[publisher] = number
            return True
        if number > last:
            self._missing.setdefault(publisher, Numbers()).add(last + 1, number - 1)
            self.last[publisher] = number
            return True
        missing = self._missing.get(publisher)
        if missing is not None and missing.discard(number):
            self.misordered += 1
            return True
        self.doubled += 1
        return False

    def lost(self, publisher: int, sent: int, excused: Numbers) -> int:
        """How many of the messages 1 to ``sent`` did not come, those ``excused`` left out."""
        absent = Numbers()
        missing = self._missing.get(publisher)
        if missing is not None:
            absent.ranges = [list(one) for one in missing.ranges]
        if self.last[publisher] < sent:
            absent.add(self.last[publisher] + 1, sent)
        return absent.without(excused)
