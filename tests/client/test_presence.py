"""What a client sees of others whose nodes come and go: nobody flickers."""

from __future__ import annotations

import asyncio

import pytest

from everwire import Client, Identity
from everwire.client import Subscription
from everwire.server.app import Everwire

from .drain_world import Cluster, cluster
from .world import FAST, play, until


def by_name(wire: Everwire) -> None:
    @wire.authenticate
    async def who(token: str) -> Identity:
        return Identity(token)


def users(room: Subscription) -> list[str]:
    return sorted(member.user or "" for member in room.members.values())


class Watched:
    """A watcher's view, looked at again and again."""

    def __init__(self, room: Subscription) -> None:
        self.room = room
        self.views: set[tuple[str, ...]] = set()

    async def keep_looking(self) -> None:
        while True:
            self.views.add(tuple(users(self.room)))
            await asyncio.sleep(0.005)


async def others(world: Cluster, *names: str) -> list[tuple[Client, Subscription]]:
    came = []
    for name in names:
        client = await world.client(token=name, limits=FAST)
        came.append((client, await client.subscribe("c").__aenter__()))
    return came


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("half_open", [False, True])
def test_who_comes_back_after_a_drop_was_never_away(elsewhere: bool, half_open: bool) -> None:
    async def scenario() -> None:
        async with cluster(by_name) as world, world.client(token="watcher") as watcher:
            async with watcher.subscribe("c", presence=True) as room:
                [(ada, _)] = await others(world, "ada")
                await until(lambda: users(room) == ["ada", "watcher"])
                if elsewhere:
                    await world.start()
                watched = Watched(room)
                looking = asyncio.get_running_loop().create_task(watched.keep_looking())
                for _ in range(5):
                    if half_open:
                        world.network.links[-1].freeze()
                    ada.drop()
                    await until(lambda: ada.state != "ready")
                    await until(lambda: ada.state == "ready")
                    await asyncio.sleep(1)
                await asyncio.sleep(60)  # the old links are found dead, and let go of
                looking.cancel()
                assert watched.views == {("ada", "watcher")}
                assert room.member_count == 2
                await ada.close()
                await until(lambda: users(room) == ["watcher"])

    play(scenario)


def test_a_deploy_moves_everybody_and_nobody_is_seen_to_leave() -> None:
    async def scenario() -> None:
        async with cluster(by_name) as world, world.client(token="watcher") as watcher:
            async with watcher.subscribe("c", presence=True) as room:
                names = ["ada", "bob", "cy", "dee"]
                came = await others(world, *names)
                everybody = [*names, "watcher"]
                await until(lambda: users(room) == everybody)
                watched = Watched(room)
                looking = asyncio.get_running_loop().create_task(watched.keep_looking())
                for _ in range(3):
                    await world.roll(10.0)
                    await asyncio.sleep(1)
                    assert users(room) == everybody
                looking.cancel()
                assert {len(view) for view in watched.views} == {5}
                assert room.member_count == 5
                for client, _ in came:
                    await client.close()
                await until(lambda: users(room) == ["watcher"])

    play(scenario)


def test_who_closes_is_gone_at_once() -> None:
    async def scenario() -> None:
        async with cluster(by_name) as world, world.client(token="watcher") as watcher:
            async with watcher.subscribe("c", presence=True) as room:
                [(ada, _)] = await others(world, "ada")
                await until(lambda: users(room) == ["ada", "watcher"])
                await ada.close()
                await asyncio.sleep(0.5)
                assert users(room) == ["watcher"]

    play(scenario)
