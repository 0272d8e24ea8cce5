"""Running the cases."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from .cases import Memory, Storm, Versus
from .load import BadRun, Idle, Result, run_load
from .machine import cpu_ns, rss
from .servers import Kind, Server, token

Progress = Callable[[str], None]
TRIES = 3  # of a run that went wrong; the machine may have been taken away for seconds
BUSY = 0.95  # of its core; then the generator may be what was measured


@dataclass
class Setting:
    """What holds for all runs."""

    cores: tuple[int, int]
    rounds: int
    seconds: float
    idle_seconds: float
    storm_rounds: int = 5
    files: int = 1024
    """that a process may have open"""
    scale: float = 1.0
    """of the number of connections, where it may be smaller"""
    progress: Progress = lambda what: None
    warnings: list[str] = field(default_factory=list)
    commands: dict[str, str] = field(default_factory=dict)

    def scaled(self, count: int) -> int:
        """``count``, made smaller for a quick run."""
        return max(100, int(count * self.scale))


def _run(setting: Setting, server: Server, mode: str, dialect: str, options: Any) -> Result:
    """One run, again if it failed: then it says nothing about the server's cost."""
    for last in range(TRIES):
        try:
            result = run_load(server, setting.cores[1], mode, dialect, options)
        except BadRun as error:
            if last == TRIES - 1 or server.process.poll() is not None:
                raise
            setting.warnings.append(str(error).splitlines()[0])
            server.wait_until_quiet()
            continue
        if result["generator_busy"] > BUSY:
            setting.warnings.append(
                f"{server.kind.name}: {mode} {options}: the generator was busy for "
                f"{result['generator_busy']:.0%} of the time"
            )
        return result
    raise AssertionError


def _options(case: Versus, setting: Setting, number: int) -> dict[str, Any]:
    options = {**case.options, "seconds": setting.seconds}
    options["channel"] = f"{case.key}:{number if case.fresh else 0}:"
    return options


def measure_versus(
    case: Versus, kinds: Sequence[Kind], setting: Setting, rounds: int | None = None
) -> dict[str, list[Result]]:
    """Run a case on several servers: A B A B …, every second round backwards."""
    results: dict[str, list[Result]] = {kind.name: [] for kind in kinds}
    with ExitStack() as stack:
        servers = []
        for kind in kinds:
            servers.append(Server(kind, setting.cores[0]))
            stack.callback(servers[-1].stop)
        for number in range(rounds or setting.rounds):
            for server in servers if number % 2 == 0 else reversed(servers):
                kind = server.kind
                for other in servers:
                    other.wait_until_quiet()
                dialect = kind.fanout if case.mode == "fanout" else kind.pairs
                options = _options(case, setting, number)
                setting.progress(f"{case.title}: {kind.name}")
                results[kind.name].append(_run(setting, server, case.mode, dialect, options))
    return results


def values(results: Sequence[Result], metric: str) -> list[float]:
    """One figure of each round."""
    return [float(result[metric]) for result in results]


def measure_storm(
    storm: Storm, kind: Kind, setting: Setting, *, rounds: int, plain: bool = False
) -> list[float]:
    """Return connections a second of the server's CPU, for each round."""
    options: dict[str, Any] = {"connections": setting.scaled(storm.connections), **storm.options}
    if not plain:
        options["token"] = token()
    rates = []
    server = Server(kind, setting.cores[0])
    try:
        for number in range(rounds):
            server.wait_until_quiet()
            setting.progress(f"{storm.title}: {kind.name}")
            options["channel"] = f"{storm.key}:{number}:"
            dialect = kind.fanout if plain else "msgpack"
            result = _run(setting, server, "storm", dialect, options)
            rates.append(1e6 / result["us_a_connection"])
    finally:
        server.stop()
    return rates


@dataclass
class IdleFigures:
    """What idle connections cost."""

    connections: int
    kib: float
    cpu_percent: float
    heartbeats: int
    seconds: float


def measure_memory(
    memory: Memory, kind: Kind, setting: Setting, *, seconds: float, plain: bool = False
) -> IdleFigures:
    """Measure memory and CPU of idle connections, on a server that was used once before."""
    count = setting.scaled(memory.connections)
    options: dict[str, Any] = {"connections": count, "channel": "idle:", **memory.options}
    if not plain:
        options["token"] = token()
    dialect = kind.fanout if plain else "msgpack"
    server = Server(kind, setting.cores[0])
    try:
        setting.progress(f"{memory.title}: {kind.name}")
        run_load(server, setting.cores[1], "storm", dialect, {**options, "connections": 100})
        server.wait_until_quiet()
        gc.collect()
        before = rss(server.pid)
        idle = Idle(server, setting.cores[1], dialect, options)
        try:
            server.wait_until_quiet(share=0.1)
            kib = (rss(server.pid) - before) / 1024 / count
            began, cpu = time.monotonic(), cpu_ns(server.pid)
            time.sleep(seconds)
            elapsed, cpu = time.monotonic() - began, cpu_ns(server.pid) - cpu
        finally:
            result = idle.end()
        if idle.ready < count or not result["ok"]:
            raise BadRun(f"{kind.name}: {idle.ready} of {count} idle connections: {result}")
        percent = cpu / 1e9 / elapsed * 100 if seconds else 0.0
        return IdleFigures(count, kib, percent, result["heartbeats"], elapsed)
    finally:
        server.stop()
