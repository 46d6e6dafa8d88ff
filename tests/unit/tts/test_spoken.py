import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.tts.spoken import spoken

ENGLISH = {
    "We open 9:00–18:00.": "We open nine a.m. to six p.m.",
    "At 3:30, 9am or 15:45.": "At three thirty, nine a.m. or three forty-five p.m.",
    "It is €12.50, $1,200 or £0.99.": "It is twelve euros fifty cents, one thousand two hundred dollars or ninety-nine pence.",
    "It costs $5 million.": "It costs five million dollars.",
    "On 2026-11-21": "On November twenty-first, twenty twenty-six",
    "November 21, 2026": "November twenty-first, twenty twenty-six",
    "in 2026 we sold 1,000,000": "in twenty twenty-six we sold one million",
    "Call +1 415-555-2671.": "Call plus one, four one five, five five five, two six seven one.",
    "205/55 R16": "two oh five, fifty-five, R sixteen",
    "10–15 min, 3.5 km, 12%": "ten to fifteen minutes, three point five kilometres, twelve percent",
    "No. 5, order 4512345, 007": "number five, order four five one, two three, four five, zero zero seven",
    "-5 °C": "minus five degrees",
    "1st and 22nd": "first and twenty-second",
    "**Bold** [menu](https://x.y/z) 🙂 done": "Bold menu done",
    "See https://www.example.com/a?b=1": "See example dot com",
    "- one\n- two\n\nEnd": "one. two. End",
    "Wait 5 min. Then go.": "Wait five minutes. Then go.",
}
RUSSIAN = {
    "Работаем 9:00–18:00": "Работаем с девяти до восемнадцати часов",
    "с 10:00 до 19:30": "с десяти часов до девятнадцати тридцати",
    "2 500 ₽": "две тысячи пятьсот рублей",
    "1 руб. 50 коп.": "один рубль пятьдесят копеек.",
    "12,50 € или 2 грн": "двенадцать евро пятьдесят центов или две гривны",
    "5 тыс. руб. и 2 млн $": "пять тысяч рублей и два миллиона долларов",
    "21.11.2026": "двадцать первого ноября две тысячи двадцать шестого года",
    "на 21 ноября": "на двадцать первое ноября",
    "в 2026 году": "в две тысячи двадцать шестом году",
    "+7 495 123-45-67": "плюс семь, четыреста девяносто пять, сто двадцать три, сорок пять, шестьдесят семь",
    "205/55 R16": "двести пять на пятьдесят пять, радиус шестнадцать",
    "10–15 мин, 3,5 км": "от десяти до пятнадцати минут, три целых пять десятых километра",
    "1%, 2%, 5%": "один процент, два процента, пять процентов",
    "№ 5, 2-й этаж, 5-го числа": "номер пять, второй этаж, пятого числа",
    "2 машины, 2 стола, 1 место, 21 минута": "две машины, два стола, одно место, двадцать одна минута",
    "2 или 3": "два или три",
    "до 15 минут, от 500 руб.": "до пятнадцати минут, от пятисот рублей.",
    "ул. Ленина, д. 5": "улица Ленина, дом пять",
    "-5 °C": "минус пять градусов",
    "24/7": "круглосуточно",
}
UKRAINIAN = {
    "Працюємо 9:00–18:00": "Працюємо з дев'ятої до вісімнадцятої години",
    "о 10:00": "о десятій годині",
    "2 500 грн": "дві тисячі п'ятсот гривень",
    "1 грн 22 коп.": "одна гривня двадцять дві копійки.",
    "21.11.2026": "двадцять першого листопада дві тисячі двадцять шостого року",
    "+380671234567": "плюс триста вісімдесят, шістдесят сім, сто двадцять три, сорок п'ять, шістдесят сім",
    "10–15 хв, 3,5 км": "від десяти до п'ятнадцяти хвилин, три цілих п'ять десятих кілометра",
    "2-й поверх, 3-я черга": "другий поверх, третя черга",
    "від 500 грн": "від п'ятисот гривень",
    "2 хвилини, 1 машина": "дві хвилини, одна машина",
    "205/55 R16": "двісті п'ять на п'ятдесят п'ять, радіус шістнадцять",
}
CASES = [
    (language, written, said)
    for language, cases in (("en", ENGLISH), ("ru", RUSSIAN), ("uk", UKRAINIAN))
    for written, said in cases.items()
]


@pytest.mark.parametrize(("language", "written", "said"), CASES)
def test_what_is_said(language: str, written: str, said: str) -> None:
    assert spoken(written, language) == said


@pytest.mark.parametrize("language", ["en", "ru", "uk"])
def test_words_alone_are_left_alone(language: str) -> None:
    for text in ("Hello, how can I help you?", "Да, конечно! Что-нибудь ещё?", "Так, звичайно."):
        assert spoken(text, language) == text


FIGURES = st.text(alphabet="0123456789 .,:/-–+()%€$₽№#RамAM°\nгодруbуб", max_size=40)


@settings(max_examples=400, deadline=None)
@given(text=st.one_of(FIGURES, st.text(max_size=60)), language=st.sampled_from(["en", "ru", "uk"]))
@example("99999999999999999999999999 ₽", "ru")
@example("45.99.9999 и 99:99", "ru")
@example("²³①½٣", "uk")
@example("\ud800 1", "en")
@example("0000-00-00 00/00/0000 0,0 0.00€", "en")
def test_any_text_is_accepted_and_no_digit_is_left(text: str, language: str) -> None:
    assert not any(sign.isdigit() for sign in spoken(text, language))
