"""Throws broken chan_websocket messages at the decoder.

    python tests/fuzz/fuzz_websocket.py --runs 20000

Whatever comes, the decoder returns an event or raises RemoteProtocolError.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[2]))

from fuzzing import main, mutate

from engine.errors import RemoteProtocolError
from engine.telephony import websocket_codec as codec

PLAIN = "MEDIA_START connection_id:c channel:WebSocket/o-1 channel_id:1.1 format:slin16 ptime:20"
JSON = (
    '{"event":"MEDIA_START","connection_id":"c","channel":"WebSocket/o-1","format":"slin",'
    '"optimal_frame_size":320,"channel_variables":{"__OFFHOOK_UUID":"x","N":"1"}}'
)
MESSAGES = [
    PLAIN,
    JSON,
    "DTMF_END digit:# channel_id:1.1",
    '{"event":"DTMF_END","digit":"5"}',
    "MEDIA_XOFF",
    '{"event":"MEDIA_XON"}',
    "STATUS queue_length:1",
    '{"a":' * 2000,
]


def once(random: Random) -> None:
    decoder = codec.Decoder()
    if random.random() < 0.5:
        decoder.text(random.choice([PLAIN, JSON]))
    for _ in range(random.randrange(1, 6)):
        message = mutate(random, random.choice(MESSAGES).encode())
        try:
            if random.random() < 0.2:
                event: codec.Event = decoder.binary(message)
            else:
                event = decoder.text(message.decode("utf-8", "replace"))
        except RemoteProtocolError:
            continue
        assert isinstance(event, codec.Event)


if __name__ == "__main__":
    main(once)
