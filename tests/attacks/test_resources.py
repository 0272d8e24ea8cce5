"""Readers that do not read, floods, churn, descriptors, and what ends up in the log."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from ..conftest import eventually
from ..net.model import TEXT
from .conftest import Target
from .peer import JSON, Peer, close_all

Special = Callable[..., Target]


def test_a_slow_reader_costs_nobody_anything_and_catches_up(target: Target) -> None:
    """It is not cut off: it goes on from history, or is told of a gap; then in order."""
    count, size = 3000, 4000

    def case() -> None:
        with (
            Peer(target.port, JSON, buffer=16384) as slow,
            Peer(target.port, JSON) as peer,
            Peer(target.port, JSON) as reader,
        ):
            slow.auth(subscribe=[{"channel": "slow-reader"}])
            reader.auth(subscribe=[{"channel": "slow-reader"}])
            peer.auth()
            before = target.rss()
            data = "x" * size
            seen = 0
            for start in range(0, count, 100):
                peer.say(
                    *[
                        {
                            "type": "publish",
                            "id": f"{time.time_ns()}-{n}",
                            "channel": "slow-reader",
                            "data": data,
                        }
                        for n in range(start, start + 100)
                    ]
                )
                assert all(answer["type"] == "response" for answer in peer.messages(100))
                for message in reader.messages(100):  # the others get each one in time
                    assert message["type"] == "message"
                    seen += 1
            assert seen == count
            assert target.rss() - before < 20
            last, gaps = 0, 0
            top = message["offset"]
            while last < top:
                message = slow.message()
                if message["type"] == "gap":
                    gaps += 1
                else:
                    assert gaps or not last or message["offset"] == last + 1
                    assert message["offset"] > last
                    last = message["offset"]
            assert gaps <= 5

    target.attack(case)


def test_a_reader_that_makes_no_progress_at_all_is_closed_in_the_end(brief: Target) -> None:
    def case() -> None:
        with Peer(brief.port, JSON, buffer=4096) as dead, Peer(brief.port, JSON) as peer:
            dead.auth(subscribe=[{"channel": "dead-reader"}])
            peer.auth()
            for n in range(60):
                data = "x" * 100_000
                message_id = f"{time.time_ns()}-{n}"
                message = {"type": "publish", "channel": "dead-reader", "data": data}
                assert peer.ask({**message, "id": message_id})["type"] == "response"
            # itself and the bystander
            assert eventually(lambda: peer.query("holds")["payload"]["connections"] <= 2, within=10)

    brief.attack(case)


def answers_pings(port: int) -> bool:
    try:
        with Peer(port) as peer:
            peer.say('{"type":"ping"}')
            return bool(peer.message() == {"type": "pong"})
    except (EOFError, OSError):
        return False


def test_the_server_survives_that_it_has_no_descriptors_left(special: Special) -> None:
    """Who is there stays served, it says so once, and takes connections again afterwards."""
    target = special("app:wire", descriptors=64)

    def case() -> None:
        with Peer(target.port, JSON) as early:
            early.auth()
            # Neither a thread nor the loop may spin on a connection that cannot be accepted.
            before = target.cpu()
            with ExitStack() as stack:
                for _ in range(150):
                    stack.enter_context(socket.create_connection(("127.0.0.1", target.port)))
                time.sleep(2)  # it is measured for so long
                assert early.query("echo", 1)["payload"] == 1
                assert target.cpu() - before < 0.5
        assert eventually(lambda: answers_pings(target.port))

    target.attack(case, lines=3)


def test_a_flood_of_publishes_keeps_nobody_else_waiting(target: Target) -> None:
    def case() -> None:
        with Peer(target.port) as peer, Peer(target.port) as reader:
            reader.say({"action": "subscribe", "channel": "flood"})
            reader.message()
            thread = threading.Thread(target=drain, args=(reader,), daemon=True)
            thread.start()
            peer.say(*['{"action":"publish","channel":"flood","data":"xxxxxxxx"}'] * 80_000)
            peer.say('{"type":"ping"}')
            assert peer.message() == {"type": "pong"}

    target.attack(case)


def drain(peer: Peer) -> None:
    try:
        peer.ended()
    except OSError:
        pass


def test_a_flood_of_requests_from_one_who_reads_no_answers_is_bounded(brief: Target) -> None:
    question = {"type": "query", "id": 5, "name": "echo", "payload": "x" * 10_000}

    def case() -> None:
        with Peer(brief.port, JSON, buffer=4096) as peer:
            peer.auth()
            before = brief.rss()
            peer.sock.settimeout(0.5)
            try:
                for n in range(3000):
                    data = json.dumps({**question, "id": n + 10}).encode()
                    peer.sock.sendall(
                        b"\x81\xfe" + len(data).to_bytes(2, "big") + b"\0\0\0\0" + data
                    )
            except OSError:
                pass
            assert brief.rss() - before < 15

    brief.attack(case)


def test_connections_that_come_subscribe_and_vanish_leave_nothing_behind(target: Target) -> None:
    hello = [{"channel": "churn", "presence": True}, {"channel": "churn-2"}]

    def case() -> None:
        with Peer(target.port, JSON) as watcher:
            watcher.auth()
            start = watcher.query("holds")["payload"]
            descriptors = target.descriptors()
            for round_ in range(40):
                peers = [Peer(target.port, JSON) for _ in range(25)]
                for n, peer in enumerate(peers):
                    peer.say({"type": "auth", "id": 1, "token": f"u{n}", "subscribe": hello})
                    if n % 2:
                        peer.message()
                for n, peer in enumerate(peers):
                    if n % 3:
                        linger = (1).to_bytes(4, "little") + bytes(4)
                        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    peer.close()
                assert round_ >= 0

            def left() -> dict[str, int]:
                now = watcher.query("holds")["payload"]
                return {what: now[what] - start[what] for what in start if now[what] > start[what]}

            assert eventually(lambda: not left(), within=12), left()
            assert target.descriptors() <= descriptors

    target.attack(case)


HOSTILE = (
    "a\r\n2026-01-01 error: forged\x1b[2J\x1b]0;x\x07 ${jndi:ldap://x} {0} %s %n \u202e\u2028\x85"
)


def test_what_a_client_sends_cannot_forge_or_garble_a_line_of_the_log(target: Target) -> None:
    def case() -> None:
        with Peer(target.port, JSON, User_Agent="x\x1b[31m") as peer:
            if not peer.accepted:
                return
        with Peer(target.port, JSON) as peer:
            peer.auth(token=HOSTILE)
            peer.query("log", {"text": HOSTILE})
            peer.say({"type": "event", "name": HOSTILE, "data": HOSTILE})
            peer.say({"type": "publish", "id": "m-1", "channel": HOSTILE, "data": 1})
            peer.query("echo", 1)

    target.attack(case, lines=1)


def test_a_defect_that_a_client_can_call_up_fills_no_disk(target: Target) -> None:
    """The first is told with its traceback; of the rest there is a count, now and then."""

    def case() -> None:
        with Peer(target.port, JSON) as peer:
            peer.auth(token="t0p-s3cret")
            for n in range(20):
                peer.say(
                    *[
                        {"type": "query", "id": m, "name": "broken", "payload": {"text": "x"}}
                        for m in range(1000 + n * 50, 1050 + n * 50)
                    ]
                )
                for answer in peer.messages(50):
                    assert answer["name"] == "internal"
                    assert "broken" not in answer["message"]

    target.attack(case, lines=60)


@pytest.mark.parametrize("dialect", [None, JSON])
def test_ten_thousand_unknown_messages_leave_no_line(target: Target, dialect: str | None) -> None:
    def case() -> None:
        with Peer(target.port, dialect) as peer:
            if dialect is not None:
                peer.auth()
            for _ in range(10):
                peer.say(*['{"type":"novel","token":"t0p-s3cret"}'] * 1000)
                if dialect is None:
                    peer.messages(1000)
            peer.say('{"type":"ping"}')
            assert peer.message()["type"] == "pong"

    target.attack(case)


def test_hundreds_of_connections_from_one_address_are_served(target: Target) -> None:
    def case() -> None:
        peers = [Peer(target.port) for _ in range(500)]
        try:
            for peer in peers:
                peer.say('{"type":"ping"}')
            assert all(peer.message() == {"type": "pong"} for peer in peers)
        finally:
            close_all(peers)

    target.attack(case)


# ---- limits that are set low, to be reached ----------------------------------------------


@pytest.fixture
def limited(special: Special) -> Target:
    """100 messages a second, and 20 connections from an address (the bystander is one)."""
    return special("limited:limited")


def test_who_sends_too_much_is_told_to_slow_down_and_then_closed_with_4429(
    limited: Target,
) -> None:
    message = {"type": "query", "name": "echo"}

    def case() -> None:
        with Peer(limited.port, JSON) as peer:
            peer.auth().say(*[{**message, "id": n} for n in range(1000, 1150)])
            answers = peer.messages(150)
            refused = [answer for answer in answers if answer["type"] == "error"]
            assert len(refused) >= 20
            assert {(one["name"], one["temporary"]) for one in refused} == {("rate_limited", True)}
            assert all(one["retryAfter"] > 0 for one in refused)
            time.sleep(max(one["retryAfter"] for one in refused) / 1000)  # it does as it is told
            assert peer.query("echo", 1)["payload"] == 1  # it has slowed down
            peer.say(*[{**message, "id": n} for n in range(2000, 3000)])
            assert peer.code() == 4429

    limited.attack(case)


def test_publishes_that_are_refused_for_the_rate_are_not_overtaken(limited: Target) -> None:
    """One behind a refused one is refused as well, until the client sends them again in order."""

    def case() -> None:
        with Peer(limited.port, JSON) as peer:
            peer.auth().say(
                *[
                    {"type": "publish", "id": f"{time.time_ns()}-{n}", "channel": "c", "data": n}
                    for n in range(150)
                ]
            )
            stored = [answer["type"] == "response" for answer in peer.messages(150)]
            assert stored.index(False) >= 50
            assert not any(stored[stored.index(False) :])

    limited.attack(case)


def welcome(port: int) -> bool:
    with Peer(port) as peer:
        peer.say('{"type":"ping"}')
        return peer.frame().opcode == TEXT


def test_more_connections_from_one_address_than_allowed_are_closed_with_4429(
    limited: Target,
) -> None:
    def case() -> None:
        peers = [Peer(limited.port) for _ in range(19)]
        try:
            for dialect in (None, JSON):
                with Peer(limited.port, dialect) as one_more:
                    assert one_more.code() == 4429
            peers.pop().close()
            assert eventually(lambda: welcome(limited.port)), "there is room for one again"
        finally:
            close_all(peers)

    limited.attack(case)
