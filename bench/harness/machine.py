"""What the figures were measured on, and with: compiling, versions, CPU time."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
OUT = BENCH / "out"
PROGRAMS = {"load": ["load.c", "load_dialects.c"], "floor": ["floor.c"]}
FLAGS = ["-O2", "-std=c11", "-Wall", "-Wextra"]
PACKAGES = ("everwire", "picows", "aiofastnet", "uvloop", "msgspec", "websockets")


class CannotRun(Exception):
    """Something is missing; the text says what, and the remedy."""


def compile_programs() -> None:
    """Compile the generator and the floor, if they are older than their sources."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise CannotRun("a C compiler is needed; on Debian: apt-get install gcc libc6-dev")
    OUT.mkdir(exist_ok=True)
    newest = max(path.stat().st_mtime for path in BENCH.glob("*.[ch]"))
    for name, sources in PROGRAMS.items():
        target = OUT / name
        if target.exists() and target.stat().st_mtime > newest:
            continue
        command = [compiler, *FLAGS, "-o", str(target), *sources]
        if subprocess.run(command, cwd=BENCH, check=False).returncode:
            raise CannotRun(f"{name} does not compile")


def raise_file_limit(wanted: int) -> int:
    """Allow as many open files as possible; return how many that are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        try:  # root may
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
        except (ValueError, PermissionError):
            pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def facts(cores: tuple[int, int]) -> dict[str, object]:
    """Everything that a figure depends on."""
    return {
        "kernel": platform.release(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "cores_used": {"server": cores[0], "generator": cores[1]},
        "python": platform.python_version(),
        "congestion_control": _read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "load_average_before": os.getloadavg(),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["cc"] = first_line(["cc", "--version"])
    return found


def first_line(command: list[str]) -> str:
    """The first line that a command prints, "" if it cannot run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next(iter((done.stdout or done.stderr).splitlines()), "")


def _cpu() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def cpu_ns(pid: int) -> int:
    """CPU time of a process so far, user and system, over all its threads."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[0])
        except OSError:  # a thread that just ended
            continue
    return total


def rss(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
