"""``everwire sub``: one JSON object a line, and nothing lost in silence."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from everwire import Position, connect

Start = Callable[..., Any]
BIN = Path(sys.executable).parent


def publish(url: str, channel: str, items: Iterable[Any]) -> list[Position]:
    async def publish() -> list[Position]:
        async with connect(url) as client:
            return [(await client.publish(channel, item)).position for item in items]

    return asyncio.run(publish())


def read(child: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in list(child.out)]


def connected(child: Any) -> Any:
    child.line("connected", stream="err")
    return child


def written(path: Path) -> tuple[int, int] | None:
    """Tell one writing of a file from the next."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


@pytest.fixture
def subscribed(everwire: Start, tmp_path: Path) -> Start:
    """Start ``sub`` on one channel and wait until it is subscribed: the file says so."""

    def subscribed(url: str, channel: str, path: Path | None = None) -> Any:
        path = path or tmp_path / "position.json"
        before = written(path)
        child = everwire("sub", url, channel, "--position", path)
        connected(child)
        child.until(lambda: written(path) != before, "a position")
        return child

    return subscribed


def test_a_message_is_one_line_with_its_position(demo: Any, subscribed: Start) -> None:
    child = subscribed(demo.url, "chat:lobby")
    positions = publish(demo.url, "chat:lobby", [{"text": "größe\nzwei"}, b"\x00\xff", None])
    child.line('"offset":3')
    lines = read(child)
    assert [line["data"] for line in lines] == [{"text": "größe\nzwei"}, "AP8=", None]
    assert lines[1]["encoding"] == "base64"
    assert "encoding" not in lines[0]
    for line, position in zip(lines, positions, strict=True):
        assert list(line)[:6] == ["channel", "epoch", "offset", "id", "time", "data"]
        assert Position(line["epoch"], line["offset"], line["id"]) == position
        assert line["channel"] == "chat:lobby"
        assert isinstance(line["time"], int)


def test_plain_has_neither_positions_nor_times(demo: Any, everwire: Start) -> None:
    child = connected(everwire("sub", demo.url, "chat:lobby", "--dialect", "plain"))

    async def until_it_comes() -> None:
        async with connect(demo.url) as client:
            while not child.out:
                await client.publish("chat:lobby", 7)
                await asyncio.sleep(0.05)

    asyncio.run(until_it_comes())
    assert read(child)[0] == {"channel": "chat:lobby", "data": 7}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_status_0_and_stdout_has_only_messages(
    demo: Any, subscribed: Start, number: int
) -> None:
    child = subscribed(demo.url, "chat:lobby")
    publish(demo.url, "chat:lobby", range(3))
    child.line('"offset":3')
    child.signal(number)
    assert child.wait() == 0
    assert [line["data"] for line in read(child)] == [0, 1, 2]


def test_count_stops_after_exactly_as_many_messages(demo: Any, everwire: Start) -> None:
    """Over all channels together; what follows stays for the next run."""
    first = publish(demo.url, "a", range(20))[0]
    publish(demo.url, "b", range(20))
    since = ["--since", json.dumps({"channel": "a", "epoch": first.epoch, "offset": 0, "id": ""})]
    child = everwire("sub", demo.url, "a", "b", "--count", "7", *since)
    assert child.wait() == 0
    assert [line["data"] for line in read(child)] == list(range(7))


def test_since_begins_after_a_line_that_was_printed(
    demo: Any, everwire: Start, subscribed: Start
) -> None:
    child = subscribed(demo.url, "chat:lobby")
    publish(demo.url, "chat:lobby", range(10))
    child.line('"offset":10')
    line = child.out[3]
    again = everwire("sub", demo.url, "chat:lobby", "--since", line, "--count", "6")
    assert again.wait() == 0
    assert again.out == child.out[4:]


