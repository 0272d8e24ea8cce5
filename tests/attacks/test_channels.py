"""Floods of subscriptions, names and ids over real sockets: whoever does it, nobody else waits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Target
from .peer import JSON, Peer

BAD_CHANNEL, SUBSCRIPTIONS, RATE_LIMITED = 300, 402, 401


def subscribe(request_id: int, names: list[str]) -> dict[str, Any]:
    channels = [{"channel": name} for name in names]
    return {"type": "subscribe", "id": request_id, "channels": channels}


@pytest.mark.parametrize(
    "name", ["", "a" * 256, "a\x00b", "a\r\nPUBLISH b c", " ", "\u202ea", "e\u0301", "*" * 50_000]
)
def test_a_name_that_no_channel_can_have_is_refused_and_stands_in_no_log(
    target: Target, name: str
) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as peer:
            peer.auth()
            answer = peer.ask(subscribe(2, [name, "fine"]))
            refused, fine = answer["payload"]["subscriptions"]
            assert refused["error"]["code"] == BAD_CHANNEL
            assert "error" not in fine
            publish = {"type": "publish", "id": "p", "channel": name, "data": 1}
            assert peer.ask(publish)["code"] == BAD_CHANNEL

    target.attack(case)


def test_ten_thousand_subscribes_are_limited_and_hold_nobody_up(target: Target) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as peer:
            peer.auth()
            codes: set[int] = set()
            for batch in range(50):
                answer = peer.ask(subscribe(2 + batch, [f"f{batch}-{n}" for n in range(200)]))
                results = answer["payload"]["subscriptions"]
                codes |= {one["error"]["code"] if "error" in one else 0 for one in results}
            assert codes == {0, SUBSCRIPTIONS, RATE_LIMITED}

    target.attack(case)


def test_subscribing_and_leaving_without_end_is_limited_and_holds_nobody_up(
    target: Target,
) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as peer:
            peer.auth()
            limited = 0
            for turn in range(40):
                names = [f"churn{turn % 2}-{n}" for n in range(200)]
                results = peer.ask(subscribe(2 + 2 * turn, names))["payload"]["subscriptions"]
                limited += sum(
                    "error" in one and one["error"]["code"] == RATE_LIMITED for one in results
                )
                left = {"type": "unsubscribe", "id": 3 + 2 * turn, "channels": names}
                assert peer.ask(left)["type"] == "response"
            assert limited > 4000

    target.attack(case)


def test_ids_of_64_kib_are_refused_and_nothing_of_them_stays(target: Target) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as peer:
            peer.auth()
            long = json.dumps({"type": "publish", "id": "x" * 65_536, "channel": "c", "data": 1})
            for _ in range(9):
                peer.say(long)
                answer = peer.message()
                assert (answer["type"], answer["code"]) == ("error", 100)
                assert len(answer["message"]) < 500

    target.attack(case)
