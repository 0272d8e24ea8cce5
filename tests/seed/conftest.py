"""The folder of the pattern document's JavaScript comes from ``SEED_DIR``."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..conftest import eventually

HERE = Path(__file__).parent
REDIS_PORT = 6379  # the document's server knows no other


@pytest.fixture(scope="session")
def seed() -> Path:
    """The folder with ``clients.cjs`` and ``server.cjs``."""
    folder = os.environ.get("SEED_DIR")
    if not folder or not (Path(folder) / "js" / "clients.cjs").is_file():
        pytest.fail("set SEED_DIR to the folder that has js/clients.cjs")
    return Path(folder) / "js"


@pytest.fixture
def drive(start: Callable[..., Any], seed: Path) -> Callable[..., Any]:
    """Run one scenario of ``driver.cjs`` with a class of the document, as it stands there."""

    def drive(scenario: str, url: str, *args: str) -> Any:
        return start(
            ["node", HERE / "driver.cjs", seed / "clients.cjs", scenario, url, *args],
            env={"NODE_PATH": str(HERE / "node_modules")},
            stdin=True,
        )

    return drive


@pytest.fixture
def result() -> Callable[[Any], dict[str, Any]]:
    """Wait for the one line with which a scenario ends, and read it."""

    def result(child: Any, timeout: float = 20) -> dict[str, Any]:
        found = child.line(r"^RESULT (.*)$", timeout=timeout)
        value: dict[str, Any] = json.loads(found[1])
        return value

    return result


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(port: int) -> None:
    assert eventually(lambda: answers(port), within=10), f"nobody listens on {port}"


@pytest.fixture
def node_server(start: Callable[..., Any], seed: Path, free_port: int) -> Callable[[], Any]:
    """Start the document's server, and Redis for it."""
    assert not answers(REDIS_PORT), f"port {REDIS_PORT} is taken: the server needs Redis there"
    start(
        ["redis-server", "--port", str(REDIS_PORT), "--bind", "127.0.0.1",
         "--save", "", "--appendonly", "no"]
    )  # fmt: skip
    wait_for(REDIS_PORT)

    def node_server() -> Any:
        child = start(
            ["node", "--require", HERE / "ready.cjs", seed / "server.cjs"],
            env={"NODE_PATH": str(HERE / "node_modules"), "PORT": str(free_port)},
        )
        wait_for(free_port)
        child.url = f"ws://127.0.0.1:{free_port}/"
        return child

    return node_server
