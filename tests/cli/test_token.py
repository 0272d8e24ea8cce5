"""``everwire token`` signs what a server with the same secret accepts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everwire import JWT

Everwire = Callable[..., Any]
SECRET = "s" * 64


def test_what_is_signed_is_accepted(everwire: Everwire, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    options = ["--claim", "org=acme", "--claim", 'info={"name": "Ada"}', "--expires-in", "60"]
    jwt = JWT(SECRET, algorithms=["HS256"], tenant="org", info="info")
    for settings in (
        {"args": ["--secret-file", "secret"]},
        {"env": {"EVERWIRE_SECRET": SECRET}},
    ):
        child = everwire(
            "token", "ada", *options, *settings.get("args", []), cwd=tmp_path,
            env=settings.get("env"),
        )  # fmt: skip
        assert child.wait() == 0, child
        identity = asyncio.run(jwt(child.out[0]))  # type: ignore[arg-type]
        assert (identity.user, identity.tenant, identity.info) == ("ada", "acme", {"name": "Ada"})


def test_the_token_of_a_channel(everwire: Everwire) -> None:
    child = everwire(
        "token", "ada", "--channel", "private:7", "--claim", "publish=true",
        env={"EVERWIRE_SECRET": SECRET},
    )  # fmt: skip
    assert child.wait() == 0, child
    rights = asyncio.run(JWT(SECRET, algorithms=["HS256"]).channel(child.out[0]))
    assert (rights.user, rights.channel, rights.grant.publish) == ("ada", "private:7", True)


@pytest.mark.parametrize(
    ("args", "secret", "why"),
    [
        ([], "", "no secret"),
        ([], "t0p-s3cret", "32 bytes"),
        (["--claim", "publish"], SECRET, "NAME=VALUE"),
        (["--claim", "exp=5"], SECRET, "--expires-in"),
        (["--algorithm", "none"], SECRET, "HS256"),
    ],
)
def test_what_cannot_be_signed_is_refused_and_the_secret_not_shown(
    everwire: Everwire, args: list[str], secret: str, why: str
) -> None:
    child = everwire("token", "ada", *args, env={"EVERWIRE_SECRET": secret})
    assert child.wait() != 0
    assert why in "\n".join(child.err)
    assert not child.out
    assert "s3cret" not in "\n".join(child.err)
