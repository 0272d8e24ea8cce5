"""The HTTP application inside another one, asked without a network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from everwire import Everwire, Grant, Identity, Limits

KEY, OTHER_KEY = "a-key-of-a-test-000", "another-key-of-a-test"


def make_wire() -> Everwire:
    wire = Everwire(limits=Limits(message=16_384, elements=2_000))
    wire.channel("chat:{room}", presence=True, grant=Grant(publish=True))

    @wire.authenticate
    async def who(token: str) -> Identity:
        return Identity(token, tenant="acme" if token == "acme-ada" else "")

    return wire


@pytest.fixture(scope="module")
def wire() -> Everwire:
    return make_wire()


@pytest.fixture(scope="module")
def client(wire: Everwire) -> Iterator[TestClient]:
    """Asks an application that the HTTP application is mounted into."""
    host = Starlette()
    wire.attach(host, "/ws")
    host.mount("/internal", wire.http(api_key=[KEY, OTHER_KEY]))
    headers = {"X-API-Key": KEY}
    with TestClient(host, base_url="http://host/internal", headers=headers) as client:
        yield client


def post(client: TestClient, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    answer = client.post(f"api/{path}", json=body, headers=headers)
    return answer.status_code, answer.json()
