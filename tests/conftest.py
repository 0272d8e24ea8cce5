"""What tests of several folders share: processes on free ports, stopped by their pid."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

import pytest
from hypothesis import settings

# The same examples each time: a run says something about the change, not about luck.
# Look for more with EVERWIRE_EXAMPLES, or with --hypothesis-profile=explore.
settings.register_profile("explore", deadline=None, derandomize=False)
settings.register_profile("everwire", deadline=None, derandomize=True)
settings.load_profile("everwire")

BIN = Path(sys.executable).parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)  # processes under test inherit it


def eventually(condition: Callable[[], object], within: float = 8.0) -> bool:
    """Whether ``condition`` holds before ``within`` seconds are over; it is asked until it does."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)  # between one question and the next
    return True


class Child:
    """A process under test, its output read line by line as it comes."""

    def __init__(
        self,
        args: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bool = False,
    ) -> None:
        self.args = [str(arg) for arg in args]
        # Settings of whoever runs the tests must not reach what is tested.
        clean = {key: value for key, value in os.environ.items() if not key.startswith("EVERWIRE_")}
        self.process = subprocess.Popen(
            self.args,
            cwd=cwd,
            env={**clean, **(env or {})},
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.pid = self.process.pid
        self.out: list[str] = []
        self.err: list[str] = []
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(pipe, lines), daemon=True)
            for pipe, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: IO[bytes], lines: list[str]) -> None:
        with pipe:
            for line in pipe:
                with self._news:
                    lines.append(line.decode(errors="replace").rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def until(self, condition: Callable[[], object], what: str, timeout: float = 15) -> None:
        """Wait until ``condition`` holds; it is asked after each line of output."""
        deadline = time.monotonic() + timeout
        with self._news:
            while not condition():
                ended = not any(reader.is_alive() for reader in self._readers)
                if ended or not self._news.wait(min(0.1, deadline - time.monotonic())):
                    if condition():
                        return
                    if ended or time.monotonic() >= deadline:
                        pytest.fail(f"{what} did not come from {self}")

    def line(self, pattern: str, *, stream: str = "out", timeout: float = 15) -> re.Match[str]:
        """Wait for a line that ``pattern`` is found in."""
        lines: list[str] = getattr(self, stream)
        found: list[re.Match[str]] = []

        def search() -> bool:
            found[:] = [match for line in list(lines) if (match := re.search(pattern, line))]
            return bool(found)

        self.until(search, f"a line like {pattern!r}", timeout)
        return found[0]

    def write(self, data: bytes) -> None:
        """Write to the process's stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end_input(self) -> None:
        """Close the process's stdin."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to this process alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it the hard way, as a power cut would."""
        self.process.kill()
        self.wait()

    def wait(self, timeout: float = 15) -> int:
        """Wait for the end and for all output; return the exit status."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"no end within {timeout} s of {self}")
        for reader in self._readers:
            reader.join(5)
        return status

    def stop(self) -> None:
        """End it, whatever it does; idempotent."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        if self.process.stdin is not None and not self.process.stdin.closed:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        for reader in self._readers:
            reader.join(5)

    def __repr__(self) -> str:
        out, err = "\n  ".join(self.out[-20:]), "\n  ".join(self.err[-40:])
        return (
            f"{' '.join(self.args)} (status {self.process.poll()})\nstdout:\n  {out}\n"
            f"stderr:\n  {err}"
        )


class Served(NamedTuple):
    """A server that is up."""

    url: str
    page: str
    port: int
    child: Child


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    """Start processes: ``start([...], cwd=, env=, stdin=)``; each is stopped after the test."""
    children: list[Child] = []

    def start(args: Sequence[str | Path], **options: object) -> Child:
        children.append(Child(args, **options))  # type: ignore[arg-type]
        return children[-1]

    yield start
    for child in reversed(children):
        child.stop()


@pytest.fixture
def everwire(start: Callable[..., Child]) -> Callable[..., Child]:
    """Start the command: ``everwire("sub", url, "chat:lobby", cwd=, env=, stdin=)``."""

    def everwire(*args: str | Path, **options: object) -> Child:
        return start([BIN / "everwire", *args], **options)

    return everwire


@pytest.fixture
def serve(everwire: Callable[..., Child]) -> Callable[..., Served]:
    """Start a server and wait until it is up: ``serve("demo")``, ``serve("serve", "chat:wire")``."""

    def serve(*args: str, port: int = 0, **options: object) -> Served:
        child = everwire(*args, "--port", str(port), **options)
        up = child.line(r"^everwire: (wss?://\S+:(\d+)/ws)(?:  page: (https?://\S+))?$")
        return Served(up[1], up[3] or "", int(up[2]), child)

    return serve


@pytest.fixture
def demo(serve: Callable[..., Served]) -> Served:
    """The demo server, on a free port."""
    return serve("demo")


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else can take meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make a certificate for an address, signed by the authority in ``ca.pem`` beside it."""
    folder = tmp_path_factory.mktemp("authority")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

    def openssl(*args: str | Path) -> None:
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=30)

    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    openssl("req", "-x509", *key, "-keyout", ca_key, "-out", ca, "-days", "2",
            "-subj", "/CN=test authority")  # fmt: skip

    def certificate(address: str) -> Path:
        name = address.replace(".", "-")
        request, plain, whole = (folder / f"{name}.{end}" for end in ("csr", "crt", "pem"))
        kind = "IP" if address[0].isdigit() else "DNS"
        extensions = folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={kind}:{address}\n")
        openssl("req", *key, "-keyout", whole, "-out", request, "-subj", f"/CN={address}")
        openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
                "-days", "2", "-out", plain, "-extfile", extensions)  # fmt: skip
        whole.write_bytes(whole.read_bytes() + plain.read_bytes())
        return whole

    return certificate
