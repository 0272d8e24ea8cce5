"""What parameters may be declared as, and how a mistake in them is named; what may be returned."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from everwire import BadData, Connection, Everwire
from everwire.errors import BadRequest
from everwire.handling.handlers import Handler
from everwire.protocol import messages as m
from everwire.protocol.answers import convert_result
from everwire.protocol.data import plain_data
from everwire.testing import run

from .peer import Peer, open_app, serving


class Item(msgspec.Struct):
    price: float
    tags: list[str] = []


@dataclass
class Address:
    street: str
    number: int


class Extra(TypedDict):
    size: Literal["s", "l"]
    note: NotRequired[str]


class User(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=2, alias="userName")
    ages: list[int] = []


@pydantic.dataclasses.dataclass
class Point:
    x: int


class Order(msgspec.Struct):
    items: list[Item]
    user: User | None = None


async def order(
    conn: Connection,
    order: Order,
    address: Address | None = None,
    extra: Extra | None = None,
    counts: dict[str, int] = {},  # noqa: B006
    day: date | None = None,
    limit: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5,
) -> None: ...


async def modelled(
    conn: Connection,
    user: User,
    others: list[User] = [],  # noqa: B006
    maybe: User | None = None,
    few: Annotated[int, pydantic.Field(lt=3)] = 1,
    point: Point | None = None,
) -> None: ...


async def whole(conn: Connection, payload: list[Item]) -> None: ...


async def whole_model(conn: Connection, payload: User) -> None: ...


ITEM = {"price": 1.5}
ORDER = {"items": [ITEM]}
ADA = {"userName": "ada"}


@pytest.mark.parametrize(
    ("handler", "payload", "field"),
    [
        (order, {}, "order"),
        (order, {"order": 5}, "order"),
        (order, {"order": {}}, "order.items"),
        (order, {"order": {"items": [ITEM, {"price": "x"}]}}, "order.items[1].price"),
        (order, {"order": {"items": [ITEM, {}]}}, "order.items[1].price"),
        (order, {"order": {"items": [{"price": 1, "tags": ["a", 5]}]}}, "order.items[0].tags[1]"),
        (order, {"order": ORDER, "address": {"street": "x"}}, "address.number"),
        (order, {"order": ORDER, "address": {"street": "x", "number": []}}, "address.number"),
        (order, {"order": ORDER, "extra": {}}, "extra.size"),
        (order, {"order": ORDER, "extra": {"size": "m"}}, "extra.size"),
        (order, {"order": ORDER, "counts": {"a": 1.5}}, "counts[...]"),
        (order, {"order": ORDER, "day": "yesterday"}, "day"),
        (order, {"order": ORDER, "limit": 11}, "limit"),
        (order, {"order": ORDER, "nothing": 1}, "nothing"),
        (order, {"order": {"items": [], "user": {}}}, "order.user.userName"),
        (order, {"order": {"items": [], "user": {**ADA, "ages": [1, "x"]}}}, "order.user.ages[1]"),
        (modelled, {}, "user"),
        (modelled, {"user": []}, "user"),
        (modelled, {"user": {"userName": "a"}}, "user.userName"),
        (modelled, {"user": {"name": "ada"}}, "user.userName"),
        (modelled, {"user": ADA, "others": [ADA, {}]}, "others[1].userName"),
        (modelled, {"user": ADA, "others": 1}, "others"),
        (modelled, {"user": ADA, "maybe": {**ADA, "ages": 5}}, "maybe.ages"),
        (modelled, {"user": ADA, "few": 3}, "few"),
        (modelled, {"user": ADA, "point": {"x": "y"}}, "point.x"),
        (whole, [ITEM, 5], "[1]"),
        (whole, [ITEM, {"price": None}], "[1].price"),
        (whole_model, {**ADA, "ages": [None]}, "ages[0]"),
    ],
)
def test_a_mistake_in_the_parameters_names_its_place(
    handler: Any, payload: Any, field: str
) -> None:
    made = Handler("place_order", handler)
    with pytest.raises(BadRequest) as refused:
        made.arguments(payload)
    assert refused.value.details == {"field": field}
    assert refused.value.message.startswith("place_order: ")
    assert field in refused.value.message
    assert "http" not in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("payload", [5, "x", [1], True])
def test_parameters_are_an_object(payload: Any) -> None:
    with pytest.raises(BadRequest, match="must be an object"):
        Handler("h", order).arguments(payload)


def test_what_fits_arrives_as_it_was_declared() -> None:
    arguments = Handler("h", order).arguments(
        {
            "order": {"items": [{"price": 2, "tags": ["a"]}], "user": ADA},
            "address": {"street": "s", "number": 3},
            "extra": {"size": "l"},
            "day": "2026-01-02",
        }
    )
    assert arguments == {
        "order": Order([Item(2.0, ["a"])], User(userName="ada")),
        "address": Address("s", 3),
        "extra": {"size": "l"},
        "counts": {},
        "day": date(2026, 1, 2),
        "limit": 5,
    }
    modelled_arguments = Handler("h", modelled).arguments(
        {"user": ADA, "others": [ADA], "few": 2, "point": {"x": 1}}
    )
    assert modelled_arguments == {
        "user": User(userName="ada"),
        "others": [User(userName="ada")],
        "maybe": None,
        "few": 2,
        "point": Point(1),
    }
    assert Handler("h", whole_model).arguments(ADA) == {"payload": User(userName="ada")}


def shop() -> Everwire:
    wire = open_app()

    @wire.query
    async def show(conn: Connection, kind: str) -> Any:
        return {
            "struct": Item(1.0),
            "dataclass": Address("s", 1),
            "model": User(userName="ada", ages=[1]),
            "models": [User(userName="ada")],
            "within": Order([], User(userName="eve")),
        }[kind]

    @wire.query
    async def greet(conn: Connection, user: User) -> User:
        return user

    return wire


@pytest.mark.parametrize("dialect", ["json", "msgpack", "plain"])
def test_what_is_returned_goes_over_the_wire_as_the_caller_expects_it(dialect: str) -> None:
    async def main() -> None:
        async with serving(shop()) as (network, _):
            peer = Peer(network, dialect)
            await (peer.open() if dialect == "plain" else peer.auth())
            for n, (kind, expected) in enumerate(
                {
                    "struct": {"price": 1.0, "tags": []},
                    "dataclass": {"street": "s", "number": 1},
                    "model": {"userName": "ada", "ages": [1]},
                    "models": [{"userName": "ada", "ages": []}],
                    "within": {"items": [], "user": {"userName": "eve", "ages": []}},
                }.items()
            ):
                assert await peer.ask(m.Query(n + 2, "show", {"kind": kind})) == expected
            assert await peer.ask(m.Query(9, "greet", {"user": ADA})) == {**ADA, "ages": []}
            refused = await peer.ask(m.Query(10, "greet", {"user": {}}))
            assert isinstance(refused, m.Error)
            assert "user.userName: Field required" in refused.message
            if dialect != "plain":
                assert refused.details == {"field": "user.userName"}

    run(main)


def test_an_answer_may_be_asked_for_as_a_model() -> None:
    """The client's ``type=`` understands the same."""
    assert convert_result(ADA, User, "query 'x'") == User(userName="ada")
    assert convert_result([ADA], list[User], "query 'x'") == [User(userName="ada")]
    with pytest.raises(BadData, match=r"query 'x'.*\[0\]\.userName: Field required"):
        convert_result([{}], list[User], "query 'x'")


def test_a_model_that_cannot_be_written_is_refused_as_any_other_data() -> None:
    class Odd(pydantic.BaseModel):
        value: Any

    with pytest.raises(BadData, match="cannot be put on the wire"):
        plain_data(Odd(value=object()))


def test_pydantic_is_not_loaded_unless_a_handler_asks_for_it() -> None:
    script = """
import sys
from everwire import Everwire
wire = Everwire()
@wire.query
async def q(conn, n: list[int] = [], payload: dict = {}): ...
wire.handlers.queries["q"].arguments({"n": [1]})
print([name for name in sys.modules if name.startswith("pydantic")])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.strip() == "[]"
