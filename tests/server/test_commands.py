"""Commands with a key run once, whichever nodes they are sent to (rule 6 of the contract)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from everwire import Connection, Everwire, Forbidden, Unavailable
from everwire.codes import ErrorCode
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.server.commands import Scope
from everwire.testing import run

from .nodes import Nodes, nodes
from .peer import Peer

Scenario = Callable[[Nodes, "Till"], Coroutine[Any, Any, None]]


class Till:
    """Commands that say how often they ran."""

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.ends: list[Any] = []
        self.seconds = 1.0

    def __call__(self, wire: Everwire) -> None:
        @wire.command
        async def pay(conn: Connection, amount: Any) -> dict[str, Any]:
            self.runs.append(amount)
            await asyncio.sleep(self.seconds)
            self.ends.append(amount)
            return {"run": len(self.runs), "amount": amount}

        @wire.command(idempotent=True)
        async def rename(conn: Connection, name: str) -> str:
            self.runs.append(name)
            await asyncio.sleep(self.seconds)
            return name

        @wire.command
        async def refuse(conn: Connection, text: str) -> None:
            self.runs.append(text)
            raise Forbidden(text, details={"n": len(self.runs)})

        @wire.command
        async def busy(conn: Connection) -> int:
            self.runs.append("busy")
            if len(self.runs) < 3:
                raise Unavailable("not now", retry_after=0.5)
            return len(self.runs)

        @wire.command
        async def broken(conn: Connection) -> None:
            self.runs.append("broken")
            raise ZeroDivisionError("secret")

        @wire.command
        async def large(conn: Connection) -> str:
            self.runs.append("large")
            return "x" * 70_000

        @wire.command
        async def blob(conn: Connection) -> bytes:
            self.runs.append("blob")
            return b"\x00\xff"


def on_nodes(count: int, scenario: Scenario, **options: Any) -> None:
    async def main() -> None:
        till = Till()
        async with nodes(count, till, **options) as cluster:
            await scenario(cluster, till)

    run(main)


async def peer_at(cluster: Nodes, index: int, token: str = "ada", **auth: Any) -> Peer:
    peer = cluster.peer(index)
    assert isinstance(await peer.auth(token=token, **auth), m.Response)
    return peer


def pay(request_id: int, amount: Any = 5, key: str = "k", **more: Any) -> m.Command:
    return m.Command(request_id, "pay", {"amount": amount}, key=key, **more)


def code(answer: Any) -> ErrorCode:
    assert isinstance(answer, m.Error), answer
    return ErrorCode(answer.code)


@pytest.mark.parametrize("count", [1, 2])
def test_a_command_retried_ten_times_at_once_runs_once_and_answers_ten_times_alike(
    count: int,
) -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        peers = [await peer_at(cluster, n % count) for n in range(10)]
        for n, peer in enumerate(peers):
            peer.send(pay(n + 10))
        answers = [await peer.answer(n + 10) for n, peer in enumerate(peers)]
        assert till.runs == [5]
        payloads = [one.payload for one in answers if isinstance(one, m.Response)]
        assert payloads == [{"run": 1, "amount": 5}] * 10
        assert await peers[-1].ask(pay(50)) == {"run": 1, "amount": 5}
        assert till.runs == [5]

    on_nodes(count, scenario)


@pytest.mark.parametrize("index", [0, 1])
def test_a_key_with_another_payload_is_refused_while_it_runs_and_after(index: int) -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        first, second = await peer_at(cluster, 0), await peer_at(cluster, index)
        first.send(pay(1))
        await asyncio.sleep(0.5)
        assert code(await second.ask(pay(2, 6))) == ErrorCode.KEY_REUSED
        await first.answer(1)
        assert code(await second.ask(pay(3, 6))) == ErrorCode.KEY_REUSED
        assert (await second.ask(pay(4, 6, key="l")))["run"] == 2

    on_nodes(2, scenario)


def test_keys_of_other_users_tenants_and_commands_are_others() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        for token in ("ada", "bob", "acme/ada", "acmea/da"):
            peer = await peer_at(cluster, 0, token)
            await peer.ask(pay(1, token))
        assert len(till.runs) == 4
        assert code(await peer.ask(m.Command(2, "refuse", {"text": "no"}, key="k")))
        assert len(till.runs) == 5

    on_nodes(1, scenario)


def test_a_retry_at_another_node_waits_for_the_answer_of_the_first() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        till.seconds = 5.0
        first, second = await peer_at(cluster, 0), await peer_at(cluster, 1)
        first.send(pay(1))
        await asyncio.sleep(1)
        first.link.cut()  # which does not end it
        assert await second.ask(pay(2, timeout=9000)) == {"run": 1, "amount": 5}
        assert till.runs == till.ends == [5]

    on_nodes(2, scenario)


def test_a_retry_that_gives_up_waiting_leaves_nothing_behind() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        till.seconds = 60.0
        first, second = await peer_at(cluster, 0), await peer_at(cluster, 1)
        first.send(pay(1, timeout=100_000))
        await asyncio.sleep(1)
        assert code(await second.ask(pay(2, timeout=500))) == ErrorCode.TIMEOUT
        second.send(pay(3))
        second.send(m.Cancel(3))
        assert code(await second.answer(3)) == ErrorCode.CANCELLED
        await asyncio.sleep(5)
        assert len(cluster.node(1).commands._tasks) == 0
        assert await first.answer(1)
        assert await second.ask(pay(4)) == {"run": 1, "amount": 5}

    on_nodes(2, scenario)


def test_when_the_node_that_ran_it_died_nobody_knows_for_the_window() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        till.seconds = 100_000.0
        first, second = await peer_at(cluster, 0), await peer_at(cluster, 1)
        first.send(pay(1))
        await asyncio.sleep(1)
        cluster.kill(0)
        assert code(await second.ask(pay(2, timeout=5000))) == ErrorCode.TIMEOUT
        before = asyncio.get_running_loop().time()
        assert code(await second.ask(pay(3, timeout=30_000))) == ErrorCode.OUTCOME_UNKNOWN
        assert asyncio.get_running_loop().time() - before < 11
        await asyncio.sleep(200)
        assert code(await second.ask(pay(4))) == ErrorCode.OUTCOME_UNKNOWN
        assert till.runs == [5]
        till.seconds = 1.0
        await asyncio.sleep(100)
        assert await second.ask(pay(5)) == {"run": 2, "amount": 5}

    on_nodes(2, scenario)


def test_what_may_be_done_twice_runs_again_when_the_node_that_ran_it_died() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        till.seconds = 100_000.0
        first, second = await peer_at(cluster, 0), await peer_at(cluster, 1)
        first.send(m.Command(1, "rename", {"name": "x"}, key="k"))
        await asyncio.sleep(1)
        cluster.kill(0)
        till.seconds = 1.0
        retry = m.Command(2, "rename", {"name": "x"}, timeout=30_000, key="k")
        assert await second.ask(retry) == "x"
        assert till.runs == ["x", "x"]
        assert await second.ask(retry) == "x"
        assert till.runs == ["x", "x"]

    on_nodes(2, scenario)


def test_a_node_that_stops_leaves_what_it_ran_unknown_and_says_so_at_once() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        till.seconds = 100.0
        first, second = await peer_at(cluster, 0), await peer_at(cluster, 1)
        first.send(pay(1))
        await asyncio.sleep(1)
        await cluster[0].stop()
        assert code(await second.ask(pay(2))) == ErrorCode.OUTCOME_UNKNOWN
        assert till.ends == []

    on_nodes(2, scenario)


def test_a_node_that_stops_leaves_commands_a_moment() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        first, second = await peer_at(cluster, 0), await peer_at(cluster, 1)
        first.send(pay(1))
        await asyncio.sleep(0.8)
        await cluster[0].stop()
        assert await second.ask(pay(2)) == {"run": 1, "amount": 5}

    on_nodes(2, scenario)


def test_what_a_command_refuses_is_its_answer() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        for n in range(4):
            peer = await peer_at(cluster, n % 2)
            answer = await peer.ask(m.Command(1, "refuse", {"text": "never"}, key="k"))
            assert code(answer) == ErrorCode.FORBIDDEN
            assert (answer.message, answer.details) == ("never", {"n": 1})
        assert till.runs == ["never"]

    on_nodes(2, scenario)


def test_what_is_refused_for_now_had_no_effect_and_may_run_yet() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        answers = []
        for n in range(4):
            peer = await peer_at(cluster, n % 2)
            answers.append(await peer.ask(m.Command(1, "busy", {}, key="k")))
        assert [code(one) for one in answers[:2]] == [ErrorCode.UNAVAILABLE] * 2
        assert answers[0].retry_after == 500
        assert answers[2:] == [3, 3]

    on_nodes(2, scenario)


def test_a_defect_is_an_answer_that_says_nothing() -> None:
    async def main() -> None:
        till = Till()
        async with nodes(2, till) as cluster:
            for n in range(4):
                peer = await peer_at(cluster, n % 2)
                answer = await peer.ask(m.Command(1, "broken", {}, key="k"))
                assert code(answer) == ErrorCode.INTERNAL
                assert "secret" not in answer.message
            assert till.runs == ["broken"]
            assert cluster.node(0).counters.pop("defects") == 1

    run(main)


def test_an_answer_that_is_too_large_to_be_kept_is_given_once() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        peer = await peer_at(cluster, 0)
        command = m.Command(1, "large", {}, key="k")
        assert len(await peer.ask(command)) == 70_000
        again = await peer.ask(command)
        assert code(again) == ErrorCode.OUTCOME_UNKNOWN
        assert "too large" in again.message
        assert till.runs == ["large"]

    on_nodes(1, scenario)


def test_bytes_are_remembered_as_bytes() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        for n in range(2):
            peer = await peer_at(cluster, n)
            assert await peer.ask(m.Command(1, "blob", {}, key="k")) == b"\x00\xff"
        assert till.runs == ["blob"]

    on_nodes(2, scenario)


def test_what_cannot_be_claimed_is_not_run_and_does_not_block_its_key() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        peer = await peer_at(cluster, 0)
        cluster.broker(0).severed = True
        answer = await peer.ask(pay(1))
        assert code(answer) == ErrorCode.UNAVAILABLE
        assert (answer.temporary, answer.outcome) == (True, "none")
        assert till.runs == []
        cluster.broker(0).severed = False
        assert await peer.ask(pay(2)) == {"run": 1, "amount": 5}

    on_nodes(1, scenario)


def test_a_claim_whose_answer_was_lost_is_given_up() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        peer, other = await peer_at(cluster, 0), await peer_at(cluster, 1)
        cluster.broker(0).lose_answers = True
        assert code(await peer.ask(pay(1))) == ErrorCode.UNAVAILABLE
        cluster.broker(0).lose_answers = False
        assert await other.ask(pay(2)) == {"run": 1, "amount": 5}
        assert await peer.ask(pay(3)) == {"run": 1, "amount": 5}

    on_nodes(2, scenario)


def test_an_answer_is_remembered_as_soon_as_the_broker_is_back() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        peer, other = await peer_at(cluster, 0), await peer_at(cluster, 1)
        peer.send(pay(1))
        await asyncio.sleep(0.5)
        cluster.broker(0).severed = True
        answer = await peer.answer(1)
        assert isinstance(answer, m.Response)
        other.send(pay(2))
        await asyncio.sleep(2)
        cluster.broker(0).severed = False
        assert (await other.answer(2)).payload == answer.payload  # type: ignore[attr-defined]
        assert till.runs == [5]

    on_nodes(2, scenario)


def test_a_user_has_so_many_keys_and_others_have_theirs() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        peer = await peer_at(cluster, 0)
        for n in range(3):
            await peer.ask(pay(n, key=str(n)))
        full = await peer.ask(pay(9, key="9"))
        assert (code(full), full.temporary) == (ErrorCode.DEDUPE_FULL, True)
        assert await peer.ask(pay(10, key="0")) == {"run": 1, "amount": 5}
        other = await peer_at(cluster, 0, "bob")
        assert (await other.ask(pay(1)))["run"] == 4

    on_nodes(1, scenario, limits=Limits(command_keys_user=3))


def test_the_anonymous_cannot_take_keys_away_from_each_other() -> None:
    async def scenario(cluster: Nodes, till: Till) -> None:
        first, second = await peer_at(cluster, 0, ""), await peer_at(cluster, 1, "")
        assert await first.ask(pay(1)) == {"run": 1, "amount": 5}
        assert await second.ask(pay(1, 6)) == {"run": 2, "amount": 6}
        assert await second.ask(pay(2)) == {"run": 1, "amount": 5}

    on_nodes(2, scenario)


def test_who_asks_in_the_moment_in_which_nobody_waits_any_more_is_answered() -> None:
    async def main() -> None:
        async with nodes(2) as cluster:
            first, second = cluster.node(0).commands, cluster.node(1).commands
            scope = Scope("ada", "k")
            loop = asyncio.get_running_loop()
            ran = loop.create_task(first.run(scope, b"d", lambda: asyncio.sleep(50, 7)))
            await asyncio.sleep(1)
            for n in range(400):
                waiting = loop.create_task(second.run(scope, b"d", lambda: asyncio.sleep(0, 8)))
                await asyncio.sleep(0.001 * n)
                waiting.cancel()
                await asyncio.wait({waiting})
            assert await second.run(scope, b"d", lambda: asyncio.sleep(0, 8)) == await ran == 7

    run(main)
