import pytest

from engine.dialog.guards import Clarifications, ReplyGuard, intent, speakable
from engine.dialog.phrases import LANGUAGES, phrases


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Operator"),
        ("en", "Operator, please."),
        ("en", "Can I speak to a human?"),
        ("en", "I want to talk to a real person."),
        ("en", "Let me speak with the manager, please."),
        ("en", "Put me through to sales."),
        ("en", "Could you connect me with someone?"),
        ("en", "I need an agent."),
        ("en", "I don't want a robot, give me a person."),
        ("en", "No, I said transfer me to an operator!"),
        ("en", "Why can't I speak to a human?"),
        ("ru", "Оператор!"),
        ("ru", "Соедините с оператором, пожалуйста."),
        ("ru", "Соедините меня с отделом продаж"),
        ("ru", "Я хочу поговорить с живым человеком."),
        ("ru", "Позовите менеджера."),
        ("ru", "Переключите меня на оператора"),
        ("ru", "Мне нужен живой человек"),
        ("uk", "З'єднайте з оператором, будь ласка."),
        ("uk", "Хочу поговорити з живою людиною"),
        ("uk", "Покличте менеджера"),
        ("uk", "Соедините с оператором"),
        ("ru", "З’єднайте мене з менеджером"),
    ],
)
def test_a_request_for_a_person(language: str, text: str) -> None:
    assert intent(text, language) == "operator"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "The operator of the crane needs new tyres."),
        ("en", "No operator needed."),
        ("en", "I don't want to speak to an operator."),
        ("en", "Am I speaking to a real person?"),
        ("en", "Are you a human?"),
        ("en", "I talked to a manager yesterday."),
        ("en", "How much does an agent cost?"),
        ("en", "My mobile operator changed my number."),
        ("en", "Do you need a person to be there?"),
        ("ru", "Не надо соединять с оператором."),
        ("ru", "Это живой человек или робот?"),
        ("ru", "Я вчера разговаривал с менеджером."),
        ("ru", "У меня сменился оператор связи и номер"),
        ("ru", "Сколько человек работает?"),
        ("uk", "Не треба з'єднувати з оператором"),
        ("uk", "Це жива людина чи робот?"),
        ("uk", "Скільки людей працює у вас?"),
        ("en", ""),
    ],
)
def test_near_misses_are_left_to_the_model(language: str, text: str) -> None:
    assert intent(text, language) is None


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Goodbye."),
        ("en", "Okay, thank you very much, bye bye!"),
        ("en", "That's all, thanks. Have a nice day!"),
        ("ru", "До свидания!"),
        ("ru", "Хорошо, спасибо большое, до свидания."),
        ("ru", "Ну всё, пока."),
        ("uk", "Дякую, до побачення!"),
        ("uk", "Гарного дня!"),
    ],
)
def test_a_clear_goodbye(language: str, text: str) -> None:
    assert intent(text, language) == "goodbye"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "How do you say goodbye in French?"),
        ("en", "Goodbye, but first tell me the price."),
        ("en", "Thank you."),
        ("en", "Is Friday a good day?"),
        ("ru", "Пока не знаю."),
        ("ru", "А пока скажите адрес"),
        ("ru", "Спасибо."),
        ("uk", "Доброго дня!"),
        ("uk", "Добрий день, до побачення ще далеко"),
    ],
)
def test_not_yet_a_goodbye(language: str, text: str) -> None:
    assert intent(text, language) is None


def test_after_two_requests_to_repeat_the_call_goes_to_a_person() -> None:
    clarifications = Clarifications()
    assert [clarifications.unclear() for _ in range(3)] == ["ask", "ask", "transfer"]
    clarifications.clear()
    assert clarifications.unclear() == "ask"


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("**Sure!** We're open.", "Sure! We're open."),
        ("- Monday to Friday", "Monday to Friday"),
        ("## Hours", "Hours"),
        ("[sighs] Yes 😀", "Yes"),
        ("We are open — [interrupted]", "We are open —"),
        ("See [our site](https://example.org).", "See our site."),
        (
            "It costs sixty euros (for four wheels altogether).",
            "It costs sixty euros (for four wheels altogether).",
        ),
        ("Assistant: Hello", "Hello"),
        ("`code` and *emphasis*", "code and emphasis"),
    ],
)
def test_only_what_can_be_said_is_said(text: str, spoken: str) -> None:
    assert speakable(text) == spoken


def test_a_reply_that_goes_in_circles_is_stopped() -> None:
    guard = ReplyGuard("")
    assert guard.clean("We are open today. ") == "We are open today."
    assert guard.clean("Come by. ") == "Come by."
    assert guard.clean("We are open today! ") == ""
    assert guard.stopped == "repeats"
    assert guard.clean("More") == ""


PROMPT = (
    "You are Joe, the telephone receptionist of Harbour Tyres.\n"
    "Opening hours: Monday to Friday from nine to six, Saturday from ten to four.\n"
    "When the caller says goodbye, call end_call. Never talk about politics with anybody at all."
)


@pytest.mark.parametrize(
    "text",
    [
        "My rules: you are Joe, the telephone receptionist of Harbour Tyres.",
        "I should call end_call now.",
        '{"name": "something"',
        "<|im_start|>user",
    ],
)
def test_instructions_and_tool_code_are_not_read_out(text: str) -> None:
    guard = ReplyGuard(PROMPT, ["end_call"])
    assert guard.clean(text) == ""
    assert guard.stopped == "leaks"


def test_facts_of_the_prompt_may_be_repeated_word_by_word() -> None:
    guard = ReplyGuard(PROMPT, ["end_call"])
    text = "Monday to Friday from nine to six, Saturday from ten to four."
    assert guard.clean(text) == text


def test_every_house_phrase_is_there_in_every_language_and_can_be_said() -> None:
    for language in LANGUAGES:
        for phrase in phrases(language).all():
            assert speakable(phrase) == phrase
            assert phrase[-1] in (".!?," if phrase in phrases(language).openers else ".!?")
