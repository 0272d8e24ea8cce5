"""What is asked of a user, whichever node holds the user's connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from everwire.codes import ErrorCode
from everwire.errors import (
    BrokerUnavailable,
    ClosedError,
    DeliveryUnknown,
    Forbidden,
    RequestError,
    RequestTimeout,
    Unavailable,
)
from everwire.protocol import messages as m
from everwire.server import asking as asking_module, signals
from everwire.server.others import Elsewhere
from everwire.testing import run

from .nodes import Nodes, nodes
from .peer import Peer

KINDS = pytest.mark.parametrize("kind", ["query", "command"])
Scenario = Callable[[Nodes], Coroutine[Any, Any, None]]


def on_nodes(count: int, scenario: Scenario, **options: Any) -> None:
    async def main() -> None:
        async with nodes(count, **options) as cluster:
            await scenario(cluster)

    run(main)


async def ada_at(cluster: Nodes, index: int, dialect: str = "json") -> Peer:
    peer = cluster.peer(index, dialect)
    answer = await peer.auth(token="ada")
    assert isinstance(answer, m.Response), answer
    return peer


def asking(call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(call)


async def asked(peer: Peer) -> m.Query | m.Command:
    return await peer.next(m.Message, lambda one: isinstance(one, (m.Query, m.Command)))  # type: ignore[return-value]


def nothing_asked(*peers: Peer) -> bool:
    return not any(isinstance(one, (m.Query, m.Command)) for peer in peers for one in peer.inbox)


@KINDS
@pytest.mark.parametrize("dialect", ["json", "msgpack"])
def test_a_request_reaches_a_user_at_another_node(kind: Any, dialect: str) -> None:
    async def scenario(cluster: Nodes) -> None:
        ada = await ada_at(cluster, 1, dialect)
        calls = [
            asking(cluster[n].request("ada", "sum", [1, 2], kind=kind, type=int)) for n in range(3)
        ]
        for _ in calls:
            request = await asked(ada)
            assert (request.name, request.payload) == ("sum", [1, 2])
            ada.send(m.Response(request.id, 3))
        assert [await call for call in calls] == [3, 3, 3]

    on_nodes(3, scenario)


def test_of_a_query_the_first_answer_wins_and_the_others_are_cancelled() -> None:
    async def scenario(cluster: Nodes) -> None:
        peers = [await ada_at(cluster, n) for n in range(3)]
        call = asking(cluster[0].request("ada", "where"))
        requests = [await asked(peer) for peer in peers]
        peers[2].send(m.Response(requests[2].id, "two"))
        assert await call == "two"
        for peer, request in list(zip(peers, requests, strict=True))[:2]:
            assert (await peer.next(m.Cancel)).id == request.id
        assert not any(isinstance(one, m.Cancel) for one in peers[2].inbox)

    on_nodes(3, scenario)


def test_a_refusal_is_not_an_answer_while_others_may_give_one() -> None:
    async def scenario(cluster: Nodes) -> None:
        here, there = await ada_at(cluster, 0), await ada_at(cluster, 1)
        call = asking(cluster[0].request("ada", "where"))
        refused = m.Error((await asked(here)).id, 202, "forbidden", "not here")
        here.send(refused)
        await asyncio.sleep(5)
        there.send(m.Response((await asked(there)).id, "there"))
        assert await call == "there"

    on_nodes(2, scenario)


def test_when_all_refuse_one_who_knew_what_was_asked_is_believed() -> None:
    async def scenario(cluster: Nodes) -> None:
        here, there = await ada_at(cluster, 0), await ada_at(cluster, 1)
        call = asking(cluster[0].request("ada", "where"))
        here.send(m.Error((await asked(here)).id, 101, "unknown_type", "what?"))
        there.send(
            m.Error((await asked(there)).id, 202, "forbidden", "never", details={"why": [1]})
        )
        with pytest.raises(Forbidden, match="never") as refused:
            await call
        assert refused.value.details == {"why": [1]}

    on_nodes(2, scenario)


def test_a_command_needs_exactly_one_connection_among_all_nodes() -> None:
    async def scenario(cluster: Nodes) -> None:
        here, there = await ada_at(cluster, 0), await ada_at(cluster, 1)
        for wire in (cluster[0], cluster[1], cluster[2]):
            with pytest.raises(RequestError, match="2 connections") as refused:
                await wire.request("ada", "reload", kind="command")
            assert refused.value.code == ErrorCode.AMBIGUOUS_TARGET
        assert nothing_asked(here, there)
        here.transport.close(1000)
        await asyncio.sleep(1)
        call = asking(cluster[0].request("ada", "reload", kind="command"))
        there.send(m.Response((await asked(there)).id, "done"))
        assert await call == "done"

    on_nodes(3, scenario)


def test_two_connections_at_one_other_node_are_two() -> None:
    async def scenario(cluster: Nodes) -> None:
        peers = [await ada_at(cluster, 1) for _ in range(2)]
        with pytest.raises(RequestError, match="2 connections"):
            await cluster[0].request("ada", "reload", kind="command")
        assert nothing_asked(*peers)

    on_nodes(2, scenario)


def test_users_of_other_names_and_tenants_are_not_asked() -> None:
    async def scenario(cluster: Nodes) -> None:
        other = cluster.peer(1)
        await other.auth(token="acme/ada")
        with pytest.raises(Unavailable):
            await cluster[0].request("ada", "where")
        with pytest.raises(RequestError, match="0 connections"):
            await cluster[0].request("ada", "reload", kind="command")
        call = asking(cluster[0].request("ada", "where", tenant="acme"))
        other.send(m.Response((await asked(other)).id, "acme"))
        assert await call == "acme"

    on_nodes(2, scenario)


def test_where_nobody_is_is_known_at_once() -> None:
    async def scenario(cluster: Nodes) -> None:
        before = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match="no connection"):
            await cluster[0].request("nobody", "where")
        assert asyncio.get_running_loop().time() - before < 0.1

    on_nodes(3, scenario)


def test_a_node_that_died_is_waited_for_shortly_by_queries_and_answers_nothing() -> None:
    async def scenario(cluster: Nodes) -> None:
        await ada_at(cluster, 1)
        cluster.kill(1)
        loop = asyncio.get_running_loop()
        before = loop.time()
        with pytest.raises(Unavailable, match="no connection"):
            await cluster[0].request("ada", "where")
        assert 1.9 < loop.time() - before < 2.1
        ada = await ada_at(cluster, 2)
        call = asking(cluster[0].request("ada", "where"))
        ada.send(m.Response((await asked(ada)).id, "two"))
        before = loop.time()
        assert await call == "two"
        assert loop.time() - before < 0.1

    on_nodes(3, scenario)


def test_a_command_is_refused_for_now_while_a_node_does_not_say_who_is_there() -> None:
    async def scenario(cluster: Nodes) -> None:
        await ada_at(cluster, 1)
        cluster.kill(1)
        ada = await ada_at(cluster, 0)
        with pytest.raises(Unavailable) as refused:
            await cluster[0].request("ada", "reload", kind="command")
        assert (refused.value.temporary, refused.value.outcome) == (True, "none")
        assert nothing_asked(ada)
        await asyncio.sleep(15)  # its lease
        call = asking(cluster[0].request("ada", "reload", kind="command"))
        ada.send(m.Response((await asked(ada)).id, "done"))
        assert await call == "done"

    on_nodes(2, scenario)


def test_a_node_that_dies_before_the_answer_leaves_a_command_unknown_and_a_query_late() -> None:
    async def scenario(cluster: Nodes) -> None:
        ada = await ada_at(cluster, 1)
        command = asking(cluster[0].request("ada", "reload", kind="command", timeout=4))
        query = asking(cluster[0].request("ada", "where", timeout=4))
        await asked(ada)
        await asked(ada)
        cluster.kill(1)
        with pytest.raises(DeliveryUnknown):
            await command
        with pytest.raises(RequestTimeout):
            await query

    on_nodes(2, scenario)


def test_a_connection_that_is_lost_before_its_answer_is_told_across_nodes() -> None:
    async def scenario(cluster: Nodes) -> None:
        for kind, error in (("query", ClosedError), ("command", DeliveryUnknown)):
            ada = await ada_at(cluster, 1)
            call = asking(cluster[0].request("ada", "x", kind=kind))  # type: ignore[arg-type]
            await asked(ada)
            ada.link.cut()
            with pytest.raises(error):
                await call
            await asyncio.sleep(1)

    on_nodes(2, scenario)


@KINDS
def test_time_runs_out_across_nodes_as_it_does_here(kind: Any) -> None:
    async def scenario(cluster: Nodes) -> None:
        ada = await ada_at(cluster, 1)
        before = asyncio.get_running_loop().time()
        with pytest.raises(RequestTimeout if kind == "query" else DeliveryUnknown):
            await cluster[0].request("ada", "x", kind=kind, timeout=3)
        assert asyncio.get_running_loop().time() - before == pytest.approx(3, abs=0.1)
        request = await asked(ada)
        assert (await ada.next(m.Cancel)).id == request.id

    on_nodes(2, scenario)


@KINDS
def test_cancelling_cancels_the_client_at_another_node(kind: Any) -> None:
    async def scenario(cluster: Nodes) -> None:
        ada = await ada_at(cluster, 1)
        call = asking(cluster[0].request("ada", "x", kind=kind))
        request = await asked(ada)
        call.cancel()
        await asyncio.sleep(0.2)
        assert [one.id for one in ada.inbox if isinstance(one, m.Cancel)] == [request.id]
        assert not cluster.node(0).others._waiting
        assert not cluster.node(1).others._working
        assert len(cluster.node(0).tasks) == len(cluster.node(1).tasks) == 0

    on_nodes(2, scenario)


def test_an_answer_that_is_not_what_was_wanted_or_too_big_a_question_is_told() -> None:
    async def scenario(cluster: Nodes) -> None:
        ada = await ada_at(cluster, 1)
        call = asking(cluster[0].request("ada", "sum", type=int))
        ada.send(m.Response((await asked(ada)).id, "three"))
        with pytest.raises(ValueError, match="sum"):
            await call
        with pytest.raises(RequestError) as refused:
            await cluster[0].request("ada", "x", "y" * (1 << 20))
        assert refused.value.code == ErrorCode.TOO_BIG

    on_nodes(2, scenario)


def test_a_second_connection_that_came_after_the_count_makes_a_command_ambiguous() -> None:
    async def scenario(cluster: Nodes) -> None:
        peers = [await ada_at(cluster, 1) for _ in range(2)]
        others = cluster.node(0).others
        there = Elsewhere(others, [cluster.node(1).id], signals.Target("", "ada"))
        with pytest.raises(RequestError) as refused:
            await asking_module.ask([], 5.0, "command", "reload", None, None, there)
        assert refused.value.code == ErrorCode.AMBIGUOUS_TARGET
        assert nothing_asked(*peers)

    on_nodes(2, scenario)


def test_without_the_broker_queries_reach_who_is_here_and_commands_nobody() -> None:
    async def scenario(cluster: Nodes) -> None:
        ada = await ada_at(cluster, 0)
        cluster.broker(0).severed = True
        call = asking(cluster[0].request("ada", "where"))
        ada.send(m.Response((await asked(ada)).id, "here"))
        assert await call == "here"
        with pytest.raises(Unavailable):
            await cluster[0].request("ada", "reload", kind="command")
        with pytest.raises(Unavailable):
            await cluster[0].request("bob", "where")
        cluster.broker(0).severed = False

    on_nodes(2, scenario)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x80",
        signals.encode(signals.Signal(ticket=1)),
        signals.encode(signals.Number(ticket=99, node="x", number=1)),
        b"\x81\xa6signal\xa5other",
        b"\x92" * 2000,
    ],
)
def test_what_is_no_signal_is_ignored(payload: bytes) -> None:
    async def scenario(cluster: Nodes) -> None:
        await cluster.broker(0).signal(None, payload)
        await asyncio.sleep(0.1)
        ada = await ada_at(cluster, 1)
        call = asking(cluster[0].request("ada", "where"))
        ada.send(m.Response((await asked(ada)).id, "here"))
        assert await call == "here"

    on_nodes(2, scenario)


# ---- what is done to connections at other nodes --------------------------------------------


def test_a_user_is_disconnected_at_every_node_and_nobody_else_is() -> None:
    async def scenario(cluster: Nodes) -> None:
        adas = [await ada_at(cluster, n) for n in range(3)]
        other = cluster.peer(1)
        await other.auth(token="acme/ada")
        assert await cluster[0].disconnect("ada", code=4504, reason="out") == 3
        assert [await peer.until_closed() for peer in adas] == [4504] * 3
        assert other.close_code is None
        assert await cluster[2].disconnect("ada", tenant="acme", code=4000) == 1
        assert await other.until_closed() == 4000

    on_nodes(3, scenario)


def test_a_subscription_is_ended_at_every_node() -> None:
    async def scenario(cluster: Nodes) -> None:
        adas = [await ada_at(cluster, n) for n in range(3)]
        for peer in adas:
            await peer.subscribe("c")
            await peer.subscribe("d")
        assert await cluster[0].unsubscribe("ada", "c", code=202) == 3
        assert await cluster[0].unsubscribe("ada", "c") == 0
        for peer in adas:
            assert (await peer.next(m.Unsubscribed)).code == 202
        await cluster[1].publish("c", "nobody")
        await cluster[1].publish("d", "everybody")
        await asyncio.sleep(1)
        for peer in adas:
            assert [one.data for one in peer.messages()] == ["everybody"]

    on_nodes(3, scenario)


def test_what_is_done_here_is_done_when_the_others_cannot_be_told() -> None:
    async def scenario(cluster: Nodes) -> None:
        here, there = await ada_at(cluster, 0), await ada_at(cluster, 1)
        await here.subscribe("c")
        cluster.broker(0).severed = True
        with pytest.raises(BrokerUnavailable):
            await cluster[0].unsubscribe("ada", "c")
        assert await here.next(m.Unsubscribed)
        with pytest.raises(BrokerUnavailable):
            await cluster[0].disconnect("ada")
        assert await here.until_closed() == 4504
        assert there.close_code is None
        cluster.broker(0).severed = False

    on_nodes(2, scenario)


def test_a_node_that_died_is_waited_for_shortly() -> None:
    async def scenario(cluster: Nodes) -> None:
        ada = await ada_at(cluster, 1)
        cluster.kill(2)
        before = asyncio.get_running_loop().time()
        assert await cluster[0].disconnect("ada") == 1
        assert asyncio.get_running_loop().time() - before < 2.1
        assert ada.close_code == 4504
        assert cluster.node(0).counters["silent_nodes"] == 1

    on_nodes(3, scenario)


def test_each_node_shows_who_is_present_at_all() -> None:
    async def scenario(cluster: Nodes) -> None:
        for n in range(3):
            peer = await ada_at(cluster, n)
            await peer.subscribe("c")
        await asyncio.sleep(0.1)
        for n in range(3):
            assert [member.user for member in await cluster[n].presence("c")] == ["ada"] * 3

    on_nodes(3, scenario)
