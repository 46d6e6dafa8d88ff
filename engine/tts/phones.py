"""Telephone numbers, said in the groups they are written in."""

from __future__ import annotations

import re

import phonenumbers

from engine.tts.numerals import grouped

PHONE = r"(?<![\w.,+])(\+?\(?\d[\d ()\-.\u2010\u2011]{7,}\d)(?!\w)"
_PLUS = {"en": "plus", "ru": "плюс", "uk": "плюс"}


def phone(match: re.Match[str], language: str) -> str:
    """+7 495 123-45-67 → плюс семь, четыреста девяносто пять, сто двадцать три, сорок пять, …

    What is not a telephone number is given back as it was.
    """
    written = match[1]
    groups = re.findall(r"\d+", written)
    if not _is_phone(written, groups):
        return match.group()
    if any(len(group) > 4 for group in groups):
        groups = _regroup(written)
    said = ", ".join(grouped(group, language) for group in groups)
    return f"{_PLUS[language]} {said}" if written.startswith("+") else said


def _is_phone(written: str, groups: list[str]) -> bool:
    count = sum(map(len, groups))
    if not 10 <= count <= 15:
        return False
    if (
        written.startswith("+")
        or "(" in written
        or len(re.findall(r"[-\u2010\u2011]", written)) >= 2
    ):
        return True
    # Without such a sign only the usual lengths: 8 800 … in Russia, 0 … in Ukraine, 3-3-4 in America.
    if count == 11 and groups[0][0] in "87":
        return True
    if count == 10 and groups[0][0] == "0":
        return True
    return [len(group) for group in groups] == [3, 3, 4]


def _regroup(written: str) -> list[str]:
    """The groups of the number's own country where it is given, else threes."""
    numerals = re.sub(r"\D", "", written)
    if written.startswith("+"):
        try:
            parsed = phonenumbers.parse(f"+{numerals}")
            layout = phonenumbers.PhoneNumberFormat.INTERNATIONAL
            found = re.findall(r"\d+", phonenumbers.format_number(parsed, layout))
        except phonenumbers.NumberParseException:
            found = []
        if found and max(map(len, found)) <= 4:
            return found
    return threes(numerals)


def threes(numerals: str) -> list[str]:
    """Groups of three; a single digit left over makes the last four two and two."""
    cut = len(numerals) - 4 if len(numerals) % 3 == 1 and len(numerals) > 3 else len(numerals)
    groups = [numerals[i : min(i + 3, cut)] for i in range(0, cut, 3)]
    return groups if cut == len(numerals) else [*groups, numerals[cut:-2], numerals[-2:]]
