"""The servers under test: how each is started, and how it is spoken to."""

from __future__ import annotations

import base64
import hmac
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .machine import BENCH, OUT, CannotRun, cpu_ns, first_line

PEERS = BENCH / "peers"
START_TIMEOUT = 20.0
SECRET = "bench"


@dataclass
class Kind:
    """A sort of server: what to run, and which dialect to speak to it."""

    name: str
    command: Callable[[int, Path], list[str]]
    fanout: str = "plain"
    pairs: str = "plain"
    cwd: Path = BENCH
    env: dict[str, str] = field(default_factory=dict)
    missing: Callable[[], str] = lambda: ""
    """how to install it, if it is not"""
    version: Callable[[], str] = lambda: ""
    has_pairs: bool = True
    is_reference: bool = False
    """not a product: what the language and the library cost by themselves"""


class Server:
    """A running server, pinned to one core; ended by its own pid."""

    def __init__(self, kind: Kind, core: int) -> None:
        self.kind = kind
        self._dir = tempfile.TemporaryDirectory(prefix="bench-")
        self.port = _free_port()
        self.command = ["taskset", "-c", str(core), *kind.command(self.port, Path(self._dir.name))]
        self._log = Path(self._dir.name, "log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=kind.cwd,
                env={**os.environ, "BENCH_SECRET": SECRET, **kind.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.pid = self.process.pid
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise CannotRun(f"{self.kind.name} does not start:\n{self.log()}")

    def log(self) -> str:
        """The end of what it wrote."""
        return self._log.read_text(errors="replace")[-2000:]

    def wait_until_quiet(self, share: float = 0.05, timeout: float = 15.0) -> None:
        """Wait until what the last run left behind is done."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            before = cpu_ns(self.pid)
            time.sleep(0.1)
            if cpu_ns(self.pid) - before < share * 1e8:
                return

    def stop(self) -> None:
        """End it: it has nothing to lose. Twice is once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._dir.cleanup()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def token(user: str = "bench") -> str:
    """An HS256 JWT that bench/app.py accepts."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = {"sub": user, "exp": int(time.time()) + 3600}
    signed = ".".join(part(json.dumps(one).encode()) for one in ({"alg": "HS256"}, claims))
    return f"{signed}.{part(hmac.digest(SECRET.encode(), signed.encode(), 'sha256'))}"


def everwire(name: str = "everwire", source: str | None = None) -> Kind:
    """Our server; ``source`` is a directory with another version of the package."""

    def command(port: int, _: Path) -> list[str]:
        entry = [sys.executable, "-m", "everwire", "serve", "app:wire"]
        return [*entry, "--port", str(port), "--log-level", "warning"]

    env = {"PYTHONPATH": os.path.abspath(source)} if source else {}
    return Kind(name, command, fanout="plain", pairs="msgpack", env=env)


FLOOR = Kind(
    "C floor", lambda port, _: [str(OUT / "floor"), str(port)], fanout="plain", pairs="msgpack"
)


# ---- peers ---------------------------------------------------------------------


def _nchan_module() -> str:
    for folder in ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"):
        if Path(folder, "ngx_nchan_module.so").exists():
            return folder
    return ""


def _nginx(port: int, folder: Path) -> list[str]:
    text = (PEERS / "nginx.conf").read_text()
    for name, value in (("MODULES", _nchan_module()), ("DIR", str(folder)), ("PORT", str(port))):
        text = text.replace(f"@{name}@", value)
    config = folder / "nginx.conf"
    config.write_text(text)
    return ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(config)]


def _nats(port: int, folder: Path) -> list[str]:
    text = (PEERS / "nats.conf").read_text().replace("@PORT@", str(port))
    config = folder / "nats.conf"
    config.write_text(text.replace("@CLIENT_PORT@", str(_free_port())))
    return ["nats-server", "-c", str(config)]


def _node(script: str) -> Callable[[int, Path], list[str]]:
    return lambda port, _: ["node", str(PEERS / script), str(port)]


def _node_missing(package: str) -> Callable[[], str]:
    def missing() -> str:
        if shutil.which("node") is None:
            return "install Node.js 20 or newer, then run `npm ci` in bench/peers"
        return "" if (PEERS / "node_modules" / package).exists() else "run `npm ci` in bench/peers"

    return missing


def _node_version(package: str) -> Callable[[], str]:
    def version() -> str:
        described = json.loads((PEERS / "node_modules" / package / "package.json").read_text())
        return f"{described['version']}, node {first_line(['node', '--version'])}"

    return version


def _packages_missing(program: str, packages: str) -> Callable[[], str]:
    return lambda: "" if shutil.which(program) else f"apt-get install {packages}"


def _python_missing() -> str:
    found = importlib.util.find_spec("websockets")
    return "" if found else f"{sys.executable} -m pip install websockets"


def _nchan_version() -> str:
    nginx = re.sub(r".*/", "", first_line(["nginx", "-v"]))
    package = first_line(["dpkg-query", "-f", "${Version}", "-W", "libnginx-mod-nchan"])
    return f"{package}, nginx {nginx}"


PEER_KINDS = (
    Kind(
        "picows, bare",
        lambda port, _: [sys.executable, str(PEERS / "picows_bare.py"), str(port)],
        pairs="msgpack",
        is_reference=True,
    ),
    Kind(
        "nchan (nginx)",
        _nginx,
        fanout="nchan",
        has_pairs=False,  # a publisher's URL names its channel
        missing=lambda: (
            ""
            if shutil.which("nginx") and _nchan_module()
            else "apt-get install nginx libnginx-mod-nchan"
        ),
        version=_nchan_version,
    ),
    Kind(
        "nats-server",
        _nats,
        fanout="nats",
        pairs="nats",
        missing=_packages_missing("nats-server", "nats-server"),
        version=lambda: first_line(["nats-server", "--version"]),
    ),
    Kind("Node ws", _node("ws.mjs"), missing=_node_missing("ws"), version=_node_version("ws")),
    Kind(
        "Socket.IO",
        _node("socketio.mjs"),
        fanout="socketio",
        pairs="socketio",
        missing=_node_missing("socket.io"),
        version=_node_version("socket.io"),
    ),
    Kind(
        "Python websockets",
        lambda port, _: [sys.executable, str(PEERS / "websockets_server.py"), str(port)],
        missing=_python_missing,
    ),
)
