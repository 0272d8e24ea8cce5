"""Cuts what is to be subscribed to into requests that a server takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..limits import KiB
from .subscription import Subscription

BATCH_BYTES = 56 * KiB  # a server takes 64 KiB in a subscribe, and in an auth


def batches(
    subscriptions: Iterable[Subscription], count: int, reserved: int = 0
) -> Iterator[list[Subscription]]:
    """Yield batches of at most ``count`` subscriptions.

    Args:
        subscriptions: what to cut.
        count: the most for one batch.
        reserved: bytes of the first one that are in use for something else; it is empty
            if nothing fits.
    """
    batch: list[Subscription] = []
    room = BATCH_BYTES - reserved
    for subscription in subscriptions:
        size = _estimate(subscription)
        if size > room or len(batch) >= count:
            yield batch
            batch, room = [], BATCH_BYTES
        batch.append(subscription)
        room -= size
    yield batch


def _estimate(subscription: Subscription) -> int:
    """Bytes of a channel in a subscribe, rather too many."""
    size = 120 + 2 * len(subscription.channel.encode())
    tail = subscription.tail
    if tail is not None:
        size += len(tail.epoch) + 2 * len(tail.id)
    return size
