import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dialog.sentences import SentenceSplitter, split

ALPHABET = st.sampled_from(
    [
        "Мы ",
        "г. ",
        "Dr. ",
        "3.5",
        " ",
        "...",
        "? ",
        "! ",
        ". ",
        "word ",
        "А. ",
        "т.д. ",
        "\n",
        ", ",
        "— ",
        "я",
        "Z",
    ]
)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("We open at nine. We close at six.", ["We open at nine.", "We close at six."]),
        ("Dr. Smith is in. Please wait.", ["Dr. Smith is in.", "Please wait."]),
        ("It costs 3.50 euros. Yes!", ["It costs 3.50 euros.", "Yes!"]),
        ("Tyres, rims, etc. are here. Come!", ["Tyres, rims, etc. are here.", "Come!"]),
        ("We close at 6 p.m. On Sunday we rest.", ["We close at 6 p.m.", "On Sunday we rest."]),
        ("We close at 6 p.m. on Friday.", ["We close at 6 p.m. on Friday."]),
        ("Ask J. R. Smith. He knows.", ["Ask J. R. Smith.", "He knows."]),
        ("So do I. Goodbye.", ["So do I.", "Goodbye."]),
        ("Well... maybe. Yes.", ["Well... maybe.", "Yes."]),
        ("Really?! Yes… No.", ["Really?!", "Yes…", "No."]),
        ('He said "come." We came.', ['He said "come."', "We came."]),
        ("One\nTwo\n\nThree", ["One", "Two", "Three"]),
        ("1. First we wait. 2. Then we go.", ["1. First we wait.", "2. Then we go."]),
        (
            "Наш адрес: г. Москва, ул. Ленина, д. 5. Приезжайте!",
            ["Наш адрес: г. Москва, ул. Ленина, д. 5.", "Приезжайте!"],
        ),
        ("Это было в 2024 г. Мы переехали.", ["Это было в 2024 г.", "Мы переехали."]),
        (
            "Шины, диски и т.д. есть. Цена 2500 руб. Доставка два дня.",
            ["Шины, диски и т.д. есть.", "Цена 2500 руб.", "Доставка два дня."],
        ),
        ("Магазин им. А. С. Пушкина. Да.", ["Магазин им. А. С. Пушкина.", "Да."]),
        (
            "Ми на вул. Хрещатик, буд. 1. Чекаємо, м. Київ.",
            ["Ми на вул. Хрещатик, буд. 1.", "Чекаємо, м. Київ."],
        ),
        ("Это стоит 500 грн. за штуку. Ок.", ["Это стоит 500 грн. за штуку.", "Ок."]),
        ("", []),
        ("   ", []),
    ],
)
def test_sentences_end_where_a_person_would_pause(text: str, sentences: list[str]) -> None:
    assert split(text) == sentences


def test_the_first_clause_may_come_early_and_says_so() -> None:
    splitter = SentenceSplitter()
    pieces = splitter.feed("Yes, we are open on Saturday, from ten to four, and then we rest. Come")
    assert [(piece.text, piece.early) for piece in pieces] == [
        ("Yes, ", True),
        ("we are open on Saturday, from ten to four, and then we rest. ", False),
    ]
    assert [piece.text for piece in splitter.end()] == ["Come"]


def test_a_sentence_is_given_out_as_soon_as_the_next_begins() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("We open at nine.") == []
    assert splitter.feed(" ") == []
    assert [piece.text for piece in splitter.feed("A")] == ["We open at nine. "]


def test_an_endless_sentence_is_cut_between_words() -> None:
    splitter = SentenceSplitter(max_chars=40)
    text = "word " * 40
    pieces = [*splitter.feed(text), *splitter.end()]
    assert "".join(piece.text for piece in pieces) == text
    assert all(len(piece.text) <= 46 and not piece.text.startswith("ord") for piece in pieces)


@given(st.lists(ALPHABET).map("".join) | st.text(), st.lists(st.integers(1, 9)), st.integers(5, 60))
def test_pieces_joined_are_the_text_and_do_not_depend_on_the_chunks(
    text: str, sizes: list[int], max_chars: int
) -> None:
    whole = SentenceSplitter(max_chars=max_chars)
    expected = [*whole.feed(text), *whole.end()]
    assert "".join(piece.text for piece in expected) == text
    chunked = SentenceSplitter(max_chars=max_chars)
    pieces, at = [], 0
    for size in sizes:
        pieces += chunked.feed(text[at : at + size])
        at += size
    pieces += [*chunked.feed(text[at:]), *chunked.end()]
    assert pieces == expected
