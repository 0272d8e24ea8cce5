"""Metrics, health, readiness, and the document: what is open to those who watch."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

import everwire
from everwire import Everwire

from ..server.test_asgi_hosts import hosted
from .conftest import KEY, make_wire, post


def samples(client: TestClient) -> dict[str, float]:
    answer = client.get("metrics", headers={"X-API-Key": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name.startswith("everwire")
    }


def series(found: dict[str, float]) -> set[str]:
    return {name for name in found if not name.startswith("everwire_info")}


def test_metrics_say_what_stats_say(client: TestClient, wire: Everwire) -> None:
    with client.websocket_connect("/ws") as socket:
        socket.send_json({"id": 1, "type": "auth", "payload": {"token": "ada"}})
        socket.receive_json()
        socket.send_json({"action": "subscribe", "channel": "chat:m"})
        socket.receive_json()
        post(client, "publish", {"channel": "chat:m", "data": 1})
        socket.receive_json()
        found, stats = samples(client), wire.stats()
        assert found["everwire_connections plain"] == 1
        assert found["everwire_subscriptions"] == 1
        assert found["everwire_deliveries_total"] == stats.deliveries >= 1
        assert found["everwire_messages_received_total"] == stats.messages_in >= 2
        assert found["everwire_received_bytes_total"] == stats.bytes_in > 0
        assert found["everwire_events_total connections"] == stats.events["connections"]
        assert found["everwire_draining"] == found["everwire_broker_failing"] == 0
        assert 0 <= found["everwire_loop_lag_seconds"] < 60
    info = next(name for name in found if name.startswith("everwire_info"))
    assert {stats.node, everwire.__version__} <= set(info.split())


def test_what_clients_choose_makes_no_series(client: TestClient) -> None:
    """Channels, users, tenants and close codes of theirs: as many as they like."""

    def visit(number: int) -> None:
        with client.websocket_connect("/ws") as socket:
            socket.send_json({"id": 1, "type": "auth", "payload": {"token": f"user-{number}"}})
            socket.receive_json()
            for channel in (f"chat:{number}", f"nowhere-{number}"):
                socket.send_json({"action": "subscribe", "channel": channel})
                socket.receive_json()
            socket.send_json({"id": 2, "type": "query", "payload": {"resource": f"q{number}"}})
            socket.receive_json()
            post(
                client, "publish", {"channel": f"chat:{number}", "data": 1, "tenant": f"t{number}"}
            )
            socket.close(4600 + number)

    visit(0)
    before = series(samples(client))
    for number in range(1, 30):
        visit(number)
    assert series(samples(client)) == before


def test_a_node_that_does_not_run_has_no_metrics_and_is_not_ready() -> None:
    client = TestClient(make_wire().http())
    assert samples(client) == {}
    assert client.get("/healthz").json() == {"status": "ok"}
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "stopped"})


def test_the_same_two_applications_in_a_process_have_metrics_each() -> None:
    one, other = make_wire(), make_wire()
    with TestClient(one.asgi()), TestClient(other.asgi()):
        first, second = (samples(TestClient(wire.http())) for wire in (one, other))
    assert first.keys() - second.keys() != set()  # the nodes' ids
    assert series(first) == series(second)


def test_ready_is_a_node_that_takes_clients(client: TestClient, wire: Everwire) -> None:
    def ready() -> tuple[int, str]:
        answer = client.get("readyz", headers={"X-API-Key": ""})
        assert client.get("healthz").status_code == 200  # alive it is throughout
        return answer.status_code, answer.json()["status"]

    node = wire.node
    assert ready() == (200, "ok")
    node.draining = True
    assert ready() == (503, "draining")
    node.draining = False
    failed, node.tally.broker_failed_at = node.tally.broker_failed_at, node.wheel.now
    assert ready() == (503, "broker_failing")
    node.tally.broker_failed_at = failed
    assert ready() == (200, "ok")


def test_the_document_describes_every_path_and_its_bodies(client: TestClient) -> None:
    document = client.get("openapi.json", headers={"X-API-Key": ""}).json()
    assert document["openapi"].startswith("3.1")
    posts = {path for path, methods in document["paths"].items() if "post" in methods}
    assert posts == {
        f"/api/{name}"
        for name in ("publish", "broadcast", "history", "presence", "disconnect", "unsubscribe")
    }
    schemas = document["components"]["schemas"]
    publish = schemas["Publish"]
    assert publish["required"] == ["channel", "data"]
    assert publish["additionalProperties"] is False
    assert publish["properties"]["channel"]["maxLength"] == 255
    for reference in references(document):
        assert reference.rpartition("/")[2] in schemas
    statuses = set(document["paths"]["/api/publish"]["post"]["responses"])
    assert {"200", "400", "401", "409", "413", "415", "503"} <= statuses


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for inner in value.values() for found in references(inner)]
    if isinstance(value, list):
        return [found for inner in value for found in references(inner)]
    return []


def test_it_is_mounted_into_fastapi_as_well() -> None:
    api, wire = hosted()
    api.mount("/internal", wire.http(api_key=KEY))
    with TestClient(api) as client:
        answer = client.post(
            "/internal/api/publish",
            json={"channel": "chat:x", "data": 1},
            headers={"X-API-Key": KEY},
        )
        assert answer.json()["position"]["offset"] == 1
        assert client.get("/internal/readyz").status_code == 200


@pytest.mark.parametrize("accept", ["application/openmetrics-text", "text/plain", ""])
def test_scrapes_get_the_form_that_they_ask_for(client: TestClient, accept: str) -> None:
    answer = client.get("metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(accept or "text/plain")
    assert answer.text.endswith("# EOF\n") == accept.startswith("application")
