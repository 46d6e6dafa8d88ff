import asyncio
import io
import wave
from contextlib import aclosing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ModelError, ModelTimeout
from engine.inference.model_server import ModelBusy, ModelRefused, ModelServer
from engine.media.frame import Pcm
from engine.tts.openai_compatible import OpenAiCompatible, SoundDecoder
from tests.peers.speech_server import SpeechServer, Spoken, speech_server

SOUND = np.random.default_rng(2).integers(500, 3000, 2400).astype("<i2")
RAW = SOUND.tobytes()


def voice(server: SpeechServer, first_sound_s: float = 5.0) -> OpenAiCompatible:
    return OpenAiCompatible(
        ModelServer(server.url),
        "kokoro",
        default_voice="af_heart",
        first_sound_s=first_sound_s,
    )


async def say(
    server: SpeechServer, text: str = "We open at 9.", speed: float = 1.0, first_sound_s: float = 5
) -> list[Pcm]:
    model = voice(server, first_sound_s)
    try:
        return [pcm async for pcm in model.speak(text, voice="", language="en", speed=speed)]
    finally:
        await model.close()


def samples(chunks: list[Pcm]) -> list[int]:
    return np.concatenate([pcm.samples for pcm in chunks]).tolist()


async def test_sound_is_handed_on_as_it_comes_whatever_its_pieces() -> None:
    pieces = [RAW[:1], RAW[1:1000], RAW[1000:1001], RAW[1001:3001], RAW[3001:], b"\x01"]
    async with speech_server(Spoken(pieces)) as server:
        chunks = await say(server)
    assert samples(chunks) == SOUND.tolist()
    assert len(chunks) > 1 and {pcm.rate for pcm in chunks} == {24_000}
    assert server.told == [
        {
            "model": "kokoro",
            "input": "We open at nine.",
            "voice": "af_heart",
            "response_format": "pcm",
        }
    ]


async def test_the_first_sound_does_not_wait_for_the_last() -> None:
    async with speech_server(Spoken([RAW], stalls=True)) as server:
        model = voice(server)
        async with aclosing(model.speak("Yes.", voice="b", language="en", speed=1.2)) as sound:
            assert len((await anext(sound)).samples) > 0
        # Who does not want the rest hangs up on the server.
        async with asyncio.timeout(5):
            await server.gone.wait()
        await model.close()
    assert (server.told[0]["voice"], server.told[0]["speed"]) == ("b", 1.2)


async def test_silence_in_front_is_cut_short() -> None:
    silence = bytes(2 * 12_000)
    async with speech_server(Spoken([silence, RAW])) as server:
        chunks = await say(server)
    assert len(samples(chunks)) == round(0.04 * 24_000) + len(SOUND)


async def test_a_wav_file_says_its_own_rate() -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 22_050, 0, "NONE", ""))
        out.writeframes(RAW)
    data = file.getvalue()
    pieces = [data[:3], data[3:30], data[30:]]
    async with speech_server(Spoken(pieces, kind="audio/wav")) as server:
        chunks = await say(server)
    assert samples(chunks) == SOUND.tolist() and chunks[0].rate == 22_050


def header(size: int, *, form: int = 1, channels: int = 1, extra: bytes = b"") -> bytes:
    fmt = b"".join(
        value.to_bytes(width, "little")
        for value, width in ((form, 2), (channels, 2), (8000, 4), (16_000, 4), (2, 2), (16, 2))
    )
    return (
        b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0"
        + fmt
        + extra
        + b"data"
        + size.to_bytes(4, "little")
    )


@given(
    st.lists(st.integers(1, 60), max_size=30),
    st.sampled_from(
        [
            (b"", b""),
            (header(0), b""),
            (header(0xFFFFFFFF), b""),
            (header(200, extra=b"LIST\x03\0\0\0abc\0"), b"LIST\x04\0\0\0abcd"),
        ]
    ),
)
def test_the_pieces_do_not_matter(sizes: list[int], around: tuple[bytes, bytes]) -> None:
    decoder = SoundDecoder(24_000)
    data = around[0] + RAW[:200] + around[1]
    got, at = [], 0
    for size in [*sizes, len(data)]:
        got.append(decoder.push(data[at : at + size]))
        at += size
    assert np.concatenate(got).tolist() == SOUND[:100].tolist()
    assert decoder.rate == (8000 if around[0] else 24_000)


@pytest.mark.parametrize(
    "data", [header(9, form=3), header(9, channels=2), b"RIFF" + bytes(70_000)]
)
def test_another_wav_is_a_model_error(data: bytes) -> None:
    with pytest.raises(ModelError, match="WAV"):
        SoundDecoder(24_000).push(data)


@pytest.mark.parametrize("kind", ["audio/mpeg", "audio/ogg", "application/json", "text/html"])
async def test_what_is_no_pcm_is_not_played(kind: str) -> None:
    async with speech_server(Spoken([RAW], kind=kind)) as server:
        with pytest.raises(ModelError, match="where pcm was asked for"):
            await say(server)


@pytest.mark.parametrize(
    ("spoken", "kind"),
    [
        (Spoken(status=401), ModelRefused),
        (Spoken(status=429, headers={"Retry-After": "3"}), ModelBusy),
        (Spoken(status=500), ModelBusy),
        (Spoken(), ModelError),
        (Spoken([bytes(4000)]), ModelError),
    ],
)
async def test_without_sound_there_is_a_model_error(spoken: Spoken, kind: type[ModelError]) -> None:
    async with speech_server(spoken) as server:
        with pytest.raises(kind):
            await say(server)


async def test_a_connection_that_is_cut_is_a_model_error_after_the_sound() -> None:
    async with speech_server(Spoken([RAW], cut=True)) as server:
        model = voice(server)
        async with aclosing(model.speak("Yes.", voice="", language="en")) as sound:
            got = [await anext(sound)]
            with pytest.raises(ModelError, match="cannot be reached"):
                got += [pcm async for pcm in sound]
        await model.close()
    assert len(samples(got)) > 0


async def test_a_server_that_stalls_misses_the_deadline() -> None:
    async with speech_server(Spoken(stalls=True)) as server:
        with pytest.raises(ModelTimeout):
            await say(server, first_sound_s=0.1)


async def test_nothing_to_say_is_not_asked_for() -> None:
    async with speech_server() as server:
        assert await say(server, " — ") == []
