import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dialog.llm.base import ToolSpec
from engine.dialog.llm.tool_format import (
    ToolCallScanner,
    call_schema,
    inline_refs,
    parse_call,
)

NAMES = ["end_call", "look_up"]


def scan(text: str, size: int = 1) -> tuple[str, ToolCallScanner]:
    scanner = ToolCallScanner(NAMES)
    out = ""
    for at in range(0, len(text), size):
        out += scanner.feed(text[at : at + size])
        if scanner.opening:
            return out, scanner
    return out + scanner.end(), scanner


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    ("text", "spoken", "name"),
    [
        ("Bye! <tool_call>\n{", "Bye! ", ""),
        ("<tools>{", "", ""),
        ('{"name": "end_call", "arguments": {}}', "", "end_call"),
        ('Well. ```json\n{ "name" : "look_up", "arguments"', "Well. ", "look_up"),
        ("<think>secret <tool_call></think>\n\nHello <tool_call>{", "\n\nHello ", ""),
    ],
)
def test_a_call_is_noticed_before_any_of_it_is_spoken(
    text: str, spoken: str, name: str, size: int
) -> None:
    out, scanner = scan(text, size)
    assert out == spoken
    assert scanner.opening is not None and scanner.opening.name == name


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("5 < 6 and {x} is `code`.", "5 < 6 and {x} is `code`."),
        ('{"name": "unknown", "a": 1} ok', '{"name": "unknown", "a": 1} ok'),
        ("A </tool_call>B", "A B"),
        ("Yes <tool", "Yes "),
        ("<think>never closed", ""),
    ],
)
def test_other_text_passes_and_half_a_mark_does_not(text: str, spoken: str, size: int) -> None:
    out, scanner = scan(text, size)
    assert out == spoken and scanner.opening is None


@given(st.text(alphabet='<tool_call>{}"name: `json\n/ end', max_size=60), st.integers(1, 9))
def test_no_tag_ever_leaks_whatever_the_pieces(text: str, size: int) -> None:
    out, _ = scan(text, size)
    assert "<tool_call>" not in out
    assert out == scan(text, 1)[0]


def test_a_written_call_is_read() -> None:
    assert parse_call('\n{"name": "a", "arguments": {"x": 1}}\n</tool_call>') == ("a", {"x": 1})
    assert parse_call('{"name": "a", "arguments": "{\\"x\\": 1}"}') == ("a", {"x": 1})
    assert parse_call('{"name": "a"}') == ("a", {})
    assert parse_call('{"name": "a", "argum') is None
    assert parse_call('{"name": 5, "arguments": {}}') is None
    assert parse_call("nothing") is None


def test_schemas_are_flat_and_keep_properties_called_title() -> None:
    schema = {
        "title": "Args",
        "$defs": {"Size": {"title": "Size", "enum": ["s", "l"]}},
        "properties": {
            "title": {"title": "Title", "type": "string"},
            "size": {"$ref": "#/$defs/Size"},
        },
    }
    assert inline_refs(schema) == {
        "properties": {"title": {"type": "string"}, "size": {"enum": ["s", "l"]}}
    }
    both = call_schema([ToolSpec("a", "", schema), ToolSpec("b", "")])
    assert [item["properties"]["name"] for item in both["oneOf"]] == [
        {"const": "a"},
        {"const": "b"},
    ]
