"""The tree of exceptions."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest

from everwire import errors
from everwire.codes import ERRORS, ErrorCode
from everwire.protocol.dialects import BadMessage

HOW: dict[type[Exception], tuple[tuple[Any, ...], dict[str, Any]]] = {
    errors.ConnectionClosed: ((4440, "draining"), {}),
    errors.HandshakeRefused: ((503, "busy"), {"temporary": True, "retry_after": 2.5}),
    errors.RequestError: (
        ("no",),
        {
            "code": 501,
            "temporary": True,
            "outcome": "unknown",
            "retry_after": 1.5,
            "details": {"a": [1]},
        },
    ),
    errors.BrokerUnavailable: (("no answer",), {"outcome": "unknown"}),
    BadMessage: (("no",), {"request_id": 5, "strike": False, "channel": "c"}),
}


def tree(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


CLASSES = sorted(
    {
        cls
        for cls in tree(errors.EverwireError)
        if cls.__module__ in ("everwire.errors", "everwire.protocol.dialects")
    },
    key=lambda cls: cls.__name__,
)


def make(cls: type[Exception]) -> Exception:
    for base in cls.__mro__:
        if base in HOW:
            args, options = HOW[base]
            return cls(*args, **options)
    return cls("a text")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_error_has_a_text_and_a_docstring(cls: type[Exception]) -> None:
    assert str(make(cls))
    assert cls.__doc__


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("how", ["pickle", "copy", "deepcopy"])
def test_each_error_survives_a_process_boundary(cls: type[Exception], how: str) -> None:
    error = make(cls)
    error.add_note("a note")
    if how == "pickle":
        copied = pickle.loads(pickle.dumps(error))
    else:
        copied = getattr(copy, how)(error)
    assert type(copied) is cls
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)
    assert copied.args == error.args


def test_every_error_of_the_module_is_in_the_tree_and_exported() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type)
        and issubclass(value, Exception)
        and value.__module__ == errors.__name__
        and not name.startswith("_")
    }
    assert found == {name for name in errors.__all__ if name != "request_error"}
    for name in found:
        assert issubclass(getattr(errors, name), errors.EverwireError)


def test_the_drawing_of_the_tree_is_the_tree() -> None:
    """Each name stands below the nearest public class that it is derived from."""
    assert errors.__doc__ is not None
    public = {name for name in errors.__all__ if name != "request_error"}
    above: dict[int, str] = {}
    drawn: dict[str, str | None] = {}
    for line in errors.__doc__.splitlines():
        if not line.lstrip().startswith("* "):
            continue
        depth = len(line) - len(line.lstrip())
        for name in re.findall(r":exc:`(\w+)`", line):
            drawn[name] = max(((d, n) for d, n in above.items() if d < depth), default=(0, None))[1]
            above = {d: n for d, n in above.items() if d < depth} | {depth: name}
    actual = {
        name: next(
            (c.__name__ for c in getattr(errors, name).__mro__[1:] if c.__name__ in public), None
        )
        for name in public
    }
    assert drawn == actual


@pytest.mark.parametrize("code", ErrorCode)
def test_an_error_that_says_nothing_says_what_its_code_means(code: ErrorCode) -> None:
    error = errors.request_error(code, "", temporary=ERRORS[code].temporary)
    assert error.code == code
    assert error.name == code.wire_name
    assert ERRORS[code].meaning in str(error)
    assert errors.RequestError(code=code).temporary is ERRORS[code].temporary


def test_an_unknown_code_is_an_error_like_any_other() -> None:
    error = errors.request_error(999, "new", temporary=True)
    assert (error.code, error.name, error.message) == (999, "error_999", "new")
    assert error.temporary


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (100, errors.BadRequest),
        (200, errors.Unauthorized),
        (201, errors.Unauthorized),
        (202, errors.Forbidden),
        (501, errors.Unavailable),
        (500, errors.RequestError),
    ],
)
def test_a_code_picks_its_class(code: int, cls: type[Exception]) -> None:
    error = errors.request_error(code, "text", temporary=False, retry_after=1.0, details=[1])
    assert type(error) is cls
    assert (error.code, error.message, error.temporary) == (code, "text", False)
    assert (error.retry_after, error.details) == (1.0, [1])


@pytest.mark.parametrize("cls", [errors.RequestTimeout])
def test_a_timeout_is_also_the_builtin_one(cls: type[Exception]) -> None:
    assert issubclass(cls, TimeoutError)


def test_misuse_is_also_a_value_error() -> None:
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.BadData, ValueError)
