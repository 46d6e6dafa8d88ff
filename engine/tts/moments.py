"""Dates and times of day as they are said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from engine.tts.lexicon import HOURS, MONTHS
from engine.tts.numerals import cardinal, genitive, ordinal, plural, year

Replace = Callable[[re.Match[str]], str]
_DASH = r"\s?[-–—]\s?"
_CLOCK = r"(?<![\w:.,])(\d{1,2}):(\d{2})(?::\d{2})?(?!:?\d)"


# --- Dates ---------------------------------------------------------------------------------------


def date_rules(language: str) -> Iterator[tuple[str, Replace]]:
    def iso(match: re.Match[str]) -> str:
        return _date(match, int(match[3]), int(match[2]), int(match[1]), language)

    def dotted(match: re.Match[str]) -> str:
        return _date(match, int(match[1]), int(match[2]), _full_year(match[3]), language)

    def slashed(match: re.Match[str]) -> str:
        day, month = (match[2], match[1]) if language == "en" else (match[1], match[2])
        return _date(match, int(day), int(month), _full_year(match[3]), language)

    # "T" joins a date and a time in what machines write.
    yield r"(?<![\w-])(\d{4})-(\d{2})-(\d{2})(?:T(?=\d{2}:\d{2})|(?![\w-]))", iso
    yield r"(?<![\w.])(\d{1,2})\.(\d{1,2})\.(\d{4}|\d{2})(?![\w])(?!\.\d)", dotted
    yield r"(?<![\w/])(\d{1,2})/(\d{1,2})/(\d{4})(?![\w/])", slashed
    months = "|".join(MONTHS[language])
    if language == "en":
        short = "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec"
        yield (
            rf"\b({months}|{short})\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)(?:,?\s+(\d{{4}})\b)?",
            lambda m: _named_en(m, m[1], m[2], m[3]),
        )
        yield (
            rf"\b(\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?({months})\b(?:,?\s+(\d{{4}})\b)?",
            lambda m: _named_en(m, m[2], m[1], m[3]),
        )
        yield (
            r"\b(in|since|by|of|year|until|from)\s+((?:19|20)\d{2})(?![\w:]|[.,]\d|\s?[%$€£₽₴])",
            lambda m: f"{m[1]} {year(int(m[2]), 'en')}",
        )
        return
    word = {"ru": r"(?:года|год|г\.)", "uk": r"(?:року|рік|р\.)"}[language]
    yield (
        rf"(?<![\w.,])(\d{{1,2}})\s+({months})\b(?:\s+(\d{{4}})\b(?:\s+{word})?)?",
        lambda m: _named_slavic(m, language),
    )
    yield from _year_rules(language)


def _year_rules(language: str) -> Iterator[tuple[str, Replace]]:
    cases = {
        "ru": (
            (r"года|г\.", "ого", "года"),
            (r"году", "ом", "году"),
            (r"годом", "ым", "годом"),
            (r"год", "ый", "год"),
        ),
        "uk": (
            (r"року|р\.", "ого", "року"),
            (r"році", "ому", "році"),
            (r"роком", "им", "роком"),
            (r"рік", "ий", "рік"),
        ),
    }[language]

    def rule(ending: str, noun: str) -> Replace:
        return lambda m: f"{year(int(m[1]), language, ending)} {noun}"

    for written, ending, noun in cases:
        yield rf"(?<![\w.,])((?:1\d|20)\d{{2}})\s+(?:{written})(?!\w)", rule(ending, noun)


def _date(match: re.Match[str], day: int, month: int, of_year: int, language: str) -> str:
    if not (1 <= day <= 31 and 1 <= month <= 12):
        return match.group()
    name = MONTHS[language][month - 1]
    space = " " if match.group().endswith("T") else ""
    if language == "en":
        return f"{name} {ordinal(day, 'en')}, {year(of_year, 'en')}{space}"
    noun = {"ru": "года", "uk": "року"}[language]
    return f"{_day(match, day, language)} {name} {year(of_year, language, 'ого')} {noun}{space}"


def _named_en(match: re.Match[str], month: str, day: str, of_year: str | None) -> str:
    if not 1 <= int(day) <= 31:
        return match.group()
    full = next(name for name in MONTHS["en"] if name.lower().startswith(month[:3].lower()))
    said = f"{full} {ordinal(int(day), 'en')}"
    return f"{said}, {year(int(of_year), 'en')}" if of_year else said


def _named_slavic(match: re.Match[str], language: str) -> str:
    day = int(match[1])
    if not 1 <= day <= 31:
        return match.group()
    said = f"{_day(match, day, language)} {match[2]}"
    if match[3]:
        noun = {"ru": "года", "uk": "року"}[language]
        said += f" {year(int(match[3]), language, 'ого')} {noun}"
    return said


def _day(match: re.Match[str], day: int, language: str) -> str:
    """двадцать первого ноября, but на двадцать первое ноября."""
    on = re.search(r"\bна\s$", match.string[: match.start()], re.IGNORECASE)
    neuter = {"ru": "ое", "uk": "е"}[language]
    return ordinal(day, language, neuter if on else "ого")


def _full_year(written: str) -> int:
    return int(written) if len(written) == 4 else 2000 + int(written)


# --- Times of day --------------------------------------------------------------------------------


def time_rules(language: str) -> Iterator[tuple[str, Replace]]:
    if language == "en":
        half = r"(?:\s?([ap])\.?m\b\.?)?"
        yield rf"{_CLOCK}{half}{_DASH}(\d{{1,2}}):(\d{{2}})(?!:?\d){half}", _range_en
        yield rf"{_CLOCK}{half}", lambda m: _clock_en(m, m[1], m[2], m[3] or "")
        yield (
            r"(?<![\w:.,])(\d{1,2})\s?([ap])\.?m\b\.?",
            lambda m: _clock_en(m, m[1], "00", m[2]),
        )
        return
    start = {"ru": r"с|со|от", "uk": r"з|із|від"}[language]
    yield (
        rf"(?:\b({start})\s+)?{_CLOCK}{_DASH}(\d{{1,2}}):(\d{{2}})(?!:?\d)",
        lambda m: _range_slavic(m, language),
    )
    before = {
        "ru": r"с|со|от|до|после|около",
        "uk": r"з|із|від|до|після|о|об|близько",
    }[language]
    yield rf"(?:\b({before})\s+)?{_CLOCK}", lambda m: _clock_slavic(m, language)


def _is_time(hour: str, minute: str) -> bool:
    return int(hour) <= 24 and int(minute) < 60


def _clock_en(
    match: re.Match[str], hour: str, minute: str, half: str, *, morning: bool = False
) -> str:
    """Half a day is named only where it was written or is certain: 3:30 may be either."""
    if not _is_time(hour, minute):
        return match.group()
    number = int(hour)
    half = half.lower() or ("p" if 13 <= number < 24 else "")
    if not half and (hour.startswith("0") or number in (0, 24) or (morning and number < 12)):
        half = "a"
    said = cardinal((number - 1) % 12 + 1, "en")
    if minute != "00":
        said += " oh" if minute.startswith("0") else ""
        said += f" {cardinal(int(minute), 'en')}"
    elif not half:
        return f"{said} o'clock"
    return f"{said} {half}.m." if half else said


def _range_en(match: re.Match[str]) -> str:
    first, first_half, last, last_half = match[1], match[3] or "", match[4], match[6] or ""
    if not (_is_time(first, match[2]) and _is_time(last, match[5])):
        return match.group()
    morning = not last_half and int(last) >= 13
    start = _clock_en(match, first, match[2], first_half, morning=morning)
    return f"{start} to {_clock_en(match, last, match[5], last_half)}"


def _clock_slavic(match: re.Match[str], language: str) -> str:
    if not _is_time(match[2], match[3]):
        return match.group()
    before = f"{match[1]} " if match[1] else ""
    if language == "uk":
        at = (match[1] or "").lower() in ("о", "об")
        ending, noun = ("ій", "годині") if at else ("ої", "години") if match[1] else ("а", "година")
        return before + _hour_uk(match[2], match[3], ending, noun)
    return before + _hour_ru(match[2], match[3], of=bool(match[1]))


def _range_slavic(match: re.Match[str], language: str) -> str:
    if not (_is_time(match[2], match[3]) and _is_time(match[4], match[5])):
        return match.group()
    if language == "uk":
        start = _hour_uk(match[2], match[3], "ої", "")
        return f"{match[1] or 'з'} {start} до {_hour_uk(match[4], match[5], 'ої', 'години')}"
    start = (
        genitive(int(match[2]), "ru") if match[3] == "00" else _hour_ru(match[2], match[3], of=True)
    )
    return f"{match[1] or 'с'} {start} до {_hour_ru(match[4], match[5], of=True)}"


def _hour_ru(hour: str, minute: str, *, of: bool) -> str:
    number = int(hour)
    say = genitive if of else cardinal
    if minute == "00":
        noun = HOURS["ru"]
        if of:
            word = noun.few if number % 10 == 1 and number != 11 else noun.many
        else:
            word = plural(number, noun, "ru")
        return f"{say(number, 'ru')} {word}"
    zero = ("ноля " if of else "ноль ") if minute.startswith("0") else ""
    return f"{say(number, 'ru')} {zero}{say(int(minute), 'ru')}"


def _hour_uk(hour: str, minute: str, ending: str, noun: str) -> str:
    """Ukrainian hours are ordinals: дев'ята година, з дев'ятої, о дев'ятій."""
    said = ordinal(int(hour), "uk", ending)
    if minute == "00":
        return f"{said} {noun}".strip()
    zero = "нуль " if minute.startswith("0") else ""
    return f"{said} {zero}{cardinal(int(minute), 'uk', 'f')}"
