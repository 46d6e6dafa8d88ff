"""What Whisper writes when nobody speaks: the closing words of the subtitles it was trained on."""

from __future__ import annotations

import re

_WHOLE = {
    "thank you",
    "thank you very much",
    "thank you for watching",
    "thanks for watching",
    "thank you so much for watching",
    "please subscribe",
    "subscribe",
    "bye",
    "you",
    "so",
    "the end",
    "music",
    "applause",
    "продолжение следует",
    "спасибо за просмотр",
    "спасибо за внимание",
    "спасибо",
    "подпишись на канал",
    "подписывайтесь на канал",
    "до свидания",
    "до новых встреч",
    "всем пока",
    "пока",
    "музыка",
    "аплодисменты",
    "конец",
    "дякую",
    "дякую за перегляд",
    "дякую за увагу",
    "дякуємо за перегляд",
    "до зустрічі",
    "до побачення",
    "далі буде",
}
_STARTS = (
    "субтитры",
    "субтитри",
    "редактор субтитров",
    "корректор",
    "переклад субтитрів",
    "subtitles by",
    "transcription by",
    "translated by",
    "amara org",
)
_NOT_WORDS = re.compile(r"[^\w]+")


def is_hallucination(text: str) -> bool:
    """Whether the text is nothing but such words. A caller may say "thank you", so ask this only of
    sound that hardly holds speech."""
    words = _NOT_WORDS.sub(" ", text).strip().casefold()
    return not words or words in _WHOLE or words.startswith(_STARTS)
