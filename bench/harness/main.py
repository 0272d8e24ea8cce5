"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import cases, report
from .load import BadRun
from .machine import CannotRun, compile_programs, facts, raise_file_limit
from .measure import (
    Setting,
    measure_memory,
    measure_storm,
    measure_versus,
    values,
)
from .report import Curve, Point, Row
from .servers import FLOOR, PEER_KINDS, Kind, everwire
from .stats import Ratio, judge, ratio

FILES = 20_000
SPARE = 100  # files besides the readers' sockets


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description="Measure the server's CPU and memory against a floor written in C.",
        epilog="What each figure means: bench/README.md",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer, shorter rounds: a look, not a measurement")
    add("--only", default="", metavar="P1,P3,…", help="some cases, by the keys of the table")
    add("--rounds", type=int, help="rounds of each comparison (default: 9; quick: 3)")
    add("--seconds", type=float, help="measured time of a run (default: 0.7; quick: 0.3)")
    add("--peers", action="store_true", help="also measure other servers, where installed")
    add("--also", action="append", default=[], metavar="NAME=DIR",
        help="also measure the everwire package in DIR, in the same rounds")  # fmt: skip
    add("--cores", default="0,1", help="of the server and of the generator (default: 0,1)")
    add("--json", metavar="FILE", help="write everything to FILE")
    add("--plot", metavar="FILE", help="draw it, as SVG")
    return parser.parse_args(argv)


