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


# In which file is what changed to what, and what its twin has in the end: an argument, a
# member, and the twin itself.
CHANGES = [
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
    ("sync/streams.py", "def close(self)", "def close_it(self)", "def close(self)"),
]


def test_stale_classes_are_found_and_mended(tmp_path: Path) -> None:
    """Each of them, whichever side changed. A copy is used, so that nothing else is touched."""
    for name in ("src", "scripts", "pyproject.toml"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    package = tmp_path / "src" / "everwire"
    for file, old, new, _ in CHANGES:
        text = (package / file).read_text(encoding="utf-8")
        assert old in text
        (package / file).write_text(text.replace(old, new), encoding="utf-8")
    script = tmp_path / "scripts" / SCRIPT.name
    stale = run(script, "--check")
    assert stale.returncode == 1, stale
    twins = [package / "sync" / Path(file).name for file, *_ in CHANGES]
    told = [f"{twin.relative_to(tmp_path)} is stale: run scripts/sync-facade" for twin in twins]
    assert stale.stderr.splitlines() == told
    assert run(script).returncode == 0
    for twin, (*_, written) in zip(twins, CHANGES, strict=True):
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
