"""Memory that is free is given back to the system, also from the middle of the heap."""

from __future__ import annotations

import subprocess
import sys

from everwire.net.websocket import TRIM_EVERY

PROGRAM = """
from pathlib import Path
from everwire.net.websocket import Trimmer, keep_large_apart

def resident():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024

keep_large_apart()
trimmer = Trimmer()
trimmer.tick(0.0)
start = resident()
for round_ in range(3):
    blocks = [b"x" * 16_000 for _ in range(4000)]
    assert resident() - start > 55
    kept = blocks[::400]  # the heap cannot shrink from its end
    del blocks
    assert trimmer.tick(0.0) == EVERY
    print(resident() - start)
"""


def test_what_connections_left_free_in_the_heap_goes_back_to_the_system() -> None:
    """In a process of its own: what the heap looks like is that process's history."""
    program = PROGRAM.replace("EVERY", str(TRIM_EVERY))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert all(int(line) <= 5 for line in done.stdout.split()), done.stdout
