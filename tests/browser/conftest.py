"""Node for the tests of this folder: its modules, and its checks as tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

# A check that is made in a loop over numbers stands once in the file: its name holds them.
_CHECK = re.compile(r'^ *(?:check|page)\((?:"([^"]+)"|`([^`]+)`)', re.MULTILINE)
_LOOP = re.compile(r"^for \(const \w+ of \[([\d, ]+)\]\)\n", re.MULTILINE)


def checks(script: str) -> list[str]:
    """The names of the checks in a script, in its order."""
    source = (HERE / script).read_text(encoding="utf-8")
    loops = {loop.end(): loop[1] for loop in _LOOP.finditer(source)}
    names: list[str] = []
    for found in _CHECK.finditer(source):
        if found[1]:
            names.append(found[1])
        else:
            values = loops[found.start()].split(", ")
            names.extend(re.sub(r"\$\{\w+\}", value, found[2]) for value in values)
    return names


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each check in the script that the test module's ``SCRIPTS`` names."""
    if "check" in metafunc.fixturenames:
        script: str = metafunc.module.SCRIPTS[metafunc.function.__name__]
        metafunc.parametrize("check", checks(script), ids=str)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The packages of the lock file, installed if they are missing."""
    installed = HERE / "node_modules"
    if not (installed / "ws").is_dir() or not (installed / "playwright-core").is_dir():
        npm = shutil.which("npm")
        assert npm, "these tests need node 20 and npm"
        subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=HERE,
            check=True,
            timeout=50,
        )
    return installed


@pytest.fixture
def everwire(start: Callable[..., Any]) -> Callable[..., Any]:
    """Start the command by its module, so that the package need not be installed."""

    def everwire(*args: str | Path, **options: object) -> Any:
        return start([sys.executable, "-m", "everwire", *args], **options)

    return everwire


@pytest.fixture
def node(node_modules: Path, start: Callable[..., Any]) -> Callable[..., Any]:
    """Start a check: ``node("module.mjs", "the rule", url)``."""

    def node(script: str, *args: str) -> Any:
        program = shutil.which("node")
        assert program, "these tests need node 20"
        return start([program, script, *args], cwd=HERE)

    return node
