"""What a user declares wrongly is refused where it is declared, with the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from everwire import BadRequest, Connection, Everwire, Grant
from everwire.errors import ConfigError
from everwire.handling.handlers import Handler


def test_a_channel_handler_takes_the_connection_and_the_patterns_parameters() -> None:
    wire = Everwire()
    with pytest.raises(ConfigError, match=r"\(conn, room\)"):

        @wire.channel("a:{room}")
        async def typo(conn: Connection, rom: str) -> Grant:
            return Grant()

    with pytest.raises(ConfigError, match=r"\(conn, room\)"):

        @wire.channel("b:{room}")
        async def forgotten(conn: Connection) -> Grant:
            return Grant()

    @wire.channel("c:{room}/{number}")
    async def right(conn: Connection, number: int, room: str) -> Grant:
        return Grant()

    @wire.channel("d:{room}")
    async def anything(conn: Connection, **names: str) -> Grant:
        return Grant()


def test_a_handler_without_a_connection_is_refused() -> None:
    with pytest.raises(ConfigError, match="conn: Connection"):

        @Everwire().query
        async def double(x: int) -> int:
            return 2 * x

    with pytest.raises(ConfigError, match="connection as its first"):

        @Everwire().command
        async def nothing() -> None:
            pass


def test_an_authenticate_handler_with_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ConfigError, match="token, credentials"):

        @Everwire().authenticate
        async def who(tok: str) -> Any:
            pass


def test_the_same_declared_twice_is_refused() -> None:
    wire = Everwire()
    wire.channel("a", grant=Grant())
    with pytest.raises(ConfigError, match="twice"):
        wire.channel("a", grant=Grant(publish=True))

    async def echo(conn: Connection) -> None:
        pass

    wire.query(echo)
    wire.command(echo)
    with pytest.raises(ConfigError, match="twice"):
        wire.query(echo)


def test_a_decorator_without_its_pattern_says_how_to_write_it() -> None:
    with pytest.raises(ConfigError, match=r"@wire\.channel\("):

        @Everwire().channel  # type: ignore[arg-type]
        async def room(conn: Connection) -> Grant:
            return Grant()


@pytest.mark.parametrize("pattern", ["", "a:{", "a:{x}{x}", "}{", "a:{1}"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="pattern"):
        Everwire().channel(pattern, grant=Grant())


@pytest.mark.parametrize("pattern", ["a b", "system", "everwire.{x}", "a\n{x}", "x" * 256])
def test_a_pattern_that_no_channels_name_can_fit_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="no channel fits the pattern"):
        Everwire().channel(pattern, grant=Grant())
    with pytest.raises(ConfigError, match="no channel fits the pattern"):
        Everwire().on_publish(pattern)


@pytest.mark.parametrize(
    ("option", "value"), [("history", -1), ("history_ttl", float("nan")), ("history_bytes", "1 MB")]
)
def test_how_much_a_channel_keeps_is_a_number_not_below_zero(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be a number"):
        Everwire().channel("a", grant=Grant(), **{option: value})


def test_limits_that_are_none_are_refused_with_how_to_write_them() -> None:
    with pytest.raises(ConfigError, match=r"Limits\(messages=500\)"):
        Everwire(limits={"messages": 500})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "broker", ["redis://x", "nats://x", "sqlite:///f", "mongo://x", "nonsense"]
)
def test_a_broker_that_there_is_not_is_refused_at_once(broker: str) -> None:
    with pytest.raises(ConfigError, match="memory://"):
        Everwire(broker)


def test_arguments_are_checked_against_the_annotations_and_errors_name_the_field() -> None:
    async def handler(
        conn: Connection,
        n: int,
        tags: list[str] = [],  # noqa: B006
        note: str | None = None,
    ) -> None:
        pass

    made = Handler("h", handler)
    assert made.arguments({"n": 1}) == {"n": 1, "tags": [], "note": None}
    assert made.arguments({"n": "5"}, strict=False)["n"] == 5
    for payload, part in [
        ({"n": "1"}, "n"),
        ({}, "n"),
        (None, "n"),
        ([1], "object"),
        ({"n": 1, "other": 2}, "other"),
        ({"n": 1, "tags": [1]}, "tags"),
    ]:
        with pytest.raises(BadRequest, match=part):
            made.arguments(payload)
