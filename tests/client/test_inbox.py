"""A queue that overflows once and for all, until it was read."""

from __future__ import annotations

from everwire.client.inbox import Budget, Inbox


def test_once_full_nothing_fits_until_all_was_read() -> None:
    inbox: Inbox[str] = Inbox(items=2, size=100)
    for item in "ab":
        assert inbox.fits(1)
        inbox.put(item, 1)
    assert not inbox.fits(1)
    assert inbox.take() == "a"
    assert not inbox.reopen()
    assert not inbox.fits(1)
    assert inbox.take() == "b"
    assert inbox.reopen()
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
    assert inbox.take() == "a"
    assert not inbox.reopen()
    inbox.put("b", 1)
    inbox.clear()
    assert len(inbox) == 0
    assert inbox.fits(100)


def test_what_is_behind_a_place_that_is_kept_is_read_after_what_belongs_there() -> None:
    inbox: Inbox[str] = Inbox(items=10, size=100)
    inbox.put("a", 1)
    inbox.keep_place()
    for item in "bcd":
        inbox.put(item, 10)
    assert len(inbox) == 1
    inbox.fill_place("state", lambda item: item != "b")
    assert inbox.size == 21
    assert [inbox.take() for _ in range(4)] == ["a", "state", "c", "d"]
    assert inbox.size == 0


def test_a_place_that_is_kept_counts_what_is_behind_it_and_forgets_it_when_kept_anew() -> None:
    inbox: Inbox[str] = Inbox(items=3, size=100)
    inbox.put("a", 1)
    inbox.keep_place()
    inbox.put("b", 1)
    inbox.put("c", 1)
    assert not inbox.fits(1)
    assert inbox.take() == "a"
    assert not inbox.reopen()
    inbox.keep_place()
    assert inbox.size == 0
    inbox.fill_place("state", lambda _: True)
    assert inbox.take() == "state"
    assert inbox.reopen()


def test_who_gives_up_keeps_what_cannot_be_had_again_and_all_before_it() -> None:
    budget = Budget(1_000)
    inbox: Inbox[str] = Inbox(items=10, size=100, budget=budget)
    for item in ("a", "b", "GAP", "c", "d", "e"):
        inbox.put(item, 10)
    assert inbox.shed(str.islower) == "GAP"
    assert (len(inbox), inbox.full, budget.used) == (3, True, 30)
    assert inbox.shed(str.islower) == "GAP"
    for _ in range(3):
        inbox.take()
    assert inbox.shed(str.islower) is None


def test_half_of_it_is_enough_to_give_up_and_the_first_item_is_left() -> None:
    inbox: Inbox[str] = Inbox(items=10, size=100)
    for item in "abcdef":
        inbox.put(item, 10)
    assert inbox.shed(str.islower) == "c"
    assert inbox.shed(str.islower) == "a"
    assert inbox.shed(str.islower) == "a"


def test_inboxes_share_a_budget_until_they_leave_it() -> None:
    budget = Budget(1_000)
    one, other = (Inbox[str](items=10, size=100, budget=budget) for _ in range(2))
    one.put("a", 10)
    other.put("b", 20)
    other.put("c", 5)
    assert budget.used == 35
    other.leave()
    assert budget.used == 10
    assert other.take() == "b"
    other.clear()
    assert (budget.used, other.size) == (10, 0)
    one.clear()
    assert budget.used == 0
