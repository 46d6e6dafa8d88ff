"""Numbers as words in English, Russian and Ukrainian, with the forms the words around them need."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from num2words import num2words

Gender = Literal["m", "f", "n"]
_LARGEST = 10**12


class Noun(NamedTuple):
    """A counted word: 1 minute, 2 minutes, 5 minutes.

    `singular_genitive` follows a fraction; empty where it is the same as `few`, as always in Russian.
    """

    one: str
    few: str
    many: str
    gender: Gender = "m"
    singular_genitive: str = ""

    def of_part(self, language: str) -> str:
        return self.many if language == "en" else self.singular_genitive or self.few


def plural(number: int, noun: Noun, language: str) -> str:
    """The form of the noun after this number."""
    number = abs(number)
    if language == "en":
        return noun.one if number == 1 else noun.many
    if number % 10 == 1 and number % 100 != 11:
        return noun.one
    if number % 10 in (2, 3, 4) and number % 100 not in (12, 13, 14):
        return noun.few
    return noun.many


def cardinal(number: int, language: str, gender: Gender = "m") -> str:
    """7 → seven. Numbers beyond a trillion are read digit by digit."""
    if abs(number) >= _LARGEST:
        return digits(str(abs(number)), language)
    words: str = num2words(number, lang=language).replace(" and ", " ").replace(",", "")
    if gender == "m" or language == "en":
        return words
    head, _, last = words.rpartition(" ")
    return f"{head} {_GENDERED[language][gender].get(last, last)}".strip()


def genitive(number: int, language: str) -> str:
    """The form after `from` and `to`: 7 → семи, семи. English has none."""
    if language == "en" or abs(number) >= _LARGEST:
        return cardinal(number, language)
    if language == "ru":
        words: str = num2words(number, lang="ru", case="g")
        return words
    return " ".join(_UK_GENITIVE.get(word, word) for word in cardinal(number, "uk").split())


def ordinal(number: int, language: str, ending: str = "") -> str:
    """7 → seventh, седьмой, сьомий; `ending` is the wanted Slavic ending: ого, ому, ом, ая, ое, ый."""
    if abs(number) >= _LARGEST:
        return digits(str(abs(number)), language)
    if number == 0 and language == "uk":
        words = "нульовий"  # num2words knows no such word
    else:
        words = num2words(number, lang=language, to="ordinal")
    if language == "en":
        return words.replace(" and ", " ").replace(",", "")
    if not ending:
        return words
    head, _, last = words.rpartition(" ")
    return f"{head} {_inflect(last, language, ending)}".strip()


def _inflect(word: str, language: str, ending: str) -> str:
    if language == "ru":
        if word == "третий":
            soft = {"ого": "его", "ому": "ему", "ом": "ем", "ая": "я", "ое": "е", "ую": "ю"}
            return word if ending == "ый" else "треть" + soft.get(ending, ending)
        return word if ending == "ый" else re.sub(r"(ый|ой|ий)$", ending, word)
    if word == "третій":
        soft = {"ого": "ього", "ому": "ьому", "ої": "ьої", "а": "я", "е": "є", "у": "ю"}
        return word if ending == "ий" else "трет" + soft.get(ending, ending)
    return word if ending == "ий" else re.sub(r"ий$", ending, word)


def year(number: int, language: str, ending: str = "") -> str:
    """2026 → twenty twenty-six; Slavic years are ordinals."""
    if language != "en":
        return ordinal(number, language, ending)
    if 2000 <= number < 2010:
        return cardinal(number, "en")
    words: str = num2words(number, lang="en", to="year")
    return words


def fraction(whole: str, part: str, language: str) -> str:
    """3,25 → three point two five, три целых двадцать пять сотых, три цілих двадцять п'ять сотих."""
    number = int(whole)
    part = part.rstrip("0")
    if not part:
        return cardinal(number, language)
    if language == "en" or len(part) > 3 or len(whole) > 9:
        point = {"en": "point", "ru": "запятая", "uk": "кома"}[language]
        return f"{cardinal(number, language)} {point} {digits(part, language)}"
    ones, rest = _FRACTIONS[language][len(part)]
    unit_one, unit_many = {"ru": ("целая", "целых"), "uk": ("ціла", "цілих")}[language]
    return " ".join(
        [
            cardinal(number, language, "f"),
            unit_one if _ends_in_one(number) else unit_many,
            cardinal(int(part), language, "f"),
            ones if _ends_in_one(int(part)) else rest,
        ]
    )


