"""Log lines cannot be forged, and hold what was given."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given, strategies as st

from everwire.cli.logs import JsonFormatter, TextFormatter, escape


def record(message: str, *args: object, **more: Any) -> logging.LogRecord:
    exc_info = more.pop("exc_info", None)
    made = logging.LogRecord("everwire.x", logging.WARNING, "", 0, message, args, exc_info)
    vars(made).update(more)
    return made


@given(st.text())
def test_whatever_is_logged_is_one_printable_line(text: str) -> None:
    for formatter in (TextFormatter(), JsonFormatter()):
        line = formatter.format(record("%s", text, user=text))
        assert len(line.splitlines()) == 1
        assert not any(ord(sign) < 0x20 or 0x7F <= ord(sign) < 0xA0 for sign in line)
        line.encode()  # no lone surrogates


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("\u202e", "\\u202e"), ("größer", "größer")],
)
def test_control_characters_become_escapes(raw: str, escaped: str) -> None:
    assert escape(raw) == escaped


def test_json_holds_what_was_given_as_extra() -> None:
    entry = json.loads(JsonFormatter().format(record("closed %d", 4408, connection="c1")))
    assert entry["message"] == "closed 4408"
    assert entry["level"] == "warning"
    assert entry["connection"] == "c1"
    assert entry["time"].endswith("Z")


def test_an_exception_s_text_cannot_begin_a_line_of_the_log() -> None:
    try:
        raise ValueError("first\n2024-01-01 forged")
    except ValueError:
        info = sys.exc_info()
    lines = TextFormatter().format(record("failed", exc_info=info)).splitlines()
    assert all(line.startswith("    ") for line in lines[1:])
    assert json.loads(JsonFormatter().format(record("failed", exc_info=info)))["exception"]
