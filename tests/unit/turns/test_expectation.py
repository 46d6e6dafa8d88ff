from __future__ import annotations

import pytest

from engine.turns.expectation import Expectation, asked_for, dictates


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", "What is your phone number?"),
        ("en", "Could you spell your name, I mean, tell me your e-mail address?"),
        ("en", "Please enter your PIN."),
        ("ru", "Назовите, пожалуйста, номер договора."),
        ("ru", "Какой у вас адрес?"),
        ("ru", "Продиктуйте вашу почту, пожалуйста."),
        ("uk", "Скажіть, будь ласка, номер телефону."),
        ("uk", "Яка у вас адреса?"),
    ],
)
def test_a_question_for_a_number_or_an_address_is_dictation(language: str, sentence: str) -> None:
    assert asked_for(sentence, language) is Expectation.DICTATION


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", "Is that correct?"),
        ("en", "So, shall I book it?"),
        ("en", "At seven, right?"),
        ("ru", "Вам удобно завтра?"),
        ("ru", "Записать ли вас на вторник?"),
        ("ru", "Всё верно?"),
        ("uk", "Чи все правильно?"),
        ("uk", "Вам зручно завтра?"),
    ],
)
def test_a_question_for_one_word_is_yes_or_no(language: str, sentence: str) -> None:
    assert asked_for(sentence, language) is Expectation.YES_OR_NO


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", "How can I help you?"),
        ("en", "Would you like Monday or Tuesday?"),
        ("en", "I have your number."),
        ("en", "Thank you, it is done."),
        ("ru", "Чем я могу помочь?"),
        ("ru", "Вам удобнее утром или вечером?"),
        ("ru", "Ваш номер записан."),
        ("uk", "Чим я можу допомогти?"),
        ("de", "Ist das richtig?"),
    ],
)
def test_anything_may_follow_other_words(language: str, sentence: str) -> None:
    assert asked_for(sentence, language) is Expectation.ANYTHING


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "My number is 555-12"),
        ("en", "five five five"),
        ("en", "It's B R O"),
        ("ru", "восемь девять один"),
        ("ru", "Мой номер 8 916"),
        ("uk", "нуль п’ять нуль"),
    ],
)
def test_who_stops_in_the_middle_of_a_number_dictates(language: str, words: str) -> None:
    assert dictates(words, language)


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ""),
        ("en", "A table for two, at 7."),
        ("en", "I need a table for 2 people."),
        ("en", "My number is 555 123 4567."),
        ("en", "seven one two is my number"),
        ("ru", "Столик на 2."),
        ("ru", "8 916 123 45 67"),
    ],
)
def test_a_whole_number_or_a_lone_digit_is_no_dictation(language: str, words: str) -> None:
    assert not dictates(words, language)
