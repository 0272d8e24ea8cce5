"""The documentation says what the code does: tables, fields, examples, links."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest

from everwire.protocol import messages as m
from everwire.protocol.data import check_data
from everwire.protocol.dialects import dialect, payload_field

ROOT = Path(__file__).parent.parent
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
TABLES = ROOT / "scripts" / "docs-tables"
PAGES = sorted((ROOT / "docs").rglob("*.md"))

NESTED = (
    m.Position,
    m.ChannelRequest,
    m.ChannelResult,
    m.ErrorBody,
    m.ClientInfo,
    m.Member,
)


# ---- what scripts/docs-tables writes ------------------------------------------------


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_the_tables_of_codes_and_limits_are_those_of_the_code() -> None:
    done = run(TABLES, "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("docs/protocol.md", "| 4440 | `draining` | yes |", "| 4440 | `draining` | no |"),
        ("docs/protocol.md", "| 502 | `held` |", "| 502 | `hold` |"),
        ("docs/limits.md", "| `stall` | 30 s |", "| `stall` | 31 s |"),
        ("src/everwire/limits.py", "stall: float = 30.0", "stall: float = 31.0"),
        ("src/everwire/codes.py", "this user may not do this", "no"),
    ],
)
def test_a_stale_table_is_found_and_mended(tmp_path: Path, file: str, old: str, new: str) -> None:
    """Whichever side changed. A copy is used, so that nothing else is touched."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(TABLES, tmp_path / "scripts")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    package = tmp_path / "src" / "everwire"
    package.mkdir(parents=True)
    for name in ("__init__.py", "codes.py", "limits.py"):
        shutil.copy(ROOT / "src" / "everwire" / name, package)
    script = tmp_path / "scripts" / "docs-tables"
    assert run(script, "--check").returncode == 0
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new), encoding="utf-8")
    stale = run(script, "--check")
    assert stale.returncode == 1
    assert "stale" in stale.stderr
    assert run(script).returncode == 0
    assert run(script, "--check").returncode == 0


# ---- the sections of docs/protocol.md -----------------------------------------------


def sections() -> dict[str, str]:
    """The text below each heading of the third level."""
    parts = re.split(r"^### (.+)$", PROTOCOL, flags=re.M)
    return {
        title: re.split(r"^## ", text, flags=re.M)[0]
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }


SECTIONS = sections()


def rows(text: str, head: str) -> list[list[str]]:
    """The rows of the table in ``text`` whose first line begins with ``head``."""
    _, found, table = text.partition(head)
    assert found, f"no table {head!r}"
    lines = table.split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


KINDS: dict[Any, set[str]] = {
    str: {"text"},
    bool: {"flag"},
    Any: {"data"},
    m.U53: {"integer", "time", "duration"},
    m.Id: {"id", "text"},
    m.RequestId: {"id"},
}


def kinds(kind: Any) -> set[str]:
    """What the documentation may call a type."""
    args = tuple(arg for arg in get_args(kind) if arg is not type(None))
    if kind in KINDS:
        return KINDS[kind]
    if get_origin(kind) is list:
        return {f"list of {inner}" for inner in kinds(args[0])}
    if get_origin(kind) is dict:
        return {"map of text to integer"}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {kind.__name__}
    if all(isinstance(arg, str) for arg in args):  # Literal
        return {"text"}
    if len(args) == 2:
        return {"id"}
    return kinds(args[0])


def test_there_is_a_section_of_every_message_and_of_no_other() -> None:
    described = {title for title in SECTIONS if re.fullmatch(r"[a-z]+", title)}
    assert described == {str(cls.__struct_config__.tag) for cls in m.MESSAGES}


@pytest.mark.parametrize("number", range(len(m.MESSAGES)))
def test_a_section_says_the_fields_of_its_message(number: int) -> None:
    """Names, order, kinds, which are required, and the number of the type."""
    cls = m.MESSAGES[number]
    tag = str(cls.__struct_config__.tag)
    section = SECTIONS[tag]
    assert re.match(rf"\s*(C→S|S→C|Both directions), type {number}\.", section)
    assert f"| {number} {tag} |" in PROTOCOL.replace("\n", " ")
    fields = msgspec.structs.fields(cls)
    written = rows(section, "| # | field | kind | required | meaning |")
    assert [row[0] for row in written] == [str(place) for place in range(1, len(fields) + 1)]
    for row, field in zip(written, fields, strict=True):
        _, name, kind, required, _ = row
        assert name == f"`{field.encode_name}`"
        assert required == ("yes" if field.required else "no"), name
        assert kind in kinds(field.type), f"{tag}.{name}: {kind}"


@pytest.mark.parametrize("cls", NESTED, ids=lambda cls: cls.__name__)
def test_section_2_1_says_the_fields_of_nested_objects(cls: type[msgspec.Struct]) -> None:
    _, found, text = SECTIONS["2.1 Nested objects"].partition(f"**{cls.__name__}**")
    assert found
    written = rows(text, "| field | kind | required | meaning |")
    fields = msgspec.structs.fields(cls)
    assert [row[0] for row in written] == [f"`{field.encode_name}`" for field in fields]
    for row, field in zip(written, fields, strict=True):
        assert row[2] == ("yes" if field.required else "no"), row
        assert row[1] in kinds(field.type), row


def examples() -> Iterator[tuple[str, str, str]]:
    for title, text in SECTIONS.items():
        for line in text.splitlines():
            found = re.fullmatch(r"(\d+)\s+(C→S|S→C)\s+(\{.*\})", line)
            if found:
                yield title, found[2], found[3]


EXAMPLES = list(examples())
FROM_SERVER = ("hello", "message", "gap", "presence", "subscribed", "unsubscribed", "drain")
FROM_CLIENT = ("auth", "subscribe", "unsubscribe", "publish")


def test_every_sequence_has_examples() -> None:
    sequences = {title for title in SECTIONS if title.startswith("4.")}
    assert len(sequences) >= 12
    assert {title for title, _, _ in EXAMPLES} == sequences


@pytest.mark.parametrize(("title", "direction", "text"), EXAMPLES)
def test_every_example_is_a_message(title: str, direction: str, text: str) -> None:
    message = dialect("json").decode(text.encode())
    field = payload_field(message)
    if field:
        check_data(getattr(message, field))
    tag = str(message.__struct_config__.tag)
    assert tag not in (FROM_SERVER if direction == "C→S" else FROM_CLIENT)
    if isinstance(message, m.Response) and isinstance(message.payload, dict):
        msgspec.convert(message.payload.get("subscriptions", []), list[m.ChannelResult])


@pytest.mark.parametrize("title", sorted({title for title, _, _ in EXAMPLES}))
def test_in_a_sequence_every_answer_answers_a_request(title: str) -> None:
    asked: set[tuple[str, Any]] = set()  # by which side: their ids are separate
    for _, direction, text in [one for one in EXAMPLES if one[0] == title]:
        message = dialect("json").decode(text.encode())
        if isinstance(message, m.REQUESTS):
            asked.add((direction, message.id))  # type: ignore[attr-defined]
        elif isinstance(message, (m.Response, m.Error)):
            assert (direction[::-1], message.request_id) in asked


# ---- every page -----------------------------------------------------------------------


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if fragment and file.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.M)
            assert fragment in {anchor(heading.replace("`", "")) for heading in headings}, target
