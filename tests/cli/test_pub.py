"""``everwire pub``: status 0 only if every line was acknowledged."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
BIN = Path(sys.executable).parent


@pytest.fixture
def reader(demo: Any, everwire: Start, tmp_path: Path) -> Any:
    """A ``sub`` on ``chat:lobby`` that is subscribed."""
    path = tmp_path / "position.json"
    child = everwire("sub", demo.url, "chat:lobby", "--position", path)
    child.until(path.exists, "a position")
    return child


def data(reader: Any) -> list[Any]:
    return [json.loads(line)["data"] for line in reader.out]


def test_data_is_json_if_it_is_and_text_otherwise(demo: Any, reader: Any, everwire: Start) -> None:
    wanted = [
        (['{"a": [1, 2.5, null]}'], {"a": [1, 2.5, None]}),
        (["hello"], "hello"),
        (["größer"], "größer"),
        (["[1", "--text"], "[1"),
        (["7", "--text"], "7"),
        (["7", "--json"], 7),
        (["NaN"], "NaN"),
        ([" 7 "], 7),
        ([""], ""),
    ]
    for arguments, _ in wanted:
        child = everwire("pub", demo.url, "chat:lobby", *arguments)
        assert child.wait() == 0
        assert child.out == []
        assert child.err[-1] == "everwire: 1 of 1 line acknowledged"
    reader.line(f'"offset":{len(wanted)}')
    assert data(reader) == [published for _, published in wanted]


def test_lines_of_stdin_arrive_in_their_order(demo: Any, reader: Any, everwire: Start) -> None:
    child = everwire("pub", demo.url, "chat:lobby", "-", stdin=True)
    child.write(b"".join(b"%d\n" % n for n in range(3000)))
    child.write(b'\r\n{"last": true}')  # an empty line, and one without an end
    child.end_input()
    assert child.wait() == 0
    assert child.err[-1] == "everwire: 3002 of 3002 lines acknowledged"
    reader.line('"last":true')
    assert data(reader) == [*range(3000), "", {"last": True}]


def test_a_line_goes_out_while_stdin_stays_open(demo: Any, reader: Any, everwire: Start) -> None:
    child = everwire("pub", demo.url, "chat:lobby", stdin=True)
    child.write(b"first\n")
    reader.line('"data":"first"')
    child.write(b"second\n")
    reader.line('"data":"second"')
    child.end_input()
    assert child.wait() == 0


def test_lines_that_cannot_be_published_are_named_and_the_others_are_published(
    demo: Any, reader: Any, everwire: Start
) -> None:
    lines = [
        b"1",
        b"123456789012345678901234567890",
        b"2",
        b"\xff\xfe",
        b'"' + b"x" * 2**21 + b'"',
        b"3",
    ]
    child = everwire("pub", demo.url, "chat:lobby", stdin=True)
    child.write(b"\n".join(lines))
    child.end_input()
    assert child.wait() == 1
    text = "\n".join(child.err)
    assert "3 of 6 lines acknowledged" in text
    assert "refused: line 2: " in text
    assert "refused: line 4: not UTF-8" in text
    assert "refused: line 5: " in text
    reader.line('"data":3')
    assert data(reader) == [1, 2, 3]


def test_json_refuses_the_lines_that_are_none(demo: Any, everwire: Start) -> None:
    child = everwire("pub", demo.url, "chat:lobby", "--json", stdin=True)
    child.write(b'{"a": 1}\nhello\nhello\n{}\n')
    child.end_input()
    assert child.wait() == 1
    assert "2 of 4 lines acknowledged" in "\n".join(child.err)
    assert "refused: lines 2-3: " in "\n".join(child.err)


@pytest.fixture
def guarded(serve: Start, tmp_path: Path) -> Any:
    (tmp_path / "app.py").write_text(
        "from everwire import Everwire, Grant, Identity, Unauthorized\n"
        "wire = Everwire()\n"
        "@wire.authenticate\n"
        "async def who(token: str) -> Identity:\n"
        "    if token != 't-ada':\n"
        "        raise Unauthorized('unknown token')\n"
        "    return Identity('ada')\n"
        "wire.channel('open', grant=Grant(publish=True))\n"
        "wire.channel('closed', grant=Grant())\n"
    )
    return serve("serve", "app:wire", cwd=tmp_path)


def test_lines_that_the_server_refuses_are_named(guarded: Any, everwire: Start) -> None:
    child = everwire("pub", guarded.url, "closed", "--token", "t-ada", stdin=True)
    child.write(b"1\n2\n3\n")
    child.end_input()
    assert child.wait() == 1
    assert "0 of 3 lines acknowledged" in "\n".join(child.err)
    assert "refused: lines 1-3: forbidden" in child.err[-1]


def test_the_token_may_come_from_a_variable(guarded: Any, everwire: Start) -> None:
    child = everwire("pub", guarded.url, "open", "1", env={"EVERWIRE_TOKEN": "t-ada"})
    assert child.wait() == 0


def test_a_refused_token_ends_it_with_one_line(guarded: Any, everwire: Start) -> None:
    child = everwire("pub", guarded.url, "open", "1", "--token", "t-eve")
    assert child.wait() == 1
    assert "unauthenticated (200): unknown token" in child.err[-1]
    assert "--token" in child.err[-1]
    assert "EVERWIRE_TOKEN" in child.err[-1]
    assert all(line.startswith("everwire: ") for line in child.err), "no traceback"


def test_plain_says_sent_for_nothing_is_acknowledged(
    demo: Any, reader: Any, everwire: Start
) -> None:
    child = everwire("pub", demo.url, "chat:lobby", "hi", "--dialect", "plain")
    assert child.wait() == 0
    assert child.err[-1] == "everwire: 1 of 1 line sent"
    reader.line('"data":"hi"')


def test_a_server_that_is_not_there_is_given_up_in_one_line(
    everwire: Start, free_port: int
) -> None:
    url = f"ws://127.0.0.1:{free_port}/ws"
    child = everwire("pub", url, "chat:lobby", "1", "--timeout", "0.5")
    assert child.wait() == 1
    assert "cannot connect" in child.err[-1]
    assert url in child.err[-1]


def test_a_channel_that_can_be_none_is_refused(everwire: Start) -> None:
    child = everwire("pub", "ws://127.0.0.1:1/ws", "two words", "1")
    assert child.wait() == 2
    assert "CHANNEL" in "\n".join(child.err)


def test_interrupted_it_waits_for_what_was_sent_and_says_where_it_stopped(
    demo: Any, reader: Any, everwire: Start
) -> None:
    child = everwire("pub", demo.url, "chat:lobby", stdin=True)
    child.write(b"1\n2\n")
    reader.line('"data":2')
    child.signal()
    assert child.wait() == 1
    text = "\n".join(child.err)
    assert "2 of 2 lines acknowledged" in text
    assert "interrupted after line 2" in text


def test_a_server_that_does_not_come_back_leaves_its_lines_reported(
    demo: Any, reader: Any, everwire: Start
) -> None:
    child = everwire("pub", demo.url, "chat:lobby", "--timeout", "2", stdin=True)
    child.write(b"1\n")
    reader.line('"data":1')
    demo.child.kill()
    child.write(b"2\n3\n")
    child.end_input()
    assert child.wait() == 1
    text = "\n".join(child.err)
    assert "1 of 3 lines acknowledged" in text
    assert re.search(r"(unknown|not sent): lines 2-3: ", text)


def test_a_terminal_shows_the_progress(demo: Any) -> None:
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [BIN / "everwire", "pub", demo.url, "chat:lobby"],
            stdin=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
        ) as process:
            os.close(theirs)
            assert process.stdin is not None
            process.stdin.write(b"1\n2\n3\n")
            process.stdin.flush()
            seen = b""
            while b"3 acknowledged" not in seen:
                seen += os.read(ours, 4096)
            process.stdin.close()
            assert process.wait(10) == 0
    finally:
        os.close(ours)
