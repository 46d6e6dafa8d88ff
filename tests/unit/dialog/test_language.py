import pytest

from engine.dialog.language import LanguageTracker

ALL = ("en", "ru", "uk")


@pytest.mark.parametrize(
    ("start", "text", "hint", "expected"),
    [
        ("en", "Здравствуйте, сколько стоит шиномонтаж?", "ru", "ru"),
        ("en", "Добрий день, скільки коштує доставка?", "uk", "uk"),
        ("ru", "Добрий день, скільки коштує доставка?", "ru", "uk"),
        ("uk", "Здравствуйте, вы работаете в воскресенье?", "uk", "ru"),
        ("ru", "Hello, do you speak English?", "en", "en"),
        ("ru", "А скільки коштует замена шин?", "ru", "ru"),
        ("uk", "Мне потрібно знать, сколько коштує доставка", "ru", "uk"),
        ("ru", "Мне нужны шины Michelin Pilot Sport", "ru", "ru"),
    ],
)
def test_a_whole_sentence_decides(start: str, text: str, hint: str, expected: str) -> None:
    tracker = LanguageTracker((start, *(code for code in ALL if code != start)))
    assert tracker.hear(text, hint) == expected


def test_one_short_word_does_not_switch_but_a_second_one_does() -> None:
    tracker = LanguageTracker(("ru", "en"))
    assert tracker.hear("Okay.", "en") == "ru"
    assert tracker.hear("Сколько стоит доставка?", "ru") == "ru"
    assert tracker.hear("Okay.", "en") == "ru"
    assert tracker.hear("Yes please.", "en") == "en"


def test_what_was_hardly_heard_does_not_switch() -> None:
    tracker = LanguageTracker(("ru", "en"))
    assert tracker.hear("Thank you for watching this video", "en", 0.2) == "ru"


def test_a_guess_leaves_nothing_behind() -> None:
    tracker = LanguageTracker(("ru", "en"))
    assert tracker.guess("Could you tell me the price?", "en") == "en"
    assert tracker.current == "ru"


def test_an_agent_of_one_language_keeps_it() -> None:
    assert LanguageTracker(("en",)).hear("Сколько стоит доставка шин?", "ru") == "en"
