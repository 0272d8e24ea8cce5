"""The durable outbox's file: whole transactions, one owner, and plain words about what is wrong."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings, strategies as st

from everwire import ConfigError, SqliteOutbox
from everwire.client.records import Buried, Bury, Change, Delete, Forget, Mark, Put
from everwire.client.store import Store


def row(place: int, size: int = 3, **changes: Any) -> Put:
    values: dict[str, Any] = {
        "id": f"i-{place}", "channel": "c", "key": None, "data": b"\xa1x", "size": size,
        "expires": 60.0, "firm": False, "first_sent": None,
    }  # fmt: skip
    return Put(place, **{**values, **changes})


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[Store]:
    undelivered = options.pop("undelivered", 100)
    undelivered_bytes = options.pop("undelivered_bytes", 10_000)
    settings = SqliteOutbox(path, **options)
    store = Store(settings, undelivered=undelivered, undelivered_bytes=undelivered_bytes)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_what_is_put_is_there_when_it_is_opened_again_in_order(
    path: Path, synchronous: Literal["NORMAL", "FULL"]
) -> None:
    rows = [row(2, key="k", firm=True), row(1, first_sent=5.0), row(10, data=b"\xc0")]
    with opened(path, synchronous=synchronous) as store:
        store.apply(rows)
    with opened(path) as store:
        assert store.entries() == [rows[1], rows[0], rows[2]]


def test_a_replacement_keeps_the_place(path: Path) -> None:
    with opened(path) as store:
        store.apply([row(1), row(2)])
        store.apply([row(1, id="other")])
        assert [entry.id for entry in store.entries()] == ["other", "i-2"]


def test_the_undelivered_are_kept_until_forgotten_and_the_oldest_go_first(path: Path) -> None:
    with opened(path, undelivered=3) as store:
        store.apply([row(n) for n in range(1, 6)])
        assert store.apply([Bury(n, n == 1, f"why {n}") for n in (1, 2, 3)]) == 0
        assert store.apply([Bury(4, False, "why 4")]) == 1
        assert [buried.id for buried in store.undelivered()] == ["i-2", "i-3", "i-4"]
        assert [entry.id for entry in store.entries()] == ["i-5"]
    with opened(path, undelivered=3) as store:
        second = store.undelivered()[0]
        assert second == Buried(2, "i-2", "c", None, b"\xa1x", False, "why 2")
        store.apply([Forget(second.number)])
        assert [buried.id for buried in store.undelivered()] == ["i-3", "i-4"]


def test_the_undelivered_are_bounded_in_bytes(path: Path) -> None:
    with opened(path, undelivered_bytes=10) as store:
        store.apply([row(n, size=4) for n in (1, 2, 3)])
        assert store.apply([Bury(n, False, "") for n in (1, 2, 3)]) == 1
        assert [buried.id for buried in store.undelivered()] == ["i-2", "i-3"]


def test_what_does_not_fit_into_the_file_leaves_it_as_it_was(path: Path) -> None:
    with opened(path, max_bytes=64 * 1024) as store:
        store.apply([row(1)])
        with pytest.raises(sqlite3.OperationalError, match="full"):
            store.apply([row(2), row(3, data=b"x" * 100_000), Delete(1)])
        assert [entry.place for entry in store.entries()] == [1]
        store.apply([Delete(1), row(4)])
        assert [entry.place for entry in store.entries()] == [4]


def test_nobody_else_may_read_it(path: Path) -> None:
    with opened(path):
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file.name


# ---- files that cannot be used ---------------------------------------------------------


def damaged(path: Path) -> None:
    with opened(path) as store:
        store.apply([row(n, data=os.urandom(2000)) for n in range(1, 50)])
    data = bytearray(path.read_bytes())
    data[4096:40000] = random.Random(1).randbytes(40000 - 4096)
    path.write_bytes(data)


def of_another_program(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE entries (a)")
    db.commit()
    db.close()


def of_the_future(path: Path) -> None:
    with opened(path):
        pass
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()


def no_database(path: Path) -> None:
    path.write_bytes(b"a letter to my grandmother\n" * 100)


def nowhere(path: Path) -> None:
    path.parent.rmdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (damaged, r"cannot be read.*\.recover"),
        (of_another_program, "another program: name another path"),
        (of_the_future, "schema 99.*open it with the version that wrote it"),
        (no_database, "cannot be read: file is not a database.*name another path"),
        (nowhere, "No such file or directory"),
        (Path.mkdir, "cannot be opened: .*irectory"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_the_remedy_and_left_alone(
    spoil: Callable[[Path], None], says: str, path: Path
) -> None:
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    for _ in range(2):  # the lock was given free again
        with pytest.raises(ConfigError, match=rf"(?s)outbox '\S+outbox.db'.*{says}"):
            with opened(path):
                pass
    assert (path.read_bytes() if path.is_file() else None) == before


def test_an_empty_file_becomes_one(path: Path) -> None:
    path.touch()
    with opened(path) as store:
        store.apply([row(1)])
    with opened(path) as store:
        assert len(store.entries()) == 1


def test_an_unknown_durability_is_refused() -> None:
    with pytest.raises(ConfigError, match="'NORMAL' or 'FULL'"):
        SqliteOutbox("x", synchronous="OFF")  # type: ignore[arg-type]


# ---- owners ------------------------------------------------------------------------


def test_a_second_owner_in_the_process_is_told_so(path: Path) -> None:
    with opened(path):
        with pytest.raises(ConfigError, match=f"open in this process .pid {os.getpid()}"):
            with opened(path):
                pass
    with opened(path):
        pass


HOLDER = """
import sys
from everwire import SqliteOutbox
from everwire.client.store import Store
store = Store(SqliteOutbox(sys.argv[1]), undelivered=1, undelivered_bytes=1)
print("open", flush=True)
sys.stdin.read()
"""


def test_another_process_is_named_by_its_pid_and_owns_nothing_once_it_was_killed(
    path: Path,
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(ConfigError, match=rf"pid {holder.pid}, which has it open"):
            with opened(path):
                pass
        holder.kill()
        holder.wait()
    with opened(path):
        pass


# ---- crashes -----------------------------------------------------------------------


class Model:
    """What the file is to hold."""

    def __init__(self) -> None:
        self.entries: dict[int, Put] = {}
        self.undelivered: list[tuple[int, str, bool, str]] = []
        self.number = 0

    def apply(self, changes: list[Change]) -> None:
        for change in changes:
            if isinstance(change, Put):
                self.entries[change.place] = change
            elif isinstance(change, Mark):
                if change.place in self.entries:
                    old = self.entries[change.place]
                    self.entries[change.place] = row(
                        old.place, id=old.id, first_sent=change.first_sent, expires=change.expires
                    )
            elif isinstance(change, Forget):
                self.undelivered = [one for one in self.undelivered if one[0] != change.number]
            elif (old_row := self.entries.pop(change.place, None)) and isinstance(change, Bury):
                number = 1 + max((one[0] for one in self.undelivered), default=0)
                self.undelivered.append((number, old_row.id, change.sent, change.reason))

    def state(self) -> Any:
        return [self.entries[place] for place in sorted(self.entries)], list(self.undelivered)


def state_of(store: Store) -> Any:
    undelivered = [(one.number, one.id, one.sent, one.reason) for one in store.undelivered()]
    return store.entries(), undelivered


places = st.integers(1, 8)
changes = st.one_of(
    st.builds(lambda place, n: row(place, id=f"i-{n}"), places, st.integers(0, 999)),
    st.builds(Mark, places, st.just(7.0), st.just(270.0)),
    st.builds(Delete, places),
    st.builds(Bury, places, st.booleans(), st.sampled_from(["a", "b"])),
    st.builds(Forget, st.integers(1, 4)),
)


@settings(max_examples=40)
@given(st.lists(st.lists(changes, min_size=1, max_size=6), min_size=1, max_size=8), st.data())
def test_after_a_crash_at_any_moment_the_file_holds_some_whole_number_of_groups(
    groups: list[list[Change]], data: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outbox.db"
        model = Model()
        states = [model.state()]
        with opened(path) as store:
            for number, group in enumerate(groups):
                store.apply(group)
                model.apply(group)
                states.append(model.state())
                # A process that is killed here leaves these files.
                copy = Path(folder) / str(number)
                copy.mkdir()
                for name in ("outbox.db", "outbox.db-wal"):
                    shutil.copy(path.with_name(name), copy / name)
        for number in range(len(groups)):
            crashed = Path(folder) / str(number) / "outbox.db"
            # And one whose power fails may have lost the end of its log.
            wal = crashed.with_name("outbox.db-wal")
            torn = Path(folder) / f"torn-{number}"
            torn.mkdir()
            shutil.copy(crashed, torn / "outbox.db")
            cut = data.draw(st.integers(0, wal.stat().st_size), label="cut")
            (torn / "outbox.db-wal").write_bytes(wal.read_bytes()[:cut])
            with opened(crashed) as store:
                assert state_of(store) == states[number + 1]
            if number:  # the tables of the first moments are in the log themselves
                with opened(torn / "outbox.db") as store:
                    assert state_of(store) in states[: number + 2]


@settings(max_examples=25)
@given(st.lists(changes, min_size=1, max_size=6), st.lists(changes, min_size=1, max_size=6))
def test_a_group_under_way_is_not_there_at_all_after_a_crash(
    first: list[Change], second: list[Change]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder) / "outbox.db", Path(folder) / "crashed"
        copy.mkdir()
        model = Model()

        def until_it_is_killed() -> Iterator[Change]:
            yield from second
            for name in ("outbox.db", "outbox.db-wal"):
                shutil.copy(path.with_name(name), copy / name)

        with opened(path) as store:
            store.apply(first)
            model.apply(first)
            store.apply(until_it_is_killed())
        with opened(copy / "outbox.db") as store:
            assert state_of(store) == model.state()
