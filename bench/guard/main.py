"""The guard's command line: count, compare with the baseline, say what it means."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from .counting import read_dumps
from .inside import REFERENCE
from .scenarios import SCENARIOS

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "baseline.json"
TOLERANCE = 0.15
TIMEOUT = 240.0  # seconds; it takes 20 to 60
CALLGRIND = (
    "valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no",
    "--collect-systime=yes",
)  # fmt: skip
# What runs in the same process; each list takes about as long.
PROCESSES = (tuple(SCENARIOS)[:5], tuple(SCENARIOS)[5:])


class CannotRun(Exception):
    """Something is missing or failed; the text says what, and the remedy."""


@dataclass
class Figure:
    """What a unit of work costs."""

    work: float
    """instructions, as a multiple of the reference's"""
    calls: float
    """system calls"""


@dataclass
class Verdict:
    """A figure beside its baseline."""

    scenario: str
    now: Figure
    before: Figure | None
    instructions: float
    """a unit, on this very build"""
    spread: float
    """of the samples: (most - least) / median"""

    @property
    def change(self) -> float:
        """The larger change of the two, 0.2 is 20 % more; a loss hides behind no gain."""
        if self.before is None:
            return 0.0
        changes = (self.now.work / self.before.work - 1, self.now.calls / self.before.calls - 1)
        return max(changes) if max(changes) > TOLERANCE else max(changes, key=abs)

    @property
    def word(self) -> str:
        if self.before is None:
            return "new"
        return "loss" if self.change > TOLERANCE else "gain" if self.change < -TOLERANCE else "ok"


def python() -> str:
    """The version whose figures can be compared to a few per cent; others differ by ten."""
    return f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"


def count(scenarios: Sequence[str]) -> list[Verdict]:
    """Count the scenarios, in two processes; compare each with its baseline.

    Raises:
        CannotRun: valgrind or the compiler is missing, or a scenario failed.
    """
    for program, package in (("valgrind", "valgrind"), ("cc", "gcc libc6-dev")):
        if shutil.which(program) is None:
            raise CannotRun(f"{program} is needed; on Debian: apt-get install {package}")
    with tempfile.TemporaryDirectory(prefix="guard-") as name:
        folder = Path(name)
        library = folder / "requests.so"
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / "requests.c")]
        if subprocess.run(command, check=False).returncode:
            raise CannotRun("bench/guard/requests.c does not compile: are valgrind's headers here?")
        before = _baseline()
        started = [
            _start(folder / str(number), library, wanted)
            for number, process in enumerate(PROCESSES)
            if (wanted := [one for one in process if one in scenarios])
        ]
        return [verdict for run in started for verdict in _finish(*run, before)]


def _start(folder: Path, library: Path, scenarios: list[str]) -> tuple[Path, subprocess.Popen[str]]:
    folder.mkdir()
    command = [*CALLGRIND, f"--callgrind-out-file={folder}/callgrind.out", sys.executable]
    command += [str(HERE / "inside.py"), str(library), *scenarios]
    # The same hashes each time, and nothing that changes how Python runs.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}
    return folder, subprocess.Popen(
        command, env={**env, "PYTHONHASHSEED": "0"}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _finish(
    folder: Path, process: subprocess.Popen[str], before: dict[str, Figure]
) -> list[Verdict]:
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise CannotRun(f"not done in {TIMEOUT:.0f} s\n{output}") from None
    if process.returncode:
        raise CannotRun(f"counting failed ({process.returncode})\n{output}")
    samples: dict[str, list[Figure]] = {}
    for name, counted in read_dumps(folder):
        scenario, units, calls = name.rsplit("/", 2)
        figure = Figure(
            counted.instructions / int(units), (counted.calls - int(calls)) / int(units)
        )
        samples.setdefault(scenario, []).append(figure)
    reference = median(one.work for one in samples.pop(REFERENCE))
    verdicts = []
    for scenario, figures in samples.items():
        works = [one.work for one in figures]
        now = Figure(
            round(median(works) / reference, 4), round(median(one.calls for one in figures), 3)
        )
        spread = (max(works) - min(works)) / median(works)
        verdicts.append(Verdict(scenario, now, before.get(scenario), median(works), spread))
    return verdicts


def _baseline() -> dict[str, Figure]:
    stored = json.loads(BASELINE.read_text()) if BASELINE.exists() else {"scenarios": {}}
    return {name: Figure(**figure) for name, figure in stored["scenarios"].items()}


def _baseline_python() -> str:
    return str(json.loads(BASELINE.read_text())["python"]) if BASELINE.exists() else python()


def _update(verdicts: Sequence[Verdict]) -> None:
    """Make what was counted the baseline, and drop what is no scenario any more."""
    known = {**_baseline(), **{verdict.scenario: verdict.now for verdict in verdicts}}
    scenarios = {name: asdict(known[name]) for name in SCENARIOS if name in known}
    stored = {"python": python(), "scenarios": scenarios}
    BASELINE.write_text(json.dumps(stored, indent=1) + "\n")


REMEDIES = {
    "loss": (
        "the server does more work than the baseline allows. Look for what was added to that "
        "path; if it is worth it, `bench/guard/run --update`, and say so in the commit"
    ),
    "gain": (
        "so much better than the baseline that a loss would go unseen: "
        "`bench/guard/run --update`, and commit baseline.json"
    ),
    "new": "there is no baseline for it: `bench/guard/run --update`, and commit baseline.json",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; return the exit status: 1 if something is not as the baseline has it."""
    parser = argparse.ArgumentParser(
        prog="bench/guard/run",
        description="Count the instructions of the server's hot path, and compare with the "
        "baseline. What a failure means: CONTRIBUTING.md",
    )
    parser.add_argument("--update", action="store_true", help="make this the baseline")
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios whose name has it")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE")
    arguments = parser.parse_args(argv)
    try:
        verdicts = count([name for name in SCENARIOS if arguments.only in name])
    except CannotRun as error:
        print(f"guard: {error}", file=sys.stderr)
        return 2
    print(
        f"{'':26}{'work':>9}{'baseline':>10}{'calls':>8}{'baseline':>10}{'change':>9}{'spread':>8}"
    )
    for one in verdicts:
        before = one.before or Figure(0.0, 0.0)
        print(
            f"{one.scenario:26}{one.now.work:9.4f}{before.work:10.4f}{one.now.calls:8.3f}"
            f"{before.calls:10.3f}{one.change:+9.1%}{one.spread:8.1%}  {one.word}"
        )
    if arguments.json:
        bad = failing(verdicts)
        rows = [
            {**asdict(one), "change": one.change, "word": one.word, "fails": one in bad}
            for one in verdicts
        ]
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.update:
        _update(verdicts)
        return 0
    for word, remedy in REMEDIES.items():
        if any(one.word == word for one in verdicts):
            print(f"{word}: {remedy}")
    return 1 if failing(verdicts) else 0


def failing(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those that are not as they should be.

    A gain on another Python than the baseline's may be Python's, and is only told.
    """
    fine = {"ok"} if python() == _baseline_python() else {"ok", "gain"}
    return [one for one in verdicts if one.word not in fine]
