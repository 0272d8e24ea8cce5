"""The six client classes of the pattern document, as they stand there, do their jobs
against ``everwire demo``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def test_the_connection_pool_sends_over_three_connections_and_keeps_them(
    demo: Any, drive: Callable[..., Any], result: Callable[..., dict[str, Any]]
) -> None:
    """Its ``{"type": "data"}`` is nothing we know: answered, and no strike."""
    assert result(drive("pool", demo.url)) == {"got": list(range(30)), "open": 3}


def test_the_heartbeat_gets_its_pongs(
    demo: Any, drive: Callable[..., Any], result: Callable[..., dict[str, Any]]
) -> None:
    outcome = result(drive("heartbeat", demo.url))
    assert outcome["open"]
    assert outcome["pongs"] >= 20


def restart(serve: Callable[..., Any], served: Any, child: Any) -> None:
    """Kill the server when the scenario asks for it, and start it again on its port."""
    child.line("^KILL$")
    served.child.kill()
    child.line("^RESTART$")
    serve("demo", port=served.port)
    child.write(b"up\n")


def test_the_reconnecting_socket_comes_back_and_sends_what_it_queued(
    serve: Callable[..., Any],
    drive: Callable[..., Any],
    result: Callable[..., dict[str, Any]],
) -> None:
    served = serve("demo")
    child = drive("reconnecting", served.url)
    restart(serve, served, child)
    outcome = result(child)
    assert outcome["opened"] == 2
    # What it queued may be flushed before our reader is there; what follows may not be lost.
    assert outcome["got"][-5:] == [5, 6, 7, 8, 9]
    assert outcome["got"] == sorted(outcome["got"])


def test_the_queued_socket_delivers_its_queue_in_order(
    demo: Any, drive: Callable[..., Any], result: Callable[..., dict[str, Any]]
) -> None:
    assert result(drive("queued", demo.url)) == {"got": list(range(80)), "left": 0}


def test_the_protocol_class_gets_responses_and_its_promises_reject_on_errors(
    demo: Any, drive: Callable[..., Any], result: Callable[..., dict[str, Any]]
) -> None:
    outcome = result(drive("protocol", demo.url))
    assert outcome["auth"]["user"] == "ada"
    assert outcome["echo"] == {"a": [1, {"b": None}]}
    assert outcome["time"] == "string"
    assert "no such thing" in outcome["refused"]
    assert outcome["history"] == []
    assert outcome["command"] == {"n": 7}
    assert outcome["after"] == "still here"
    assert (outcome["errors"], outcome["pending"]) == ([], 0)


def test_each_refusal_rejects_its_promise_and_says_why(
    serve: Callable[..., Any],
    drive: Callable[..., Any],
    result: Callable[..., dict[str, Any]],
) -> None:
    outcome = result(
        drive("refusals", serve("serve", "shop:wire", "--allow-anonymous", cwd=HERE).url)
    )
    assert outcome.pop("total") == outcome.pop("after") == {"value": 3.5}
    assert (outcome.pop("quick"), outcome.pop("pending")) == (True, 0)
    said = {name: one["refused"] for name, one in outcome.items()}
    assert said["wrong"].startswith("total: items[1].price: Expected `float`")
    assert said["missing"] == "total: items: is missing"
    assert said["unknown"] == "total: there is no parameter 'coupon'"
    assert said["nowhere"] == "there is no query 'no such resource'"
    assert said["secrets"] == "staff only"
    assert said["slow"] == "not finished within the request's timeout"
    assert said["broken"] == "the server failed; its log says how"
    assert "a message may have 100000" in said["large"]


def test_the_channel_class_subscribes_publishes_comes_back_and_unsubscribes(
    serve: Callable[..., Any],
    drive: Callable[..., Any],
    result: Callable[..., dict[str, Any]],
) -> None:
    served = serve("demo")
    child = drive("channels", served.url)
    restart(serve, served, child)
    assert result(child, 40) == {
        "got": [{"n": 1}, {"n": 2}],
        "other": [{"n": 3}, {"n": 5}],
        "errors": [300],
    }
