"""The public names: complete, loadable one by one, and light until they are used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import everwire
from everwire import errors


def names_for_type_checkers() -> list[str]:
    tree = ast.parse(Path(everwire.__file__).read_text())
    block = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return [
        alias.asname or alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


@pytest.mark.parametrize("name", everwire.__all__)
def test_each_public_name_loads(name: str) -> None:
    assert getattr(everwire, name) is not None


def test_no_name_is_listed_twice() -> None:
    assert len(everwire.__all__) == len(set(everwire.__all__))


def test_type_checkers_see_the_names_that_exist_at_run_time() -> None:
    assert sorted(names_for_type_checkers()) == sorted(everwire.__all__)


def test_every_exception_is_public() -> None:
    exceptions = {
        name
        for name in errors.__all__
        if inspect.isclass(getattr(errors, name)) and issubclass(getattr(errors, name), Exception)
    }
    assert exceptions <= set(everwire.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = everwire.no_such_name


def test_dir_lists_the_public_names() -> None:
    assert set(everwire.__all__) <= set(dir(everwire))


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"asyncio", "picows", "aiofastnet", "uvloop", "rich", "click", "msgspec", "starlette"}
    assert not loaded_after("import everwire") & heavy


def within(package: str, loaded: set[str]) -> set[str]:
    return {name for name in loaded if name == package or name.startswith(f"{package}.")}


def test_the_client_does_not_load_the_server_nor_the_command_line() -> None:
    loaded = loaded_after("from everwire import connect")
    assert within("everwire.client", loaded)
    for package in ("everwire.server", "everwire.cli", "rich", "click", "starlette"):
        assert not within(package, loaded)


def test_the_server_does_not_load_the_client_nor_the_command_line() -> None:
    loaded = loaded_after("from everwire import Everwire")
    assert within("everwire.server", loaded)
    for package in ("everwire.client", "everwire.cli", "rich", "click"):
        assert not within(package, loaded)
