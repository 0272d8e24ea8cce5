"""``everwire demo`` and ``everwire serve``: up, used, and ended in order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from everwire import connect

Start = Callable[..., Any]
BIN = Path(sys.executable).parent

APP = """
import asyncio
from everwire import Connection, Everwire, Identity

wire = Everwire()

@wire.authenticate
async def who(token: str) -> Identity:
    return Identity(token)

@wire.query
async def loop(conn: Connection) -> str:
    return type(asyncio.get_running_loop()).__module__

@wire.command
async def stay(conn: Connection) -> None:
    print("staying", flush=True)
    await asyncio.sleep(60)

open_to_all = Everwire()
declared_open = Everwire(allow_anonymous=True)

class Box:
    wire = wire
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "inner.py").write_text(APP)
    return tmp_path


def ask(url: str, name: str, payload: Any = None, **options: Any) -> Any:
    async def ask() -> Any:
        async with connect(url, token="ada", **options) as client:
            return await client.query(name, payload)

    return asyncio.run(ask())


def get(url: str) -> tuple[str, bytes]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.headers["Content-Type"], answer.read()


def test_the_demo_answers_echo_and_time_in_every_dialect(demo: Any) -> None:
    async def use(dialect: str) -> None:
        async with connect(demo.url, token="whoever", dialect=dialect) as client:
            assert await client.query("echo", {"a": [1, None]}) == {"a": [1, None]}
            assert await client.command("echo", "x", key=False) == "x"
            told = datetime.fromisoformat(await client.query("time"))
            assert abs((datetime.now(UTC) - told).total_seconds()) < 5

    for dialect in ("everwire.v1.msgpack", "everwire.v1.json", "plain"):
        asyncio.run(use(dialect))


def test_the_demo_accepts_any_auth(demo: Any) -> None:
    async def use(given: dict[str, Any], user: str) -> None:
        async with connect(demo.url, **given) as client:
            async with client.subscribe("any/channel:at-all"):
                found = await client.presence("any/channel:at-all")
                assert [member.user for member in found.members] == [user]

    asyncio.run(use({}, ""))
    asyncio.run(use({"token": "ada"}, "ada"))
    asyncio.run(use({"credentials": {"user": "eve", "password": "x"}}, "eve"))
    asyncio.run(use({"credentials": [1, 2]}, ""))


def test_the_demo_serves_its_page_and_the_script(demo: Any) -> None:
    kind, body = get(demo.page)
    assert kind.startswith("text/html")
    assert b"<html" in body
    kind, body = get(demo.page + "everwire.js")
    assert kind.startswith("text/javascript")
    assert len(body) > 1000


@pytest.mark.parametrize("target", ["app:wire", "app", "app:Box.wire", "package.inner:wire"])
def test_serve_finds_the_application(serve: Start, folder: Path, target: str) -> None:
    served = serve("serve", target, cwd=folder)
    assert json.loads(get(f"http://127.0.0.1:{served.port}/healthz")[1])["status"] == "ok"


def test_uvloop_runs_the_server_where_it_is_installed(serve: Start, folder: Path) -> None:
    pytest.importorskip("uvloop")
    served = serve("serve", "app:wire", cwd=folder)
    assert ask(served.url, "loop").startswith("uvloop")


def test_serve_lets_everybody_in_only_if_told_so(serve: Start, folder: Path) -> None:
    served = serve("serve", "app:open_to_all", "--allow-anonymous", cwd=folder)
    assert served.port
    served = serve("serve", "app:open_to_all", cwd=folder, env={"EVERWIRE_ALLOW_ANONYMOUS": "1"})
    assert served.port
    served = serve("serve", "app:declared_open", cwd=folder)  # the application says it itself
    assert served.port


def test_options_come_from_variables_and_the_command_line_wins(
    everwire: Start, free_port: int
) -> None:
    settings = {
        "EVERWIRE_HOST": "localhost",
        "EVERWIRE_PORT": str(free_port),
        "EVERWIRE_BROKER": "memory://",
        "EVERWIRE_WORKERS": "1",
        "EVERWIRE_HTTP_PORT": "0",
        "EVERWIRE_LOG_FORMAT": "json",
        "EVERWIRE_LOG_LEVEL": "info",
    }
    child = everwire("demo", env=settings)
    child.line(rf"^everwire: ws://localhost:{free_port}/ws")
    child.signal()
    assert child.wait() == 0
    child = everwire("demo", "--host", "127.0.0.1", "--port", "0", env=settings)
    up = child.line(r"^everwire: ws://127\.0\.0\.1:(\d+)/ws")
    assert int(up[1]) != free_port


