"""Limits that cannot be meant are refused where they are made."""

from __future__ import annotations

import math
from typing import Any

import pytest

from everwire import ClientLimits, ConfigError, Limits


@pytest.mark.parametrize("kind", [Limits, ClientLimits])
@pytest.mark.parametrize("wrong", ["2", None, -1, math.nan, {}])
def test_a_limit_is_a_number(kind: Any, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="limit request_timeout must be a number"):
        kind(request_timeout=wrong)


def test_zero_is_a_limit_where_it_can_be_meant() -> None:
    assert Limits(history=0).history == 0
    assert ClientLimits(first_retry=0).first_retry == 0
    for kind in (Limits, ClientLimits):
        with pytest.raises(ConfigError, match="limit message must be a number above zero"):
            kind(message=0)


@pytest.mark.parametrize("interval", [0.999, 0.1])
def test_a_node_does_not_ping_more_often_than_it_looks(interval: float) -> None:
    with pytest.raises(ConfigError, match=r"ping_interval must be at least 1 s.*once a second"):
        Limits(ping_interval=interval)
    assert Limits(ping_interval=1.0).ping_interval == 1.0


@pytest.mark.parametrize(
    "settings", [{"write_low": 10, "write_high": 10}, {"message": 10, "hard_cap": 9}]
)
def test_limits_that_contradict_each_other_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Limits(**settings)
