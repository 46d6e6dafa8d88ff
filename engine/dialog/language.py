"""Which language the caller speaks, among the agent's own.

Whisper takes Ukrainian for Russian and the other way round, the more so on the telephone, so the letters
of its transcript and common words count beside its own verdict. One short word never switches; surzhyk
(Ukrainian and Russian in one sentence) stays in the language of the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LETTERS = {"uk": frozenset("іїєґ"), "ru": frozenset("ыэёъ")}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COMMON = {
    "uk": _words(
        "що як це так ні добрий дякую будь ласка мене мені вас вам ви ми вони потрібно можна хочу "
        "скільки коштує коли де чи та але вже ще день добре зараз мій ваш вітаю ціна працюєте треба "
        "або якщо привіт"
    ),
    "ru": _words(
        "что как это да нет добрый спасибо пожалуйста меня мне вас вам вы мы они нужно можно хочу "
        "сколько стоит когда где ли и но уже ещё еще день хорошо сейчас мой ваш здравствуйте цена "
        "работаете надо или если привет"
    ),
    "en": _words(
        "the a is are you i it to of and what how when where do can please thanks hello yes no my "
        "your want need"
    ),
}
# Words of both languages prove neither.
_SHARED = _COMMON["uk"] & _COMMON["ru"]
_WORD = re.compile(r"[^\W\d_]+(?:['’ʼ-][^\W\d_]+)*")

SHORT_WORDS = 2
"""An utterance of this many words or fewer does not switch the language by itself."""
HINT_WEIGHT = 1.0
CLEAR = 1.5
"""A language must lead by this score to take the conversation over."""
MIN_CONFIDENCE = 0.4


def scores(text: str, languages: Sequence[str], hint: str = "") -> dict[str, float]:
    """How much speaks for each language: words with its own letters, common words, the hint."""
    words = [word.lower() for word in _WORD.findall(text)]
    found = dict.fromkeys(languages, 0.0)
    cyrillic = sum(any("а" <= letter <= "я" or letter in "іїєґё" for letter in w) for w in words)
    latin = len(words) - cyrillic
    for language in languages:
        own = _LETTERS.get(language, frozenset())
        if language == "en":
            found[language] += latin - cyrillic
        else:
            found[language] += (cyrillic - latin) * 0.5
        found[language] += sum(bool(own & set(word)) for word in words)
        found[language] += sum(word in _COMMON[language] - _SHARED for word in words)
        if language == hint:
            found[language] += HINT_WEIGHT
    return found


class LanguageTracker:
    """The language of one conversation. Feed it every confirmed turn."""

    def __init__(self, languages: Sequence[str]) -> None:
        self._languages = tuple(languages)
        self._wanted = ""
        """The other language a short utterance pointed to last time."""
        self.current = self._languages[0]

    def guess(self, text: str, hint: str = "", confidence: float = 1.0) -> str:
        """The language to answer in, without remembering anything: for speculation."""
        return self._decide(text, hint, confidence)[0]

    def hear(self, text: str, hint: str = "", confidence: float = 1.0) -> str:
        """The language to answer in. `hint` and `confidence` are the transcript's."""
        self.current, self._wanted = self._decide(text, hint, confidence)
        return self.current

    def _decide(self, text: str, hint: str, confidence: float) -> tuple[str, str]:
        words = _WORD.findall(text)
        if len(self._languages) == 1 or not words or confidence < MIN_CONFIDENCE:
            return self.current, self._wanted
        found = scores(text, self._languages, hint)
        best = max(found, key=lambda language: (found[language], language == self.current))
        if best == self.current or found[best] - found[self.current] < CLEAR:
            return self.current, ""
        if len(words) <= SHORT_WORDS and self._wanted != best:
            return self.current, best
        return best, ""
