"""Names of channels, keys of them, and patterns."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import assume, given, strategies as st

from everwire.errors import BadData, ConfigError
from everwire.limits import MAX_CHANNEL
from everwire.protocol.channels import ChannelPattern, channel_key, check_channel, split_key

from .wire import examples

names = st.text(min_size=1, max_size=300) | st.text("ab:/.{}éß😀 \n", min_size=1)


def allowed(name: str) -> bool:
    """The rule, word by word."""
    return (
        1 <= len(name.encode("utf-8", "surrogatepass")) <= MAX_CHANNEL
        and not any(unicodedata.category(char)[0] in "CZ" for char in name)
        and unicodedata.normalize("NFC", name) == name
        and name != "system"
        and not name.startswith("everwire.")
    )


@examples(400)
@given(names)
def test_exactly_the_allowed_names_pass(name: str) -> None:
    try:
        assert check_channel(name) == name
    except BadData:
        assert not allowed(name)
    else:
        assert allowed(name)


@pytest.mark.parametrize(
    "char", [chr(code) for code in range(128)], ids=lambda char: hex(ord(char))
)
def test_ascii_names_follow_the_same_rule(char: str) -> None:
    if allowed(f"a{char}"):
        check_channel(f"a{char}")
    else:
        with pytest.raises(BadData):
            check_channel(f"a{char}")


@pytest.mark.parametrize("name", [None, 1, b"a", ["a"], True, ""])
def test_a_name_is_text(name: object) -> None:
    with pytest.raises(BadData):
        check_channel(name)


channels = names.filter(allowed)
tenants = st.text(max_size=8) | st.sampled_from(["", "a", "a:b", "a\x00", "\x00"])


@examples(150)
@given(tenants, channels, tenants, channels)
def test_different_pairs_of_tenant_and_channel_have_different_keys(
    tenant: str, channel: str, other_tenant: str, other_channel: str
) -> None:
    same = (tenant, channel) == (other_tenant, other_channel)
    assert (channel_key(tenant, channel) == channel_key(other_tenant, other_channel)) is same


@examples(150)
@given(st.text("a:\x00", max_size=4), st.text("a:", min_size=1, max_size=4),
       st.text("a:\x00", max_size=4), st.text("a:", min_size=1, max_size=4))  # fmt: skip
def test_separators_in_tenants_do_not_help(a: str, b: str, c: str, d: str) -> None:
    assert (channel_key(a, b) == channel_key(c, d)) is ((a, b) == (c, d))


@examples(150)
@given(tenants, channels)
def test_a_key_is_split_into_what_it_was_made_of(tenant: str, channel: str) -> None:
    assert split_key(channel_key(tenant, channel)) == (tenant, channel)


def test_without_a_tenant_the_key_is_the_name() -> None:
    assert channel_key("", "chat:lobby") == "chat:lobby"


literals = st.text("ab.*+?[]()|^$\\-:/é", max_size=4)


@examples(150)
@given(literals, literals, literals, channels)
def test_a_pattern_without_parameters_matches_itself_only(
    a: str, b: str, c: str, channel: str
) -> None:
    text = a + b + c
    assume(text)
    pattern = ChannelPattern(text)
    assert pattern.names == ()
    assert pattern.match(text) == {}
    assert (pattern.match(channel) == {}) is (channel == text)


@examples(150)
@given(literals, st.text("xyzé.", min_size=1, max_size=5), literals, st.text("x:/", min_size=1))
def test_parameters_hold_what_stands_in_their_place(a: str, room: str, b: str, rest: str) -> None:
    pattern = ChannelPattern(f"{a}:{{room}}:{b}/{{rest:path}}")
    assert pattern.names == ("room", "rest")
    found = pattern.match(f"{a}:{room}:{b}/{rest}")
    assert found is not None
    # where the same characters can be read in two ways, whatever was read adds up
    assert f"{a}:{found['room']}:{b}/{found['rest']}" == f"{a}:{room}:{b}/{rest}"
    assert not set(found["room"]) & {":", "/"}


@examples(150)
@given(st.text("ab{}:", max_size=8))
def test_a_brace_is_part_of_a_parameter_or_an_error(text: str) -> None:
    names = re.findall(r"\{([ab]+)\}", text)
    literal = re.sub(r"\{[ab]+\}", "", text)
    if text and not set(literal) & {"{", "}"} and len(set(names)) == len(names):
        assert list(ChannelPattern(text).names) == names
    else:
        with pytest.raises(ConfigError, match="pattern"):
            ChannelPattern(text)
