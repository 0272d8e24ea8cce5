"""Latencies in buckets that grow with them: bounded memory, whatever comes."""

from __future__ import annotations

from collections.abc import Iterator

FINE = 6  # bits of a value that are kept: buckets are narrower than 1/64 of what they hold
_WIDTH = 1 << FINE


class Histogram:
    """Counts whole numbers of nanoseconds.

    Attributes:
        count: how many were recorded.
        highest: the largest of them, exactly.
    """

    __slots__ = ("_buckets", "count", "highest")

    def __init__(self) -> None:
        self._buckets = [0] * ((64 - FINE + 1) * _WIDTH)
        self.count = 0
        self.highest = 0

    def record(self, value: int) -> None:
        """Count a value; what is below zero counts as zero, and nothing is above 2**63."""
        if value < 0:
            value = 0
        if value > self.highest:
            self.highest = value
        self.count += 1
        shift = value.bit_length() - FINE - 1
        if shift > 0:
            self._buckets[(shift << FINE) + (value >> shift)] += 1
        else:
            self._buckets[value] += 1

    def buckets(self) -> Iterator[tuple[int, int, int]]:
        """Yield the least and the largest value of a bucket and its count, where there is one."""
        for index, count in enumerate(self._buckets):
            if count:
                yield *_bounds(index), count

    def percentile(self, part: float) -> int:
        """The value that ``part`` (0 to 1) of all do not exceed: at most 1/64 too large."""
        wanted = part * self.count
        seen = 0
        for _, high, count in self.buckets():
            seen += count
            if seen >= wanted:
                return min(high, self.highest)
        return self.highest


def _bounds(index: int) -> tuple[int, int]:
    if index < 2 * _WIDTH:
        return index, index
    shift = (index >> FINE) - 1
    low = (index - (shift << FINE)) << shift
    return low, low + (1 << shift) - 1
