"""The list of messages a reply is made from.

What changes least stands first, because the evaluated beginning is kept: the agent's prompt and the house
rules (the same for all calls of an agent), then the time the call began, then the conversation, and last
what was heard now.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from engine.config import Agent
from engine.dialog.llm.base import Message

_RULES = {
    "en": (
        "You are on the telephone. Answer in one or two short spoken sentences, with the facts above "
        "and no others. Before you say yes, check the facts: when they say closed, or do not say it, "
        "the answer is no. {language} "
        "The mark [interrupted] shows where the caller cut you off: do not repeat it."
    ),
    "ru": (
        "Ты говоришь по телефону. Отвечай одним или двумя короткими предложениями, простыми словами: "
        "без списков, символов и кода. Говори только то, что сказано выше, ничего не выдумывай. "
        "{language} Отметка [interrupted] показывает, где собеседник тебя перебил: не повторяй её."
    ),
    "uk": (
        "Ти говориш по телефону. Відповідай одним або двома короткими реченнями, простими словами: "
        "без списків, символів і коду. Кажи лише те, що сказано вище, нічого не вигадуй. "
        "{language} Позначка [interrupted] показує, де співрозмовник тебе перебив: не повторюй її."
    ),
}
_ONLY = {"en": "Speak English.", "ru": "Говори по-русски.", "uk": "Говори українською."}
_SEVERAL = {
    "en": "Answer in the caller's language: {names}.",
    "ru": "Отвечай на языке собеседника: {names}.",
    "uk": "Відповідай мовою співрозмовника: {names}.",
}
_NAMES = {
    "en": {"en": "English", "ru": "Russian", "uk": "Ukrainian"},
    "ru": {"en": "английский", "ru": "русский", "uk": "украинский"},
    "uk": {"en": "англійська", "ru": "російська", "uk": "українська"},
}
_DAYS = {
    "en": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "ru": "понедельник вторник среда четверг пятница суббота воскресенье",
    "uk": "понеділок вівторок середа четвер п'ятниця субота неділя",
}
_MONTHS = {
    "en": "January February March April May June July August September October November December",
    "ru": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    "uk": "січня лютого березня квітня травня червня липня серпня вересня жовтня листопада грудня",
}
_NOW = {"en": "Now it is {}.", "ru": "Сейчас {}.", "uk": "Зараз {}."}


def system_prefix(agent: Agent) -> list[Message]:
    """The beginning that all calls of this agent share: what `LanguageModel.warm` is given."""
    return [Message("system", f"{agent.prompt.strip()}\n{house_rules(agent)}")]


def house_rules(agent: Agent) -> str:
    """How to speak on the telephone, in the agent's first language."""
    own = agent.language
    if len(agent.languages) == 1:
        rule = _ONLY[own]
    else:
        rule = _SEVERAL[own].format(names=", ".join(_NAMES[own][code] for code in agent.languages))
    return _RULES[own].format(language=rule)


def time_note(now: datetime, language: str) -> Message:
    """Date and time for the model. Give the same `now` all call long: a new one empties the KV cache."""
    day = _DAYS[language].split()[now.weekday()]
    month = _MONTHS[language].split()[now.month - 1]
    words = f"{day}, {now.day} {month} {now.year}, {now:%H:%M}"
    return Message("system", _NOW[language].format(words))


def build(
    agent: Agent,
    history: Sequence[Message],
    heard: str,
    language: str,
    *,
    now: datetime,
    message_chars: int = 4000,
) -> list[Message]:
    """Messages for one reply. `history` is `Ledger.messages(agent.history_messages)`.

    Where the caller speaks another language than the agent's first, his words carry a note of it.
    """
    words = heard.strip()
    if language != agent.language and language in agent.languages:
        words = f"{words} ({_ONLY[language]})"
    earlier = list(history)
    if earlier and earlier[-1].role == "user":
        # The agent's answer to these words was never heard: the turn goes on.
        words = f"{earlier.pop().content} {words}"
    messages = [
        *system_prefix(agent),
        time_note(now, agent.language),
        *earlier,
        Message("user", words),
    ]
    return [_clip(message, message_chars) for message in messages]


def _clip(message: Message, characters: int) -> Message:
    # The agent's own prompt is the operator's to size; the context limit is checked by the model.
    if message.role == "system" or len(message.content) <= characters:
        return message
    text = message.content
    # Of what a caller said the latest counts; of a tool's answer the beginning does.
    kept = text[-characters:] if message.role == "user" else text[:characters]
    return Message(message.role, kept, message.tool_calls, message.tool_call_id)
