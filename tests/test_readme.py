"""The programs of the README, docs/client.md and docs/running.md run as printed."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLIENT = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
RUNNING = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
PRINTED_URL = "ws://127.0.0.1:8000/ws"
BIN = Path(sys.executable).parent

Start = Callable[..., Any]


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Yield the Python blocks, whose first line names their file."""
    for block in re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        name = re.match(r"# (\w+\.py)\b", block)
        assert name, f"each Python block begins with its file's name, not {block[:40]!r}"
        yield name[1], block


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, code in [*blocks(README), *blocks(CLIENT), *blocks(RUNNING)]:
        (tmp_path / name).write_text(code)
    return tmp_path


def run(start: Start, folder: Path, name: str, url: str) -> Any:
    code = (folder / name).read_text()
    (folder / name).write_text(code.replace(PRINTED_URL, url))
    return start([sys.executable, "-u", name], cwd=folder)


def run_client(start: Start, folder: Path, url: str) -> Any:
    assert PRINTED_URL in (folder / "client.py").read_text()
    child = run(start, folder, "client.py", url)
    child.line(r"^stored at Position\(epoch='.+', offset=1, id='.+'\)$")
    child.line(r"^\['ada'\]$")
    child.line(r"^\{'by': 'ada', 'text': 'hi'\}$")
    return child


def publish(everwire: Start, url: str, text: str) -> None:
    data = json.dumps({"text": text})
    child = everwire("pub", url, "chat:lobby", data, "--token", "t-ada")
    assert child.wait() == 0, child


def test_there_is_a_server_and_a_client() -> None:
    assert [name for name, _ in blocks(README)] == ["chat.py", "client.py", "script.py"]


def test_everwire_serve_runs_the_server_and_the_client_survives_its_restart(
    start: Start, serve: Start, everwire: Start, folder: Path
) -> None:
    served = serve("serve", "chat:wire", cwd=folder)
    client = run_client(start, folder, served.url)
    publish(everwire, served.url, "before")
    client.line("'before'")

    served.child.signal()
    assert served.child.wait() == 0
    again = serve("serve", "chat:wire", port=served.port, cwd=folder)
    client.line("^history lost: epoch$", timeout=30)  # the memory of a process went with it
    publish(everwire, again.url, "after")
    client.line("'after'")
    assert client.process.poll() is None


def test_uvicorn_runs_the_server(start: Start, everwire: Start, folder: Path) -> None:
    host = start([BIN / "uvicorn", "chat:api", "--port", "0"], cwd=folder)
    port = host.line(r"running on http://127\.0\.0\.1:(\d+)", stream="err")[1]
    url = f"ws://127.0.0.1:{port}/ws"
    client = run_client(start, folder, url)
    publish(everwire, url, "through uvicorn")
    client.line("'through uvicorn'")

    host.signal()
    assert host.wait() in (0, -signal.SIGTERM)  # having shut down, uvicorn raises it again
    host.line("Finished server process", stream="err")


def test_the_script_that_blocks_runs_too(
    start: Start, serve: Start, everwire: Start, folder: Path
) -> None:
    served = serve("serve", "chat:wire", cwd=folder)
    script = run(start, folder, "script.py", served.url)
    script.line(r"^stored at Position\(epoch='.+', offset=1, id='.+'\)$")
    script.line("^subscribed$")
    publish(everwire, served.url, "to the script")
    script.line(r"^Message\(channel='chat:lobby', data=\{'text': 'to the script'\}")


def printed(page: str) -> Iterator[tuple[str, str]]:
    """Yield the files with what they print, which stands below each of them."""
    yield from re.findall(
        r"^```python\n# (\w+\.py)\n.*?^```\n+^```text\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
    )


@pytest.mark.parametrize("page", [CLIENT, RUNNING], ids=["client.md", "running.md"])
def test_a_page_says_what_its_examples_print(
    start: Start, serve: Start, folder: Path, page: str
) -> None:
    served = serve("serve", "chat:wire", cwd=folder)
    assert [name for name, _ in printed(page)] == [name for name, _ in blocks(page)]
    for name, output in printed(page):
        child = run(start, folder, name, served.url)
        assert child.wait() == 0, child
        assert child.out == output.splitlines(), child
        assert child.err == [], child


def test_an_unknown_token_is_told_so_in_one_line(
    serve: Start, everwire: Start, folder: Path
) -> None:
    served = serve("serve", "chat:wire", cwd=folder)
    child = everwire("sub", served.url, "chat:lobby", "--token", "t-eve")
    assert child.wait() == 1
    assert child.err[-1].startswith("everwire: ")
    assert "unknown token" in child.err[-1]


def test_make_demo_serves_what_the_readme_shows(start: Start) -> None:
    shown = re.search(r"^everwire: (ws://\S+)  page: (http://\S+)$", README, re.MULTILINE)
    assert shown
    child = start(["make", "demo"], cwd=ROOT, env={"EVERWIRE_PORT": "0"})
    up = child.line(r"^everwire: (ws://\S+)  page: (http://\S+)$")
    port = re.search(r":(\d+)/", up[1])
    assert port
    assert up[0].replace(port[1], "8000") == shown[0]
