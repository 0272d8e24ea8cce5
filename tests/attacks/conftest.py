from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..conftest import BIN, Child, eventually
from .peer import Peer

HERE = Path(__file__).parent
SLOWEST = 0.1
GROWTH = 20  # MiB


class Target:
    """A server under attack, and somebody else who uses it meanwhile.

    Attributes:
        port: where it listens.
        secrets: what must never be in its log.
    """

    def __init__(self, app: str, *options: str, descriptors: int = 0) -> None:
        command: list[str | Path] = [BIN / "everwire", "serve", app, "--port", "0", *options]
        if descriptors:
            command = ["prlimit", f"--nofile={descriptors}:{descriptors}", *command]
        self.child = Child(command, cwd=HERE)
        self.port = int(self.child.line(r"^everwire: ws://\S+:(\d+)/ws")[1])
        self.secrets = ["t0p-s3cret"]
        self._bystander = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                HERE / "bystander.py",
                str(self.port),
                str(self.child.pid),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.longest()

    def longest(self) -> float:
        """The bystander's longest round trip since this was asked last."""
        stdin, stdout = self._bystander.stdin, self._bystander.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write("\n")
        stdin.flush()
        return float(stdout.readline())

    def rss(self) -> float:
        """Its resident memory, in MiB."""
        for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError

    def unread(self) -> int:
        """Bytes that the kernel holds for it, of connections that last."""
        found = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, queues, *_ = line.split()
            if state == "01" and int(local.partition(":")[2], 16) == self.port:
                found += int(queues.partition(":")[2], 16)
        return found

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.child.pid}/fd").iterdir()))

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def attack(self, case: Callable[[], None], *, lines: int = 0, again: bool = True) -> None:
        """Run ``case``: whatever it is, nobody else is to notice.

        The server lives and takes new connections, somebody else's round trip stays short
        (measured twice if need be, for a busy machine), memory comes back, and
        the log has at most ``lines`` new lines, without secrets or control characters.
        """
        before, logged = self.rss(), len(self.child.err)
        self.longest()
        case()
        longest = self.longest()
        if longest >= SLOWEST and again:
            self.attack(case, lines=lines, again=False)
            return
        assert self.child.process.poll() is None, self.child
        with Peer(self.port) as peer:
            peer.say('{"type":"ping"}')
            assert peer.message if peer.accepted else peer.head
        assert longest < SLOWEST, f"somebody else waited for {longest:.3f} s"
        returned = eventually(lambda: self.rss() - before <= GROWTH)
        assert returned, f"the server grew by {self.rss() - before:.0f} MiB"
        time.sleep(0.05)  # for lines that are not to come there is no sign to wait for
        new = self.child.err[logged:]
        assert len(new) <= lines * (1 if again else 2), new[:20]
        for line in new:
            assert line.isprintable(), line
            assert not any(secret in line for secret in self.secrets), line

    def stop(self) -> None:
        self._bystander.kill()
        self._bystander.communicate()
        self.child.stop()


@pytest.fixture(scope="package")
def target() -> Iterator[Target]:
    """A server with the usual limits."""
    made = Target("app:wire")
    yield made
    made.stop()


@pytest.fixture(scope="package")
def brief() -> Iterator[Target]:
    """A server whose patience is short, so that tests need less of it."""
    made = Target("app:brief")
    yield made
    made.stop()


@pytest.fixture(scope="package")
def compressing() -> Iterator[Target]:
    """A server that agrees to compression, and lets pages of two origins connect."""
    origins = ["--origin", "https://ok.example", "--origin", "http://local.example:8080"]
    made = Target("app:wire", "--compression", *origins)
    yield made
    made.stop()


@pytest.fixture
def special() -> Iterator[Callable[..., Target]]:
    """Start one for a test alone: ``special("app:wire", descriptors=64)``."""
    made: list[Target] = []

    def start(app: str, **settings: int) -> Target:
        made.append(Target(app, **settings))
        return made[-1]

    yield start
    for one in made:
        one.stop()