def test_ipv6_is_announced_as_urls_have_it(serve: Start, everwire: Start) -> None:
    child = everwire("demo", "--host", "::1", "--port", "0")
    url = child.line(r"^everwire: (ws://\[::1\]:\d+/ws)  page: http://\[::1\]:\d+/$")[1]
    assert ask(url, "echo", 1) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_idle_server_at_once_with_status_0(demo: Any, number: int) -> None:
    began = time.monotonic()
    demo.child.signal(number)
    assert demo.child.wait() == 0
    assert time.monotonic() - began < 1.5
    assert len(demo.child.out) == 1, "stdout has the one line"


def test_log_lines_are_json_on_stderr_if_wanted(everwire: Start) -> None:
    child = everwire("demo", "--port", "0", "--log-format", "json")
    child.line("^everwire: ")
    child.signal()
    assert child.wait() == 0
    entries = [json.loads(line) for line in child.err]
    assert any("draining" in entry["message"] for entry in entries)
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in entries)


def test_the_log_level_hides_what_is_below_it(everwire: Start) -> None:
    child = everwire("demo", "--port", "0", "--log-level", "error")
    child.line("^everwire: ")
    child.signal()
    assert child.wait() == 0
    assert child.err == []


def test_a_signal_tells_clients_to_go_before_the_server_ends(
    serve: Start, everwire: Start, demo: Any
) -> None:
    sub = everwire("sub", demo.url, "chat:lobby")
    sub.line("connected", stream="err")
    demo.child.signal()
    assert demo.child.wait() == 0
    again = serve("demo", port=demo.port)
    sub.line("connected", stream="err")
    sub.until(lambda: sum("connected" in line for line in sub.err) >= 2, "a second connection")
    assert everwire("pub", again.url, "chat:lobby", "after").wait() == 0
    sub.line('"data":"after"')


def test_a_second_signal_hastens_the_end(serve: Start, folder: Path) -> None:
    """The first waits for the command in flight; the second does not."""
    served = serve("serve", "app:wire", cwd=folder)

    async def stay() -> float:
        async with connect(served.url, token="ada") as client:
            task = asyncio.create_task(client.command("stay", key=False))
            await asyncio.to_thread(served.child.line, "^staying$")
            served.child.signal()
            await asyncio.to_thread(served.child.line, "draining", stream="err")
            began = time.monotonic()
            served.child.signal()
            assert await asyncio.to_thread(served.child.wait) == 0
            task.cancel()
            return time.monotonic() - began

    assert asyncio.run(stay()) < 1.0


def test_stdout_that_nobody_reads_does_not_stop_the_server(free_port: int) -> None:
    """As under a supervisor that closed the pipe: the line is lost, nothing else."""
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [BIN / "everwire", "demo", "--port", str(free_port)], stdout=writing, stderr=subprocess.PIPE
    ) as process:
        os.close(writing)
        assert ask(f"ws://127.0.0.1:{free_port}/ws", "echo", 1) == 1
        process.terminate()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(5) == 0


def test_tls_is_served_and_its_certificate_read_again_on_sighup(
    serve: Start, tmp_path: Path
) -> None:
    certificate = tmp_path / "wire.pem"

    def make(name: str) -> str:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", tmp_path / "key",
             "-out", tmp_path / "crt"],
            check=True, capture_output=True,
        )  # fmt: skip
        certificate.write_text((tmp_path / "crt").read_text() + (tmp_path / "key").read_text())
        return ssl.get_server_certificate(("127.0.0.1", served.port)) if served else ""

    served: Any = None
    make("one")
    child = served = serve("demo", "--tls-cert", str(certificate))
    first = ssl.get_server_certificate(("127.0.0.1", child.port))
    assert make("two") == first
    child.child.signal(signal.SIGHUP)
    child.child.line("read again", stream="err")
    assert ssl.get_server_certificate(("127.0.0.1", child.port)) != first


def test_a_key_without_a_certificate_and_a_wrong_network_are_refused(
    everwire: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_text("")
    for arguments, part in [
        (["--tls-key", tmp_path / "key.pem"], "--tls-cert"),
        (["--tls-cert", tmp_path / "key.pem"], "PEM"),
        (["--trusted-proxy", "nowhere"], "not an address"),
        (["--unix", tmp_path / "no" / "such" / "folder"], "cannot listen"),
    ]:
        child = everwire("demo", "--port", "0", *arguments)
        assert child.wait() != 0
        assert any(part in line for line in child.err), child
