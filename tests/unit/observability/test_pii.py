from __future__ import annotations

import datetime as dt
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.observability.pii import mask, mask_field


@pytest.mark.parametrize(
    "text",
    [
        "+7 916 123-45-67",
        "8(495)1234567",
        "+380 (44) 123 45 67",
        "+14155550123",
        "PJSIP/79161234567-00000001",
        "sip:79161234567@trunk.example.org",
        "tel=79161234567,",
        "495.123.45.67.89",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "5536913700000000",
        "jane.doe+x@example.co.uk",
    ],
)
def test_personal_data_is_hidden(text: str) -> None:
    masked = mask(f"refused {text} today")
    assert text not in masked
    assert not any(part in masked for part in ("1234", "4111 1111", "jane", "9161", "550123"))
    assert masked.startswith("refused ") and masked.endswith(" today")


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-17",
        "2026-02-17 12:34:56.789",
        "192.168.100.200:5060",
        "1700000000.123",
        "a 20 ms frame of 320 bytes at 8000 Hz",
        "0.123456789",
        "3f2b9a10-1234-4321-8765-123456789012",
    ],
)
def test_what_an_admin_needs_stays(text: str) -> None:
    assert mask(text) == text


@given(st.uuids())
def test_a_call_id_always_stays(call_id: uuid.UUID) -> None:
    assert mask(f"call {call_id} ended") == f"call {call_id} ended"


@given(
    st.from_regex(r"\+?[1-9][0-9]{6,14}", fullmatch=True),
    st.sampled_from([" ", "/", "=", ":", "(", "'", "-", "tel", "x."]),
)
def test_no_phone_number_passes_whole(number: str, before: str) -> None:
    assert number.lstrip("+") not in mask(f"to {before}{number}-0001")


def test_fields_are_judged_by_their_name_first() -> None:
    assert mask_field("caller_id", 79161234567) == "***67"
    assert mask_field("called", "100") == "***"
    assert mask_field("text", "my name is Jane") == "[15 characters]"
    assert mask_field("offset_ms", 12345678901) == 12345678901
    assert mask_field("ok", True) is True and mask_field("text", None) is None


def test_fields_are_searched_to_the_bottom() -> None:
    value = {
        "arguments": [{"phone": "+14155550123"}, "jane@example.org"],
        "when": dt.date(2026, 2, 17),
    }
    assert mask_field("data", value) == {
        "arguments": [{"phone": "***23"}, "[e-mail]"],
        "when": "2026-02-17",
    }
