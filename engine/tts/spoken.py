"""Written language → spoken language: every figure becomes the words a person would say.

    spoken("Замена с 9:00 до 18:00, 205/55 R16 — 2 500 ₽", "ru")

A list of rules runs over the text, the most particular first; each takes its pattern away, so that what
is left to the last rule is plain numbers. The result holds no digits. Any input is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from engine.tts.lexicon import (
    ABBREVIATIONS,
    CURRENCY_SIGNS,
    CURRENCY_WORDS,
    GENITIVE_AFTER,
    MAGNITUDES,
    MINUS,
    MONEY,
    SIGNS,
    UNITS,
)
from engine.tts.markup import plain
from engine.tts.moments import date_rules, time_rules
from engine.tts.numerals import (
    Gender,
    Noun,
    cardinal,
    digits,
    fraction,
    genitive,
    grouped,
    ordinal,
    plural,
)
from engine.tts.phones import PHONE, phone, threes

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]

_NUMBER = r"\d{1,3}(?:[ ,]\d{3})+(?!\d)(?:[.]\d+)?|\d+(?:[.,]\d+)?"
_DASH = r"\s?[-–—]\s?"
_LONGEST_COUNT = 6
"""Longer figures without separators are codes, not counts: they are read sign by sign."""


def spoken(text: str, language: str) -> str:
    """The text as it is said in `language`: en, ru or uk (any other is read as English)."""
    language = language if language in UNITS else "en"
    text = plain(text, language)
    for pattern, replace in _rules(language):
        text = pattern.sub(replace, text)
    for sign, words in SIGNS[language].items():
        text = text.replace(sign, words)
    text = "".join(" " if sign.isdigit() else sign for sign in text)
    text = re.sub(r"\s*[/|\\]\s*", ", ", text)
    text = re.sub(r"[#*_~^<>{}\[\]$€£₽₴%°]", " ", text)
    text = re.sub(r"[^\S\n]+", " ", text)
    text = re.sub(r" ?\n\s*", "\n", text)
    text = re.sub(r"(?<=\.m)\.(?=\.)", "", text)
    text = re.sub(r"([.,:;!?])[ ,]*,", r"\1", text)
    # A line of a list ends like a sentence.
    text = re.sub(r"(?<=\w)\n(?=\S)", ". ", text.strip()).replace("\n", " ")
    return re.sub(r" +([,.!?;:])", r"\1", text).strip(" ,")


@lru_cache(maxsize=8)
def _rules(language: str) -> tuple[Rule, ...]:
    return tuple(
        (re.compile(pattern, re.IGNORECASE), replace)
        for pattern, replace in _written_rules(language)
    )


def _written_rules(language: str) -> Iterator[tuple[str, Callable[[re.Match[str]], str]]]:
    yield from date_rules(language)
    yield r"\b(\d{3})\s?/\s?(\d{2,3})\s?-?\s?Z?R\s?-?(\d{2})(C?)\b", lambda m: _tyre(m, language)
    yield PHONE, lambda m: phone(m, language)
    yield from time_rules(language)
    yield r"(?:(?<=\s)|^|(?<=\())[-−–](?=\d)", lambda m: MINUS[language] + " "
    yield from _money_rules(language)
    for abbreviation, words in ABBREVIATIONS[language].items():
        yield rf"(?<!\w)(?<!\d\s){abbreviation}(?!\w)", _constant(words)
    yield from _unit_rules(language)
    sign = {"en": r"(?:№|#|\bNo\.)", "ru": r"(?:№|#)", "uk": r"(?:№|#)"}[language]
    yield rf"{sign}\s?(?=\d)", lambda m: SIGNS[language]["№"]
    yield from _ordinal_rules(language)
    yield r"\b24/7\b", lambda m: _around_the_clock(language)
    yield r"\d+(?:\.\d+){2,}", lambda m: _dotted(m.group(), language)
    yield (
        rf"(?<![\w.,-])({_NUMBER}){_DASH}({_NUMBER})(?![\w-]|[.,]\d)",
        lambda m: _range(m[1], m[2], None, "", language),
    )
    before = "|".join(GENITIVE_AFTER[language]) or r"(?!)"
    yield (
        rf"(?:\b({before})\s+)?({_NUMBER})(?=(\s+[^\W\d_]+)?)",
        lambda m: _plain_number(m, language),
    )


def _constant(words: str) -> Callable[[re.Match[str]], str]:
    """What ends an enumeration often ends the sentence; a name follows the other abbreviations."""
    ends = words in ("et cetera", "так далее", "тому подобное", "так далі")
    return lambda match: words + (_full_stop(match) if ends else "")


# --- Amounts -------------------------------------------------------------------------------------


def _split(text: str, language: str) -> tuple[str, str]:
    """A written number as (whole part, fraction), both digits only."""
    text = text.replace(" ", "")
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", text) and (language == "en" or "." in text):
        text = text.replace(",", "")
    whole, _, part = text.replace(",", ".").partition(".")
    return whole, part.replace(".", "")


def _amount(text: str, noun: Noun, language: str, of: bool = False) -> str:
    """Number and noun in the right forms; `of` puts both into the genitive."""
    whole, part = _split(text, language)
    if part.rstrip("0"):
        return f"{fraction(whole, part, language)} {noun.of_part(language)}"
    if len(whole) > 12:
        return f"{digits(whole, language)} {noun.many}"
    number = int(whole)
    if of and language != "en":
        ends_in_one = number % 10 == 1 and number % 100 != 11
        return (
            f"{genitive(number, language)} {noun.of_part(language) if ends_in_one else noun.many}"
        )
    return f"{cardinal(number, language, noun.gender)} {plural(number, noun, language)}"


def _range(first: str, last: str, noun: Noun | None, before: str, language: str) -> str:
    """10–15 → ten to fifteen, от десяти до пятнадцати."""
    (low, low_part), (high, high_part) = _split(first, language), _split(last, language)
    if low_part or high_part or len(low) > 12 or len(high) > 12:
        low_words, high_words = _bare(first, language), _bare(last, language)
    else:
        low_words, high_words = genitive(int(low), language), genitive(int(high), language)
    start, to = {"en": ("", "to"), "ru": ("от ", "до"), "uk": ("від ", "до")}[language]
    ending = f" {noun.many}" if noun else ""
    return f"{before or start}{low_words} {to} {high_words}{ending}"


def _bare(text: str, language: str) -> str:
    whole, part = _split(text, language)
    if part:
        return fraction(whole, part, language)
    return cardinal(int(whole), language) if len(whole) <= 12 else digits(whole, language)


def _unit_rules(language: str) -> Iterator[tuple[str, Callable[[re.Match[str]], str]]]:
    units = UNITS[language]
    names = "|".join(
        re.escape(name) for name in sorted(units, key=len, reverse=True) if name[0].isalpha()
    )
    before = "|".join(GENITIVE_AFTER[language]) or r"(?!)"
    quantity = (
        rf"(?:\b((?:{before})\s+))?(?<![\w.,/])(?:({_NUMBER}){_DASH})?(?<![\w.,/])({_NUMBER})"
    )

    def replace(match: re.Match[str]) -> str:
        preposition, first, last, unit = match[1] or "", match[2], match[3], match[4].lower()
        noun = units["°" if unit.startswith("°") else unit]
        if first:
            return _range(first, last, noun, preposition, language) + _full_stop(match)
        return preposition + _amount(last, noun, language, of=bool(preposition)) + _full_stop(match)

    yield rf"{quantity}\s?(%|°\s?[CС]?\b|°)", replace
    yield rf"{quantity}\s?({names})(?![\w/])\.?", replace


def _money_rules(language: str) -> Iterator[tuple[str, Callable[[re.Match[str]], str]]]:
    words = "|".join(sorted(CURRENCY_WORDS, key=len, reverse=True))
    signs = "".join(re.escape(sign) for sign in CURRENCY_SIGNS)
    magnitude = "|".join(MAGNITUDES[language])
    before = "|".join(GENITIVE_AFTER[language]) or r"(?!)"

    def say(match: re.Match[str], number: str, size: str | None, currency: str) -> str:
        code = CURRENCY_SIGNS.get(currency) or CURRENCY_WORDS[currency.lower()]
        preposition = match["before"] or ""
        said = _money(number, size, MONEY[language][code], language, of=bool(preposition))
        return f"{preposition}{said}{_full_stop(match)}"

    start = rf"(?:\b(?P<before>(?:{before})\s+))?"
    range_ = rf"(?<![\w.,])({_NUMBER}){_DASH}({_NUMBER})\s?([{signs}]|(?:{words})(?!\w))\.?"
    yield range_, lambda m: _money_range(m, language)
    yield (
        rf"{start}([{signs}])\s?({_NUMBER})(?:\s?({magnitude})\b\.?)?",
        lambda m: say(m, m[3], m[4], m[2]),
    )
    yield (
        rf"{start}(?<![\w.,])({_NUMBER})(?:\s?({magnitude})\b\.?)?\s?([{signs}]|(?:{words})(?!\w)\.?)",
        lambda m: say(m, m[2], m[3], m[4].rstrip(".")),
    )
    yield (
        rf"{start}(?<![\w.,])({_NUMBER})\s?({magnitude})\b\.?",
        lambda m: (
            (m["before"] or "")
            + _amount(m[2], MAGNITUDES[language][m[3].lower()], language, of=bool(m["before"]))
            + _full_stop(m)
        ),
    )


def _money(number: str, size: str | None, nouns: tuple[Noun, Noun], language: str, of: bool) -> str:
    unit, cent = nouns
    if size:
        return f"{_amount(number, MAGNITUDES[language][size.lower()], language, of)} {unit.many}"
    whole, part = _split(number, language)
    if len(part) not in (1, 2) or not part.rstrip("0"):
        return _amount(number, unit, language, of)
    cents = _amount(part.ljust(2, "0").lstrip("0"), cent, language, of)
    return cents if not whole.strip("0") else f"{_amount(whole, unit, language, of)} {cents}"


def _money_range(match: re.Match[str], language: str) -> str:
    code = CURRENCY_SIGNS.get(match[3]) or CURRENCY_WORDS[match[3].lower()]
    return _range(match[1], match[2], MONEY[language][code][0], "", language) + _full_stop(match)


def _full_stop(match: re.Match[str]) -> str:
    """The dot of an abbreviation that also ends the sentence."""
    if not match.group().endswith("."):
        return ""
    rest = match.string[match.end() :].lstrip()
    return "." if not rest or rest[0].isupper() else ""


# --- Other figures -------------------------------------------------------------------------------


def _tyre(match: re.Match[str], language: str) -> str:
    """205/55 R16: width, profile, rim."""
    width, profile, rim = (int(match[i]) for i in (1, 2, 3))
    if language == "en":
        hundreds, rest = divmod(width, 100)
        tail = f"oh {cardinal(rest, 'en')}" if rest < 10 else cardinal(rest, "en")
        said = (
            f"{cardinal(hundreds, 'en')} {tail}, {cardinal(profile, 'en')}, R {cardinal(rim, 'en')}"
        )
    else:
        radius = {"ru": "радиус", "uk": "радіус"}[language]
        said = f"{cardinal(width, language)} на {cardinal(profile, language)}, {radius} {cardinal(rim, language)}"
    return said + (" C" if match[4] else "")


def _ordinal_rules(language: str) -> Iterator[tuple[str, Callable[[re.Match[str]], str]]]:
    if language == "en":
        yield r"\b(\d{1,9})(?:st|nd|rd|th)\b", lambda m: ordinal(int(m[1]), "en")
        return
    # The written ending is the last letters of the word: 5-го, 5-й, 5-я.
    endings = {
        "ru": {"го": "ого", "му": "ому", "м": "ом", "я": "ая", "е": "ое", "ю": "ую", "й": "ый"},
        "uk": {
            "го": "ого",
            "му": "ому",
            "м": "ому",
            "а": "а",
            "я": "а",
            "е": "е",
            "у": "у",
            "й": "ий",
        },
    }[language]
    yield (
        rf"\b(\d{{1,9}})-({'|'.join(endings)})\b",
        lambda m: ordinal(int(m[1]), language, endings[m[2].lower()]),
    )


def _around_the_clock(language: str) -> str:
    return {"en": "twenty-four seven", "ru": "круглосуточно", "uk": "цілодобово"}[language]


def _dotted(text: str, language: str) -> str:
    """1.2.3 and addresses of computers."""
    point = {"en": "point", "ru": "точка", "uk": "крапка"}[language]
    return f" {point} ".join(
        cardinal(int(part), language) if len(part) <= 3 else digits(part, language)
        for part in text.split(".")
    )


def _plain_number(match: re.Match[str], language: str) -> str:
    preposition, written, noun = match[1], match[2], (match[3] or "").strip().lower()
    before = f"{preposition} " if preposition else ""
    string, start, end = match.string, match.start(2), match.end(2)
    # Letters and figures written together: A4, 16GB.
    left = " " if start and string[start - 1].isalpha() else ""
    right = " " if end < len(string) and string[end].isalpha() else ""
    whole, part = _split(written, language)
    if part:
        said = fraction(whole, part, language) if len(whole) <= 12 else digits(written, language)
    elif written.isdigit() and (
        len(whole) > _LONGEST_COUNT or (whole[0] == "0" and len(whole) > 1)
    ):
        said = ", ".join(grouped(group, language) for group in threes(whole))
    elif preposition:
        said = genitive(int(whole), language)
    else:
        said = cardinal(int(whole), language, _gender(int(whole), noun, language))
    return f"{before}{left}{said}{right}"


_FEMININE_AFTER_TWO = {
    "ru": ("ы", "и", "ые", "ие"),
    # Ukrainian has the same ending for all genders here, so only common words are known.
    "uk": ("ини", "ниці", "адки", "івні", "ійки", "ижки", "анції", "оби", "ітки"),
}
_NOT_NOUNS = {"или", "если", "при", "почти", "после", "для", "та", "або", "чи"}


def _gender(number: int, noun: str, language: str) -> Gender:
    """What the ending of the next word tells: 1 машина, 2 машины, 1 место."""
    if language == "en" or len(noun) < 3 or noun in _NOT_NOUNS:
        return "m"
    last, teen = number % 10, number % 100 in (11, 12)
    if last == 1 and not teen:
        if noun.endswith(("а", "я")):
            return "f"
        return "n" if noun.endswith(("о", "е", "є")) else "m"
    if last == 2 and not teen and noun.endswith(_FEMININE_AFTER_TWO[language]):
        return "f"
    return "m"
