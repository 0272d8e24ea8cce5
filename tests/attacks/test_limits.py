"""Who asks for more than is allowed is slowed down or sent away, and nobody else notices."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ..conftest import eventually
from ..net.model import TEXT, Frame
from .conftest import Target
from .peer import JSON, Peer

DEFLATE = {"Sec_WebSocket_Extensions": "permessage-deflate"}
KiB = 1024


def deflated(data: bytes) -> Frame:
    packer = zlib.compressobj(9, wbits=-15)
    return Frame(TEXT, (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4], rsv=4)


@pytest.fixture(scope="module")
def narrow() -> Iterator[Target]:
    """2 MiB a second of a connection, 3 connections of a user, 100 requests at a time."""
    made = Target("narrow:narrow", "--compression")
    yield made
    made.stop()


def test_a_flood_of_bytes_is_read_at_the_rate_that_is_allowed_and_all_of_it(narrow: Target) -> None:
    size, count = 100 * KiB, 60

    def case() -> None:
        with Peer(narrow.port, JSON) as peer, Peer(narrow.port, JSON) as other:
            peer.auth()
            other.auth()
            peer.sock.settimeout(20)
            text = "x" * size
            began = time.monotonic()
            for n in range(count):
                peer.say({"type": "query", "id": 1000 + n, "name": "length", "payload": text})
                assert other.query("echo", n)["payload"] == n
            answers = peer.messages(count)
            took = time.monotonic() - began
            assert [one["payload"] for one in answers] == [size] * count
            # Two seconds' worth beyond the first one's; a busy machine takes longer.
            assert took > 1

    narrow.attack(case)


def test_messages_that_inflate_to_more_than_was_read_end_the_connection(narrow: Target) -> None:
    """A few KiB hold megabytes: they are here at once, and reading more slowly does not help."""
    data = b'{"type":"event","name":"nothing","data":"%b"}' % (b"x" * 200 * KiB)
    bomb = deflated(data)
    assert len(bomb.encode()) < KiB

    def case() -> None:
        before = narrow.cpu()
        with Peer(narrow.port, JSON, **DEFLATE) as peer:
            assert b"permessage-deflate" in peer.head
            peer.send(deflated(b'{"type":"auth","id":1}'))
            for _ in ("hello", "response"):
                assert peer.frame().opcode == TEXT
            peer.raw(bomb.encode() * 500)  # 100 MB
            assert peer.code() == 4429
        assert narrow.cpu() - before < 2

    narrow.attack(case)


def test_a_users_connections_beyond_the_limit_are_closed_with_4506_and_no_others(
    narrow: Target,
) -> None:
    def case() -> None:
        with ExitStack() as stack:
            for user in ("ada", "ada", "ada", "eve"):
                stack.enter_context(Peer(narrow.port, JSON)).auth(token=user)
            for _ in range(20):
                with Peer(narrow.port, JSON) as more:
                    more.say({"type": "auth", "id": 1, "token": "ada"})
                    assert more.code() == 4506
            with Peer(narrow.port, JSON) as other:
                other.auth(token="bob")

        def again() -> bool:
            with Peer(narrow.port, JSON) as peer:
                peer.say({"type": "auth", "id": 1, "token": "ada"})
                return bool(peer.message()["type"] == "response")

        assert eventually(again)

    narrow.attack(case)


def test_requests_of_many_connections_start_no_more_work_than_the_node_takes(
    narrow: Target,
) -> None:
    def case() -> None:
        with ExitStack() as stack:
            peers = [stack.enter_context(Peer(narrow.port, JSON)).auth() for _ in range(20)]
            for peer in peers:
                peer.say(*[{"type": "query", "id": 1000 + n, "name": "slow"} for n in range(50)])
            answers = [peer.messages(50) for peer in peers]
            refused = [one for each in answers for one in each if one["type"] == "error"]
            assert len(refused) >= 800
            assert {(one["name"], one["temporary"], one["retryAfter"]) for one in refused} == {
                ("unavailable", True, 1000)
            }
            assert sum(len(each) for each in answers) - len(refused) >= 100
            assert peers[0].query("echo", 1)["payload"] == 1

    narrow.attack(case)
