"""A file that grows past 400 lines wants to be two."""

from __future__ import annotations

from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"
LIMIT = 400

FILES = sorted(
    path.relative_to(SRC).as_posix()
    for path in SRC.rglob("*")
    if path.suffix in {".py", ".pyi", ".js", ".ts"} and "node_modules" not in path.parts
)


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_longer_than_400_lines(name: str) -> None:
    lines = len((SRC / name).read_text(encoding="utf-8").splitlines())
    assert lines <= LIMIT, f"{name} has {lines} lines: divide it"
