"""A server that is killed midway costs ``everwire pub`` nothing but time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

LINES = 10_000
HELD_BACK = 2_000


def test_10_000_lines_end_acknowledged_or_reported_though_the_server_is_killed_midway(
    serve: Callable[..., Any], everwire: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve("demo")
    position = tmp_path / "position.json"
    reader = everwire("sub", served.url, "numbers", "--position", position)
    reader.until(position.exists, "a position")
    pub = everwire("pub", served.url, "numbers", stdin=True)
    lines = [b"%d\n" % number for number in range(1, LINES + 1)]
    pub.write(b"".join(lines[:-HELD_BACK]))
    reader.line('"data":1000')
    served.child.kill()
    pub.write(b"".join(lines[-HELD_BACK:]))
    pub.end_input()
    serve("demo", port=served.port)

    status = pub.wait(40)
    text = "\n".join(pub.err)
    head = re.search(r"(\d+) of (\d+) lines acknowledged", text)
    assert head, pub
    acknowledged, read = int(head[1]), int(head[2])
    assert read == LINES
    reported = sum(
        int(last or first) - int(first) + 1
        for ranges in re.findall(r"(?:refused|unknown|not sent): lines? ([\d, -]+)", text)
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", ranges)
    )
    assert acknowledged + reported == LINES
    assert status == (0 if acknowledged == LINES else 1)
    assert acknowledged == LINES, "the server was back within seconds"

    # In each life of the server the order is that of the lines, without a hole.
    reader.line(f'"data":{LINES}', timeout=30)
    lives: list[list[int]] = [[]]
    for line in map(json.loads, list(reader.out)):
        if "gap" in line:
            lives.append([])
        else:
            lives[-1].append(line["data"])
    assert len(lives) >= 2
    for life in lives:
        assert life == list(range(life[0], life[0] + len(life))) if life else True
    assert lives[0][0] == 1
    assert lives[-1][-1] == LINES
