"""A stream of text becomes sentences, as early as each can be known to be over.

A decision at one place looks only at what stands before it and one word's beginning after it, so the
pieces are the same however the text arrives, and joined they are the text again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_CHARS = 220
EARLY_WORDS = 1
""""Sure," alone gives the voice time to make what follows."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# After these a dot never ends a sentence: something belonging to them follows.
_NEVER = _words(
    "mr mrs ms dr prof st no vs e.g i.e approx fig "
    "ул просп пр-т пер пл наб д кв корп стр оф эт им тел г-н г-жа т.е т.к т.н см напр ср "
    "вул буд пров бул ім м див с п"
)
# After these a dot ends a sentence when the next word begins with a capital.
_PERHAPS = _words(
    "etc inc ltd co jr sr a.m p.m hrs min sec dept ext "
    "г гг в вв т.д т.п др пр руб коп р тыс млн млрд мин сек ч час шт обл р-н "
    "грн тис ст хв год рр ін т.зв"
)
_END = ".!?…"
_CLOSING = "\"'»”’)]"
_SPACE = " \t\u00a0"
_PAUSE = ",;:—–"
_WORD = re.compile(r"[\w'’-]+(?:\.[\w'’-]+)*$")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text with the white space that follows it. `early`: a clause, not a sentence."""

    text: str
    early: bool = False


class SentenceSplitter:
    """Feed, feed, end. With `early_words`, the first piece may end at a comma after that many words."""

    def __init__(self, *, max_chars: int = MAX_CHARS, early_words: int = EARLY_WORDS) -> None:
        self._max_chars = max_chars
        self._early_words = early_words
        self._text = ""
        self._at = 0
        """Places before this one are known not to be a border."""
        self._first = True

    def feed(self, text: str) -> list[Piece]:
        self._text += text
        return self._pieces(final=False)

    def end(self) -> list[Piece]:
        """What is left, the stream being over. The splitter may then be used again."""
        pieces = self._pieces(final=True)
        if self._text:
            pieces.append(Piece(self._text))
        self._text, self._at, self._first = "", 0, True
        return pieces

    def _pieces(self, *, final: bool) -> list[Piece]:
        pieces: list[Piece] = []
        while (found := self._border(final=final)) is not None:
            cut, early = found
            pieces.append(Piece(self._text[:cut], early))
            self._text, self._at, self._first = self._text[cut:], 0, False
        return pieces

    def _border(self, *, final: bool) -> tuple[int, bool] | None:
        text = self._text
        while self._at < len(text):
            at = self._at
            if len(text[:at].lstrip()) >= self._max_chars:
                return self._forced(at), False
            if text[at] == "\n" and text[:at].strip():
                cut = _after_space(text, at, "\n")
                return (cut, False) if cut < len(text) else None
            if text[at] in _END:
                marks = _run(text, at, _END)
                cut = _after_space(text, _run(text, marks, _CLOSING), "\n")
                if cut == len(text):  # the next word decides
                    return None
                if _ends_sentence(text, at, marks, cut):
                    return cut, False
                self._at = marks
                continue
            if text[at] in _PAUSE and self._first and self._early_words:
                cut = _after_space(text, at + 1)
                if cut == len(text) and not final:
                    return None
                spaced = at + 1 < cut < len(text)
                if spaced and len(text[:at].split()) >= self._early_words:
                    return cut, True
            self._at = at + 1
        return None

    def _forced(self, at: int) -> int:
        """A cut at the last space before `at`; inside a word without spaces, at `at` itself."""
        head = self._text[:at]
        space = max(head.rfind(space) for space in " \t\u00a0\n")
        return space + 1 if head[:space].strip() and space > 0 else at


def split(text: str) -> list[str]:
    """The sentences of a whole text, without the space between them."""
    splitter = SentenceSplitter(early_words=0)
    pieces = [*splitter.feed(text), *splitter.end()]
    return [piece.text.strip() for piece in pieces if piece.text.strip()]


def _ends_sentence(text: str, at: int, marks: int, cut: int) -> bool:
    """Whether the marks `text[at:marks]` end a sentence whose successor begins at `cut`."""
    follower = text[cut]
    spaced = text[cut - 1] in _SPACE or text[cut - 1] == "\n"
    if not spaced:  # 3.5, offhook.toml, "?!" glued to a word
        return False
    if text[cut - 1] == "\n":
        return True
    run = text[at:marks]
    if run != ".":
        # "Well... yes" goes on; "What?" and "Stop!" do not, unless a quotation goes on after them.
        return not follower.islower()
    match = _WORD.search(text[:at])
    word = match.group() if match else ""
    low = word.lower()
    if low in _NEVER:
        return False
    if low in _PERHAPS:
        return follower.isupper() and not _names_a_city(text, at, low)
    if len(word) == 1 and word.isalpha() and word.isupper() and word != "I":  # J. Smith
        return False
    if word.isdigit() and text[:at].strip() == word:  # "1. First", a list
        return False
    return not follower.islower()


def _names_a_city(text: str, at: int, word: str) -> bool:
    """«г. Москва», as against «в 2024 г. Москва…»: no number stands before it."""
    if word not in ("г", "ст", "р"):
        return False
    before = text[: at - len(word)].rstrip()
    return not before[-1:].isdigit()


def _run(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _after_space(text: str, at: int, more: str = "") -> int:
    return _run(text, at, _SPACE + more)
