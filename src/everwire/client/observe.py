"""The debug log: a line for each message and event, with a mark before it.

``>`` sent, ``<`` received, ``=`` a state, ``x`` a lost link, ``!`` what
went wrong. A line is made only if somebody reads it: the logger is ``everwire.client.wire``,
at the level DEBUG. What may be secret is masked, and the line is short whatever came.
"""

from __future__ import annotations

import logging
import re
from dataclasses import fields
from reprlib import Repr
from typing import Any

import msgspec

from ..instrumentation import printable
from ..protocol.messages import MESSAGES
from .observations import Record

logger = logging.getLogger("everwire.client.wire")

WIDTH = 75  # characters of a message that are shown
SECRET = r"[\w-]*(?:token|password|passwd|secret|credentials|authorization|api_?key)"
MASK = "***"

_TAGS: dict[type, str] = {each: str(each.__struct_config__.tag) for each in MESSAGES}

_secret_name = re.compile(SECRET, re.I)
_secret_text = re.compile(
    rf"""(["']?\b{SECRET}["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[^\s,;&"'}}]+)""",
    re.I,
)


class _Brief(Repr):
    """Shows data in bounded time and space, without secrets."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = WIDTH
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 6

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, msgspec.Struct):
            return f"({self.fields(x, level)})"
        if isinstance(x, (bytes, bytearray, memoryview)):
            shown = repr(bytes(x[:20]))
            return shown if len(x) <= 20 else f"{shown}… {len(x)} bytes"
        return super().repr1(x, level)

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        return super().repr_dict({key: _masked(key, x[key]) for key in list(x)[:10]}, level)

    def fields(self, message: msgspec.Struct, level: int) -> str:
        """The fields that say something."""
        parts = []
        for name in message.__struct_fields__:
            value = getattr(message, name)
            if value is not None and value != "" and value != [] and value != {}:
                parts.append(f"{name}={self.repr1(_masked(name, value), level - 1)}")
        return " ".join(parts)


class _Masked:
    def __repr__(self) -> str:
        return MASK


def _masked(name: object, value: Any) -> Any:
    hidden = isinstance(name, str) and value is not None and _secret_name.fullmatch(name)
    return _Masked() if hidden else value


_brief = _Brief()


def watched() -> bool:
    """Whether somebody reads the log."""
    return logger.isEnabledFor(logging.DEBUG)


def show(number: int, mark: str, text: str, size: int | None = None) -> None:
    """Write a line of link ``number``; ``text`` may be anything, ``size`` is in bytes."""
    length = "" if size is None else f" [{size} bytes]"
    logger.debug("link %d %s %s%s", number, mark, printable(masked(text), WIDTH), length)


def show_record(record: Record) -> None:
    """Write a record."""
    if watched():
        values = ((each.name, getattr(record, each.name)) for each in fields(record))
        said = " ".join(
            f"{name}={value:.3f}" if isinstance(value, float) else f"{name}={value}"
            for name, value in values
        )
        text = f"{type(record).__name__} {said}".rstrip()
        logger.debug("%s %s", record.mark, printable(masked(text), 4 * WIDTH))


def masked(text: str) -> str:
    """Text without what follows words such as token."""
    return _secret_text.sub(rf"\g<1>{MASK}", text[: 16 * WIDTH])


def of_message(message: msgspec.Struct) -> str:
    """A message as a line shows it."""
    kind = next((each for each in type(message).__mro__ if each in _TAGS), type(message))
    return f"{_TAGS.get(kind, kind.__name__)} {_brief.fields(message, _brief.maxlevel)}"


def of_payload(payload: bytes | memoryview) -> str:
    """The same for what is not understood."""
    head = bytes(payload[: 16 * WIDTH])
    try:
        return head.decode()
    except UnicodeDecodeError:
        return repr(head[: 2 * WIDTH])
