"""Throws broken AudioSocket streams at the decoder.

    python tests/fuzz/fuzz_audiosocket.py --runs 20000

Whatever comes, the decoder yields events or raises RemoteProtocolError, the same for every cut of the bytes,
and never holds more than one message.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[2]))

from fuzzing import cut, main, mutate

from engine.errors import RemoteProtocolError
from engine.telephony import audiosocket_codec as codec

HELLO = b"\x01\x00\x10" + bytes(range(16))
LARGEST = codec.HEADER.size + codec.MAX_PAYLOAD


def stream(random: Random) -> bytes:
    """A call as Asterisk would tell it."""
    wire = HELLO
    for _ in range(random.randrange(8)):
        match random.randrange(5):
            case 0:
                wire += b"\x03\x00\x01" + random.choice(b"0123456789*#ABCD").to_bytes()
            case 1:
                wire += bytes([random.choice([0x00, 0xFF]), 0, random.randrange(3)])
            case _:
                size = random.choice([2, 160, 320, 480, 640, 1920, 65534])
                kind = random.choice(sorted(codec.RATES))
                wire += codec.HEADER.pack(kind, size) + random.randbytes(size)
    return wire


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
        assert len(decoder._buffer) < LARGEST
    return story


def once(random: Random) -> None:
    wire = mutate(random, stream(random)) if random.random() < 0.9 else random.randbytes(100)
    story = decode([wire])
    assert decode(cut(random, wire)) == story
    if story and not isinstance(story[0], str):
        assert isinstance(story[0], codec.Identify)
        assert sum(isinstance(event, codec.Identify) for event in story) == 1


if __name__ == "__main__":
    main(once)
