"""Throws broken AGI dialogues at the decoder, and anything at the encoder.

    python tests/fuzz/fuzz_agi.py --runs 20000

Whatever comes, the decoder yields events or raises RemoteProtocolError, the same for every cut of the bytes,
with bounded memory; whatever is encoded stays one command.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[2]))

from fuzzing import cut, main, mutate

from engine.errors import LocalProtocolError, RemoteProtocolError
from engine.telephony import agi_codec as codec
from engine.telephony.agi_server import AgiRequest

ENVIRONMENT = (
    b"agi_network: yes\nagi_network_script: route?agent=a%20b&x=\nagi_request: agi://h/route\n"
    b"agi_channel: PJSIP/alice-1\nagi_callerid: +15550100\nagi_calleridname: Zo\xc3\xab\n"
    b"agi_extension: 230\nagi_arg_1: one\n\n"
)
REPLIES = [
    b"200 result=1\n",
    b"200 result=1 (a (b) c)\n",
    b"200 result=-1\n",
    b"HANGUP\n",
    b"510 Invalid or unknown command\n",
    b"520-Invalid command syntax.  Proper usage follows:\nUsage\n\n520 End of proper usage.\n",
]
LARGEST = 4_096 + codec.MAX_LINE


def decode(chunks: list[bytes]) -> list[codec.Event | str]:
    decoder = codec.Decoder()
    story: list[codec.Event | str] = []
    for chunk in chunks:
        decoder.feed(chunk)
        try:
            while (event := decoder.next_event()) is not None:
                story.append(event)
        except RemoteProtocolError as error:
            return [*story, error.message[:200]]
        assert len(decoder._buffer) <= LARGEST
    return story


def read_requests(random: Random) -> None:
    wire = ENVIRONMENT + b"".join(random.choices(REPLIES, k=random.randrange(6)))
    wire = mutate(random, wire) if random.random() < 0.9 else random.randbytes(200)
    story = decode([wire])
    assert decode(cut(random, wire)) == story
    for event in story:
        if isinstance(event, codec.Environment):
            try:
                request = AgiRequest.from_environment(event.raw)
            except RemoteProtocolError:
                continue
            assert isinstance(request.called, str)


def write_commands(random: Random) -> None:
    value = mutate(random, b'caller "x" \\ \n SET VARIABLE a,b').decode("utf-8", "surrogateescape")
    try:
        command = codec.encode_set_variable("NAME", value)
    except LocalProtocolError:
        assert len(value) > 300  # too long for a command: at most six bytes a character
        return
    assert command.startswith(b'SET VARIABLE "NAME" "') and command.endswith(b'"\n')
    assert not any(byte < 0x20 or byte == 0x7F for byte in command[:-1])
    inside = command[len(b'SET VARIABLE "NAME" "') : -len(b'"\n')]
    # What is left when escapes are taken away holds nothing that could end the argument.
    bare = inside.replace(b"\\\\", b"").replace(b'\\"', b"")
    assert b'"' not in bare and b"\\" not in bare


def once(random: Random) -> None:
    read_requests(random)
    write_commands(random)


if __name__ == "__main__":
    main(once)
