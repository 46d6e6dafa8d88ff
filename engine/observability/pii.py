"""Personal data is taken out of whatever is written to a log: phones, e-mails, cards, names, speech.

Message sentences are constant, so the danger sits in fields, in the texts of errors and in the logs of
libraries. A field is judged by its name first, then by what it holds. When in doubt digits are hidden.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NUMBER_FIELDS = frozenset(
    [
        "number",
        "from_number",
        "to_number",
        "phone",
        "caller",
        "caller_id",
        "called",
        "connected_line",
        "digits",
        "card",
    ]
)
"""The last two digits stay, so that a person can still tell two calls apart."""

HIDDEN_FIELDS = frozenset(
    [
        "text",
        "speech",
        "transcript",
        "prompt",
        "reply",
        "sentence",
        "greeting",
        "said",
        "heard",
        "caller_name",
        "customer",
        "address",
        "email",
        "password",
        "secret",
        "token",
    ]
)
"""Only the length is told."""

_EMAIL = re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_DIGITS = re.compile(r"\+?\(?\d(?:[ ().\-]{0,2}\d){6,}")
_HARMLESS = re.compile(
    r"""
      \d{4}-\d\d-\d\d(?:[ ]\d\d)?   # a date, perhaps with the hour
    | \d+\.\d+                      # a fraction, a unique id of Asterisk
    | \d{1,3}(?:\.\d{1,3}){3}       # an IP address
    """,
    re.VERBOSE,
)
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)


def mask(text: str) -> str:
    """Hide e-mail addresses and anything that can be a phone or card number. UUIDs and dates stay."""
    kept: list[str] = []
    at = 0
    for uuid in _UUID.finditer(text):
        kept += [_mask(text[at : uuid.start()]), uuid.group()]
        at = uuid.end()
    return "".join([*kept, _mask(text[at:])])


def mask_field(name: str, value: Any) -> Any:
    """The value of a log field, safe to write: None, a bool, a number, a string, or dicts and lists of them."""
    if value is None or isinstance(value, bool):
        return value
    if name in HIDDEN_FIELDS:
        return f"[{len(str(value))} characters]"
    if name in NUMBER_FIELDS:
        return _last_two(str(value))
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {mask(str(key)): mask_field(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [mask_field(name, item) for item in value]
    return mask(str(value))


def _mask(text: str) -> str:
    return _DIGITS.sub(_hide_digits, _EMAIL.sub("[e-mail]", text))


def _hide_digits(found: re.Match[str]) -> str:
    text = found.group()
    return text if _HARMLESS.fullmatch(text) else _last_two(text)


def _last_two(text: str) -> str:
    digits = [character for character in text if character.isdigit()]
    return "***" + "".join(digits[-2:] if len(digits) > 4 else [])
