"""The blocking classes are written from the asynchronous ones, completely."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import everwire
import everwire.client
import everwire.sync

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "scripts" / "sync-facade"
CLASSES = [name for name in everwire.sync.__all__ if inspect.isclass(getattr(everwire.sync, name))]


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_blocking_classes_are_up_to_date() -> None:
    done = run(SCRIPT, "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "written"),
    [
        (
            "client/calling.py",
            "    async def event(self, name: str, data: Any = None)",
            "    async def event(self, name: str, data: Any = 1)",
            "def event(self, name: str, data: Any = 1) -> None:",
        ),
        (
            "client/client.py",
            "    def drop(self) -> None:",
            '    @property\n    def links(self) -> list[int]:\n        """Some."""\n\n    def drop(self) -> None:',
            "return self._do(lambda: list(self._inside.links))",
        ),
        (
            "sync/client.py",
            "def drop(self)",
            "def drop_it(self)",
            "def drop(self)",
        ),
    ],
)
def test_a_stale_class_is_found_and_mended(
    tmp_path: Path, file: str, old: str, new: str, written: str
) -> None:
    """Whichever side changed. A copy is used, so that nothing else is touched."""
    for name in ("src", "scripts", "pyproject.toml"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    path = tmp_path / "src" / "everwire" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    script = tmp_path / "scripts" / SCRIPT.name
    stale = run(script, "--check")
    assert stale.returncode == 1, stale
    assert "run scripts/sync-facade" in stale.stderr
    assert run(script).returncode == 0
    twin = tmp_path / "src" / "everwire" / "sync" / path.name
    assert written in twin.read_text(encoding="utf-8")
    assert run(script, "--check").returncode == 0


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_public_there_is_public_here(name: str) -> None:
    """And nothing else."""
    home = everwire if hasattr(everwire, name) else everwire.client
    there = {each for each in dir(getattr(home, name)) if each[0] != "_"}
    there = {"close" if each == "aclose" else each for each in there}
    here = {each for each in dir(getattr(everwire.sync, name)) if each[0] != "_"}
    attributes = (getattr(home, name).__doc__ or "").partition("Attributes:")[2]
    added = {"open", "get", "iterate", *re.findall(r"^ {8}(\w+): ", attributes, re.M)}
    assert there <= here
    assert here - there <= added


@pytest.mark.parametrize("name", CLASSES)
def test_what_inherits_there_inherits_here(name: str) -> None:
    def heirs(here: bool) -> set[str]:
        def found(each: str) -> type:
            home = everwire if hasattr(everwire, each) else everwire.client
            return getattr(everwire.sync if here else home, each)

        return {each for each in CLASSES if issubclass(found(name), found(each))}

    assert heirs(here=True) == heirs(here=False)