def test_it_goes_on_from_the_position_after_kill_9(
    demo: Any, everwire: Start, subscribed: Start, tmp_path: Path
) -> None:
    """Nothing is missing, and the file was never ahead of what was printed."""
    path = tmp_path / "position.json"
    child = subscribed(demo.url, "chat:lobby", path=path)
    pub = everwire("pub", demo.url, "chat:lobby", stdin=True)
    pub.write(b"".join(b"%d\n" % n for n in range(40)))
    child.line('"data":20')
    child.kill()
    stored = json.loads(path.read_text())["chat:lobby"]["offset"]
    before = read(child)
    assert stored <= before[-1]["offset"]

    pub.write(b"".join(b"%d\n" % n for n in range(40, 90)))
    pub.end_input()
    assert pub.wait() == 0
    again = subscribed(demo.url, "chat:lobby", path=path)
    again.line('"data":89')
    after = read(again)
    assert not [line for line in after if "gap" in line]
    assert after[0]["offset"] == stored + 1
    assert {line["data"] for line in before + after} == set(range(90))
    assert [line["data"] for line in after] == list(range(stored, 90))
    repeated = {line["offset"]: line["id"] for line in before}
    for line in after:
        assert repeated.get(line["offset"], line["id"]) == line["id"]


def test_whoever_stops_before_the_first_message_misses_none(
    demo: Any, subscribed: Start, everwire: Start
) -> None:
    subscribed(demo.url, "chat:lobby").kill()
    publish(demo.url, "chat:lobby", range(5))
    child = subscribed(demo.url, "chat:lobby")
    child.line('"data":4')
    assert [line["data"] for line in read(child)] == list(range(5))


def test_what_is_lost_is_a_line_with_gap(demo: Any, subscribed: Start, serve: Start) -> None:
    """The memory of a process is gone with it: a new epoch, and the file follows."""
    child = subscribed(demo.url, "chat:lobby")
    publish(demo.url, "chat:lobby", range(3))
    child.line('"data":2')
    demo.child.kill()
    again = serve("demo", port=demo.port)
    child.line('"gap":"epoch"', timeout=20)
    publish(again.url, "chat:lobby", ["new"])
    child.line('"data":"new"')
    child.signal()
    assert child.wait() == 0
    last = read(child)[-1]
    assert last["data"] == "new"
    gap = next(line for line in read(child) if "gap" in line)
    assert gap["channel"] == "chat:lobby"
    assert gap["epoch"] == last["epoch"] != read(child)[0]["epoch"]


def test_the_file_keeps_the_positions_of_other_channels(
    demo: Any, subscribed: Start, tmp_path: Path
) -> None:
    path = tmp_path / "position.json"
    other = {"epoch": "e", "offset": 7, "id": "x-1"}
    path.write_text(json.dumps({"other": other}))
    child = subscribed(demo.url, "chat:lobby", path=path)
    publish(demo.url, "chat:lobby", [1])
    child.line('"data":1')
    child.signal()
    assert child.wait() == 0
    stored = json.loads(path.read_text())
    assert stored["other"] == other
    assert stored["chat:lobby"]["offset"] == 1
    assert os.listdir(tmp_path) == ["position.json"], "nothing is left beside it"


