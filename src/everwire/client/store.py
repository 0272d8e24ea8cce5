"""The durable outbox's file: SQLite, and who may use it. Blocking; see :mod:`.journal`.

Rule 1: all that is asked for together is one transaction: it is done, or none of it.
Rule 2: a row has all that it takes to send its message again, its whole id above all.
Rule 3: a file has one owner at a time. A process that is killed owns nothing any more.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..limits import MiB
from .ownership import Ownership
from .records import Buried, Bury, Change, Delete, Mark, Put, SqliteOutbox

APPLICATION_ID = 0x45765778  # says whose file it is; shown by file(1)
SCHEMA = 1
BUSY_TIMEOUT = 5.0  # seconds for which somebody who looks into the file may keep us waiting
WAL_SIZE = 4 * MiB  # bytes that the write-ahead log is cut to

_TABLES = f"""
PRAGMA auto_vacuum = INCREMENTAL;
BEGIN IMMEDIATE;
CREATE TABLE entries (
    place INTEGER PRIMARY KEY,  -- the order
    id TEXT NOT NULL,           -- of the message, whole
    channel TEXT NOT NULL,
    key TEXT,                   -- for coalescing
    data BLOB NOT NULL,         -- MessagePack
    size INTEGER NOT NULL,      -- bytes that count
    expires REAL NOT NULL,      -- seconds since 1970, as all times
    firm INTEGER NOT NULL,      -- whether it was asked for with this message
    first_sent REAL             -- no later than the first attempt; NULL: there was none
) STRICT;
CREATE TABLE undelivered (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    channel TEXT NOT NULL,
    key TEXT,
    data BLOB NOT NULL,
    size INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA};
COMMIT;
"""


class Store:
    """An open file. Used by one thread, the one that opened it.

    Args:
        settings: which file, and how.
        undelivered: messages at most that are kept although they were given up.
        undelivered_bytes: that they may have.

    Raises:
        ConfigError: the file cannot be used; the text says why and what to do.
    """

    def __init__(self, settings: SqliteOutbox, *, undelivered: int, undelivered_bytes: int) -> None:
        self.path = Path(os.path.abspath(settings.path))
        self._bound = (undelivered_bytes, undelivered)
        self._ownership = Ownership(self.path)
        try:
            self._db = self._open(settings)
        except BaseException:
            self._ownership.release()
            raise

    def _open(self, settings: SqliteOutbox) -> sqlite3.Connection:
        try:
            # What waits to be sent is nobody else's business.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"outbox {str(self.path)!r} cannot be opened: {error}") from error
        try:
            self._prepare(db, settings)
        except sqlite3.Error as error:
            db.close()
            raise ConfigError(
                f"outbox {str(self.path)!r} cannot be read: {error}. If it is another program's "
                "file, name another path; if it is damaged, move it away together with its -wal "
                "file (`sqlite3 file .recover` may save what is in it) and start anew"
            ) from error
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection, settings: SqliteOutbox) -> None:
        owner, version = _pragma(db, "application_id"), _pragma(db, "user_version")
        empty = not _one(db, "SELECT count(*) FROM sqlite_schema") and not owner and not version
        if not empty and owner != APPLICATION_ID:
            raise ConfigError(
                f"outbox {str(self.path)!r} is a database of another program: name another path"
            )
        if not empty and version != SCHEMA:
            raise ConfigError(
                f"outbox {str(self.path)!r} has the schema {version}, this everwire knows {SCHEMA}: "
                "open it with the version that wrote it, or name another path"
            )
        if empty:
            db.executescript(_TABLES)
        elif (found := _pragma(db, "quick_check(1)")) != "ok":
            raise sqlite3.DatabaseError(found)
        if _pragma(db, "journal_mode = WAL") != "wal":
            raise ConfigError(
                f"outbox {str(self.path)!r}: no write-ahead log there: use a local disk"
            )
        db.execute(f"PRAGMA synchronous = {settings.synchronous}")
        db.execute(f"PRAGMA journal_size_limit = {WAL_SIZE}")
        db.execute("PRAGMA incremental_vacuum").fetchall()
        if settings.max_bytes is not None:
            pages = max(1, settings.max_bytes // _pragma(db, "page_size"))
            db.execute(f"PRAGMA max_page_count = {pages}")

    def entries(self) -> list[Put]:
        """All messages that are not acknowledged, in order."""
        rows = self._db.execute(
            "SELECT place, id, channel, key, data, size, expires, firm, first_sent"
            " FROM entries ORDER BY place"
        )
        return [
            Put(place, id_, channel, key, data, size, expires, bool(firm), first_sent)
            for place, id_, channel, key, data, size, expires, firm, first_sent in rows
        ]

    def undelivered(self) -> list[Buried]:
        """All messages that were given up and not taken, the oldest first."""
        rows = self._db.execute(
            "SELECT number, id, channel, key, data, sent, reason FROM undelivered ORDER BY number"
        )
        return [
            Buried(number, id_, channel, key, data, bool(sent), reason)
            for number, id_, channel, key, data, sent, reason in rows
        ]

    def apply(self, changes: Iterable[Change]) -> int:
        """Do all of it in one transaction, or nothing.

        Returns:
            How many undelivered messages had to be forgotten, the oldest: there are too many.

        Raises:
            sqlite3.Error: nothing was done.
        """
        db, forgotten = self._db, 0
        db.execute("BEGIN IMMEDIATE")
        try:
            for change in changes:
                if isinstance(change, Put):
                    self._put(change)
                elif isinstance(change, Mark):
                    db.execute(
                        "UPDATE entries SET first_sent = ?, expires = ? WHERE place = ?",
                        (change.first_sent, change.expires, change.place),
                    )
                elif isinstance(change, Delete):
                    db.execute("DELETE FROM entries WHERE place = ?", (change.place,))
                elif isinstance(change, Bury):
                    forgotten += self._bury(change)
                else:
                    db.execute("DELETE FROM undelivered WHERE number = ?", (change.number,))
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite rolls back by itself after some errors
                db.execute("ROLLBACK")
            raise
        return forgotten

    def _put(self, row: Put) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row.place, row.id, row.channel, row.key, row.data, row.size, row.expires,
             row.firm, row.first_sent),
        )  # fmt: skip

    def _bury(self, change: Bury) -> int:
        db = self._db
        db.execute(
            "INSERT INTO undelivered (id, channel, key, data, size, sent, reason)"
            " SELECT id, channel, key, data, size, ?, ? FROM entries WHERE place = ?",
            (change.sent, change.reason, change.place),
        )
        db.execute("DELETE FROM entries WHERE place = ?", (change.place,))
        return db.execute(
            "DELETE FROM undelivered WHERE number IN (SELECT number FROM (SELECT number,"
            " sum(size) OVER newest AS total, row_number() OVER newest AS n FROM undelivered"
            " WINDOW newest AS (ORDER BY number DESC)) WHERE total > ? OR n > ?)",
            self._bound,
        ).rowcount

    def close(self) -> None:
        """Close the file and give it free."""
        try:
            self._db.close()
        finally:
            self._ownership.release()

    def __repr__(self) -> str:
        return f"<Store {str(self.path)!r}>"


def _pragma(db: sqlite3.Connection, text: str) -> Any:
    return _one(db, f"PRAGMA {text}")


def _one(db: sqlite3.Connection, query: str) -> Any:
    return db.execute(query).fetchone()[0]