class Bench:
    """One run of the benchmark; collects rows."""

    def __init__(self, arguments: argparse.Namespace, setting: Setting) -> None:
        self.setting = setting
        self.only = [one for one in arguments.only.split(",") if one]
        self.ours = [everwire()]
        for one in arguments.also:
            name, _, source = one.partition("=")
            self.ours.append(everwire(name, source))
        self.rows: list[Row] = []
        self.details: dict[str, Any] = {}
        self.bars: dict[str, list[tuple[str, float]]] = {}
        self.medians: dict[str, dict[str, float]] = {}
        self.ratios: dict[tuple[str, str], Ratio] = {}
        self.curves: list[Curve] = []

    def wants(self, key: str) -> bool:
        return cases.selected(key, self.only)

    def takes(self, case: cases.Versus) -> bool:
        return cases.wanted(case, self.only)

    def rounds(self, case: cases.Versus) -> int:
        return min(self.setting.rounds, case.most_rounds or self.setting.rounds)

    def steps(self, peers: Sequence[Kind]) -> int:
        """How many runs there will be."""
        ours = len(self.ours)
        count = sum((1 + ours) * self.rounds(case) for case in cases.VERSUS if self.takes(case))
        count += sum(
            ours * self.setting.storm_rounds for storm in cases.STORMS if self.wants(storm.key)
        )
        count += sum(ours for memory in cases.MEMORY if self.wants_memory(memory))
        if peers:
            fanouts = len(peers) + 2
            pairs = sum(kind.has_pairs for kind in peers) + 2
            count += cases.PEER_ROUNDS * (fanouts * 2 + pairs) + (1 + len(peers)) * 2
        return count

    def wants_memory(self, memory: cases.Memory) -> bool:
        return self.wants(memory.key) or bool(
            memory.heartbeat_key and self.wants(memory.heartbeat_key)
        )

    # ---- our own server ---------------------------------------------------------

    def versus(self, case: cases.Versus) -> None:
        if case.connections + SPARE > self.setting.files:
            self.setting.warnings.append(f"{case.key} left out: it needs more open files")
            return
        results = measure_versus(case, [FLOOR, *self.ours], self.setting, self.rounds(case))
        floor = values(results[FLOOR.name], case.metric)
        self.details[case.key] = results
        self.medians[case.key] = {
            name: median(values(runs, case.metric)) for name, runs in results.items()
        }
        if case.target:  # the others are drawn as points of a curve
            self.bars[f"{case.title} (µs)"] = list(self.medians[case.key].items())
        for kind in self.ours:
            figures = values(results[kind.name], case.metric)
            compared = self.ratios[case.key, kind.name] = ratio(figures, floor)
            verdict = compared.verdict(case.target) if case.target else ""
            target = f"≤ {case.target} ×" if case.target else ""
            if case.limit:
                target += f", ≤ {case.limit} µs"
                if verdict == "pass" and min(figures) > case.limit:
                    verdict = "miss"
            self.rows.append(
                Row(case.key, case.title, kind.name, f"{median(figures):.3g} µs",
                    f"{median(floor):.3g} µs", compared.minima, compared.medians, target, verdict)
            )  # fmt: skip

    def curve(self, curve: cases.Curve) -> None:
        """Collect what was measured along a curve, and judge its ends."""
        for kind in self.ours:
            points = [
                Point(
                    case.connections, self.medians[case.key][FLOOR.name],
                    self.medians[case.key][kind.name], compared.minima, compared.medians,
                )
                for case in sorted(cases.VERSUS, key=lambda case: case.connections)
                if case.key in curve.cases and (compared := self.ratios.get((case.key, kind.name)))
            ]  # fmt: skip
            if len(points) > 1:
                self.curves.append(Curve(curve.key, curve.title, curve.unit, kind.name, points))
            small = self.ratios.get((curve.small, kind.name))
            large = self.ratios.get((curve.large, kind.name))
            if small is None or large is None:
                continue
            grown = Ratio(large.minima / small.minima, large.medians / small.medians, small.rounds)
            what = f"{curve.title}: ratio at {curve.large[4:]} ÷ at {curve.small[4:]}"
            self.rows.append(
                Row(curve.key, what, kind.name, "", "", grown.minima, grown.medians,
                    f"≤ {curve.target}", grown.verdict(curve.target))
            )  # fmt: skip

    def storm(self, storm: cases.Storm) -> None:
        for kind in self.ours:
            rates = measure_storm(storm, kind, self.setting, rounds=self.setting.storm_rounds)
            self.details[f"{storm.key} {kind.name}"] = rates
            best = max(rates)
            target = f"≥ {storm.least:g}/s" if storm.least else ""
            verdict = judge(best, storm.least, at_most=False) if storm.least else ""
            value = f"{best:,.0f}/s (median {median(rates):,.0f})"
            self.rows.append(
                Row(storm.key, storm.title, kind.name, value, target=target, verdict=verdict)
            )

    def memory(self, memory: cases.Memory) -> None:
        for kind in self.ours:
            seconds = self.setting.idle_seconds if memory.heartbeat_key else 0.0
            found = measure_memory(memory, kind, self.setting, seconds=seconds)
            self.details[f"{memory.key} {kind.name}"] = vars(found)
            target = f"≤ {memory.most:g} KiB" if memory.most else ""
            verdict = judge(found.kib, memory.most) if memory.most else ""
            self.rows.append(
                Row(memory.key, memory.title, kind.name, f"{found.kib:.1f} KiB",
                    target=target, verdict=verdict)
            )  # fmt: skip
            if memory.heartbeat_key:
                what = (
                    f"CPU of {found.connections} idle connections, {found.seconds:.0f} s, "
                    f"{found.heartbeats} heartbeats"
                )
                self.rows.append(
                    Row(memory.heartbeat_key, what, kind.name, f"{found.cpu_percent:.2f} %",
                        target=f"≤ {memory.most_cpu} %",
                        verdict=judge(found.cpu_percent, memory.most_cpu))
                )  # fmt: skip

    def run(self) -> None:
        """Everything that was asked for."""
        for case in cases.VERSUS:
            if self.takes(case):
                self.versus(case)
        for curve in cases.CURVES:
            self.curve(curve)
        for storm in cases.STORMS:
            if self.wants(storm.key):
                self.storm(storm)
        for memory in cases.MEMORY:
            if self.wants_memory(memory):
                self.memory(memory)

    # ---- the others ---------------------------------------------------------------

    def peers(self, peers: Sequence[Kind]) -> None:
        """Measure other servers. Ours is run with them, so that it can be compared."""
        setting = self.setting
        for case in cases.VERSUS:
            if case.key in cases.PEER_VERSUS:
                self.peers_versus(case, peers)
        for kind in [self.ours[0], *peers]:
            storm = cases.Storm("storm", "connect, subscribe", cases.PEER_CONNECTIONS, None)
            rates = measure_storm(storm, kind, setting, rounds=1, plain=True)
            memory = cases.Memory("idle", "KiB a connection", cases.PEER_CONNECTIONS, None, {})
            found = measure_memory(memory, kind, setting, seconds=0, plain=True)
            self.details[f"peer {kind.name}"] = {"storm": rates, "idle": vars(found)}
            value = f"{max(rates):,.0f}/s, {found.kib:.1f} KiB"
            self.rows.append(
                Row("storm peers", "connections a second of CPU, memory of each", kind.name, value)
            )

    def peers_versus(self, case: cases.Versus, peers: Sequence[Kind]) -> None:
        """One case on all that know it. The target: to cost less than they do."""
        peers = [kind for kind in peers if case.mode == "fanout" or kind.has_pairs]
        us = self.ours[0]
        results = measure_versus(case, [FLOOR, us, *peers], self.setting, cases.PEER_ROUNDS)
        self.details[f"peers {case.key}"] = results
        figures = {name: values(runs, case.metric) for name, runs in results.items()}
        self.bars[f"{case.title} (µs)"] = [(name, median(one)) for name, one in figures.items()]
        floor = figures[FLOOR.name]
        for kind in [us, *peers]:
            own = figures[kind.name]
            compared, against_us = ratio(own, floor), ratio(figures[us.name], own)
            is_peer = kind is not us and not kind.is_reference
            self.rows.append(
                Row(
                    f"{case.key} peers", case.title, kind.name, f"{median(own):.3g} µs",
                    f"{median(floor):.3g} µs", compared.minima, compared.medians,
                    f"everwire ÷ it {against_us.medians:.2f}" if kind is not us else "",
                    judge(against_us.medians, 1.0) if is_peer else "",
                )
            )  # fmt: skip


