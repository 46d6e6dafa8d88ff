from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import LocalProtocolError, RemoteProtocolError
from engine.telephony import agi_codec as codec
from engine.telephony.agi_codec import Decoder, Environment, Event, Hangup, Reply

START = b"agi_network: yes\nagi_extension: 100\n\n"


def events(*chunks: bytes) -> list[Event]:
    decoder = Decoder()
    found = []
    for chunk in chunks:
        decoder.feed(chunk)
        while (event := decoder.next_event()) is not None:
            found.append(event)
    return found


def asterisk_reads(command: bytes) -> list[str]:
    """How res_agi.c cuts a command line into arguments: quotes, backslashes, blanks."""
    assert command.endswith(b"\n") and command.count(b"\n") == 1 and b"\0" not in command
    words: list[str] = []
    quoted = escaped = False
    blank = True
    for char in command[:-1].decode("utf-8"):
        if char == '"' and not escaped:
            quoted = not quoted
            if quoted and blank:
                words.append("")
                blank = False
        elif char in " \t" and not quoted and not escaped:
            blank = True
        elif char == "\\" and not escaped:
            escaped = True
        else:
            if blank:
                words.append("")
                blank = False
            words[-1] += char
            escaped = False
    assert not quoted and not escaped
    return words


def test_an_environment_to_the_byte() -> None:
    wire = (
        b"agi_network: yes\nagi_network_script: route?a=1\n"
        b"agi_calleridname: Jos\xc3\xa9 \xff\nagi_accountcode: \nagi_arg_1: a: b\r\n\n"
    )
    assert events(wire) == [
        Environment(
            {
                "agi_network": "yes",
                "agi_network_script": "route?a=1",
                "agi_calleridname": "José \ufffd",
                "agi_accountcode": "",
                "agi_arg_1": "a: b",
            }
        )
    ]


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"200 result=1", Reply(200, 1, text="result=1")),
        (b"200 result=1 (a (b) c)", Reply(200, 1, "a (b) c", "result=1 (a (b) c)")),
        (b"200 result=-1", Reply(200, -1, text="result=-1")),
        (b"200 result= (timeout)", Reply(200, None, "timeout", "result= (timeout)")),
        (b"200 result=0 endpos=8000", Reply(200, 0, text="result=0 endpos=8000")),
        (b"510 Invalid or unknown command", Reply(510, text="Invalid or unknown command")),
        (b"520 Invalid command syntax.", Reply(520, text="Invalid command syntax.")),
    ],
)
def test_replies(line: bytes, reply: Reply) -> None:
    assert events(START, line + b"\n")[1:] == [reply]
    assert reply.ok is (reply.code == 200)


def test_a_refusal_of_many_lines_is_one_reply() -> None:
    wire = (
        b"520-Invalid command syntax.  Proper usage follows:\n"
        b"Usage: SET VARIABLE <name>\n\nHANGUP\n200 result=1\n520 End of proper usage.\n200 result=1\n"
    )
    refusal, reply = events(START, wire)[1:]
    assert isinstance(refusal, Reply) and refusal.code == 520 and refusal.result is None
    assert refusal.text.splitlines()[0] == "Invalid command syntax.  Proper usage follows:"
    assert len(refusal.text.splitlines()) == 6
    assert reply == Reply(200, 1, text="result=1")


def test_a_hangup_comes_at_any_time() -> None:
    assert events(START, b"HANGUP\n200 result=1\n")[1:] == [
        Hangup(),
        Reply(200, 1, text="result=1"),
    ]


@pytest.mark.parametrize(
    "wire",
    [
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"agi_request\n",
        b"AGI_REQUEST: x\n",
        b"agi_extension: 1\nagi_extension: 2\n",
        b"agi_a: " + b"x" * codec.MAX_LINE + b"\n",
        b"x" * (codec.MAX_LINE + 1),
        b"".join(b"agi_%d: x\n" % n for n in range(codec.MAX_ENVIRONMENT_LINES + 1)),
        b"".join(b"agi_%d: %s\n" % (n, b"x" * 8000) for n in range(9)),
        START + b"hello\n",
        START + b"200result=1\n",
        START + b"520-x\n" + b"y\n" * codec.MAX_REPLY_LINES,
    ],
)
def test_what_the_protocol_does_not_allow(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        events(wire)
    assert len(error.value.message) < 200


def test_a_broken_decoder_stays_broken() -> None:
    decoder = Decoder()
    decoder.feed(b"nonsense\n")
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            decoder.next_event()
        decoder.feed(START)


def test_commands_to_the_byte() -> None:
    assert (
        codec.encode_set_variable("OFFHOOK_NEXT", "hangup")
        == b'SET VARIABLE "OFFHOOK_NEXT" "hangup"\n'
    )
    assert codec.encode_command("VERBOSE", 'a "b" \\c', "") == b'VERBOSE "a \\"b\\" \\\\c" ""\n'


@pytest.mark.parametrize(
    "value",
    [
        'x"\nHANGUP',
        "x\r\nSET VARIABLE A B",
        'a\\" "b',
        "\\",
        '\\"',
        "a,b|c&d",
        "nul\0nul",
        "\u2028next\x85line",
        b"caf\xe9".decode("utf-8", "surrogateescape"),
    ],
)
def test_nothing_injects_a_command(value: str) -> None:
    words = asterisk_reads(codec.encode_set_variable("NAME", value))
    assert words[:3] == ["SET", "VARIABLE", "NAME"] and len(words) == 4


@given(st.text(max_size=200))
def test_asterisk_reads_back_what_was_meant(value: str) -> None:
    words = asterisk_reads(codec.encode_set_variable("NAME", value))
    assert words == ["SET", "VARIABLE", "NAME", codec._CONTROLS.sub(" ", value)]


@pytest.mark.parametrize("name", ["", "A B", 'A"', "CALLERID(name)", "A\n", "1A", "É", "A" * 81])
def test_names_of_variables_are_plain(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        codec.encode_set_variable(name, "x")


def test_names_of_commands_are_ours() -> None:
    with pytest.raises(LocalProtocolError):
        codec.encode_command("SET VARIABLE A\nHANGUP")


def test_a_command_longer_than_asterisk_reads() -> None:
    with pytest.raises(LocalProtocolError, match="would cut it"):
        codec.encode_set_variable("NAME", "é" * 1000)


line = st.one_of(
    st.builds(
        lambda n, d: b"200 result=%d (%s)" % (n, d),
        st.integers(-1, 99),
        st.sampled_from([b"", b"x"]),
    ),
    st.just(b"HANGUP"),
    st.just(b"520-Usage:\nwhatever\n520 End"),
    st.just(b"510 Invalid or unknown command"),
)


@given(st.lists(line, max_size=6), st.data())
def test_any_cut_of_the_bytes_gives_the_same_events(
    lines: list[bytes], data: st.DataObject
) -> None:
    wire = START + b"".join(item + b"\n" for item in lines)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(wire)), max_size=20)))
    chunks = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert events(*chunks) == events(wire)
    assert len(events(wire)) == 1 + len(lines)


@given(st.lists(st.binary(max_size=80), max_size=6), st.booleans())
def test_garbage_raises_one_thing_only(chunks: list[bytes], started: bool) -> None:
    found: list[Event] = []
    with contextlib.suppress(RemoteProtocolError):
        found = events(START if started else b"", *chunks)
    assert all(isinstance(event, Event) for event in found)
