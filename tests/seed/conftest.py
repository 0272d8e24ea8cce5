"""The folder of the pattern document's JavaScript comes from ``SEED_DIR``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


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
