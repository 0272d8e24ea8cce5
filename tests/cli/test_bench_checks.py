"""What ``everwire bench`` checks with, and that it finds out a server that fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, strategies as st
from websockets.sync.server import ServerConnection, serve as ws_serve
from websockets.typing import Subprotocol

from everwire.cli.bench_check import Checker, Numbers
from everwire.cli.bench_histogram import Histogram

Start = Callable[..., Any]
QUICK = ("--duration", "1", "--warmup", "0.2")


def loaded(child: Any, status: int = 0) -> dict[str, Any]:
    """What a run with ``--json -`` said."""
    assert child.wait(40) == status, child
    found: dict[str, Any] = json.loads("\n".join(child.out))
    return found


def sets(numbers: Numbers) -> set[int]:
    return {n for first, last in numbers.ranges for n in range(first, last + 1)}


@given(st.lists(st.integers(1, 40)), st.lists(st.integers(1, 40)))
def test_numbers_are_a_set(put: list[int], taken: list[int]) -> None:
    numbers, model = Numbers(), set[int]()
    for n in put:
        if n not in model:
            numbers.add(n, n)
            model.add(n)
    for n in taken:
        assert numbers.discard(n) == (n in model)
        model.discard(n)
    assert sets(numbers) == model
    assert len(numbers) == len(model)
    ends = [end for one in numbers.ranges for end in one]
    assert ends == sorted(ends)
    gaps = zip(numbers.ranges, numbers.ranges[1:], strict=False)
    assert all(last + 1 < first for (_, last), (first, _) in gaps)


@given(st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)))
def test_numbers_without_others_are_counted(ours: set[int], theirs: set[int]) -> None:
    one, other = Numbers(), Numbers()
    for numbers, wanted in ((one, ours), (other, theirs)):
        for n in wanted:
            numbers.add(n, n)
    assert one.without(other) == len(ours - theirs)


@given(st.lists(st.integers(1, 12)), st.sets(st.integers(1, 12)))
def test_a_checker_counts_what_is_lost_doubled_and_out_of_order(
    came: list[int], refused: set[int]
) -> None:
    checker, excused = Checker(2), Numbers()
    for n in refused:
        excused.add(n, n)
    seen: set[int] = set()
    doubled = misordered = 0
    for n in came:
        assert checker.received(1, n) == (n not in seen)
        if n in seen:
            doubled += 1
        elif seen and n < max(seen):
            misordered += 1
        seen.add(n)
    assert checker.doubled == doubled
    assert checker.misordered == misordered
    assert checker.lost(1, 12, excused) == len(set(range(1, 13)) - seen - refused)
    assert checker.lost(0, 3, Numbers()) == 3, "another publisher's are counted apart"


@given(st.lists(st.integers(0, 2**62), min_size=1))
def test_a_histogram_errs_by_a_sixty_fourth_at_most(values: list[int]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    buckets = list(histogram.buckets())
    assert sum(count for _, _, count in buckets) == histogram.count == len(values)
    assert histogram.highest == max(values)
    for low, high, count in buckets:
        assert count == sum(low <= value <= high for value in values)
        assert high - low <= low / 64
    ordered = sorted(values)
    for part in (0.5, 0.9, 1.0):
        exact = next(v for i, v in enumerate(ordered, 1) if i >= part * len(ordered))
        assert exact <= histogram.percentile(part) <= exact * 65 / 64


def test_an_empty_histogram_and_a_clock_that_stepped_back_do_no_harm() -> None:
    histogram = Histogram()
    assert histogram.percentile(0.5) == 0
    histogram.record(-5)
    assert list(histogram.buckets()) == [(0, 0, 1)]


Deliver = Callable[[int, Callable[[int], None]], None]


class Faulty:
    """A server that acknowledges every publish, and delivers as it is told to.

    Args:
        deliver: is called with a publish's number and a function that delivers a number to
            the subscriber; None: nothing is even acknowledged.
    """

    def __init__(self, deliver: Deliver | None) -> None:
        self.published: list[dict[str, Any]] = []
        self._deliver = deliver
        self._subscriber: ServerConnection | None = None
        self._offset = 0
        self._server = ws_serve(
            self._talk,
            "127.0.0.1",
            0,
            subprotocols=[Subprotocol("everwire.v1.json")],
        )
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}/ws"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(5)

    def _talk(self, link: ServerConnection) -> None:
        hello = {"version": 1, "node": "n", "connection": "c", "time": 0, "features": []}
        self._say(link, "hello", **hello, pingInterval=20_000, limits={})
        for text in link:
            asked = json.loads(text)
            match asked["type"]:
                case "auth":
                    if asked.get("subscribe"):
                        self._subscriber = link
                    results = [
                        {"channel": one["channel"], "sid": 1, "epoch": "e", "offset": 0}
                        for one in asked.get("subscribe", ())
                    ]
                    self._say(link, "response", requestId=1, payload={"subscriptions": results})
                case "publish":
                    self.published.append(asked)
                    if self._deliver is not None:
                        ack = {"epoch": "e", "offset": len(self.published)}
                        self._say(link, "response", requestId=asked["id"], payload=ack)
                        self._deliver(len(self.published), self._send)
                case _:
                    pass

    def _send(self, number: int) -> None:
        assert self._subscriber is not None
        self._offset += 1
        published = self.published[number - 1]
        message = {"sid": 1, "offset": self._offset, "id": published["id"], "time": 0}
        self._say(self._subscriber, "message", **message, data=published["data"])

    @staticmethod
    def _say(link: ServerConnection, kind: str, **fields: Any) -> None:
        link.send(json.dumps({"type": kind, **fields}))


@pytest.fixture
def faulty() -> Iterator[Callable[[Deliver | None], Faulty]]:
    servers: list[Faulty] = []

    def faulty(deliver: Deliver | None) -> Faulty:
        servers.append(Faulty(deliver))
        return servers[-1]

    yield faulty
    for server in servers:
        server.stop()


def _losing(number: int, send: Callable[[int], None]) -> None:
    if number not in (3, 4, 9):
        send(number)


def _doubling(number: int, send: Callable[[int], None]) -> None:
    send(number)
    if number in (2, 7):
        send(number)


def _swapping(number: int, send: Callable[[int], None]) -> None:
    if number != 5:
        send(number)
    if number == 6:
        send(5)


@pytest.mark.parametrize(
    ("deliver", "found"),
    [
        (_losing, {"lost": 3, "doubled": 0, "misordered": 0}),
        (_doubling, {"lost": 0, "doubled": 2, "misordered": 0}),
        (_swapping, {"lost": 0, "doubled": 0, "misordered": 1}),
    ],
)
def test_a_server_that_loses_doubles_or_swaps_is_found_out(
    faulty: Callable[[Deliver | None], Faulty],
    everwire: Start,
    deliver: Deliver,
    found: dict[str, int],
) -> None:
    child = everwire(
        "bench", faulty(deliver).url, *QUICK, "--dialect", "json", "--connections", "1",
        "--json", "-",
    )  # fmt: skip
    told = loaded(child, 1)
    assert told["checks"] == found
    assert not told["ok"]
    assert told["totals"]["expected"] == told["totals"]["acknowledged"] > 10


def test_what_is_never_acknowledged_is_unanswered_and_ends_with_status_1(
    faulty: Callable[[Deliver | None], Faulty], everwire: Start
) -> None:
    server = faulty(None)
    child = everwire(
        "bench", server.url, "--connections", "1", "--dialect", "json", "--size", "300",
        "--rate", "0", "--window", "5", "--duration", "0.5", "--warmup", "0", "--json", "-",
    )  # fmt: skip
    told = loaded(child, 1)
    assert told["totals"]["unanswered"] == told["totals"]["published"] == 5, "the window"
    assert told["checks"]["lost"] == 0
    sizes = {len(json.dumps(one["data"], separators=(",", ":"))) for one in server.published}
    assert sizes == {300}


def test_latency_counts_from_when_a_message_was_due(
    faulty: Callable[[Deliver | None], Faulty], everwire: Start
) -> None:
    """A server that stands still for a while is charged for all that could not be sent."""
    stood = threading.Event()

    def deliver(number: int, send: Callable[[int], None]) -> None:
        if number == 20:
            stood.wait(1.0)  # nobody sets it
        send(number)

    child = everwire(
        "bench", faulty(deliver).url, "--duration", "2", "--warmup", "0", "--dialect", "json",
        "--connections", "1", "--window", "1", "--json", "-",
    )  # fmt: skip
    told = loaded(child)
    # Only one message was in flight meanwhile, and a hundred were due.
    late = [count for low, _, count in told["latency"]["delivery"]["buckets"] if low > 0.1]
    assert sum(late) > 50
