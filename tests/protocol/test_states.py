"""The tables of states."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from everwire.protocol.states import (
    CONNECTION,
    SUBSCRIPTION,
    ConnectionState,
    Machine,
    StateError,
    SubscriptionState,
)

from .wire import examples

TABLES = [
    pytest.param(CONNECTION, ConnectionState.CONNECTING, ConnectionState.CLOSED, id="connection"),
    pytest.param(
        SUBSCRIPTION,
        SubscriptionState.UNSUBSCRIBED,
        SubscriptionState.UNSUBSCRIBED,
        id="subscription",
    ),
]
Table = Mapping[Any, frozenset[Any]]


def states_like(state: Any) -> set[Any]:
    kind: type[ConnectionState | SubscriptionState] = type(state)
    return set(kind)


def reachable(table: Table, start: Any) -> set[Any]:
    seen, todo = {start}, [start]
    while todo:
        for state in table[todo.pop()] - seen:
            seen.add(state)
            todo.append(state)
    return seen


@pytest.mark.parametrize(("table", "start", "end"), TABLES)
def test_the_table_speaks_of_every_state(table: Table, start: Any, end: Any) -> None:
    assert set(table) == states_like(start)
    assert set().union(*table.values()) <= states_like(start)


@pytest.mark.parametrize(("table", "start", "end"), TABLES)
def test_every_state_is_reached_from_the_first(table: Table, start: Any, end: Any) -> None:
    assert reachable(table, start) == states_like(start)


@pytest.mark.parametrize(("table", "start", "end"), TABLES)
def test_the_end_is_reached_from_every_state(table: Table, start: Any, end: Any) -> None:
    for state in table:
        assert end in reachable(table, state), state


@pytest.mark.parametrize(("table", "start", "end"), TABLES)
def test_a_machine_goes_where_the_table_says_and_nowhere_else(
    table: Table, start: Any, end: Any
) -> None:
    for here in table:
        for there in table:
            machine = Machine(here, table)
            if there is here or there in table[here]:
                machine.to(there)
                assert machine.state is there
            else:
                with pytest.raises(StateError, match=f"{here}.*{there}"):
                    machine.to(there)
                assert machine.state is here, "a refused way changes nothing"


@pytest.mark.parametrize(("table", "start", "end"), TABLES)
def test_no_walk_leaves_the_table(table: Table, start: Any, end: Any) -> None:
    @examples(100)
    @given(st.lists(st.sampled_from(sorted(states_like(start))), max_size=30))
    def check(wishes: list[Any]) -> None:
        machine, path = Machine(start, table), [start]
        for wish in wishes:
            try:
                machine.to(wish)
            except StateError:
                continue
            path.append(machine.state)
        for before, after in pairwise(path):
            assert after is before or after in table[before]

    check()


def test_a_closed_connection_only_starts_anew() -> None:
    assert CONNECTION[ConnectionState.CLOSED] == {ConnectionState.CONNECTING}


def test_nothing_is_served_again_after_closing() -> None:
    """Only the way through CLOSED leads back."""
    later = reachable({**CONNECTION, ConnectionState.CLOSED: frozenset()}, ConnectionState.CLOSING)
    assert ConnectionState.READY not in later


def test_who_leaves_a_draining_node_is_ready_again_or_gone() -> None:
    assert CONNECTION[ConnectionState.DRAINING] == {
        ConnectionState.READY,
        ConnectionState.CLOSING,
        ConnectionState.CLOSED,
    }