def digits(text: str, language: str) -> str:
    """Each digit by itself."""
    return " ".join(_DIGITS[language][int(sign)] for sign in text if sign.isdecimal())


def grouped(text: str, language: str) -> str:
    """A group of a telephone number: 495 → four nine five, четыреста девяносто пять, 05 → ноль пять."""
    if language != "en" and len(text) == 4:
        return f"{grouped(text[:2], language)}, {grouped(text[2:], language)}"
    if language == "en" or len(text) > 3:
        return digits(text, language)
    zeros = len(text) - len(text.lstrip("0"))
    parts = [_DIGITS[language][0]] * zeros
    if zeros < len(text):
        parts.append(cardinal(int(text), language))
    return " ".join(parts)


def _ends_in_one(number: int) -> bool:
    return number % 10 == 1 and number % 100 != 11


_DIGITS = {
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "ru": ["ноль", "один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять"],
    "uk": ["нуль", "один", "два", "три", "чотири", "п'ять", "шість", "сім", "вісім", "дев'ять"],
}
_GENDERED: dict[str, dict[Gender, dict[str, str]]] = {
    "ru": {"f": {"один": "одна", "два": "две"}, "n": {"один": "одно"}},
    "uk": {"f": {"один": "одна", "два": "дві"}, "n": {"один": "одне"}},
}
_FRACTIONS = {
    "ru": {
        1: ("десятая", "десятых"),
        2: ("сотая", "сотых"),
        3: ("тысячная", "тысячных"),
    },
    "uk": {1: ("десята", "десятих"), 2: ("сота", "сотих"), 3: ("тисячна", "тисячних")},
}
_UK_GENITIVE = {
    "нуль": "нуля",
    "один": "одного",
    "одна": "однієї",
    "два": "двох",
    "дві": "двох",
    "три": "трьох",
    "чотири": "чотирьох",
    "п'ять": "п'яти",
    "шість": "шести",
    "сім": "семи",
    "вісім": "восьми",
    "дев'ять": "дев'яти",
    "десять": "десяти",
    "одинадцять": "одинадцяти",
    "дванадцять": "дванадцяти",
    "тринадцять": "тринадцяти",
    "чотирнадцять": "чотирнадцяти",
    "п'ятнадцять": "п'ятнадцяти",
    "шістнадцять": "шістнадцяти",
    "сімнадцять": "сімнадцяти",
    "вісімнадцять": "вісімнадцяти",
    "дев'ятнадцять": "дев'ятнадцяти",
    "двадцять": "двадцяти",
    "тридцять": "тридцяти",
    "сорок": "сорока",
    "п'ятдесят": "п'ятдесяти",
    "шістдесят": "шістдесяти",
    "сімдесят": "сімдесяти",
    "вісімдесят": "вісімдесяти",
    "дев'яносто": "дев'яноста",
    "сто": "ста",
    "двісті": "двохсот",
    "триста": "трьохсот",
    "чотириста": "чотирьохсот",
    "п'ятсот": "п'ятисот",
    "шістсот": "шестисот",
    "сімсот": "семисот",
    "вісімсот": "восьмисот",
    "дев'ятсот": "дев'ятисот",
    "тисяча": "тисячі",
    "тисячі": "тисяч",
    "мільйон": "мільйона",
    "мільйони": "мільйонів",
}
