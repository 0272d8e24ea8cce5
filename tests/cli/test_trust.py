"""Servers whose certificate the system does not know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]


@pytest.fixture
def certificate(authority: Callable[[str], Path]) -> Path:
    return authority("127.0.0.1")


@pytest.fixture
def secure(serve: Start, certificate: Path) -> Any:
    return serve("demo", "--tls-cert", str(certificate))


@pytest.fixture
def ca(certificate: Path) -> tuple[str, str]:
    return "--ca", str(certificate.parent / "ca.pem")


def test_every_command_trusts_what_ca_names(
    secure: Any, ca: tuple[str, str], everwire: Start
) -> None:
    assert secure.url.startswith("wss://")
    sub = everwire("sub", secure.url, "chat:a", "--count", "1", *ca)
    sub.line("connected", stream="err")
    pub = everwire("pub", secure.url, "chat:a", "1", *ca)
    assert pub.wait() == 0, pub
    assert sub.wait() == 0, sub
    assert json.loads(sub.out[0])["data"] == 1
    bench = everwire(
        "bench", secure.url, "--connections", "1", "--duration", "0.2", "--warmup", "0", *ca
    )
    assert bench.wait(30) == 0, bench


@pytest.mark.parametrize("command", ["sub", "pub", "bench"])
def test_without_it_the_option_is_named(secure: Any, everwire: Start, command: str) -> None:
    arguments = [] if command == "bench" else ["chat:a"]
    child = everwire(command, secure.url, *arguments)
    assert child.wait() == 1
    assert "its certificate is not trusted" in child.err[-1]
    assert "--ca FILE" in child.err[-1]


@pytest.mark.parametrize("command", ["sub", "pub"])
@pytest.mark.parametrize(
    ("scheme", "file", "said"),
    [("ws", __file__, "only wss://"), ("wss", __file__, "PEM"), ("wss", "absent", "absent")],
)
def test_a_file_that_cannot_be_meant_is_refused_with_status_2(
    everwire: Start, command: str, scheme: str, file: str, said: str
) -> None:
    child = everwire(command, f"{scheme}://127.0.0.1:1/ws", "chat:a", "--ca", file)
    assert child.wait() == 2
    assert said in " ".join(" ".join(child.err).split())
