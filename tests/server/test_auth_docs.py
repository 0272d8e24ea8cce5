"""The examples of docs/identity.md run as printed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from .test_auth_jwt import P256

PAGE = (Path(__file__).parents[2] / "docs" / "identity.md").read_text(encoding="utf-8")


def test_the_examples_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SECRET", "s" * 64)
    monkeypatch.chdir(tmp_path)
    for name in ("2024.pem", "2025.pem"):
        Path(name).write_text(P256[1])
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 7
    for block in blocks:
        exec(compile(block, "docs/identity.md", "exec"), names)
    assert asyncio.run(names["jwt"](names["token"])).user == "ada"
    assert asyncio.run(names["by_session"]({"session": "s-1"})).user == "ada"