def test_a_file_that_holds_something_else_is_not_overwritten(
    demo: Any, everwire: Start, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    child = everwire("sub", demo.url, "chat:lobby", "--position", path)
    assert child.wait() == 1
    assert "no file of positions" in child.err[-1]
    assert path.read_text() == "my notes"


def test_positions_that_cannot_be_written_end_it_with_status_1(
    demo: Any, everwire: Start, tmp_path: Path
) -> None:
    child = everwire("sub", demo.url, "chat:lobby", "--position", tmp_path / "absent" / "p.json")
    assert child.wait() == 1
    assert "absent" in child.err[-1]


def test_it_ends_with_status_0_when_its_reader_does(demo: Any) -> None:
    """As in ``everwire sub … | head -1``: without waiting for a message to fail on."""
    with subprocess.Popen(
        [BIN / "everwire", "sub", demo.url, "chat:lobby"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while b"connected" not in process.stderr.readline():
            pass
        process.stdout.close()
        assert process.wait(5) == 0


def test_a_reader_that_stands_still_can_be_left(demo: Any) -> None:
    """With stdout full, a signal still ends it, with status 0."""
    with subprocess.Popen(
        [BIN / "everwire", "sub", demo.url, "chat:lobby"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while b"connected" not in process.stderr.readline():
            pass
        publish(demo.url, "chat:lobby", ["x" * 50_000] * 20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(6) == 0


def test_output_that_cannot_be_written_ends_it_with_status_1(demo: Any, start: Start) -> None:
    command = f"exec {BIN}/everwire sub {demo.url} chat:lobby >/dev/full"
    child = start(["bash", "-c", command])
    connected(child)

    async def until_it_ends() -> None:
        async with connect(demo.url) as client:
            while child.process.poll() is None:
                await client.publish("chat:lobby", 1)
                await asyncio.sleep(0.05)

    asyncio.run(until_it_ends())
    assert child.wait() == 1
    assert "No space left" in child.err[-1]


def test_closed_standard_files_are_nothing_worse_than_empty(demo: Any, start: Start) -> None:
    child = start(["bash", "-c", f"exec {BIN}/everwire sub {demo.url} chat:lobby <&- >&-"])
    connected(child)
    publish(demo.url, "chat:lobby", [1])
    child.signal()
    assert child.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dialect", "plain", "--position", "p.json"], "plain has no positions"),
        (["--since", "{oops"], "--since"),
        (["--since", '{"channel":"b","epoch":"e","offset":1,"id":"x"}'], "'b'"),
        (["--count", "0"], "--count"),
        (["--dialect", "latin"], "latin"),
    ],
)
def test_what_cannot_be_meant_is_refused(everwire: Start, arguments: list[str], said: str) -> None:
    child = everwire("sub", "ws://127.0.0.1:1/ws", "a", *arguments)
    assert child.wait() == 2
    assert said in " ".join(" ".join(child.err).split())


def test_a_server_that_refuses_ends_it_with_one_line(
    serve: Start, everwire: Start, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(
        "from everwire import Everwire, Forbidden\n"
        "wire = Everwire()\n"
        "@wire.channel('staff')\n"
        "async def staff(conn):\n"
        "    raise Forbidden('staff only')\n"
    )
    served = serve("serve", "app:wire", "--allow-anonymous", cwd=tmp_path)
    child = everwire("sub", served.url, "staff")
    assert child.wait() == 1
    assert child.err[-1] == "everwire: forbidden (202): staff only"
    assert child.out == []
    child = everwire("sub", served.url, "no-such-channel")
    assert child.wait() == 1
    assert "no-such-channel" in child.err[-1]


def test_a_channel_that_wants_a_token_of_its_own_is_shown_it(
    serve: Start, everwire: Start, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(
        "from everwire import JWT, Everwire\n"
        "jwt = JWT('s' * 64, algorithms=['HS256'])\n"
        "wire = Everwire(channel_tokens=jwt)\n"
        "wire.authenticate(jwt)\n"
        "wire.channel('private:{id}', token=True, latest=True)\n"
    )
    served = serve("serve", "app:wire", cwd=tmp_path)

    def token(*args: str) -> str:
        child = everwire("token", "ada", *args, env={"EVERWIRE_SECRET": "s" * 64})
        assert child.wait() == 0, child
        return str(child.out[0])

    own, seven = token(), token("--channel", "private:7", "--claim", "publish=true")

    async def say() -> None:
        async with (
            connect(served.url, token=own) as client,
            client.subscribe("private:7", token=seven),
        ):
            await client.publish("private:7", "psst")

    asyncio.run(say())
    for shown in (seven, f"private:7={seven}"):
        child = everwire(
            "sub", served.url, "private:7", "--token", own, "--channel-token", shown, "--count", "1"
        )
        assert child.wait() == 0, child
        assert json.loads(child.out[0])["data"] == "psst"
    child = everwire("sub", served.url, "private:7", "--token", own)
    assert child.wait() == 1
    assert "needs a token of its own" in child.err[-1]
    child = everwire("sub", served.url, "a", "b", "--channel-token", seven)
    assert child.wait() == 2
    assert "CHANNEL=TOKEN" in child.err[-1]
