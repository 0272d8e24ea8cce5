"""What is of the wrong type is refused where it is given, by the name of the right one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from everwire import ClientLimits, ConfigError, Limits, Pool, Socket, SocketPool, connect

KINDS = pytest.mark.parametrize("kind", [connect, Socket, Pool, SocketPool])


@KINDS
@pytest.mark.parametrize("wrong", [{}, {"message": 5}, Limits(), 3, ClientLimits])
def test_limits_are_client_limits(kind: Callable[..., Any], wrong: Any) -> None:
    with pytest.raises(ConfigError, match="must be a ClientLimits"):
        kind("ws://node/ws", limits=wrong)


@KINDS
@pytest.mark.parametrize("wrong", ["2", True, -1, -0.001, math.nan, (1,)])
def test_a_timeout_is_seconds(kind: Callable[..., Any], wrong: Any) -> None:
    with pytest.raises(ConfigError, match="timeout must be seconds"):
        kind("ws://node/ws", timeout=wrong)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (connect, "connect_timeout"),
        (Pool, "connect_timeout"),
        (Pool, "acquire_timeout"),
        (Socket, "ttl"),
    ],
)
def test_so_are_the_others(kind: Callable[..., Any], name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be seconds"):
        kind("ws://node/ws", **{name: "2"})


@pytest.mark.parametrize("wrong", ["host:3128", "ftp://host", 5, {}])
@KINDS
def test_a_proxy_is_a_url(kind: Callable[..., Any], wrong: Any) -> None:
    with pytest.raises(ConfigError, match="is no proxy"):
        kind("ws://node/ws", proxy=wrong)
