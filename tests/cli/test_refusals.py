"""What the command line refuses, with which exit status, and that it says the remedy."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Everwire = Callable[..., Any]

CHAT = """
from everwire import Everwire, Identity
wire = Everwire()
other = Everwire()
number = 7

@other.authenticate
async def who(token: str) -> Identity:
    return Identity(token)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "chat.py").write_text(CHAT)
    (tmp_path / "broken.py").write_text("import no_such_module_at_all\n")
    (tmp_path / "wrong.py").write_text("1 / 0\n")
    (tmp_path / "bare.py").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--workers", "2", "one worker works today"),
        ("--http-port", "65536", "65536"),
        ("--broker", "sqlite:///x.db", "not built yet; memory:// works today"),
        ("--broker", "redis://127.0.0.1", "not built yet; memory:// works today"),
        ("--broker", "rediss://127.0.0.1", "not built yet; memory:// works today"),
        ("--broker", "redis+sentinel://a", "not built yet; memory:// works today"),
        ("--broker", "redis+cluster://a", "not built yet; memory:// works today"),
        ("--broker", "nats://127.0.0.1", "not built yet; memory:// works today"),
        ("--broker", "carrier-pigeon", "there is no broker"),
        ("--port", "65536", "65536"),
        ("--log-format", "xml", "xml"),
    ],
)
def test_what_is_not_built_is_refused_with_status_2(
    everwire: Everwire, option: str, value: str, said: str
) -> None:
    child = everwire("demo", option, value)
    assert child.wait() == 2
    assert said in " ".join(" ".join(child.err).split())
    assert not child.out


def test_serve_refuses_the_same_as_demo(everwire: Everwire, folder: Path) -> None:
    for option in ("--workers=2", "--broker=nats://a"):
        child = everwire("serve", "chat:other", option, cwd=folder)
        assert child.wait() == 2
        assert "works today" in " ".join(" ".join(child.err).split())


def test_a_refusal_comes_for_a_variable_too(everwire: Everwire, folder: Path) -> None:
    child = everwire("demo", env={"EVERWIRE_WORKERS": "3"})
    assert child.wait() == 2
    assert "one worker works today" in " ".join(child.err)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_the_demo_listens_on_loopback_only(everwire: Everwire, host: str) -> None:
    child = everwire("demo", "--host", host, "--port", "0")
    assert child.wait() == 2
    assert "loopback only" in " ".join(child.err)


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("chat:wire", 2, "no authenticate handler"),
        ("chat:number", 2, "is of type int, not an Everwire"),
        ("chat:nothing", 2, "has no 'nothing'"),
        ("bare", 2, "has no 'wire'"),
        ("absent:wire", 2, "no module 'absent'"),
        ("chat.py:wire", 2, "without .py"),
        ("./chat:wire", 2, "write MODULE:APP"),
        ("broken:wire", 1, "no_such_module_at_all"),
        ("wrong:wire", 1, "ZeroDivisionError"),
    ],
)
def test_a_target_that_cannot_be_served_is_refused(
    everwire: Everwire, folder: Path, target: str, status: int, said: str
) -> None:
    child = everwire("serve", target, "--port", "0", cwd=folder)
    assert child.wait() == status
    assert said in " ".join(" ".join(child.err).split())
    assert not child.out


def test_a_taken_port_ends_with_status_1_and_a_remedy(everwire: Everwire) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        child = everwire("demo", "--port", str(port))
        assert child.wait() == 1
    assert str(port) in child.err[-1]
    assert "--port" in child.err[-1]
    assert len(child.err) == 1, "one line"


@pytest.mark.parametrize("command", ["sub", "pub"])
def test_a_url_that_is_none_is_refused(everwire: Everwire, command: str) -> None:
    child = everwire(command, "http://127.0.0.1:8000/ws", "chat:lobby", stdin=True)
    assert child.wait() == 2
    assert "ws://" in " ".join(child.err)


@pytest.mark.parametrize("arguments", [["--text", "--json"], ["--json", "{oops"]])
def test_pub_refuses_what_cannot_be_meant(everwire: Everwire, arguments: list[str]) -> None:
    child = everwire("pub", "ws://127.0.0.1:1/ws", "chat:lobby", *arguments)
    assert child.wait() == 2
