"""Node for the tests of this folder: its modules, and its checks as tests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Child

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


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Child]]:
    """Start processes that are stopped after the last test of the file."""
    children: list[Child] = []

    def start(*args: str | Path, **options: Any) -> Child:
        children.append(Child(args, **options))
        return children[-1]

    yield start
    for child in reversed(children):
        child.stop()


@pytest.fixture(scope="module")
def serve(start: Callable[..., Child]) -> Callable[..., tuple[Child, re.Match[str]]]:
    """Start a demo server by its module, so that the package need not be installed."""

    def serve(port: str = "0") -> tuple[Child, re.Match[str]]:
        child = start(sys.executable, "-m", "everwire", "demo", "--port", port)
        up = r"^everwire: (?P<url>ws://\S+:(?P<port>\d+)/ws)  page: (?P<page>http://\S+)$"
        return child, child.line(up)

    return serve


@pytest.fixture(scope="module")
def demo(serve: Callable[..., tuple[Child, re.Match[str]]]) -> re.Match[str]:
    """A demo server for all tests of a file; its groups are ``url`` and ``page``."""
    return serve()[1]


@pytest.fixture(scope="module")
def node(node_modules: Path, start: Callable[..., Child]) -> Callable[..., Child]:
    """Start some checks of a script: ``node("module.mjs", ["the rule"], url)``."""
    program = shutil.which("node")
    assert program, "these tests need node 20"

    def node(script: str, rules: list[str], *args: str) -> Child:
        return start(program, script, json.dumps(rules), *args, cwd=HERE)

    return node


@pytest.fixture(scope="module")
def passes(request: pytest.FixtureRequest, node: Callable[..., Child]) -> Callable[..., None]:
    """Fail as the check does: ``passes("rules.mjs", check)``.

    One process runs all checks of the script that were selected; each test waits for its own.
    """
    running: dict[str, Child] = {}

    def passes(script: str, check: str, *args: str) -> None:
        if script not in running:
            scripts: dict[str, str] = request.module.SCRIPTS
            rules = [
                item.callspec.params["check"]
                for item in request.session.items
                if isinstance(item, pytest.Function)
                and item.module is request.module
                and scripts.get(item.function.__name__) == script
            ]
            running[script] = node(script, rules, *args)
        child = running[script]
        found: list[dict[str, Any]] = []

        def ended() -> bool:
            results = [json.loads(line) for line in list(child.out)]
            found[:] = [result for result in results if result["rule"] == check]
            return bool(found)

        child.until(ended, f"the end of {check!r}", 50)
        if found[0]["error"]:
            pytest.fail(found[0]["error"], pytrace=False)

    return passes
