"""The HTTP API: what each path does, and what it refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, strategies as st
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from everwire import BrokerUnavailable, ConfigError, Everwire, RequestError
from everwire.codes import ErrorCode

from .conftest import KEY, OTHER_KEY, make_wire, post

JSON = {"Content-Type": "application/json"}


@contextmanager
def member(client: TestClient, token: str, channel: str) -> Iterator[WebSocketTestSession]:
    """Somebody who is connected, and subscribed to a channel."""
    with client.websocket_connect("/ws") as socket:
        socket.send_json({"id": 1, "type": "auth", "payload": {"token": token}})
        assert socket.receive_json()["type"] == "response"
        socket.send_json({"action": "subscribe", "channel": channel})
        assert socket.receive_json()["data"]["type"] == "subscription_confirm"
        yield socket


# ---- what it does ------------------------------------------------------------------------


def test_publish_reaches_subscribers_and_says_where_it_is_stored(client: TestClient) -> None:
    with member(client, "ada", "chat:publish") as ada:
        status, answer = post(client, "publish", {"channel": "chat:publish", "data": {"n": 1}})
        assert status == 200
        assert answer["position"]["offset"] == 1
        assert answer["duplicate"] is False
        assert ada.receive_json() == {"channel": "chat:publish", "data": {"n": 1}}


@pytest.mark.parametrize("how", ["id", "key", "quoted key"])
def test_the_same_publish_again_has_no_second_effect(client: TestClient, how: str) -> None:
    channel = f"chat:again-{how.replace(' ', '-')}"
    body = {"channel": channel, "data": 1} | ({"id": "one"} if how == "id" else {})
    key = {"id": {}, "key": {"Idempotency-Key": "k"}, "quoted key": {"Idempotency-Key": '"k2"'}}
    first = post(client, "publish", body, **key[how])
    again = post(client, "publish", body, **key[how])
    assert (first[0], first[1]["duplicate"]) == (200, False)
    assert (again[0], again[1]["duplicate"]) == (200, True)
    assert again[1]["position"] == first[1]["position"]
    assert len(post(client, "history", {"channel": channel})[1]["messages"]) == 1


def test_a_key_that_came_with_another_body_is_refused(client: TestClient) -> None:
    key = {"Idempotency-Key": "twice"}
    assert post(client, "publish", {"channel": "chat:k", "data": 1}, **key)[0] == 200
    status, problem = post(client, "publish", {"channel": "chat:k", "data": 2}, **key)
    assert (status, problem["name"], problem["temporary"]) == (409, "key_reused", False)


def test_a_broadcast_has_a_result_for_each_channel(client: TestClient) -> None:
    channels = ["chat:b1", "chat:b2", "nowhere", "chat:b1"]
    body = {"channels": channels, "data": "all"}
    status, answer = post(client, "broadcast", body, **{"Idempotency-Key": "b"})
    assert status == 200
    one, two, nowhere = answer["results"]
    assert (one["channel"], one["position"]["offset"]) == ("chat:b1", 1)
    assert (two["channel"], two["position"]["offset"]) == ("chat:b2", 1)
    assert (nowhere["position"], nowhere["error"]["name"]) == (None, "bad_channel")
    again = post(client, "broadcast", body, **{"Idempotency-Key": "b"})[1]["results"]
    assert [result["duplicate"] for result in again] == [True, True, False]


def test_history_comes_whole_and_page_by_page(client: TestClient) -> None:
    for n in range(5):
        post(client, "publish", {"channel": "chat:h", "data": n, "publisher": "ada"})
    status, last = post(client, "history", {"channel": "chat:h", "limit": 2})
    assert status == 200
    assert [message["data"] for message in last["messages"]] == [3, 4]
    assert last["messages"][0]["publisher"] == "ada"
    assert last["top"]["offset"] == 5
    first = last["messages"][0]
    since = {"epoch": last["epoch"], "offset": 0}
    page = post(client, "history", {"channel": "chat:h", "limit": 2, "since": since})[1]
    assert [message["data"] for message in page["messages"]] == [0, 1]
    assert (page["recovered"], page["complete"]) == (True, False)
    since = {"epoch": last["epoch"], "offset": first["offset"], "id": first["id"]}
    page = post(client, "history", {"channel": "chat:h", "since": since})[1]
    assert [message["data"] for message in page["messages"]] == [4]
    assert (page["recovered"], page["complete"]) == (True, True)
    page = post(client, "history", {"channel": "chat:h", "since": {"epoch": "x", "offset": 9}})[1]
    assert page["recovered"] is False


def test_bytes_go_in_and_come_out_as_base64(client: TestClient) -> None:
    text = base64.b64encode(b"\x00\xff").decode()
    body = {"channel": "chat:bytes", "data": text, "encoding": "base64"}
    assert post(client, "publish", body)[0] == 200
    message = post(client, "history", {"channel": "chat:bytes"})[1]["messages"][0]
    assert (message["data"], message["encoding"]) == (text, "base64")
    status, problem = post(client, "publish", body | {"data": "*"})
    assert (status, problem["name"]) == (400, "bad_request")


def test_presence_lists_members(client: TestClient) -> None:
    with member(client, "ada", "chat:p"), member(client, "bob", "chat:p"):
        status, answer = post(client, "presence", {"channel": "chat:p"})
        assert status == 200
        assert sorted(one["user"] for one in answer["members"]) == ["ada", "bob"]
        assert answer["count"] == 2


def test_disconnect_closes_a_users_connections(client: TestClient) -> None:
    with member(client, "eve", "chat:d") as one, member(client, "eve", "chat:d") as two:
        body = {"user": "eve", "code": 4321, "reason": "enough"}
        assert post(client, "disconnect", body) == (200, {"connections": 2})
        for socket in (one, two):
            with pytest.raises(WebSocketDisconnect) as caught:
                while True:
                    socket.receive_json()
            assert (caught.value.code, caught.value.reason) == (4321, "enough")
    assert post(client, "disconnect", {"user": "eve"}) == (200, {"connections": 0})
    status, problem = post(client, "disconnect", {"user": "eve", "code": 1006})
    assert (status, problem["name"]) == (400, "bad_request")


def test_unsubscribe_ends_a_users_subscriptions(client: TestClient) -> None:
    with member(client, "zoe", "chat:u") as zoe:
        assert post(client, "unsubscribe", {"user": "zoe", "channel": "chat:u"}) == (
            200,
            {"subscriptions": 1},
        )
        assert zoe.receive_json()["data"]["type"] == "unsubscription_confirm"
    assert post(client, "unsubscribe", {"user": "zoe", "channel": "chat:u"})[1] == {
        "subscriptions": 0
    }


def test_tenants_are_kept_apart(client: TestClient) -> None:
    with member(client, "ada", "chat:t") as plain, member(client, "acme-ada", "chat:t") as acme:
        post(client, "publish", {"channel": "chat:t", "data": 1, "tenant": "acme"})
        assert acme.receive_json()["data"] == 1
        body = {"user": "acme-ada", "tenant": "acme"}
        assert post(client, "disconnect", {"user": "acme-ada"})[1] == {"connections": 0}
        assert post(client, "disconnect", body)[1] == {"connections": 1}
        post(client, "publish", {"channel": "chat:t", "data": 2})
        assert plain.receive_json()["data"] == 2
    status, problem = post(client, "history", {"channel": "chat:t", "tenant": "a\x00chat:t"})
    assert (status, problem["name"]) == (400, "bad_request")


# ---- the key -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": OTHER_KEY},
        {"X-API-Key": "", "Authorization": f"Bearer {KEY}"},
        {"X-API-Key": "", "Authorization": f"bearer  {KEY}"},
    ],
)
def test_each_key_is_good_in_either_header(client: TestClient, headers: dict[str, str]) -> None:
    assert post(client, "presence", {"channel": "chat:x"}, **headers)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": "", "Authorization": f"Basic {KEY}"},
        {"X-API-Key": "", "Cookie": f"X-API-Key={KEY}"},
    ],
)
@pytest.mark.parametrize(
    "path", ["publish", "broadcast", "history", "presence", "disconnect", "unsubscribe"]
)
def test_without_a_key_nothing_is_read(
    client: TestClient, path: str, headers: dict[str, str]
) -> None:
    answer = client.post(f"api/{path}", content=b"no json", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["name"] == "unauthenticated"
    assert KEY not in answer.text


def test_an_application_without_a_key_has_no_api() -> None:
    wire = make_wire()
    with TestClient(wire.http()) as client:
        answer = client.post("/api/publish", json={"channel": "chat:x", "data": 1})
        assert (answer.status_code, answer.json()["name"]) == (403, "forbidden")
        assert "EVERWIRE_API_KEY" in answer.json()["message"]


@pytest.mark.parametrize("key", ["", "short", ["long-enough-0123456", "x"], "ключ" * 8])
def test_a_key_that_is_no_secret_is_refused(key: Any) -> None:
    with pytest.raises(ConfigError, match="at least 16"):
        make_wire().http(api_key=key)


# ---- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "name", "said"),
    [
        ("publish", {"data": 1}, 400, "bad_request", "channel"),
        ("publish", {"channel": "chat:x"}, 400, "bad_request", "data"),
        ("publish", {"channel": 5, "data": 1}, 400, "bad_request", "$.channel"),
        ("publish", {"channel": "chat:x", "data": 1, "tenent": "a"}, 400, "bad_request", "tenent"),
        ("publish", {"channel": "chat:x", "data": 2**64}, 400, "bad_request", "ints"),
        ("publish", {"channel": "chat:x", "data": 1, "id": "x" * 129}, 400, "bad_request", "$.id"),
        ("publish", {"channel": "chat:x", "data": 1, "publisher": "x" * 256}, 400, "bad_request", "$.publisher"),
        ("publish", [], 400, "bad_request", "object"),
        ("publish", {"channel": "nowhere", "data": 1}, 404, "bad_channel", "no pattern"),
        ("publish", {"channel": "chat: x", "data": 1}, 404, "bad_channel", "spaces"),
        ("publish", {"channel": "chat:x", "data": "x" * 17_000}, 413, "too_big", "16384"),
        ("publish", {"channel": "chat:x", "data": "x" * 90_000}, 413, "too_big", "81920"),
        ("publish", {"channel": "chat:x", "data": [[]] * 3_000}, 400, "bad_request", "2000"),
        ("broadcast", {"channels": [], "data": 1}, 400, "bad_request", "$.channels"),
        ("broadcast", {"channels": ["chat:x"] * 1001, "data": 1}, 400, "bad_request", "$.channels"),
        ("history", {"channel": "chat:x", "limit": 0}, 400, "bad_request", "$.limit"),
        ("history", {"channel": "chat:x", "limit": 10**9}, 400, "bad_request", "$.limit"),
        ("history", {"channel": "chat:x", "limit": -1}, 400, "bad_request", "$.limit"),
        ("history", {"channel": "nowhere"}, 404, "bad_channel", "no pattern"),
        ("presence", {"channel": "nowhere"}, 404, "bad_channel", "no pattern"),
        ("disconnect", {"user": ""}, 400, "bad_request", "$.user"),
        ("unsubscribe", {"user": "a", "channel": "chat:x", "code": 7}, 400, "bad_request", "7"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    client: TestClient, path: str, body: Any, status: int, name: str, said: str
) -> None:
    found, problem = post(client, path, body)
    assert (found, problem["name"]) == (status, name)
    with_key = {"Idempotency-Key": f"wrong {body!r:.99}"}
    assert post(client, path, body, **with_key)[0] == status
    assert said in problem["message"]
    assert set(problem) == {"code", "name", "message", "temporary", "outcome", "retryAfter"}


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", JSON, 400),
        (b"", JSON, 400),
        (b'{"channel":"chat:x","data":"\xff"}', JSON, 400),
        (b'{"channel":"chat:x","data":"\\ud800"}', JSON, 400),
        (b'{"channel":"chat:x","data":1e400}', JSON, 400),
        (b'{"channel":"chat:x","data":NaN}', JSON, 400),
        (b'{"channel":"chat:x","data":' + b"[" * 900 + b"]" * 900 + b"}", JSON, 400),
        (b'{"channel":"chat:x","data":' + b"[" * 70_000, JSON, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b"{}", {"Content-Type": ""}, 415),
        (b"{}", {**JSON, "Content-Encoding": "gzip"}, 415),
        (b"{}", {**JSON, "Content-Length": "9" * 30}, 413),
        (b"{}", {**JSON, "Idempotency-Key": "x" * 129}, 400),
    ],
)
def test_what_is_no_json_is_refused(
    client: TestClient, content: bytes, headers: dict[str, str], status: int
) -> None:
    if headers.get("Idempotency-Key"):
        content = b'{"channel":"chat:x","data":1}'
    answer = client.post("api/publish", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json()["message"]


def test_another_path_or_method_is_answered_as_json(client: TestClient) -> None:
    answer = client.get("api/publish")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["name"] == "bad_request"
    answer = client.get("nothing")
    assert (answer.status_code, answer.json()["name"]) == (404, "unknown_type")
    answer = client.post("api/publish/", follow_redirects=False, headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["name"]) == (404, "unknown_type")


@pytest.mark.parametrize(
    ("error", "status", "outcome", "retry"),
    [
        (BrokerUnavailable("redis://secret@host is gone"), 503, "none", "1"),
        (BrokerUnavailable("?", outcome="unknown"), 503, "unknown", "1"),
        (RequestError(code=ErrorCode.DEDUPE_FULL, retry_after=7.2), 503, "none", "8"),
        (RequestError(code=ErrorCode.RATE_LIMITED), 429, "none", "1"),
        (RequestError(code=ErrorCode.DRAINING), 503, "none", "1"),
        (RequestError(code=ErrorCode.INTERNAL), 500, "none", None),
        (RequestError("the application's own", code=9_000), 400, "none", None),
        (ZeroDivisionError("secret text"), 500, "none", None),
    ],
    ids=repr,
)
def test_what_fails_inside_has_a_status_and_tells_no_secret(
    client: TestClient,
    wire: Everwire,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    outcome: str,
    retry: str | None,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(wire.node.broker, "publish", fail)
    answer = client.post("api/publish", json={"channel": "chat:x", "data": 1})
    assert (answer.status_code, answer.json()["outcome"]) == (status, outcome)
    assert answer.headers.get("retry-after") == retry
    assert "secret" not in answer.text


def test_a_node_that_does_not_run_is_not_there_yet() -> None:
    client = TestClient(make_wire().http(api_key=KEY), headers={"X-API-Key": KEY})
    answer = client.post("/api/publish", json={"channel": "chat:x", "data": 1})
    assert (answer.status_code, answer.json()["name"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1


PATHS = ["publish", "broadcast", "history", "presence", "disconnect", "unsubscribe"]
FIELDS = ["channel", "channels", "data", "id", "tenant", "since", "limit", "user", "code",
          "reason", "encoding", "publisher"]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["chat:x", "base64", "ada", 4504, {"epoch": "", "offset": 0}]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(
    path=st.sampled_from(PATHS),
    body=st.binary(max_size=200)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(FIELDS), VALUES).map(lambda value: json.dumps(value).encode()),
)  # fmt: skip
def test_no_body_makes_it_fail(client: TestClient, path: str, body: bytes) -> None:
    answer = client.post(f"api/{path}", content=body, headers=JSON)
    assert answer.status_code in (200, 400, 404)
    assert isinstance(answer.json(), dict)
