"""Who is present, as it is shown: over reconnections, kills, drains and nodes that die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from everwire.brokers.base import PresenceChange
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.testing import run

from .nodes import Nodes, nodes
from .peer import Peer

LEASE, GRACE = 15.0, 5.0
Scenario = Callable[[Nodes], Coroutine[Any, Any, None]]


def on_nodes(count: int, scenario: Scenario, **options: Any) -> None:
    async def main() -> None:
        async with nodes(count, **options) as cluster:
            await scenario(cluster)

    run(main)


class Watcher(Peer):
    """Keeps the list of members as a client does, and what it was sent."""

    seen: list[m.Presence]
    sid = 0

    @property
    def members(self) -> list[str]:
        """The users present, as far as it was told."""
        self.told()
        return sorted(self._members.values())

    @property
    def count(self) -> int:
        self.told()
        return self.seen[-1].count

    def told(self) -> list[m.Presence]:
        """What came since it was last asked for."""
        news = [one for one in self.inbox if isinstance(one, m.Presence)]
        for one in news:
            self.inbox.remove(one)
            self.seen.append(one)
            if one.full:
                self._members.clear()
            self._members.update({member.connection: member.user for member in one.joined})
            for connection in one.left:
                self._members.pop(connection, None)
        return news

    @classmethod
    async def at(cls, cluster: Nodes, index: int, channel: str = "c") -> Watcher:
        peer = cls(cluster.network, "json", cluster.members[index].url)
        peer.seen, peer._members = [], {}
        request = m.ChannelRequest(channel, presence=True)
        await peer.auth(token="watcher", subscribe=[request])
        await asyncio.sleep(0.2)  # it may see itself come, which it knows by then
        assert peer.told()[0].full
        return peer

    _members: dict[str, str]


async def join(
    cluster: Nodes, index: int, user: str = "ada", instance: str = "i", **auth: Any
) -> Peer:
    """Somebody comes."""
    peer = cluster.peer(index)
    client = m.ClientInfo(instance)
    requests = [m.ChannelRequest("c")]
    answer = await peer.auth(token=user, client=client, subscribe=requests, **auth)
    assert isinstance(answer, m.Response), answer
    await asyncio.sleep(0.1)
    return peer


async def secret_of(peer: Peer) -> str:
    return (await peer.next(m.Hello)).connection


def shape(news: list[m.Presence]) -> list[tuple[bool, int, int, int]]:
    return [(one.full, len(one.joined), len(one.left), one.count) for one in news]


@pytest.mark.parametrize("at", [0, 1])
def test_who_comes_and_goes_is_told_at_every_node(at: int) -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        peer = await join(cluster, at)
        assert shape(watcher.told()) == [(False, 1, 0, 2)]
        assert watcher.members == ["ada", "watcher"]
        await peer.ask(m.Unsubscribe(5, ["c"]))
        await asyncio.sleep(0.1)
        assert shape(watcher.told()) == [(False, 0, 1, 1)]
        assert watcher.members == ["watcher"]

    on_nodes(2, scenario)


def test_who_left_before_it_was_shown_is_not_shown() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        cluster.node(0).chores.add("c", lambda: asyncio.sleep(1))  # a slow broker
        peer = await join(cluster, 0)
        peer.link.cut()
        await asyncio.sleep(2)
        assert watcher.told() == []

    on_nodes(1, scenario)


@pytest.mark.parametrize("code", [1000, 1005])
def test_who_says_goodbye_leaves_at_once(code: int) -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        peer = await join(cluster, 1)
        peer.transport.close(code)
        await asyncio.sleep(0.2)
        assert watcher.members == ["watcher"]

    on_nodes(2, scenario)


@pytest.mark.parametrize("code", [4504, 4501])
def test_who_is_sent_away_for_good_leaves_at_once(code: int) -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        await join(cluster, 1)
        await cluster[0].disconnect("ada", code=code)
        await asyncio.sleep(0.2)
        assert watcher.members == ["watcher"]

    on_nodes(2, scenario)


def test_who_is_lost_stays_for_the_grace_and_then_leaves() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        peer = await join(cluster, 1)
        watcher.told()
        peer.link.cut()
        await asyncio.sleep(GRACE - 1)
        assert watcher.told() == []
        assert len(await cluster[0].presence("c")) == 2
        await asyncio.sleep(3)
        assert shape(watcher.told()) == [(False, 0, 1, 1)]
        assert watcher.members == ["watcher"]

    on_nodes(2, scenario)


def test_who_does_not_say_who_it_is_cannot_be_known_again_and_leaves_at_once() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        peer = cluster.peer(1)
        await peer.auth(token="ada", subscribe=[m.ChannelRequest("c")])
        await asyncio.sleep(0.1)
        assert watcher.members == ["ada", "watcher"]
        peer.link.cut()
        await asyncio.sleep(0.2)
        assert watcher.members == ["watcher"]

    on_nodes(2, scenario)


@pytest.mark.parametrize("grace", [0, 2.0])
def test_the_grace_is_a_setting(grace: float) -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        peer = await join(cluster, 0)
        peer.link.cut()
        await asyncio.sleep(grace / 2 + 0.1)
        assert watcher.members == (["ada", "watcher"] if grace else ["watcher"])
        await asyncio.sleep(grace / 2 + 1.1)
        assert watcher.members == ["watcher"]

    on_nodes(1, scenario, limits=Limits(presence_grace=grace))


@pytest.mark.parametrize("back", [0, 1])
@pytest.mark.parametrize("away", [0.2, 4.0])
def test_who_comes_back_within_the_grace_takes_its_own_place_in_one_step(
    back: int, away: float
) -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        peer = await join(cluster, 0)
        watcher.told()
        peer.link.cut()
        await asyncio.sleep(away)
        again = await join(cluster, back)
        assert shape(watcher.told()) == [(False, 1, 1, 2)]
        await asyncio.sleep(10)
        assert watcher.told() == []
        assert watcher.members == ["ada", "watcher"]
        again.transport.close(1000)
        await asyncio.sleep(0.2)
        assert watcher.members == ["watcher"]

    on_nodes(2, scenario)


def test_another_user_and_another_instance_take_nobodys_place() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        peer = await join(cluster, 0)
        peer.link.cut()
        await asyncio.sleep(1)
        await join(cluster, 1, "bob")
        await join(cluster, 1, "ada", "j")
        assert watcher.members == ["ada", "ada", "bob", "watcher"]
        await asyncio.sleep(GRACE)
        assert watcher.members == ["ada", "bob", "watcher"]

    on_nodes(2, scenario)


def test_two_connections_of_one_instance_are_two_while_they_live() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        await join(cluster, 0)
        await join(cluster, 1)
        assert watcher.members == ["ada", "ada", "watcher"]

    on_nodes(2, scenario)


def test_who_moves_to_another_node_moves_in_one_step_though_the_old_link_lives() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        old = await join(cluster, 0)
        watcher.told()
        await join(cluster, 1, replaces=await secret_of(old))
        assert shape(watcher.told()) == [(False, 1, 1, 2)]
        old.link.cut()
        await asyncio.sleep(10)
        assert watcher.told() == []
        assert watcher.members == ["ada", "watcher"]

    on_nodes(2, scenario)


def test_nobody_moves_into_the_place_of_another_user() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        old = await join(cluster, 0)
        await join(cluster, 1, "bob", "j", replaces=await secret_of(old))
        assert watcher.members == ["ada", "bob", "watcher"]

    on_nodes(2, scenario)


def test_of_many_channels_those_that_are_subscribed_to_later_move_as_well() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0, "later")
        old = await join(cluster, 0)
        await old.subscribe("later")
        await asyncio.sleep(0.1)
        watcher.told()
        new = await join(cluster, 0, replaces=await secret_of(old))
        assert await old.until_closed() == 4507
        await asyncio.sleep(1)
        assert watcher.told() == []
        await new.subscribe("later")
        await asyncio.sleep(0.1)
        assert shape(watcher.told()) == [(False, 1, 1, 2)]

    on_nodes(1, scenario)


def test_a_node_that_drains_leaves_its_members_time_to_come_back_elsewhere() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 1)
        stays, goes = await join(cluster, 0), await join(cluster, 0, "bob", "j")
        watcher.told()
        await cluster[0].stop()
        assert await stays.until_closed() == 4440
        assert await goes.until_closed() == 4440
        await asyncio.sleep(1)
        assert watcher.told() == []
        await join(cluster, 1)
        assert shape(watcher.told()) == [(False, 1, 1, 3)]
        await asyncio.sleep(GRACE + LEASE / 3 + 1)
        assert watcher.members == ["ada", "watcher"]

    on_nodes(2, scenario)


def test_a_node_that_dies_loses_its_members_when_its_lease_ends() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        for user in ("ada", "bob"):
            await join(cluster, 1, user)
        watcher.told()
        cluster.kill(1)
        await asyncio.sleep(LEASE - 5.5)
        assert watcher.told() == []
        await asyncio.sleep(5.5 + 5.5)
        assert shape(watcher.told()) == [(False, 0, 2, 1)]
        assert [one.user for one in await cluster[0].presence("c")] == ["watcher"]

    on_nodes(2, scenario)


def test_who_flees_from_a_node_that_died_takes_its_own_place() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        old = await join(cluster, 1)
        watcher.told()
        secret = await secret_of(old)
        cluster.kill(1)
        await asyncio.sleep(1)
        await join(cluster, 0, replaces=secret)
        await asyncio.sleep(30)
        assert shape(watcher.told()) == [(False, 1, 1, 2)]
        assert watcher.members == ["ada", "watcher"]

    on_nodes(2, scenario)


def test_a_node_that_was_given_up_and_lives_makes_its_members_present_again() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        await join(cluster, 1)
        cluster.broker(1).severed = True  # too long for its lease
        await asyncio.sleep(LEASE + 6)
        assert watcher.members == ["watcher"]
        cluster.broker(1).severed = False
        await asyncio.sleep(2)
        assert watcher.members == ["ada", "watcher"]
        assert cluster.node(1).counters["presence_restored"] == 1

    on_nodes(2, scenario)


def test_comings_and_goings_during_an_outage_are_made_up_for() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        gone = await join(cluster, 1)
        cluster.broker(1).severed = True
        gone.transport.close(1000)
        new = await join_later(cluster, 1, "bob")
        await asyncio.sleep(3)
        cluster.broker(1).severed = False
        await asyncio.sleep(2)
        assert watcher.members == ["bob", "watcher"]
        assert new.close_code is None

    on_nodes(2, scenario)


async def join_later(cluster: Nodes, index: int, user: str) -> Peer:
    """Subscribe while the broker does not answer: again and again."""
    peer = cluster.peer(index)
    await peer.auth(token=user, client=m.ClientInfo("late"))

    async def again() -> None:
        while "error" in await peer.subscribe("c"):
            await asyncio.sleep(0.5)

    peer.retrying = asyncio.get_running_loop().create_task(again())  # type: ignore[attr-defined]
    return peer


def test_a_change_that_got_lost_is_made_up_for_within_ten_seconds() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        await asyncio.sleep(3)
        cluster.broker(0).deaf = True
        await join(cluster, 1)
        cluster.broker(0).deaf = False
        assert watcher.told() == []
        await asyncio.sleep(10)
        assert shape(watcher.told()) == [(True, 2, 0, 2)]
        assert watcher.members == ["ada", "watcher"]
        await asyncio.sleep(30)
        assert watcher.told() == []  # once

    on_nodes(2, scenario)


def test_the_next_change_shows_at_once_that_one_was_lost() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        cluster.broker(0).deaf = True
        await join(cluster, 1)
        cluster.broker(0).deaf = False
        await join(cluster, 1, "bob")
        assert shape(watcher.told()) == [(True, 3, 0, 3)]
        await join(cluster, 1, "eve")
        assert shape(watcher.told()) == [(False, 1, 0, 4)]

    on_nodes(2, scenario)


def test_what_was_told_before_it_was_read_is_not_told_again() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        node = cluster.node(0)
        before = (await cluster.broker(0).presence("c", 9)).version
        await join(cluster, 1)
        watcher.told()
        after = (await cluster.broker(0).presence("c", 9)).version
        late = PresenceChange((m.Member("x", "late"),), (), 2, before, after)
        node.on_presence("c", late)
        await asyncio.sleep(1)
        assert watcher.told() == []

    on_nodes(2, scenario)


def test_beyond_the_limit_members_are_counted_and_listed_again_below_it() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        peers = [await join(cluster, 1, f"u{n}", f"i{n}") for n in range(6)]
        assert len(watcher.members) == 4
        assert watcher.count == 7
        late = await Watcher.at(cluster, 0)
        assert (len(late.members), late.count) == (4, 8)
        for peer in peers[:5]:
            peer.transport.close(1000)
            await asyncio.sleep(0.1)
        assert watcher.count == late.count == 3
        assert watcher.members == late.members == ["u5", "watcher", "watcher"]

    on_nodes(2, scenario, limits=Limits(presence_members=4))


def test_who_could_not_subscribe_anew_is_gone_until_it_does() -> None:
    """Its former subscription ended with the attempt."""

    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        lost, back = await join(cluster, 1, "ada"), await join(cluster, 1, "bob")
        cluster.broker(1).severed = True
        for peer in (lost, back):
            assert (await peer.subscribe("c"))["error"]["name"] == "unavailable"
        cluster.broker(1).severed = False
        assert "error" not in await back.subscribe("c")
        await asyncio.sleep(3)
        assert watcher.members == ["bob", "watcher"]

    on_nodes(2, scenario)


def test_who_watches_anew_is_not_told_what_was_meant_for_those_before() -> None:
    """Changes wait to be told together; the last who watched leaves, and comes back meanwhile."""

    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        peers = [cluster.peer(0) for _ in range(3)]
        for peer in peers:
            await peer.auth(token=peer.dialect.name, subscribe=[m.ChannelRequest("c")])
            watcher.told()
        watcher.send(m.Unsubscribe(5, ["c"]))
        watcher.send(m.Subscribe(6, [m.ChannelRequest("c", presence=True)]))
        await asyncio.sleep(0.01)
        await peers[2].ask(m.Unsubscribe(7, ["c"]))
        await asyncio.sleep(1)
        assert watcher.count == len(watcher.members) == 3

    on_nodes(1, scenario, latency=0.0)


def test_many_who_come_at_once_are_told_together() -> None:
    async def scenario(cluster: Nodes) -> None:
        watchers = [await Watcher.at(cluster, n % 2) for n in range(4)]
        await asyncio.sleep(1)
        for watcher in watchers:
            watcher.told()
        await join(cluster, 0, "first", "f")
        assert shape(watchers[0].told()) == [(False, 1, 0, 5)]  # one alone is told at once
        await asyncio.sleep(1)
        watchers[0].told()
        peers = [cluster.peer(n % 2) for n in range(100)]
        for n, peer in enumerate(peers):
            await peer.open()
            request = [m.ChannelRequest("c")]
            peer.send(m.Auth(1, f"u{n}", client=m.ClientInfo(f"i{n}"), subscribe=request))
        for peer in peers[:50]:
            await peer.answer(1)
            peer.transport.close(1000)
        await asyncio.sleep(2)
        everybody = sorted(["first", *["watcher"] * 4, *(f"u{n}" for n in range(50, 100))])
        for watcher in watchers:
            assert len(watcher.told()) < 40
            assert watcher.members == everybody
            assert watcher.count == 55

    on_nodes(2, scenario)


def test_users_of_different_tenants_do_not_see_each_other() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        await join(cluster, 0, "acme/ada")
        assert watcher.members == ["watcher"]
        assert await cluster[0].presence("c", tenant="acme")

    on_nodes(1, scenario)


def test_a_thousand_reconnections_leave_everybody_right_and_nothing_behind() -> None:
    async def scenario(cluster: Nodes) -> None:
        watchers = [await Watcher.at(cluster, n) for n in range(3)]
        random = asyncio.get_running_loop().random  # type: ignore[attr-defined]
        peers = {n: await join(cluster, n % 3, f"u{n}", f"i{n}") for n in range(10)}
        for _ in range(300):
            n = random.randrange(10)
            match random.randrange(4):
                case 0:
                    peers[n].link.cut()
                case 1:
                    peers[n].transport.close(1000)
                case _:
                    pass
            if random.random() < 0.5:
                await asyncio.sleep(random.uniform(0, 7))
            hello = next((one for one in peers[n].inbox if isinstance(one, m.Hello)), None)
            replaces = hello.connection if hello and random.random() < 0.5 else None
            old = peers[n]
            peers[n] = await join(cluster, random.randrange(3), f"u{n}", f"i{n}", replaces=replaces)
            old.link.cut()
        await asyncio.sleep(30)
        for watcher in watchers:
            assert watcher.members == [*sorted(f"u{n}" for n in range(10)), *["watcher"] * 3]
            assert watcher.count == 13
        for n in range(3):
            assert not cluster.node(n).presence._leaving

    on_nodes(3, scenario)
