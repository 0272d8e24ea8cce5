"""Each statement of docs/guarantees.md names what holds it, and that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from . import checks, checks_calls

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:test|check)_\w+)`", PAGE)))


def functions() -> set[str]:
    """The tests of the suite, and the checks of the model."""
    found = set()
    for path in (ROOT / "tests").rglob("*.py"):
        if "node_modules" in path.parts or not path.name.startswith(("test_", "checks")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
    return found


def test_every_test_that_the_page_names_exists() -> None:
    assert len(NAMED) > 50
    assert not set(NAMED) - functions()


def test_no_promise_stands_alone() -> None:
    """Every item of a list, but for those of what is not promised, names its test."""
    promised, _, _ = PAGE.partition("## Versions")
    for item in re.findall(r"^- (.*?)(?=^- |^$)", promised, flags=re.M | re.S):
        if not re.match(r"No order is promised|A message of which nobody|With `memory://`", item):
            assert re.search(r"`(?:test|check)_\w+`", item), item


def test_every_check_is_listed_with_its_rule_and_no_other() -> None:
    listed = set(re.findall(r":func:`(\w+)`", checks.__doc__ or ""))
    assert listed == {
        name
        for module in (checks, checks_calls)
        for name in vars(module)
        if name.startswith("check_")
    }


def test_every_check_is_made() -> None:
    folder = Path(__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    names = set(re.findall(r"^def (check_\w+)", code, flags=re.M))
    assert not {name for name in names if not re.search(rf"(?<!def )\b{name}\(", code)}
