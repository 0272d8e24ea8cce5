"""A queue that overflows once and for all, until it was read."""

from __future__ import annotations

from everwire.client.inbox import Inbox


def test_once_full_nothing_fits_until_all_was_read() -> None:
    inbox: Inbox[str] = Inbox(items=2, size=100)
    for item in "ab":
        assert inbox.fits(1)
        inbox.put(item, 1)
    assert not inbox.fits(1)
    assert inbox.take() == ("a", False)
    assert not inbox.fits(1)
    assert inbox.take() == ("b", True)
    assert inbox.fits(1)


def test_bytes_count_as_well_but_one_item_always_fits() -> None:
    inbox: Inbox[str] = Inbox(items=10, size=100)
    assert inbox.fits(1_000)
    inbox.put("a", 60)
    assert inbox.fits(40)
    assert not inbox.fits(41)


def test_reading_it_empty_means_nothing_if_it_was_never_full() -> None:
    inbox: Inbox[str] = Inbox(items=2, size=100)
    inbox.put("a", 1)
    assert inbox.take() == ("a", False)
    inbox.put("b", 1)
    inbox.clear()
    assert len(inbox) == 0
    assert inbox.fits(100)
