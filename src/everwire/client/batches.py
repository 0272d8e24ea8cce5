"""Cuts what is to be subscribed to into requests that a server takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..limits import KiB
from .feed import Feed

BATCH_BYTES = 56 * KiB  # a server takes 64 KiB in a subscribe, and in an auth


def in_order(feeds: Iterable[Feed]) -> list[Feed]:
    """Return what is to be subscribed to first, first: by priority, then the most active lately."""
    return sorted(feeds, key=lambda feed: (-feed.options.priority, -feed.active_at))


def batches(feeds: Iterable[Feed], count: int, reserved: int = 0) -> Iterator[list[Feed]]:
    """Yield batches of at most ``count`` subscriptions.

    Args:
        feeds: what to cut.
        count: the most for one batch.
        reserved: bytes of the first one that are in use for something else; it is empty
            if nothing fits.
    """
    batch: list[Feed] = []
    room = BATCH_BYTES - reserved
    for feed in feeds:
        size = _estimate(feed)
        if size > room or len(batch) >= count:
            yield batch
            batch, room = [], BATCH_BYTES
        batch.append(feed)
        room -= size
    yield batch


def _estimate(feed: Feed) -> int:
    """Bytes of a channel in a subscribe, rather too many."""
    size = 120 + 2 * len(feed.channel.encode()) + feed.token.size
    if feed.tail is not None:
        size += len(feed.tail.epoch) + 2 * len(feed.tail.id)
    return size
