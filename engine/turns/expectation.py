"""What kind of answer is the caller about to give? Told from the agent's last sentence, and from their own words.

Somebody who dictates a number looks it up between two groups of digits; somebody who was asked "shall I?"
says one word. Both are heard by keywords: the worst a wrong guess does is a moment of waiting.
"""

from __future__ import annotations

import re
from enum import Enum, auto


class Expectation(Enum):
    ANYTHING = auto()
    DICTATION = auto()
    """Digits, an address, a spelled name: pauses belong to it."""
    YES_OR_NO = auto()


_DICTATED = {
    "en": r"number|digits?|code|pin|e-?mail|address|spell\w*|postcode|zip|street|date of birth|full name",
    "ru": r"номер\w*|цифр\w*|код\w*|пин\w*|почт\w*|e-?mail|имейл\w*|адрес\w*|улиц\w*|индекс\w*|по буквам"
    r"|дат\w+ рождения|фамили\w+",
    "uk": r"номер\w*|цифр\w*|код\w*|пін\w*|пошт\w*|e-?mail|імейл\w*|адрес\w*|вулиц\w*|індекс\w*|по літерах"
    r"|дат\w+ народження|прізвищ\w+",
}
_ASKED_FOR = {
    "en": r"what(?:'s| is| was)|which|tell|give|say|spell|dictate|enter|provide|leave|may i have|can i have"
    r"|could i have|repeat",
    "ru": r"какой|какая|какое|каков\w*|скажите|назовите|продиктуйте|сообщите|введите|укажите|оставьте"
    r"|повторите|наберите|подскажите",
    "uk": r"який|яка|яке|скажіть|назвіть|продиктуйте|повідомте|введіть|вкажіть|залиште|повторіть"
    r"|наберіть|підкажіть",
}
_YES_OR_NO = {
    "en": r"^(?:\w+,? )?(?:is|are|was|do|does|did|can|could|shall|should|will|would|have|has)\b"
    r"|\b(?:right|correct|okay|is that so)\?$|\byes or no\b",
    "ru": r"\bли\b|\b(?:верно|правильно|так|да|хорошо|согласны|удобно|подходит|подойд[её]т)\?$|^(?:вам|вы|вас)\b"
    r"|\bда или нет\b",
    "uk": r"^чи\b|\b(?:вірно|правильно|так|добре|згодні|зручно|підходить|підійде)\?$|^(?:вам|ви|вас)\b"
    r"|\bтак чи ні\b",
}
_OPEN = {
    "en": r"\b(?:what|which|who|whom|where|when|why|how|or)\b",
    "ru": r"\b(?:что|чего|чем|какой|какая|какое|какие|кто|кого|кому|где|куда|когда|почему|как|сколько|или)\b",
    "uk": r"\b(?:що|чого|чим|який|яка|яке|які|хто|кого|кому|де|куди|коли|чому|як|скільки|або)\b",
}
_NUMBERS = {
    "en": "zero oh one two three four five six seven eight nine double triple dash dot",
    "ru": "ноль один два три четыре пять шесть семь восемь девять точка собака дефис тире",
    "uk": "нуль один два три чотири п'ять шість сім вісім дев'ять крапка собака дефіс тире",
}
_AT_LEAST = 3
_WHOLE_NUMBER = 10
"""So many digits in a row are a telephone number, and nothing more is to come."""
_TOKEN = re.compile(r"[\w']+|@")


def asked_for(sentence: str, language: str) -> Expectation:
    """What the agent's last sentence leads one to expect. Other languages than en, ru, uk: anything."""
    text = " ".join(sentence.casefold().split())
    if language not in _DICTATED:
        return Expectation.ANYTHING
    if re.search(rf"\b(?:{_ASKED_FOR[language]})\b.*\b(?:{_DICTATED[language]})\b", text):
        return Expectation.DICTATION
    open_question = re.search(_OPEN[language], re.sub(r"yes or no|да или нет|так чи ні", "", text))
    if text.endswith("?") and not open_question and re.search(_YES_OR_NO[language], text):
        return Expectation.YES_OR_NO
    return Expectation.ANYTHING


def dictates(words: str, language: str) -> bool:
    """What was said so far ends in digits, letters or the parts of an e-mail address: more may follow."""
    numbers = _NUMBERS.get(language, "").split()
    run = 0
    for token in reversed(_TOKEN.findall(words.casefold().replace("’", "'"))):
        if token.isdigit():
            run += len(token)
        elif token in numbers or len(token) == 1:
            run += 1
        else:
            break
    return _AT_LEAST <= run < _WHOLE_NUMBER
