"""What a language model writes for the eye — Markdown, links, pictures — taken out before it is spoken."""

from __future__ import annotations

import re
import unicodedata

from engine.tts.lexicon import DOT, HALVES, SIGNS

_CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]\n]*)\]\([^)\s]*\)")
_URL = re.compile(r"\b(?:https?://|www\.)([^\s/?#<>()]+)[^\s<>()]*", re.IGNORECASE)
_EMAIL = re.compile(r"\b([\w.+-]+)@([\w-]+(?:\.[\w-]+)+)")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_BULLET = re.compile(r"^[ \t]*(?:[-*+•–—]|#{1,6}|>)[ \t]+", re.MULTILINE)
_TABLE_RULE = re.compile(r"^[ \t|:-]{3,}$", re.MULTILINE)
_EMPHASIS = re.compile(r"(\*{1,3}|~~|`|(?<!\w)_{1,3}|_{1,3}(?!\w))")
_UNSPEAKABLE = {"So", "Sk", "Cs", "Co", "Cn", "Cf", "Cc", "Me"}


def plain(text: str, language: str) -> str:
    """Text without markup, pictures and control characters; addresses are spelled out."""
    for sign, words in HALVES[language].items():
        text = text.replace(sign, words)
    # Before normalising, which would turn it into the letters "No".
    text = text.replace("№", SIGNS[language]["№"])
    text = unicodedata.normalize("NFKC", text)
    text = _CODE_BLOCK.sub(" ", text)
    text = _LINK.sub(r"\1", text)
    text = _URL.sub(lambda m: _address(m.group(1), language), text)
    text = _EMAIL.sub(
        lambda m: (
            f"{_address(m.group(1), language)}{SIGNS[language]['@']}{_address(m.group(2), language)}"
        ),
        text,
    )
    text = _TAG.sub(" ", text)
    text = _TABLE_RULE.sub(" ", text)
    text = _BULLET.sub("", text)
    text = _EMPHASIS.sub("", text)
    return "".join(_sign(sign) for sign in text)


def _address(name: str, language: str) -> str:
    """shop.example.com → shop dot example dot com, the www left out and a final full stop kept."""
    name = name.removeprefix("www.")
    end = "." if name.endswith(".") else ""
    return name.strip(".,;:!").replace(".", DOT[language]).replace("_", " ") + end


def _sign(sign: str) -> str:
    if sign in "\n\r\t":
        return "\n" if sign == "\n" else " "
    if (value := unicodedata.digit(sign, None)) is not None:
        return str(value)
    kind = unicodedata.category(sign)
    if sign != "°" and kind in _UNSPEAKABLE:
        return " " if kind == "So" else ""
    return sign