def _installed(console: Console) -> list[Kind]:
    found = []
    for kind in PEER_KINDS:
        remedy = kind.missing()
        if remedy:
            console.print(f"skipped {kind.name}, which is not installed: {remedy}")
        else:
            found.append(kind)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; return the exit status."""
    arguments = parse(argv)
    console = Console(width=None if sys.stdout.isatty() else 150)
    cores = tuple(int(core) for core in arguments.cores.split(","))
    quick = arguments.quick
    setting = Setting(
        (cores[0], cores[1]),
        arguments.rounds or (3 if quick else 9),
        arguments.seconds or (0.3 if quick else 0.7),
        idle_seconds=10 if quick else 40,
        storm_rounds=2 if quick else 5,
    )
    try:
        if len(os.sched_getaffinity(0) & set(cores)) < 2:
            raise CannotRun("two cores are needed, one for the server, one for the generator")
        compile_programs()
        limit = raise_file_limit(FILES)
        if limit < 10_100:
            setting.scale = (limit - 100) / 10_000
            setting.warnings.append(f"only {limit} open files are allowed: fewer connections")
        setting.files = limit
        machine = facts(setting.cores)
        bench = Bench(arguments, setting)
        peers = _installed(console) if arguments.peers else []
        _run_all(bench, peers, console)
    except (CannotRun, BadRun) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    console.print(
        f"{machine['cpu']}, kernel {machine['kernel']}, Python {machine['python']}; "
        f"{setting.rounds} rounds of {setting.seconds} s"
    )
    report.show(console, bench.rows, "server CPU: everwire against the C floor")
    report.show_curves(console, bench.curves)
    for warning in dict.fromkeys(setting.warnings):
        console.print(f"[yellow]note:[/] {warning}")
    if peers:
        machine["peers"] = {kind.name: kind.version() for kind in peers}
    command = " ".join(["bench/run", *(argv if argv is not None else sys.argv[1:])])
    if arguments.json:
        data = report.as_json(bench.rows, bench.curves, bench.details, machine, command)
        Path(arguments.json).write_text(json.dumps(data, indent=1) + "\n")
    if arguments.plot:
        Path(arguments.plot).write_text(report.plot(bench.bars, bench.curves))
    return 0


def _run_all(bench: Bench, peers: Sequence[Kind], console: Console) -> None:
    with Progress(
        TextColumn("{task.description:60.60}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), console=console, transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("starting", total=bench.steps(peers))

        def step(what: str) -> None:
            progress.update(task, description=what, advance=1)

        bench.setting.progress = step
        bench.run()
        if peers:
            bench.peers(peers)


if __name__ == "__main__":
    sys.exit(main())
