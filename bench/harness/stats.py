"""Judging noisy figures: only ratios of interleaved runs count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

ENOUGH_FOR_MINIMA = 7
ENOUGH_FOR_MEDIAN = 9


@dataclass(frozen=True)
class Ratio:
    """One server against another, over rounds in which both ran."""

    minima: float
    """the least of one ÷ the least of the other: what is left when nothing interferes"""
    medians: float
    """the median of the ratios of the pairs"""
    rounds: int

    def verdict(self, target: float) -> str:
        """``pass`` or ``miss``; ``unclear`` where the two ways to judge disagree."""
        ways = [value for value, enough in (
            (self.minima, ENOUGH_FOR_MINIMA), (self.medians, ENOUGH_FOR_MEDIAN),
        ) if self.rounds >= enough]  # fmt: skip
        passed = {value <= target for value in ways or (self.minima, self.medians)}
        if len(passed) == 2:
            return "unclear"
        word = "pass" if passed.pop() else "miss"
        return word if ways else f"{word}?"  # too few rounds to rely on


def ratio(ours: Sequence[float], floor: Sequence[float]) -> Ratio:
    """Compare figures of the same rounds."""
    pairs = [one / other for one, other in zip(ours, floor, strict=True)]
    return Ratio(min(ours) / min(floor), median(pairs), len(pairs))


def judge(value: float, limit: float, *, at_most: bool = True) -> str:
    """Compare an absolute figure with its limit."""
    return "pass" if (value <= limit if at_most else value >= limit) else "miss"
