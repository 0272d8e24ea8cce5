"""Log lines for people (text) or for machines (JSON, one object a line), on stderr.

Whatever a client sends may end up in a log: nothing in it can begin a line of its own
or move the terminal's cursor, for control characters are written as escapes.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

# C0 and C1 controls, line separators, bidirectional controls, surrogates
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def escape(text: str) -> str:
    """Replace what could forge or garble a log line by its escape, as Python writes it."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    named = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    return named or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {
        key: value
        for key, value in vars(record).items()
        if key not in _STANDARD and not key.startswith("_")
    }


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """``time level logger: message key=value``; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        extras = "".join(f" {key}={value}" for key, value in _extras(record).items())
        head = f"{record.levelname.lower():7} {record.name}: {record.getMessage()}{extras}"
        lines = [f"{_time(record)} {escape(head)}"]
        if record.exc_info:
            lines += [f"    {escape(line)}" for line in _traceback(self, record).splitlines()]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """An object with ``time``, ``level``, ``logger``, ``message``, then what was given as extra."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in _extras(record).items() if key not in entry}
        if record.exc_info:
            entry["exception"] = _traceback(self, record)
        # Plain ASCII: JSON itself leaves the C1 and bidirectional controls as they are.
        return json.dumps(entry, default=str, ensure_ascii=True).replace("\x7f", "\\u007f")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    assert record.exc_info
    return formatter.formatException(record.exc_info)


def configure(style: str, level: str) -> None:
    """Send what is logged from here on to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    if level != "debug":
        # says which selector it uses; every line of it is of that kind
        logging.getLogger("asyncio").setLevel(logging.WARNING)
