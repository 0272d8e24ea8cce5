"""tests/typing/ leaves nothing of the public surface out; mypy and pyright check what it says."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import everwire
import everwire.client
import everwire.sync

FILES = sorted((Path(__file__).parent / "typing").glob("*.py"))
ERRORS = {"BadData", "BadRequest", "BrokerUnavailable", "ClosedError", "ClosedOK", "HandshakeRefused",
          "NotStored", "ProtocolError", "StillQueued", "Unavailable"}  # fmt: skip  # they are the others' siblings


def written(kind: type[ast.AST], field: str) -> set[str]:
    return {
        getattr(node, field)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kind)
    }


NAMES = written(ast.Name, "id") | written(ast.Attribute, "attr")
ATTRIBUTES = written(ast.Attribute, "attr")


def public(module: ModuleType) -> Iterator[str]:
    yield from (f"{module.__name__} {name}" for name in module.__all__)


@pytest.mark.parametrize(
    "name",
    [*public(everwire), *public(everwire.client), *public(everwire.sync)],
)
def test_every_public_name_is_used_there(name: str) -> None:
    assert name.split()[1] in NAMES | ERRORS


USED_BY_APPLICATIONS = (
    everwire.Client,
    everwire.Everwire,
    everwire.Socket,
    everwire.client.Subscription,
    everwire.sync.Client,
    everwire.sync.Socket,
    everwire.sync.Subscription,
)


@pytest.mark.parametrize("cls", USED_BY_APPLICATIONS, ids=lambda cls: f"{cls.__module__}.{cls}")
def test_every_public_method_is_used_there(cls: type) -> None:
    names = {
        name
        for name in dir(cls)
        if name[0] != "_"
        and (callable(value := inspect.getattr_static(cls, name)) or isinstance(value, property))
    }
    assert names - ATTRIBUTES == set()
