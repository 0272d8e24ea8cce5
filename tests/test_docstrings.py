"""Whoever awaits something is told what cancelling it does."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import everwire
import everwire.client
import everwire.sync
import everwire.testing
from everwire.server.running import Server

DUNDERS = ("__aenter__", "__aexit__", "__anext__")


def public_classes() -> Iterator[type]:
    """What the public modules name, and what their functions return."""
    modules: tuple[ModuleType, ...] = (everwire, everwire.client, everwire.testing)
    found = {
        value
        for module in modules
        for name in module.__all__
        if inspect.isclass(value := getattr(module, name))
    }
    yield from sorted({*found, Server}, key=lambda cls: cls.__qualname__)


def coroutines() -> Iterator[tuple[str, Any]]:
    for cls in public_classes():
        for name in dir(cls):
            function = inspect.getattr_static(cls, name)
            function = getattr(function, "__wrapped__", function)
            ours = str(getattr(function, "__module__", "")).startswith("everwire")
            if not ours or (name.startswith("_") and name not in DUNDERS):
                continue
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                yield f"{cls.__name__}.{name}", function


COROUTINES = dict(coroutines())


def test_there_are_public_coroutines() -> None:
    assert {"Client.publish", "Socket.send", "Subscription.unsubscribe", "Everwire.publish"} <= set(
        COROUTINES
    )


@pytest.mark.parametrize("name", COROUTINES)
def test_the_docstring_of_a_public_coroutine_says_what_cancelling_does(name: str) -> None:
    text = inspect.getdoc(COROUTINES[name]) or ""
    if not text and name.endswith("__aexit__"):
        return  # it does what close() does, or unsubscribe()
    assert "ancel" in text, name


BLOCKING = [
    (f"{name}.{member}", inspect.getdoc(inspect.getattr_static(cls, member)) or "")
    for name in everwire.sync.__all__
    if inspect.isclass(cls := getattr(everwire.sync, name))
    for member in dir(cls)
    if member[0] != "_"
]


@pytest.mark.parametrize(("name", "text"), BLOCKING)
def test_the_blocking_api_speaks_of_nothing_that_it_has_not(name: str, text: str) -> None:
    assert text, name
    for word in ("async ", "await ", "Cancelling"):
        assert word not in text.replace("(async or not)", ""), name
