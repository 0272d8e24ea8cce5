"""The example of docs/pools.md, as it stands there, and what the page says of defaults."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everwire import Pool, Socket, SocketPool, connect
from everwire.limits import CONNECT_PAUSE, MAX_FAILURES, MAX_POOL

from .test_pool import APPLICATION

PAGE = Path(__file__).parents[3] / "docs" / "pools.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_example_runs(
    serve: Callable[..., Any], start: Callable[..., Any], tmp_path: Path
) -> None:
    example = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.M | re.S)[0]
    (tmp_path / "rooms.py").write_text(APPLICATION)
    served = serve("serve", "rooms:wire", cwd=tmp_path)
    assert "ws://127.0.0.1:8765/ws" in example
    script = tmp_path / "example.py"
    script.write_text(example.replace("ws://127.0.0.1:8765/ws", served.url))
    client = start([sys.executable, "-W", "error", script])
    assert client.line(r"Message\(channel='news', data='hello'")
    assert client.wait() == 0, client


def parameters(function: Any) -> dict[str, Any]:
    return {name: each.default for name, each in inspect.signature(function).parameters.items()}


def test_the_table_has_the_defaults() -> None:
    rows = dict(re.findall(r"^\| `(\w+)`(?: \(`Pool`\))? \| ([^|]+?) \|", TEXT, flags=re.M))
    pool = parameters(Pool)
    for name in ("size", "min_ready", "timeout", "acquire_timeout", "max_inflight"):
        assert rows[name] == str(pool[name]), name
    assert rows["strategy"] == f"`{pool['strategy']}`; `{parameters(SocketPool)['strategy']}`"
    for name in ("size", "min_ready", "timeout"):
        assert parameters(SocketPool)[name] == pool[name]
    assert f"1 to {MAX_POOL}" in TEXT and MAX_FAILURES == 5 and CONNECT_PAUSE == 0.25


@pytest.mark.parametrize(
    ("pool", "one", "options", "but"),
    [
        (Pool, connect, "ClientOptions", {"outbox"}),
        (SocketPool, Socket, "SocketOptions", {"on_message", "on_close", "on_error"}),
    ],
)
def test_a_pool_takes_the_options_of_what_it_is_made_of(
    pool: Any, one: Any, options: str, but: set[str]
) -> None:
    more = vars(inspect.getmodule(pool))[options].__annotations__  # type: ignore[arg-type]
    assert {*more, *parameters(pool)} >= {*parameters(one)} - but
    assert not set(more) & set(parameters(pool))
    assert set(more) <= set(parameters(one))
