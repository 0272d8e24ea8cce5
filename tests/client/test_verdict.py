"""Which ends are final."""

from __future__ import annotations

import ssl

import pytest

from everwire import (
    ClosedError,
    ConfigError,
    Forbidden,
    HandshakeRefused,
    NotSent,
    RequestError,
    Unauthorized,
)
from everwire.client.verdict import final_error, is_refused_token


@pytest.mark.parametrize(
    "code",
    [1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 3000, 4000, 4400, 4401, 4402, 4408, 4429,
     4430, 4440, 4499],
)  # fmt: skip
def test_these_close_codes_come_back(code: int) -> None:
    assert final_error(ClosedError(code)) is None


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1010, 4502, 4504, 4507, 4999])
def test_these_end_with_the_code_and_the_reason(code: int) -> None:
    final = final_error(ClosedError(code, "why"))
    assert isinstance(final, ClosedError)
    assert (final.code, final.reason) == (code, "why")


def test_refusals_for_good_are_named() -> None:
    assert isinstance(final_error(ClosedError(4500, "no")), Unauthorized)
    assert isinstance(final_error(ClosedError(4501, "no")), Forbidden)


def test_an_http_refusal_decides_by_its_own_word() -> None:
    assert final_error(HandshakeRefused(503, "", temporary=True)) is None
    refused = HandshakeRefused(404, "", temporary=False)
    assert final_error(refused) is refused


def test_no_connection_is_never_final_but_a_bad_certificate_is() -> None:
    assert final_error(ConnectionRefusedError()) is None
    assert final_error(TimeoutError()) is None
    assert final_error(NotSent()) is None
    assert final_error(ssl.SSLError()) is None
    assert final_error(ssl.SSLCertVerificationError()) is not None
    assert final_error(ConfigError("x")) is not None


def test_an_error_that_auth_was_answered_with_is_final_unless_it_passes() -> None:
    assert final_error(Forbidden("x")) is not None
    assert final_error(RequestError(code=500)) is None
    assert final_error(RequestError(code=501)) is None


def test_refused_tokens_are_told_apart() -> None:
    assert is_refused_token(ClosedError(4402))
    assert is_refused_token(Unauthorized())
    assert is_refused_token(RequestError(code=201))
    assert not is_refused_token(ClosedError(4500))
    assert not is_refused_token(Forbidden())
