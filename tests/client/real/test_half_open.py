"""A server that falls silent under connections that stay, for real; see ``half_open.py``.

Where this machine permits no network namespaces, the same trial is made on the network in
memory, in virtual time: the test's name ends in ``namespace`` or ``memory``, whichever it was.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from everwire import Everwire, Grant
from everwire.limits import Limits

from ...conftest import Child, Served
from ..world import client_to, node_world, play
from .half_open import GRACE, GRAIN, INTERVAL, LIMITS, SERVER, Outcome, real_client, trial

BOUND = INTERVAL + GRACE + GRAIN
PROBE = LIMITS.probe  # and a machine as busy as this one may be is asked once more
UNSHARE = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]


def namespaces() -> bool:
    """Whether network namespaces may be made here, and their interfaces set."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    probe = [*UNSHARE, "ip", "link", "set", "lo", "up"]
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0


def check(outcome: Outcome, bound: float) -> None:
    """Found in time by both, all there, once and in order (which the trial checked)."""
    assert set(outcome.found) == {"publisher", "subscriber"}
    assert max(outcome.found.values()) <= bound
    assert outcome.published == outcome.read > 0
    assert outcome.gaps == 0
    assert outcome.resent > 0  # so there was something to lose


@pytest.mark.parametrize("where", ["namespace" if namespaces() else "memory"])
def test_when_every_packet_is_lost_it_is_found_and_no_message_is(
    where: str, tmp_path: Path, start: Callable[..., Child]
) -> None:
    if where == "memory":
        in_memory()
        return
    child = start([*UNSHARE, sys.executable, Path(__file__).parent / "half_open.py"], cwd=tmp_path)
    outcome = Outcome(**json.loads(child.line(r"^outcome (.*)$", timeout=50)[1]))
    assert child.wait() == 0
    check(outcome, BOUND + PROBE)
    assert outcome.naive == "OPEN"  # websockets without its ping, after all this


def in_memory() -> None:
    def declare(wire: Everwire) -> None:
        wire.channel("c", history=10_000, grant=Grant(publish=True))

    async def scenario() -> None:
        limits = Limits(ping_interval=INTERVAL, ping_grace=GRACE)
        async with node_world(declare, limits=limits) as world:

            async def strike() -> None:
                for link in world.network.links:
                    link.freeze(drop=True)
                world.network.partition()

            async def heal() -> None:
                world.network.partition(False)

            outcome = await trial(lambda: client_to(world.network, limits=LIMITS), strike, heal)
            check(outcome, BOUND)

    play(scenario)


def test_the_way_without_namespaces_tells_the_same() -> None:
    """So that it is known to work on a machine that has them."""
    in_memory()


def test_a_server_that_is_stopped_is_found_and_going_on_it_doubles_nothing(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    """SIGSTOP: its kernel goes on taking connections and bytes, and nobody reads them.

    With SIGCONT it reads all of it: what was sent on the old links, too.
    """
    (tmp_path / "app.py").write_text(SERVER)
    server = serve("serve", "app:wire", "--allow-anonymous", cwd=tmp_path)

    async def strike() -> None:
        server.child.signal(signal.SIGSTOP)

    async def heal() -> None:
        server.child.signal(signal.SIGCONT)

    try:
        outcome = asyncio.run(trial(lambda: real_client(server.url), strike, heal))
    finally:
        server.child.signal(signal.SIGCONT)
    check(outcome, BOUND + PROBE)
