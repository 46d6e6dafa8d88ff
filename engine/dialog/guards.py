"""Rules that do not depend on a small model: a person on demand, goodbye, and what may be spoken.

They are narrow on purpose. A request that they miss still reaches the model, which has the same tools;
a word that they take for a request sends a caller away against his will.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Intent = Literal["operator", "goodbye"]

MAX_CLARIFICATIONS = 2

_PERSON = {
    "en": (
        r"(?:(?:a|an|the|your|some|any|one of your)\s+)?(?:(?:real|live|actual|human|sales|duty|other)\s+)*"
        r"(?:person|people|human(?:\s+being)?|operators?|agents?|manager|representative|supervisor|"
        r"receptionist|somebody|someone|colleague|staff|sales)"
    ),
    "ru": (
        r"(?:(?:вашим|ваш\w*|живым|живого|живой|живому|настоящим|реальным|кем-нибудь|другим|"
        r"каким-нибудь)\s+)*(?:оператор\w*|человек\w*|менеджер\w*|сотрудник\w*|специалист\w*|"
        r"консультант\w*|администратор\w*|людьми|руководител\w*|начальник\w*)"
    ),
    "uk": (
        r"(?:(?:вашим|ваш\w*|живою|живим|живого|справжньою|справжнім|іншим|якимось)\s+)*"
        r"(?:оператор\w*|людин\w*|менеджер\w*|співробітник\w*|працівник\w*|спеціаліст\w*|фахівц\w*|"
        r"консультант\w*|адміністратор\w*|керівник\w*)"
    ),
}
_PLEASE = {
    "en": r"(?:please|now|hello|hi|hey|yes|no|just|well|okay|ok|thanks|thank you)",
    "ru": r"(?:пожалуйста|алло|здравствуйте|да|нет|ну|просто|дайте|мне|можно|давайте|срочно|нужен|нужна)",
    "uk": r"(?:будь ласка|алло|вітаю|добрий день|так|ні|ну|просто|дайте|мені|можна|давайте|потрібен|потрібна)",
}
_ASKS = {
    "en": (
        r"(?:speak|talk|chat)(?:ing)?\s+(?:directly\s+)?(?:(?:to|with)\s+)?{person}",
        r"(?:get|give|connect|transfer|put|pass|switch|direct|redirect)\s+(?:me|us|this call)\s+"
        r"(?:back\s+|straight\s+|over\s+|through\s+)*(?:to\s+|with\s+|on to\s+)?{person}",
        r"(?:i|we)\s*(?:want|need|would like|'d like|d like|demand|prefer)\s+{person}"
        r"(?!\s+(?:who|that|to (?!talk|speak|help|answer|call))\b)",
        r"(?:can|could|may)\s+i\s+have\s+{person}",
        r"is\s+there\s+(?:a|any)\s+(?:real\s+|live\s+)?(?:person|human|operator)\s+"
        r"(?:i\s+can\s+(?:talk|speak)|there|available)",
    ),
    "ru": (
        r"соедин\w*\s+(?:меня\s+|нас\s+|мне\s+|пожалуйста\s+)*(?:с|со)\s+\w+",
        # The verb itself is often misheard.
        r"(?:меня|мне|нас)\s+(?:с|со)\s+{person}",
        r"(?:переключ|перевед|перевест)\w*\s+(?:меня\s+|нас\s+|пожалуйста\s+|звонок\s+)*(?:на|к|с|со)\s+{person}",
        r"(?:поговорить|говорить|пообщаться|общаться|связаться|связь)\s+(?:с|со)\s+{person}",
        r"(?:позов|приглас|дайте|дай|позвать|пригласит)\w*\s+(?:мне\s+|к телефону\s+|пожалуйста\s+)*{person}",
        r"(?:мне\s+)?(?:нужен|нужна|хочу|требую)\s+(?:поговорить\s+с\s+|говорить\s+с\s+)?{person}",
    ),
    "uk": (
        r"з['’ʼ]?єдн\w*\s+(?:мене\s+|нас\s+|будь ласка\s+)*(?:з|зі|із)\s+\w+",
        r"(?:переключ|перемкн|перевед|перевест)\w*\s+(?:мене\s+|нас\s+|будь ласка\s+|дзвінок\s+)*"
        r"(?:на|до|з|зі)\s+{person}",
        r"(?:поговорити|говорити|поспілкуватися|спілкуватися|зв['’ʼ]?язатися|зв['’ʼ]?язок)\s+(?:з|зі|із)\s+{person}",
        r"(?:поклич|запрос|дайте|дай|покликати)\w*\s+(?:мені\s+|до телефону\s+|будь ласка\s+)*{person}",
        r"(?:мені\s+)?(?:потрібен|потрібна|хочу|вимагаю)\s+(?:поговорити\s+з\s+|говорити\s+з\s+)?{person}",
    ),
}
_NOT = {
    # "No operator needed"; «не надо соединять»: a denial close before, with no clause between.
    "en": r"\b(?:no|not|don't|dont|doesn't|never|without|instead of|rather than)\b(?:\s+\w+){0,4}\s*$",
    "ru": r"\b(?:не|без|незачем|вместо)\b(?:\s+\w+){0,2}\s*$",
    "uk": r"\b(?:не|без|замість)\b(?:\s+\w+){0,2}\s*$",
}
# "Am I talking to a real person?" asks, it does not demand. So does "who did I talk to", in the past.
_ASKING = {
    "en": r"\b(?:am i|are you|is this|are we|was i|were you|did i|have i|spoke|talked|not sure if i'm|yesterday)\b",
    "ru": r"\b(?:разговаривал\w*|говорил\w*|общал\w*|вчера)\b|\bэто (?:живой )?(?:человек|робот)\b",
    "uk": r"\b(?:розмовляв\w*|розмовляла|говорив|говорила|спілкував\w*|вчора)\b|\bце (?:жива )?(?:людина|робот)\b",
}
_BYES = (
    r"good ?bye|bye(?: bye)?|see you(?: later| soon| then| tomorrow)?|farewell|take care|talk to you later"
    r"|(?:have a |you have a )?(?:nice|good|great|lovely) (?:day|one|evening|weekend|night)"
    r"|до свидани[яе]|до свиданья|всего (?:доброго|хорошего|наилучшего)|пока(?: пока)?|прощайте"
    r"|до встречи|до связи|(?:хорошего|приятного) (?:дня|вечера)|счастливо"
    r"|до побачення|бувайте(?: здорові)?|на все добре|всього (?:найкращого|доброго|хорошого)"
    r"|(?:гарного|хорошого|чудового) (?:дня|вечора)|до зустрічі|до зв'язку|па па|прощавайте|щасливо"
)
_AROUND = (
    r"ok|okay|oh|well|so|alright|all right|right|great|perfect|fine|good|super|yes|no|nope|and|then|now|sir|joe"
    r"|thanks?(?: a lot| so much)?|thank you(?: very much| so much)?|that's all|that is all|that's it|cheers|too|for now"
    r"|for your help|for the help|i have to go|got to go|you|you too"
    r"|ну|все|всё|это|хорошо|ладно|ясно|понятно|понял[аи]?|да|нет|тогда|спасибо(?: вам| большое| огромное)*|вам|и|окей|ок"
    r"|большое|благодарю(?: вас)?|за помощь|отлично|взаимно|вс[её] спасибо|больше ничего"
    r"|добре|гаразд|зрозуміло|зрозумів|зрозуміла|так|ні|тоді|дякую(?: вам| дуже| щиро)*|це|й|і|дуже|вам|за допомогу|чудово"
)
_GOODBYE = re.compile(
    rf"(?:(?:{_AROUND})\s+)*(?:{_BYES})(?:\s+(?:{_AROUND}|{_BYES}))*", re.IGNORECASE
)


def _compile(
    language: str,
) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    person = _PERSON[language]
    asks = "|".join(ask.replace("{person}", person) for ask in _ASKS[language])
    alone = rf"(?:{_PLEASE[language]}\s+)*{person}(?:\s+{_PLEASE[language]})*"
    return (
        re.compile(rf"\b(?:{asks})\b", re.IGNORECASE),
        re.compile(alone, re.IGNORECASE),
        re.compile(_NOT[language], re.IGNORECASE),
        re.compile(_ASKING[language], re.IGNORECASE),
    )


_OPERATOR = {language: _compile(language) for language in _PERSON}


def intent(text: str, language: str) -> Intent | None:
    """A clear request for a person, or a clear goodbye; None for everything else.

    Russian and Ukrainian are tried one after the other, since callers mix them.
    """
    clauses = [_plain(clause) for clause in re.split(r"[.?!,;:—–]+", text)]
    clauses = [clause for clause in clauses if clause]
    whole = " ".join(clauses)
    if not whole:
        return None
    order = {"ru": ("ru", "uk"), "uk": ("uk", "ru")}.get(language, (language,))
    if any(_wants_person(clauses, whole, code) for code in order if code in _OPERATOR):
        return "operator"
    return "goodbye" if _GOODBYE.fullmatch(whole) else None


def _wants_person(clauses: list[str], whole: str, language: str) -> bool:
    asks, alone, denial, asking = _OPERATOR[language]
    if len(whole.split()) <= 5 and alone.fullmatch(whole):
        return True
    for clause in clauses:
        if asking.search(clause):
            continue
        for match in asks.finditer(clause):
            if not denial.search(clause[: match.start()]) and not _denied_inside(
                match.group(), language
            ):
                return True
    return False


def _denied_inside(words: str, language: str) -> bool:
    return (
        re.search({"en": r"\bnot\b", "ru": r"\bне\b", "uk": r"\bне\b"}[language], words) is not None
    )


def _plain(text: str) -> str:
    text = text.lower().replace("’", "'").replace("ʼ", "'").replace("-", " ")
    return " ".join(re.sub(r"[^\w' ]+", " ", text).split())


class Clarifications:
    """Counts turns that were not understood: ask twice, then give the call to a person."""

    def __init__(self, limit: int = MAX_CLARIFICATIONS) -> None:
        self._limit = limit
        self.asked = 0

    def unclear(self) -> Literal["ask", "transfer"]:
        """A turn was not understood: what to do about it."""
        if self.asked >= self._limit:
            return "transfer"
        self.asked += 1
        return "ask"

    def clear(self) -> None:
        """A turn was understood."""
        self.asked = 0


# --- What may be spoken ------------------------------------------------------------------------

# [sighs], <b> and (smiles) go; what stands in longer parentheses is said.
_STAGE = re.compile(r"\[[^\]]{0,60}\]|<[^>]{0,60}>|\([^\W\d]+(?: [^\W\d]+)?\)")
# *word* and **words** are emphasis: the words stay.
_EMPHASIS = re.compile(r"\*{1,2}([^*\n]+)\*{1,2}")
_MARKDOWN = re.compile(r"\*\*|__|`+|^\s*(?:#{1,6}\s+|[-*•]\s+|>\s+)|~~", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_ROLE = re.compile(
    r"^\s*(?:assistant|agent|joe|receptionist|ассистент|администратор|асистент)\s*:\s*",
    re.IGNORECASE,
)
_SYMBOLS = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f|\\\\{}]")
_MACHINE = re.compile(
    r"<\|?\w|tool_call|\"name\"|\"arguments\"|\b[a-z]+_[a-z_]+\(|```|\[interrupted"
)
# How instructions to the model begin, as against facts it may repeat to a caller word by word.
_INSTRUCTION = re.compile(
    r"^(?:you (?:are|speak|must|answer)|when the caller|if (?:you|the caller)|answer|say|never|always|do not|use only"
    r"|ты |отвечай|если |говори|никогда|всегда|не |ти |відповідай|якщо |кажи|ніколи|завжди)",
    re.IGNORECASE,
)
_LEAK_WORDS = 7


class ReplyGuard:
    """Watches one reply. `clean` a piece before it is spoken; once `stopped`, say no more of it."""

    def __init__(self, prompt: str, tools: Iterable[str] = ()) -> None:
        self._secret = _instruction_runs(prompt)
        self._tools = tuple(name for name in tools if "_" in name)
        self._said: set[str] = set()
        self.stopped: Literal["", "repeats", "leaks"] = ""

    def clean(self, piece: str) -> str:
        """The piece as it may be spoken, white space trimmed; empty when there is nothing to say."""
        if self.stopped:
            return ""
        text = speakable(piece)
        if self._leaks(piece) or self._leaks(text):
            self.stopped = "leaks"
            return ""
        key = _plain(text)
        if not key:
            return ""
        if key in self._said and len(key.split()) > 1:
            self.stopped = "repeats"
            return ""
        self._said.add(key)
        return text

    def _leaks(self, text: str) -> bool:
        without_mark = text.replace("[interrupted]", "")
        if _MACHINE.search(without_mark) or any(name in text for name in self._tools):
            return True
        return not self._secret.isdisjoint(_runs(text))


def speakable(text: str) -> str:
    """Text without markdown, stage directions, role names, emoji and other signs nobody can say."""
    text = _LINK.sub(r"\1", text)
    text = _MARKDOWN.sub("", _EMPHASIS.sub(r"\1", text))
    text = _STAGE.sub("", text)
    text = _SYMBOLS.sub("", _ROLE.sub("", text))
    return " ".join(text.split())


def _instruction_runs(prompt: str) -> frozenset[str]:
    found: set[str] = set()
    for sentence in re.split(r"(?<=[.!?:])\s+|\n+", prompt):
        if _INSTRUCTION.match(sentence.strip()):
            found |= _runs(sentence)
    return frozenset(found)


def _runs(text: str) -> set[str]:
    words = _plain(text).split()
    return {
        " ".join(words[index : index + _LEAK_WORDS])
        for index in range(len(words) - _LEAK_WORDS + 1)
    }
