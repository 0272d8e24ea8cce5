"""Log lines cannot be multiplied or forged by what comes over the wire."""

from __future__ import annotations

import logging

import pytest

from everwire.instrumentation import LimitedLog, printable


def test_what_comes_from_outside_is_one_line_without_escapes_and_not_endless() -> None:
    assert printable("a\r\nERROR forged\x1b[31m\x00\x9b") == (
        "a\\x0d\\x0aERROR forged\\x1b[31m\\x00\\x9b"
    )
    assert len(printable("x" * 100_000)) < 250


def test_a_flood_is_one_line_an_interval_with_the_number_of_those_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    log = LimitedLog(logging.getLogger("t"), lambda: now)
    with caplog.at_level(logging.INFO, "t"):
        for _ in range(5000):
            log.log(logging.WARNING, "key", "bad input from %s", "who\n")
        log.log(logging.WARNING, "other", "something else")
        now = 11.0
        log.log(logging.WARNING, "key", "bad input from %s", "who")
    assert [record.getMessage() for record in caplog.records] == [
        "bad input from who\\x0a",
        "something else",
        "bad input from who (4999 more like this were not logged)",
    ]


def test_keys_do_not_fill_the_memory() -> None:
    log = LimitedLog(logging.getLogger("t"), lambda: 0.0)
    for n in range(10_000):
        log.log(logging.DEBUG, str(n), "x")
    assert len(log._keys) <= 1_000
