"""Close codes and error codes."""

from __future__ import annotations

import re

import pytest

from everwire.codes import CLOSE_MEANINGS, ERRORS, CloseCode, ErrorCode, reconnects


def test_every_close_code_of_ours_has_a_meaning() -> None:
    assert set(CLOSE_MEANINGS) == {code for code in CloseCode if code >= 4000}
    assert all(CLOSE_MEANINGS.values())


def test_every_error_code_has_a_meaning() -> None:
    assert set(ERRORS) == set(ErrorCode)
    assert all(info.meaning for info in ERRORS.values())


def test_no_two_codes_mean_the_same() -> None:
    for meanings in (list(CLOSE_MEANINGS.values()), [info.meaning for info in ERRORS.values()]):
        assert len(set(meanings)) == len(meanings)


def test_close_codes_are_in_the_range_that_applications_may_use() -> None:
    for code in CloseCode:
        assert 1000 <= code <= 1015 or 4400 <= code <= 4999, code


def test_codes_below_4500_reconnect() -> None:
    assert all(reconnects(code) for code in range(4000, 4500))


def test_codes_from_4500_are_final() -> None:
    assert not any(reconnects(code) for code in range(4500, 5000))


def test_of_the_standard_codes_only_hopeless_ones_are_final() -> None:
    final = {code for code in range(1000, 3000) if not reconnects(code)}
    assert final == {1002, 1003, 1007, 1008, 1009, 1010, 1015}


@pytest.mark.parametrize("code", [0, 999, 2000, 3000, 3999, 5000, 65535])
def test_codes_that_are_not_listed_reconnect(code: int) -> None:
    assert reconnects(code)


@pytest.mark.parametrize("code", ErrorCode)
def test_the_name_on_the_wire_is_a_lower_case_word(code: ErrorCode) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code.wire_name)


def test_what_no_repetition_can_mend_is_not_temporary() -> None:
    final = {"bad_request", "unknown_type", "key_reused", "forbidden", "bad_channel", "too_big"}
    for code, info in ERRORS.items():
        assert not (code.wire_name in final and info.temporary)
    for name in ("unavailable", "held", "draining", "rate_limited", "dedupe_full", "token_expired"):
        assert ERRORS[ErrorCode[name.upper()]].temporary
