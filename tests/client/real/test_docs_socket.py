"""The example of docs/socket.md, as it stands there, against a server that is not ours."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "socket.md"
ADDRESS = "127.0.0.1:8765"


def test_the_example_runs(start: Callable[..., Any], free_port: int, tmp_path: Path) -> None:
    example = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.M | re.S)[0]
    assert ADDRESS in example
    script = tmp_path / "example.py"
    script.write_text(example.replace(ADDRESS, f"127.0.0.1:{free_port}"))
    start([sys.executable, HERE / "echo_websockets.py", str(free_port), "bye"]).line("^up$")
    client = start([sys.executable, "-W", "error", script])
    assert client.line("subscribe")
    assert client.wait() == 0, client
