"""What the house says by itself, in each language: short, polite, and kept in the phrase cache."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phrases:
    """Where there are several, they are used in turn."""

    repeat: tuple[str, ...]
    """The caller was not understood."""
    reprompt: str
    still_there: str
    goodbye: str
    """Before we hang up on silence."""
    farewell: str
    """In answer to the caller's goodbye."""
    transferring: str
    not_understood: str
    """Before a transfer, when asking again did not help."""
    trouble: str
    """A model failed; a transfer follows."""
    trouble_alone: str
    """A model failed, and there is nobody to transfer to."""
    trouble_leaving: str
    """Something else failed; the dialplan's fallback follows."""
    nothing: str
    """The model had nothing to say."""
    filler: tuple[str, ...]
    progress: tuple[str, ...]
    openers: tuple[str, ...]
    """How a model likes to begin: spoken at once from the cache, while the rest is made."""

    def all(self) -> tuple[str, ...]:
        """Every phrase, for warming the phrase cache."""
        return (
            *self.repeat,
            self.reprompt,
            self.still_there,
            self.goodbye,
            self.farewell,
            self.transferring,
            self.not_understood,
            self.trouble,
            self.trouble_alone,
            self.trouble_leaving,
            self.nothing,
            *self.filler,
            *self.progress,
            *self.openers,
        )


_PHRASES = {
    "en": Phrases(
        repeat=(
            "Sorry, I didn't catch that. Could you say it again?",
            "I'm sorry, the line is not clear. Could you repeat that, please?",
        ),
        reprompt="I'm listening. How can I help you?",
        still_there="Are you still there?",
        goodbye="I can't hear you, so I will end the call now. Goodbye!",
        farewell="Thank you for calling. Goodbye!",
        transferring="One moment, please, I'm connecting you.",
        not_understood="I'm sorry, I can't hear you well. I'm connecting you with a colleague.",
        trouble="I'm sorry, I have a technical problem. I'm connecting you with a colleague.",
        trouble_alone="I'm sorry, I have a technical problem. Please say that once more.",
        trouble_leaving="I'm sorry, I have a technical problem. One moment, please.",
        nothing="Sorry, could you put that another way?",
        filler=("One moment, please.", "Let me check that."),
        progress=("I'm still checking, please stay on the line.", "Just a little longer, please."),
        openers=(
            *("Yes,", "No,", "Sure,", "Of course,", "Certainly,", "Okay,", "Hello,", "Thank you,"),
            *("I'm sorry,", "Sorry,", "I apologize,", "Sure!", "Of course!", "Certainly!", "Yes."),
            *("No.", "Sure.", "Hello!", "Thank you.", "You're welcome!", "I'm sorry."),
        ),
    ),
    "ru": Phrases(
        repeat=(
            "Извините, я не расслышал. Повторите, пожалуйста.",
            "Простите, плохо слышно. Скажите, пожалуйста, ещё раз.",
        ),
        reprompt="Я вас слушаю. Чем могу помочь?",
        still_there="Вы ещё на линии?",
        goodbye="Вас не слышно, поэтому я завершаю звонок. До свидания!",
        farewell="Спасибо за звонок. До свидания!",
        transferring="Одну минуту, соединяю вас.",
        not_understood="Извините, вас плохо слышно. Соединяю вас с сотрудником.",
        trouble="Извините, у меня техническая неполадка. Соединяю вас с сотрудником.",
        trouble_alone="Извините, у меня техническая неполадка. Повторите, пожалуйста, ещё раз.",
        trouble_leaving="Извините, у меня техническая неполадка. Одну минуту, пожалуйста.",
        nothing="Извините, не могли бы вы сказать это иначе?",
        filler=("Одну минуту, пожалуйста.", "Сейчас проверю."),
        progress=("Я ещё проверяю, оставайтесь на линии.", "Ещё немного, пожалуйста."),
        openers=(
            *("Да,", "Нет,", "Конечно,", "Хорошо,", "Здравствуйте,", "Извините,", "К сожалению,"),
            *("Да.", "Нет.", "Конечно!", "Конечно.", "Хорошо.", "Здравствуйте!", "Пожалуйста!"),
        ),
    ),
    "uk": Phrases(
        repeat=(
            "Вибачте, я не розчув. Повторіть, будь ласка.",
            "Перепрошую, погано чути. Скажіть, будь ласка, ще раз.",
        ),
        reprompt="Я вас слухаю. Чим можу допомогти?",
        still_there="Ви ще на лінії?",
        goodbye="Вас не чути, тому я завершую дзвінок. До побачення!",
        farewell="Дякую за дзвінок. До побачення!",
        transferring="Хвилинку, з'єдную вас.",
        not_understood="Вибачте, вас погано чути. З'єдную вас зі співробітником.",
        trouble="Вибачте, у мене технічна несправність. З'єдную вас зі співробітником.",
        trouble_alone="Вибачте, у мене технічна несправність. Повторіть, будь ласка, ще раз.",
        trouble_leaving="Вибачте, у мене технічна несправність. Хвилинку, будь ласка.",
        nothing="Вибачте, чи не могли б ви сказати це інакше?",
        filler=("Хвилинку, будь ласка.", "Зараз перевірю."),
        progress=("Я ще перевіряю, залишайтеся на лінії.", "Ще трохи, будь ласка."),
        openers=(
            *("Так,", "Ні,", "Звичайно,", "Добре,", "Вітаю,", "Вибачте,", "На жаль,"),
            *("Так.", "Ні.", "Звичайно!", "Звичайно.", "Добре.", "Вітаю!", "Будь ласка!"),
        ),
    ),
}

LANGUAGES = tuple(_PHRASES)


def phrases(language: str) -> Phrases:
    """The phrases of a language; English where we do not speak it."""
    return _PHRASES.get(language, _PHRASES["en"])
