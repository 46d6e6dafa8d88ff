"""Voices for callers: recorded people out of Asterisk's own prompts, and festival's Russian speaker.

Everything comes as 8 kHz, the way a telephone carries it. These functions read files and run programs:
call them off the loop.
"""

from __future__ import annotations

import functools
import gzip
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.errors import OffhookError
from engine.lab.asterisk_install import built_root, root_folder, shipped
from engine.media.frame import Pcm
from engine.media.resample import resample

RATE = 8000
_FESTIVAL_S = 60.0


class VoiceMissing(OffhookError):
    """The sounds or the synthesiser for this voice are not on this machine."""

    code = "VOICE_MISSING"


def prompt(name: str, language: str = "en") -> Pcm:
    """A recorded prompt, for instance `vm-intro` or `digits/7`. Raises VoiceMissing."""
    path = _sounds(language) / f"{name}.wav"
    if not path.is_file():
        raise VoiceMissing(f"Asterisk's {language} sounds have no prompt {name}")
    pcm = read_wav(path)
    if pcm.rate != RATE:
        raise VoiceMissing(f"the prompt {name} is not at {RATE} Hz")
    return pcm


@functools.cache
def transcripts(language: str = "en") -> dict[str, str]:
    """What is said in each prompt that `prompt` can give: name -> text. Tones are left out.

    Raises VoiceMissing.
    """
    sounds = _sounds(language)
    document = f"core-sounds-{language}.txt"
    folder = _base() / "usr/share/doc" / f"asterisk-core-sounds-{language}"
    if (packed := folder / f"{document}.gz").is_file():
        text = gzip.decompress(packed.read_bytes()).decode("utf-8")
    elif (folder / document).is_file():
        text = (folder / document).read_text(encoding="utf-8")
    else:
        raise _no_sounds(language)
    said = parse_transcripts(text)
    return {name: words for name, words in said.items() if (sounds / f"{name}.wav").is_file()}


def parse_transcripts(text: str) -> dict[str, str]:
    """`name: words` on each line; `;` begins a comment, words in brackets describe a noise."""
    said: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, words = line.partition(":")
        words = " ".join(words.split())
        if not colon or line.startswith(";") or not words or words[0] in "[(<":
            continue
        said[name.strip()] = words
    return said


def festival(text: str, *, voice: str = "msu_ru_nsh_clunits") -> Pcm:
    """Russian by festival (packages festival and festvox-ru). Raises VoiceMissing."""
    program = shutil.which("text2wave")
    if program is None:
        raise VoiceMissing(
            "festival is not installed", how_to_fix=["apt-get install festival festvox-ru"]
        )
    with tempfile.TemporaryDirectory(prefix="offhook-voice-") as folder:
        path = Path(folder) / "said.wav"
        result = subprocess.run(
            [program, "-eval", f"(voice_{voice})", "-o", str(path)],
            input=text.encode(),
            capture_output=True,
            timeout=_FESTIVAL_S,
            check=False,
        )
        if result.returncode or not path.is_file() or not path.stat().st_size:
            raise VoiceMissing(
                f"festival could not speak with voice {voice}",
                how_to_fix=["apt-get install festvox-ru"],
            )
        return resample(read_wav(path), RATE)


def joined(parts: Sequence[Pcm], gap_s: float = 0.3) -> Pcm:
    """One after another with silence in between. All must have the same rate."""
    rates = {part.rate for part in parts}
    if len(rates) != 1:
        raise ValueError("parts of one rate are wanted")
    rate = rates.pop()
    gap = Pcm.silence(gap_s, rate).samples
    pieces = [piece for part in parts for piece in (part.samples, gap)]
    return Pcm(np.concatenate(pieces[:-1]), rate)


def read_wav(path: Path) -> Pcm:
    """A 16-bit mono WAV file. Raises VoiceMissing when it is another kind."""
    with wave.open(str(path), "rb") as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            raise VoiceMissing(f"{path.name} is not 16-bit mono")
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        return Pcm(samples.astype(np.int16), file.getframerate())


def _base() -> Path:
    """The sandbox's root folder; the machine itself where Asterisk and its sounds are installed."""
    return built_root() or Path("/")


def _sounds(language: str) -> Path:
    folder = _base() / "usr/share/asterisk/sounds" / language
    if not folder.is_dir():
        raise _no_sounds(language)
    return folder


def _no_sounds(language: str) -> VoiceMissing:
    return VoiceMissing(
        f"Asterisk's {language} sounds are not here",
        how_to_fix=[
            f"run {shipped('asterisk') / 'sandbox' / 'build'}, which makes {root_folder()}",
            f"or apt-get install asterisk-core-sounds-{language}-wav",
        ],
    )
