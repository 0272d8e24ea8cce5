"""What a newcomer sees first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import everwire as package

Everwire = Callable[..., Any]


def test_version_is_the_package_s(everwire: Everwire) -> None:
    child = everwire("--version")
    assert child.wait() == 0
    assert child.out == [f"everwire {package.__version__}"]


def test_the_module_is_the_command(start: Callable[..., Any]) -> None:
    child = start([sys.executable, "-m", "everwire", "--version"])
    assert child.wait() == 0
    assert child.out == [f"everwire {package.__version__}"]


def test_help_lists_the_commands_and_shows_examples(everwire: Everwire) -> None:
    child = everwire("--help")
    assert child.wait() == 0
    text = "\n".join(child.out)
    for wanted in (
        "demo",
        "serve",
        "sub",
        "pub",
        "bench",
        "token",
        "everwire sub ws://127.0.0.1:8000/ws",
    ):
        assert wanted in text


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        ("demo", "HOST PORT HTTP_PORT BROKER WORKERS LOG_FORMAT LOG_LEVEL"),
        ("serve", "HOST PORT HTTP_PORT BROKER WORKERS LOG_FORMAT LOG_LEVEL ALLOW_ANONYMOUS"),
        ("sub", "TOKEN DIALECT"),
        ("pub", "TOKEN DIALECT"),
        ("bench", "TOKEN DIALECT"),
        ("token", "SECRET"),
    ],
)
def test_each_command_s_help_names_its_variables_and_has_an_example(
    everwire: Everwire, command: str, variables: str
) -> None:
    child = everwire(command, "--help")
    assert child.wait() == 0
    text = "\n".join(child.out)
    for name in variables.split():
        assert f"EVERWIRE_{name}" in text
    assert any(line.strip().startswith(("everwire ", "seq ")) for line in child.out)


def test_the_client_s_commands_do_not_load_the_server() -> None:
    script = (
        "import sys, everwire.cli.sub, everwire.cli.pub, everwire.cli.bench\n"
        "print([name for name in sys.modules if name.startswith('everwire.server')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20
    )
    assert done.stdout.strip() == "[]"
