"""Counting instructions: what a process says to the callgrind that runs it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LIBRARY = "guard.so"


class Counted(NamedTuple):
    """What was executed while counting."""

    instructions: int
    calls: int
    """system calls"""


class Counter:
    """Callgrind's client requests. Nothing is counted until :attr:`toggle` is called."""

    def __init__(self, library: Path) -> None:
        requests = ctypes.PyDLL(str(library))
        if not requests.under_valgrind():
            raise RuntimeError("this runs under valgrind only: see bench/guard/run")
        self._requests = requests
        self.start: Callable[[], object] = requests.start_instrumentation
        """from here on callgrind looks at every instruction; before, it is ten times faster"""
        self.toggle: Callable[[], object] = requests.toggle_collect

    def dump(self, name: str) -> None:
        """Write down under ``name`` what was counted since the last dump."""
        self._requests.dump(name.encode())


def read_dumps(folder: Path) -> list[tuple[str, Counted]]:
    """Read what :meth:`Counter.dump` wrote, in its order."""
    found: list[tuple[int, str, Counted]] = []
    for path in folder.glob("callgrind.out*"):
        text = path.read_text()
        name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.M)
        events = re.search(r"^events: (.+)$", text, re.M)
        part = re.search(r"^part: (\d+)$", text, re.M)
        totals = re.search(r"^totals: (.+)$", text, re.M)
        if name and events and part and totals:
            numbers = dict(zip(events[1].split(), map(int, totals[1].split()), strict=False))
            counted = Counted(numbers["Ir"], numbers.get("sysCount", 0))
            found.append((int(part[1]), name[1], counted))
    return [(name, counted) for _, name, counted in sorted(found)]
